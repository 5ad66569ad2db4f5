"""What the header of a DICOM image says of each of its slices, CT or MR, in one frame or many: PS3.3 C.7.6.2 and C.7.6.16."""

from __future__ import annotations

from typing import Any

import numpy as np

from medray.imaging.elements import Elements, integer, numbers, required_text, text_of
from medray.imaging.tags import (
    ACQUIRED,
    ACQUISITION_DATE,
    ACQUISITION_NUMBER,
    ACQUISITION_TIME,
    COLUMNS,
    CONTENT_DATE,
    CONTENT_TIME,
    FRAME_ACQUIRED,
    FRAME_ACQUISITION_NUMBER,
    FRAME_OF_REFERENCE,
    FRAME_TYPE,
    FRAMES,
    GROUP_OF,
    IMAGE_TYPE,
    INSTANCE_NUMBER,
    KERNEL,
    NAMES,
    ORIENTATION,
    PATIENT_ID,
    PEAK_KV,
    PER_FRAME,
    POSITION,
    ROWS,
    SERIES,
    SERIES_NUMBER,
    SHARED,
    SLICE_LOCATION,
    SOP_INSTANCE,
    SPACING,
    STACK_ID,
    STUDY,
    TEMPORAL_INDEX,
    THICKNESS,
)  # fmt: skip
from medray.imaging.types import Header, Unreadable

_MAX_SLICE_PIXELS = 4096 * 4096  # four times the side that most scanners make, twice that of the finest
_MAX_FILE_PIXELS = 1 << 31  # as many 16-bit values as PixelData can hold: its length has 32 bits (PS3.5 7.1.2)

Places = tuple[Elements, ...]
"""Where to look for a tag of one frame, first in the first."""


def frame_headers(elements: Elements) -> list[tuple[Header, Places]]:
    """The header of each frame, in the file's order, and where further tags of the frame are. Raises Unreadable."""
    groups = functional_groups(elements)
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
        raise Unreadable(f"{columns} × {rows} pixels in {count:g} frames: no image has so many")

    found = []
    for i, places in enumerate(groups or [(elements,)]):
        number = i + 1 if groups else 0
        header = Header(
            slice_id=f"{ids[SOP_INSTANCE]}/frame{number}" if groups else ids[SOP_INSTANCE],
            patient_id=ids[PATIENT_ID],
            study_id=ids[STUDY],
            series_id=ids[SERIES],
            frame=number,
            rows=rows,
            columns=columns,
            position_xyz_mm=vector(places, POSITION, 3),  # type: ignore[arg-type]
            orientation_rc=_orientation(places),
            spacing_rc_mm=_spacing(places),
            **_apart(places, number),
        )
        found.append((header, places))
    return found


def functional_groups(elements: Elements) -> list[tuple[Elements, ...]]:
    """For each frame of an enhanced image, where to look for a tag: its own groups, the shared ones, the top."""
    per_frame = elements.items(PER_FRAME)
    shared = tuple(elements.items(SHARED)[:1])
    return [(own, *shared, elements) for own in per_frame]


def find(places: tuple[Elements, ...], tag: int) -> bytes | None:
    """The first value of a tag in the places' functional group for it, or directly in a place."""
    for place in places:
        for group in place.items(GROUP_OF.get(tag, 0))[:1]:
            if tag in group.index:
                return group.get(tag)
        if tag in place.index:
            return place.get(tag)
    return None


def _orientation(places: tuple[Elements, ...]) -> tuple[float, float, float, float, float, float]:
    cosines = vector(places, ORIENTATION, 6)
    row, column = np.array(cosines[:3]), np.array(cosines[3:])
    if max(abs(row @ row - 1), abs(column @ column - 1), abs(row @ column)) > 0.01:
        raise Unreadable("ImageOrientationPatient is not two perpendicular unit vectors")
    return cosines  # type: ignore[return-value]


def _spacing(places: tuple[Elements, ...]) -> tuple[float, float]:
    spacing = vector(places, SPACING, 2)
    if min(spacing) <= 0:
        raise Unreadable("PixelSpacing is not above 0")
    return spacing  # type: ignore[return-value]


def vector(places: tuple[Elements, ...], tag: int, size: int) -> tuple[float, ...]:
    found = numbers(find(places, tag), tag)
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
    return text_of(find(places, tag))


def _number(places: tuple[Elements, ...], tag: int) -> float | None:
    """The first value of a DS or IS element; None where it is absent or no number."""
    try:
        return next(iter(numbers(find(places, tag), tag, optional=True)), None)
    except Unreadable:
        return None


def _binary(places: tuple[Elements, ...], tag: int) -> float | None:
    """The value of a US or UL element; None where it is absent."""
    value = find(places, tag)
    return float(int.from_bytes(value, "little" if places[0].endian == "<" else "big")) if value else None
