"""Radiographs in DICOM files (CR, DX, RG): PS3.3 C.7.6.3, C.8.11.3 and C.11.

The chain is the standard's (PS3.4 N.2): stored values → modality LUT or rescale → VOI LUT or window → grey, then
MONOCHROME1 is inverted. In DX that inversion is what Presentation LUT Shape INVERSE says: MONOCHROME1 must carry it and
MONOCHROME2 must not (C.8.11.3.1.2), so the photometric interpretation alone decides.
"""

from __future__ import annotations

import math
import re
from typing import BinaryIO

import numpy as np

from medray.imaging.burned_in import check_burned_in
from medray.imaging.elements import (
    Elements,
    Source,
    integer,
    numbers,
    plain,
    read_elements,
    required_text,
    text_of,
)
from medray.imaging.film import OLDEST_YEARS, Film, FilmHeader, check_size, known_view, stretched
from medray.imaging.lut import Span, looked_up
from medray.imaging.padding import at_the_border, padding_range
from medray.imaging.stored import PixelLayout, Stored, numbers_of, stored_values
from medray.imaging.tags import (
    CENTER,
    COLUMNS,
    FRAMES,
    IMAGE_LATERALITY,
    INTERCEPT,
    LATERALITY,
    MODALITY,
    MODALITY_LUTS,
    PATIENT_AGE,
    PATIENT_ID,
    PATIENT_SEX,
    PHOTOMETRIC,
    PIXELS,
    ROWS,
    SAMPLES,
    SLOPE,
    SOP_INSTANCE,
    VIEW_POSITION,
    VOI_FUNCTION,
    VOI_LUTS,
    WIDTH,
)
from medray.imaging.types import Unreadable
from medray.imaging.window import apply_file_window

MODALITIES = ("CR", "DX", "RG")
_LEAST_SHOWN = 0.05
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


def read_header(stream: BinaryIO, allow_burned_in: bool) -> FilmHeader:
    """What the header says. Raises Unreadable."""
    elements = read_elements(stream, with_pixels=False)
    header = _header(elements)
    if not allow_burned_in:
        check_burned_in(elements)
    return header


def read(source: Source) -> Film:
    """Grey of 8 bits. Raises Unreadable."""
    elements = read_elements(source, with_pixels=True)
    header = _header(elements)
    layout = PixelLayout.of(elements, header, 1)
    if layout.bits_stored > 16:
        raise Unreadable(f"{layout.bits_stored} bits stored, no radiograph has so many")
    (stored,) = stored_values(elements, layout, [0])
    values = numbers_of(stored)
    padding = padding_range(elements, int(stored.signed))
    outside = None if padding is None else at_the_border(values, *padding)
    values, span = _modality(elements, values, _span(stored))
    counted = None if outside is None else ~outside
    grey, note = _presented(elements, values, span, counted, stored.bits)
    if header.mode == "MONOCHROME1":
        grey = 255 - grey
    if outside is not None:
        grey[outside] = 0  # as the dark around a film, whatever a window or an inversion made of it
    notes = [one for one in (stored.note, note) if one]
    return Film(grey, "; ".join(notes) or None)


def _header(elements: Elements) -> FilmHeader:
    modality = text_of(elements.get(MODALITY))
    if modality not in MODALITIES:
        raise Unreadable(f"modality is {plain(modality)}, not CR or DX" if modality else "no modality")
    if PIXELS not in elements.index:
        raise Unreadable("no pixel data")
    if integer(elements, SAMPLES) != 1:
        raise Unreadable(f"{integer(elements, SAMPLES)} samples a pixel (colour), not 1")
    photometric = text_of(elements.get(PHOTOMETRIC))
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise Unreadable(f"photometric interpretation is {plain(photometric)}, not monochrome")
    frames = numbers(elements.get(FRAMES), FRAMES, optional=True)
    if frames and frames[0] != 1:
        raise Unreadable(f"{frames[0]:g} frames, not one film")
    rows, columns = integer(elements, ROWS), integer(elements, COLUMNS)
    check_size(rows, columns)
    return FilmHeader(
        kind="dicom",
        mode=photometric,
        rows=rows,
        columns=columns,
        image_id=required_text(elements, SOP_INSTANCE),
        patient_id=text_of(elements.get(PATIENT_ID)) or None,
        view=known_view(text_of(elements.get(VIEW_POSITION))),
        age_years=_age(text_of(elements.get(PATIENT_AGE))),
        sex=text_of(elements.get(PATIENT_SEX)).upper()[:1] or None,
        laterality=_side(elements),
    )


def _side(elements: Elements) -> str | None:
    """Of the image (PS3.3 C.8.11.7), else of its series (C.7.3.1)."""
    found = [text_of(elements.get(tag)).upper() for tag in (IMAGE_LATERALITY, LATERALITY)]
    return next((side for side in found if side in ("L", "R")), None)


def _age(text: str) -> float | None:
    """PS3.5 6.2, AS: three digits and a unit."""
    match = re.fullmatch(r"(\d{1,3})([DWMY])", text)
    return min(float(match[1]) * _YEARS[match[2]], OLDEST_YEARS) if match else None


def _span(stored: Stored) -> Span:
    """The lowest and the highest stored value that there can be."""
    half = 1 << (stored.bits - 1)
    return (-half, half - 1) if stored.signed else (0, 2 * half - 1)


def _modality(elements: Elements, values: np.ndarray, span: Span) -> tuple[np.ndarray, Span]:
    """PS3.3 C.11.1: a lookup table, or slope and intercept, or neither. The values, and what they can be at all."""
    tables = elements.items(MODALITY_LUTS)
    if tables:
        return looked_up(tables[0], values, span)[0], (0, (1 << 16) - 1)
    slope = numbers(elements.get(SLOPE), SLOPE, optional=True) or [1.0]
    intercept = numbers(elements.get(INTERCEPT), INTERCEPT, optional=True) or [0.0]
    if not slope[0] or max(abs(slope[0]), abs(intercept[0])) > 1e6:
        raise Unreadable(f"rescale of slope {slope[0]:g} and intercept {intercept[0]:g}")
    if slope[0] == 1 and intercept[0] == 0:
        return values, span
    ends = sorted(end * slope[0] + intercept[0] for end in span)
    return values.astype(np.float64) * slope[0] + intercept[0], (ends[0], ends[1])


def _presented(
    elements: Elements, values: np.ndarray, span: Span, counted: np.ndarray | None, bits_stored: int
) -> tuple[np.ndarray, str | None]:
    """PS3.3 C.11.2: grey values, and what was assumed. Of several tables or windows the first one is the preferred.

    Args:
        span: what the values can be.
        counted: (rows, columns) bool, False where there is padding; None where there is none.
    """
    why = "no window in the file"
    tables = elements.items(VOI_LUTS)
    centers = numbers(elements.get(CENTER), CENTER, optional=True)
    widths = numbers(elements.get(WIDTH), WIDTH, optional=True)
    if tables:
        entries, white, note = looked_up(tables[0], values, span)
        grey = np.floor(np.clip(entries.astype(np.float64) * 255 / white, 0, 255) + 0.5).astype(np.uint8)
        if not _saturated(grey, values, counted):
            return grey, note
        why = "the file's VOI LUT shows nothing"
    elif centers and widths:
        function = text_of(elements.get(VOI_FUNCTION)) or "LINEAR"
        try:
            grey = apply_file_window(values, centers[0], widths[0], function)
        except ValueError:
            why = (
                f"the file's window is of width {widths[0]:g}"
                if math.isfinite(widths[0])
                else "the file's window is none"
            )
        else:
            if not _saturated(grey, values, counted):
                return grey, None
            why = "the file's window shows nothing"
    elif bits_stored <= 8 and values.min() >= 0 and values.max() <= 255:
        return values.astype(np.uint8), None  # 8 bits are as they are shown, as in a PNG
    return stretched(values, counted), f"{why}: stretched between percentiles"


def _saturated(grey: np.ndarray, values: np.ndarray, counted: np.ndarray | None) -> bool:
    """Whether a window or a table leaves nearly all of a film black or white, and percentiles would not.

    Fewer than 5% of the pixels lie between black and white: a marker or the border of a collimator may be right in a
    window that misses the whole body. Films with their proper window have 29% (a hand on a large plate, the least of 40
    real ones) to 100% there (a chest: 80% the least of 100). An image of a few values only keeps the file's window, for
    percentiles would show no more of it.
    """
    shown = _share_between(grey, counted)
    return shown < _LEAST_SHOWN and _share_between(stretched(values, counted), counted) > 2 * shown


def _share_between(grey: np.ndarray, counted: np.ndarray | None) -> float:
    """Of the counted pixels, how many are neither black nor white."""
    seen = grey if counted is None or not counted.any() else grey[counted]
    return np.count_nonzero((seen > 0) & (seen < 255)) / seen.size
