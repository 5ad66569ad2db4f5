"""CT images in DICOM files to slices in Hounsfield units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from medray.imaging.elements import Elements, Source, integer, numbers, plain, read_elements, required_text, text_of
from medray.imaging.hounsfield import to_hounsfield
from medray.imaging.padding import padding_range
from medray.imaging.stored import PixelLayout, stored_values
from medray.imaging.tags import (
    ACQUIRED,
    ACQUISITION_DATE,
    ACQUISITION_NUMBER,
    ACQUISITION_TIME,
    CENTER,
    COLUMNS,
    CONTENT_DATE,
    CONTENT_TIME,
    DOUBLE_PIXELS,
    FLOAT_PIXELS,
    FRAME_ACQUIRED,
    FRAME_ACQUISITION_NUMBER,
    FRAME_OF_REFERENCE,
    FRAME_TYPE,
    FRAMES,
    GROUP_OF,
    IMAGE_TYPE,
    INSTANCE_NUMBER,
    INTERCEPT,
    KERNEL,
    MODALITY,
    NAMES,
    ORIENTATION,
    PATIENT_ID,
    PEAK_KV,
    PER_FRAME,
    PHOTOMETRIC,
    PIXELS,
    POSITION,
    RESCALE_TYPE,
    ROWS,
    SAMPLES,
    SERIES,
    SERIES_NUMBER,
    SHARED,
    SLICE_LOCATION,
    SLOPE,
    SOP_CLASS,
    SOP_INSTANCE,
    SPACING,
    STACK_ID,
    STUDY,
    TEMPORAL_INDEX,
    THICKNESS,
    VOI_FUNCTION,
    WIDTH,
)
from medray.imaging.types import Header, Slice, Unreadable

# What a rescale may produce and still be Hounsfield units (PS3.3 C.11.1.1.2); "US" is "unspecified", common in old CT.
_HOUNSFIELD_TYPES = ("", "HU", "HU_MOD", "US")

# Screenshots and dose reports; all UIDs of the kind (PS3.6 A) begin so. They may say that they are of modality CT.
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

_SANE = 1e5  # a rescale beyond it would not be one of CT, and would overflow
_MAX_SLICE_PIXELS = 4096 * 4096  # four times the side that most scanners make, twice that of the finest
_MAX_FILE_PIXELS = 1 << 31  # as many 16-bit values as PixelData can hold: its length has 32 bits (PS3.5 7.1.2)


@dataclass(frozen=True)
class FileWindow:
    """A window that a file's own tags give (PS3.3 C.11.2), for ``medray.imaging.window.apply_file_window``."""

    center: float  # HU
    width: float  # HU
    function: str  # LINEAR, LINEAR_EXACT or SIGMOID; LINEAR where the file does not say


def read_headers(source: Source) -> list[Header]:
    """Read what a CT file says of its slices, stopping before the pixels.

    Args:
        source: the file's bytes, or a binary file object at its start.

    Returns:
        One Header per frame in the file's order; a plain CT image is one frame. Frames of an enhanced multi-frame
        image (PS3.3 C.7.6.16) have ``frame`` 1, 2, ... and "/frame<k>" at the end of ``slice_id``.

    Raises:
        Unreadable: not DICOM, not CT, not one sample a pixel, or without pixels, rescale, position, orientation,
            spacing or identifiers. The reason never quotes the file's text but for its modality, rescale type and
            photometric interpretation.
    """
    return [frame.header for frame in _read_frames(read_elements(source, with_pixels=False))]


def read_slices(source: Source, frame: int | None = None) -> list[Slice]:
    """Read a CT file's slices in Hounsfield units.

    Args:
        source: the file's bytes, or a binary file object at its start.
        frame: return this frame only (as ``Header.frame`` counts: 0 in a single-frame file, else from 1).

    Returns:
        As many slices as ``read_headers`` gives headers, in the same order (or the one asked for).

    Raises:
        Unreadable: as ``read_headers``, and for truncated or undecodable pixels, or values that are not plausible
            (see ``medray.imaging.hounsfield.to_hounsfield``).
    """
    elements = read_elements(source, with_pixels=True)
    frames = _read_frames(elements)
    layout = PixelLayout.of(elements, frames[0].header, len(frames))
    wanted = [i for i, one in enumerate(frames) if frame is None or one.header.frame == frame]
    if not wanted:
        raise Unreadable(f"no frame {frame}: the file has {len(frames)}")
    slices = []
    for i, stored in zip(wanted, stored_values(elements, layout, wanted), strict=True):
        pixels_hu, repaired = to_hounsfield(
            stored.values,
            bits_stored=stored.bits,
            pixel_representation=int(stored.signed),
            slope=frames[i].slope,
            intercept=frames[i].intercept,
            padding=padding_range(elements, int(stored.signed)),
        )
        notes = [note for note in (stored.note, repaired) if note]
        slices.append(Slice(header=frames[i].header, pixels_hu=pixels_hu, repaired="; ".join(notes) or None))
    return slices


def read_windows(source: Source) -> list[FileWindow]:
    """Read the windows that a file's own tags give (PS3.3 C.11.2), stopping before the pixels.

    Returns:
        One FileWindow per pair of WindowCenter and WindowWidth, the preferred one first; empty where the file gives
        none. An enhanced multi-frame image answers for its first frame.

    Raises:
        Unreadable: not DICOM, or a window that is not a pair of numbers.
    """
    elements = read_elements(source, with_pixels=False)
    groups = _functional_groups(elements)
    first = groups[0] if groups else (elements,)
    centers = numbers(_find(first, CENTER), CENTER, optional=True)
    widths = numbers(_find(first, WIDTH), WIDTH, optional=True)
    if len(centers) != len(widths):
        raise Unreadable(f"{len(centers)} window centers, {len(widths)} window widths")
    function = text_of(_find(first, VOI_FUNCTION)) or "LINEAR"
    return [FileWindow(center, width, function) for center, width in zip(centers, widths, strict=True)]


# ---- one frame's meaning -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Frame:
    header: Header
    slope: float
    intercept: float


def _read_frames(elements: Elements) -> list[_Frame]:
    """Everything a header must say before its pixels mean anything."""
    modality = text_of(elements.get(MODALITY))
    if modality != "CT":
        raise Unreadable(f"modality is {plain(modality)}, not CT" if modality else "no modality")
    captured = text_of(elements.get(SOP_CLASS)).startswith(_SECONDARY_CAPTURE)
    if captured and not {SLOPE, POSITION, ORIENTATION, SPACING} <= elements.index.keys():
        raise Unreadable("a secondary capture (such as a dose report or a screenshot), not a CT image")
    if FLOAT_PIXELS in elements.index or DOUBLE_PIXELS in elements.index:
        raise Unreadable("floating-point pixel data")
    if PIXELS not in elements.index:
        raise Unreadable("no pixel data")
    samples = integer(elements, SAMPLES)
    if samples != 1:
        raise Unreadable(f"{samples} samples a pixel (colour), not 1")
    photometric = text_of(elements.get(PHOTOMETRIC))
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise Unreadable(f"photometric interpretation is {plain(photometric)}, not monochrome")

    groups = _functional_groups(elements)
    declared = numbers(elements.get(FRAMES), FRAMES, optional=True)
    count = declared[0] if declared else 1
    if groups and count != len(groups):
        raise Unreadable(f"{count:g} frames declared, {len(groups)} described")
    if not groups and count != 1:
        raise Unreadable(f"{count:g} frames without a position each")
    ids = {tag: required_text(elements, tag) for tag in (SOP_INSTANCE, PATIENT_ID, STUDY, SERIES)}
    rows, columns = integer(elements, ROWS), integer(elements, COLUMNS)
    if rows == 0 or columns == 0:
        raise Unreadable("an image without rows or columns")
    if rows * columns > _MAX_SLICE_PIXELS or rows * columns * count > _MAX_FILE_PIXELS:
        raise Unreadable(f"{columns} × {rows} pixels in {count:g} frames: no CT image has so many")

    frames = []
    for i, places in enumerate(groups or [(elements,)]):
        rescale_type = text_of(_find(places, RESCALE_TYPE))
        if rescale_type not in _HOUNSFIELD_TYPES:
            raise Unreadable(f"rescaled values are {plain(rescale_type)}, not Hounsfield units")
        slope = numbers(_find(places, SLOPE), SLOPE)[0]
        intercept = numbers(_find(places, INTERCEPT), INTERCEPT)[0]
        if slope == 0 or abs(slope) > _SANE or abs(intercept) > _SANE:
            raise Unreadable(f"rescale of slope {slope:g} and intercept {intercept:g}")
        number = i + 1 if groups else 0
        header = Header(
            slice_id=f"{ids[SOP_INSTANCE]}/frame{number}" if groups else ids[SOP_INSTANCE],
            patient_id=ids[PATIENT_ID],
            study_id=ids[STUDY],
            series_id=ids[SERIES],
            frame=number,
            rows=rows,
            columns=columns,
            position_xyz_mm=_vector(places, POSITION, 3),  # type: ignore[arg-type]
            orientation_rc=_orientation(places),
            spacing_rc_mm=_spacing(places),
            **_apart(places, number),
        )
        frames.append(_Frame(header, slope, intercept))
    return frames


def _functional_groups(elements: Elements) -> list[tuple[Elements, ...]]:
    """For each frame of an enhanced image, where to look for a tag: its own groups, the shared ones, the top."""
    per_frame = elements.items(PER_FRAME)
    shared = tuple(elements.items(SHARED)[:1])
    return [(own, *shared, elements) for own in per_frame]


def _find(places: tuple[Elements, ...], tag: int) -> bytes | None:
    """The first value of a tag in the places' functional group for it, or directly in a place."""
    for place in places:
        for group in place.items(GROUP_OF.get(tag, 0))[:1]:
            if tag in group.index:
                return group.get(tag)
        if tag in place.index:
            return place.get(tag)
    return None


def _orientation(places: tuple[Elements, ...]) -> tuple[float, float, float, float, float, float]:
    cosines = _vector(places, ORIENTATION, 6)
    row, column = np.array(cosines[:3]), np.array(cosines[3:])
    if max(abs(row @ row - 1), abs(column @ column - 1), abs(row @ column)) > 0.01:
        raise Unreadable("ImageOrientationPatient is not two perpendicular unit vectors")
    return cosines  # type: ignore[return-value]


def _spacing(places: tuple[Elements, ...]) -> tuple[float, float]:
    spacing = _vector(places, SPACING, 2)
    if min(spacing) <= 0:
        raise Unreadable("PixelSpacing is not above 0")
    return spacing  # type: ignore[return-value]


def _vector(places: tuple[Elements, ...], tag: int, size: int) -> tuple[float, ...]:
    found = numbers(_find(places, tag), tag)
    if len(found) != size:
        raise Unreadable(f"{NAMES[tag]} has {len(found)} values, not {size}")
    return tuple(found)


# ---- what tells slices of one series apart: never needed, so that nothing in it makes a file unreadable --------------


def _apart(places: tuple[Elements, ...], frame: int) -> dict[str, Any]:
    """The fields of Header from ``image_type`` on."""
    image_type = _text(places, FRAME_TYPE) or _text(places, IMAGE_TYPE)
    of_frame = _binary(places, FRAME_ACQUISITION_NUMBER)
    acquired = _text(places, FRAME_ACQUIRED) or _text(places, ACQUIRED)
    return {
        "image_type": tuple(code.strip().upper() for code in image_type.split("\\")) if image_type else (),
        "frame_of_reference_id": _text(places, FRAME_OF_REFERENCE),
        "series_number": _number(places, SERIES_NUMBER),
        "acquisition_number": _number(places, ACQUISITION_NUMBER) if of_frame is None else of_frame,
        "instance_number": float(frame) if frame else _number(places, INSTANCE_NUMBER),
        "stack_name": _text(places, STACK_ID),
        "temporal_index": _binary(places, TEMPORAL_INDEX),
        "kernel": _text(places, KERNEL),
        "peak_kv": _number(places, PEAK_KV),
        "thickness_mm": _number(places, THICKNESS),
        "slice_location_mm": _number(places, SLICE_LOCATION),
        "acquired": acquired or _text(places, ACQUISITION_DATE) + _text(places, ACQUISITION_TIME),
        "created": _text(places, CONTENT_DATE) + _text(places, CONTENT_TIME),
    }


def _text(places: tuple[Elements, ...], tag: int) -> str:
    return text_of(_find(places, tag))


def _number(places: tuple[Elements, ...], tag: int) -> float | None:
    """The first value of a DS or IS element; None where it is absent or no number."""
    try:
        return next(iter(numbers(_find(places, tag), tag, optional=True)), None)
    except Unreadable:
        return None


def _binary(places: tuple[Elements, ...], tag: int) -> float | None:
    """The value of a US or UL element; None where it is absent."""
    value = _find(places, tag)
    return float(int.from_bytes(value, "little" if places[0].endian == "<" else "big")) if value else None
