"""A volume from the DICOM files of one series: parallel slices at equal distances, MR or CT, a file each or many in one.

What is a stack and its order is ``medray.imaging.stacks``'; here a series must be one, without a gap and without two
slices at a place. The axes of the volume are slices (towards the head, left or back), rows and columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np

from medray.imaging.burned_in import check_burned_in
from medray.imaging.elements import Elements, numbers, plain, read_elements, text_of
from medray.imaging.frames import Places, find, frame_headers
from medray.imaging.geometry import slice_normal
from medray.imaging.stacks import Stack, stacks_of
from medray.imaging.stored import PixelLayout, numbers_of, stored_values
from medray.imaging.tags import BITS_ALLOCATED, INTERCEPT, MODALITY, PHOTOMETRIC, PIXELS, SLOPE
from medray.imaging.types import Header, Unreadable, Volume, VolumeHeader
from medray.imaging.volume_checks import finite, native, sound_affine, three_axes

MODALITIES = ("MR", "CT", "PT")
_SAME_STEP = 0.05  # relative: positions are written with few digits
_SAME_PLACE = 0.5  # of a step, that a slice may lie from where even steps have it
_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


def read_header(stream: BinaryIO, allow_burned_in: bool = True) -> VolumeHeader:
    """What one file says of its slices: its own grid, where it is one slice with the step of its thickness (1 mm where it
    says none). Raises Unreadable."""
    elements = read_elements(stream, with_pixels=False)
    headers = [header for header, _ in _frames(elements)]
    if not allow_burned_in:
        check_burned_in(elements)
    first = headers[0]
    step = slice_normal(first.orientation_rc) * (first.thickness_mm or 1.0)
    if len(headers) > 1:
        (stack,) = _one_stack(headers)
        first, step = headers[stack.members[0]], _step(headers, stack)
    bits = int.from_bytes(elements.get(BITS_ALLOCATED) or b"\x10", "little" if elements.endian == "<" else "big")
    shape = (len(headers), first.rows, first.columns)
    dtype, ids = f"uint{bits}", (first.series_id, first.slice_id, first.patient_id)
    modality, frame = text_of(elements.get(MODALITY)), first.frame_of_reference_id
    return VolumeHeader(
        "dicom", shape, _affine(first, step), dtype, *ids, modality=modality, frame_of_reference_id=frame
    )


def read_series(files: Sequence[bytes]) -> Volume:
    """The volume of the files of one series, in any order; ``order`` of it says where each slice is from. Scouts are left out.

    Raises:
        Unreadable: no DICOM image of MR, CT or PET; several series, planes, echoes or phases; a gap; two slices at a place.
    """
    every = [read_elements(data, with_pixels=True) for data in files]
    frames = [(k, i, *frame) for k, elements in enumerate(every) for i, frame in enumerate(_frames(elements))]
    counts = Counter(file for file, *_ in frames)
    frames = [frame for frame in frames if not _is_scout(frame[2])] or frames
    headers = [header for _, _, header, _ in frames]
    (stack,) = _one_stack(headers)
    first = headers[stack.members[0]]
    shape = three_axes((len(headers), first.rows, first.columns), "DICOM series")
    affine = _affine(first, _step(headers, stack))
    slices = []
    for member in stack.members:
        file, frame, header, places = frames[member]
        slices.append(_pixels(every[file], PixelLayout.of(every[file], header, counts[file]), frame, places))
    voxels = native(np.stack(slices)).reshape(shape)
    return finite(Volume(voxels, affine, "dicom", order=tuple(frames[member][:2] for member in stack.members)))


def _frames(elements: Elements) -> list[tuple[Header, Places]]:
    modality = text_of(elements.get(MODALITY))
    if modality not in MODALITIES:
        raise Unreadable(f"DICOM of modality {plain(modality) or 'none'}, not {', '.join(MODALITIES)}; give the images")
    if PIXELS not in elements.index:
        raise Unreadable("DICOM without integer pixel data; give the images of the series")
    if text_of(elements.get(PHOTOMETRIC)) not in ("MONOCHROME1", "MONOCHROME2"):
        raise Unreadable("DICOM in colour, such as a screenshot; give the images of the series")
    return frame_headers(elements)


def _is_scout(header: Header) -> bool:
    """PS3.3 C.8.2.1.1.1: its third value."""
    return "LOCALIZER" in header.image_type[2:]


def _one_stack(headers: list[Header]) -> list[Stack]:
    """The only stack of the headers."""
    series = len({(header.patient_id, header.study_id, header.series_id) for header in headers})
    if series != 1:
        raise Unreadable(f"{series} series among the {len(headers)} slices; give the files of one")
    stacks = stacks_of(headers)
    if len(stacks) != 1:
        sizes = ", ".join(str(len(stack.members)) for stack in stacks)
        raise Unreadable(
            f"one series of {len(stacks)} stacks ({sizes} slices), such as echoes or planes; give one of them"
        )
    (stack,) = stacks
    if len(headers) < 2:
        raise Unreadable("one slice, not a volume; give all files of the series")
    if stack.ordered_by != "ImagePositionPatient":
        raise Unreadable(f"{len(headers)} slices at one position: where each lies is not known; export the series anew")
    if stack.shared_places:
        raise Unreadable(
            f"two or more slices at {len(stack.shared_places)} of the positions; give each slice once, and one time point"
        )
    return stacks


def _step(headers: list[Header], stack: Stack) -> np.ndarray:
    """(3,) LPS mm from one slice to the next; a tilted gantry's has a part within the plane. Raises Unreadable at a gap."""
    steps = np.diff(stack.position_mm)
    usual = float(np.median(steps))
    odd = np.flatnonzero(np.abs(steps - usual) > _SAME_STEP * usual)
    if len(odd):
        raise Unreadable(
            f"a gap between slices {odd[0] + 1} and {odd[0] + 2} of {len(headers)}: {steps[odd[0]]:.2f} mm, where others "
            f"are {usual:.2f} mm apart ({len(odd)} such); give all slices of the series"
        )
    # steps that grow, each a little: the volume's even slices would show organs elsewhere than they are
    off = np.abs(np.array(stack.position_mm) - np.linspace(stack.position_mm[0], stack.position_mm[-1], len(headers)))
    if off.max() > _SAME_PLACE * usual:
        raise Unreadable(
            f"uneven slices: steps of {steps.min():.2f} to {steps.max():.2f} mm, so that slice {off.argmax() + 1} of "
            f"{len(headers)} lies {off.max():.2f} mm from where even steps have it; resample the series before"
        )
    first, last = (np.array(headers[stack.members[end]].position_xyz_mm) for end in (0, -1))
    return (last - first) / (len(headers) - 1)


def _affine(first: Header, step: np.ndarray) -> np.ndarray:
    """PS3.3 C.7.6.2.1.1, with the index (slice, row, column): a row's cosines are the way of the column index."""
    along_row, along_column = np.array(first.orientation_rc[:3]), np.array(first.orientation_rc[3:])
    between_rows, between_columns = first.spacing_rc_mm
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = step, along_column * between_rows, along_row * between_columns
    affine[:3, 3] = first.position_xyz_mm
    affine[:3] *= _LPS_TO_RAS[:, None]
    return sound_affine(affine, "DICOM series")


def _pixels(elements: Elements, layout: PixelLayout, frame: int, places: Places) -> np.ndarray:
    """(rows, columns) of one frame: int32, or float64 where a rescale is there that is no whole number."""
    (stored,) = stored_values(elements, layout, [frame])
    values = numbers_of(stored)
    slope = (numbers(find(places, SLOPE), SLOPE, optional=True) or [1.0])[0]
    intercept = (numbers(find(places, INTERCEPT), INTERCEPT, optional=True) or [0.0])[0]
    if slope == 0:
        raise Unreadable("a rescale of slope 0; export the series anew")
    if slope == int(slope) and intercept == int(intercept) and max(abs(slope), abs(intercept)) < 1 << 15:
        return values * np.int32(slope) + np.int32(intercept)
    return values * slope + intercept
