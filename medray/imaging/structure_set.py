"""An RT structure set (PS3.3 A.19): what it says, and its structures as masks on the slices of a series.

pydicom reads the file; the contours are ``medray.imaging.contours``'. Nothing is guessed: a contour that lies on no slice,
or is none (a point, a line), is left out and counted by its reason.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from medray.imaging.contours import Slices, filled
from medray.imaging.elements import DEFLATED, parse, plain
from medray.imaging.types import Unreadable

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

RT_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
_EDGE = 0.51  # of a pixel: where the outermost pixel ends, and the rounding of a file's numbers
MOST_INFLATED_BYTES = 1 << 27
"""Of a deflated file: five times what a head and neck with forty organs takes."""
TWICE = "the same contour again"
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")


@dataclass(frozen=True, eq=False)
class Structure:
    """One region of interest: nothing in the file is changed but that what is no contour is left out."""

    name: str
    contours_mm: tuple[np.ndarray, ...]
    """(n, 3) LPS each, of 3 points or more."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Why → how many contours of the file are not among them."""
    automatic: bool = False
    """A program found it, as the file says (ROIGenerationAlgorithm, PS3.3 C.8.8.5)."""

    def mask(self, slices: Slices) -> tuple[np.ndarray, dict[str, int]]:
        """The voxels whose centres an odd number of contours of their slice surround.

        Returns:
            (D, H, W) bool; and why contours have no part in it → how many: ``left_out``, those that lie on no slice
            (``Slices.slice_of``), those that are there twice, and "outside the image" for those with no point in it. "cut by the edge of the image"
            counts those of which a part is in the mask.
        """
        depth, (rows, columns) = len(slices.origins_mm), slices.shape_HW
        on: dict[int, list[np.ndarray]] = {}
        why = Counter(self.left_out)
        for points in self.contours_mm:
            number, reason = slices.slice_of(points)
            if number is None:
                why[reason] += 1
                continue
            placed = slices.on_slice(points, number)
            if any(np.array_equal(placed, other) for other in on.get(number, ())):
                why[TWICE] += 1  # an odd number of them surrounds nothing
                continue
            low, high = placed.min(axis=0), placed.max(axis=0)
            if (high <= -0.5).any() or low[0] >= rows - 0.5 or low[1] >= columns - 0.5:
                why["outside the image"] += 1
                continue
            beyond = (low < -_EDGE).any() or high[0] > rows - 1 + _EDGE or high[1] > columns - 1 + _EDGE
            why["cut by the edge of the image"] += int(beyond)
            on.setdefault(number, []).append(placed)
        mask = np.zeros((depth, rows, columns), dtype=bool)
        for number, own in on.items():
            mask[number] = filled(own, slices.shape_HW)
        return mask, {reason: count for reason, count in why.items() if count}


@dataclass(frozen=True, eq=False)
class StructureSet:
    """What a structure set says. Names and identifiers are the file's own, as they stand."""

    structures: tuple[Structure, ...]
    """In the order of their numbers; one without any contour is there too, with none."""
    patient_id: str
    series_ids: frozenset[str]
    """SeriesInstanceUID of the images that it was drawn on; empty where the file does not say."""
    frame_of_reference_ids: frozenset[str]
    image_ids: frozenset[str]
    """SOPInstanceUID of all images that it names."""


def read_structure_set(data: bytes) -> StructureSet:
    """The structures of a file.

    Raises:
        Unreadable: no structure set, a file that is cut short, one without structures, or a deflated one (PS3.5 A.5) of more
            than ``MOST_INFLATED_BYTES``.
    """
    from pydicom import dcmread

    if DEFLATED.encode() in data:  # pydicom would inflate it whatever comes out
        parse(data, inflate=MOST_INFLATED_BYTES)
    try:
        file = dcmread(io.BytesIO(data), force=True)
        if file.get("SOPClassUID") != RT_STRUCTURE_SET:
            kind = plain(str(file.get("Modality", ""))) or "no modality"
            raise Unreadable(f"no RT structure set: a file of {kind}; give the structure set of the plan")
        return _set_of(file)
    except Unreadable:
        raise
    except Exception as error:  # of many types: what a damaged file makes of its parser
        raise Unreadable(
            f"RT structure set that is damaged or cut short ({type(error).__name__}); export it anew"
        ) from None


def is_structure_set(first: bytes) -> bool:
    """Whether the beginning of a DICOM file (its first thousand bytes) says that it is a structure set."""
    return RT_STRUCTURE_SET.encode() in first


def _set_of(file: Dataset) -> StructureSet:
    regions = {int(one.ROINumber): one for one in file.get("StructureSetROISequence", ())}
    if not regions:
        raise Unreadable("an RT structure set without structures; export the one with contours")
    drawn: dict[int, list[Dataset]] = {}
    for one in file.get("ROIContourSequence", ()):
        drawn.setdefault(int(one.ReferencedROINumber), []).extend(one.get("ContourSequence", ()) or ())
    # a structure that nobody has drawn has no item among the contours, or one without any
    structures = tuple(_structure(region, drawn.get(number, [])) for number, region in sorted(regions.items()))
    frames = {str(one.get("FrameOfReferenceUID", "")) for one in file.get("ReferencedFrameOfReferenceSequence", ())}
    frames |= {str(one.get("ReferencedFrameOfReferenceUID", "")) for one in file.StructureSetROISequence}
    series, images = set(), set()
    for frame in file.get("ReferencedFrameOfReferenceSequence", ()):
        for study in frame.get("RTReferencedStudySequence", ()):
            for one in study.get("RTReferencedSeriesSequence", ()):
                series.add(str(one.get("SeriesInstanceUID", "")))
                images |= {str(i.ReferencedSOPInstanceUID) for i in one.get("ContourImageSequence", ())}
    for contours in drawn.values():
        for one in contours:
            images |= {str(image.ReferencedSOPInstanceUID) for image in one.get("ContourImageSequence", ())}
    return StructureSet(
        structures,
        str(file.get("PatientID", "")),
        frozenset(series - {""}),
        frozenset(frames - {""}),
        frozenset(images),
    )


def _structure(region: Dataset, contours: list[Dataset]) -> Structure:
    found, left_out = [], Counter[str]()
    for one in contours:
        kind = str(one.get("ContourGeometricType", "")).strip().upper()
        if kind not in _CLOSED:
            left_out["a point or a line, no closed contour"] += 1
            continue
        points = _points(one)
        if len(points) < 3:
            left_out["fewer than three points"] += 1
            continue
        found.append(points)
    name, made = (str(region.get(word, "")).strip() for word in ("ROIName", "ROIGenerationAlgorithm"))
    return Structure(name, tuple(found), dict(left_out), made.upper() == "AUTOMATIC")


def _points(contour: Dataset) -> np.ndarray:
    """(n, 3) mm, without a last point that repeats the first and without neighbours that are the same."""
    element = contour.get_item("ContourData")
    values = element.value if element is not None else b""
    # thousands of numbers a contour: pydicom would make an object of each
    texts = values.split(b"\\") if isinstance(values, bytes) else [str(value) for value in values or ()]
    numbers = np.array([float(text) for text in texts if text.strip()], dtype=np.float64)
    if len(numbers) % 3 or not np.isfinite(numbers).all():
        raise Unreadable(
            f"a contour of {len(numbers)} numbers, not three a point, or one that is no number; export it anew"
        )
    points = numbers.reshape(-1, 3)
    return points[np.abs(points - np.roll(points, 1, axis=0)).max(axis=1, initial=0) > 1e-6]
