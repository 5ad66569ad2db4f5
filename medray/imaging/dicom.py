"""CT images in DICOM files to slices in Hounsfield units."""

from __future__ import annotations

from dataclasses import dataclass

from medray.imaging.burned_in import check_burned_in, is_secondary_capture
from medray.imaging.elements import Elements, Source, integer, numbers, plain, read_elements, text_of
from medray.imaging.frames import find, frame_headers, functional_groups
from medray.imaging.hounsfield import to_hounsfield
from medray.imaging.padding import padding_range
from medray.imaging.stored import PixelLayout, stored_values
from medray.imaging.tags import (
    CENTER,
    DOUBLE_PIXELS,
    FLOAT_PIXELS,
    INTERCEPT,
    MODALITY,
    ORIENTATION,
    PHOTOMETRIC,
    PIXELS,
    POSITION,
    RESCALE_TYPE,
    SAMPLES,
    SLOPE,
    SPACING,
    VOI_FUNCTION,
    WIDTH,
)
from medray.imaging.types import Header, Slice, Unreadable

# What a rescale may produce and still be Hounsfield units (PS3.3 C.11.1.1.2); "US" is "unspecified", common in old CT.
_HOUNSFIELD_TYPES = ("", "HU", "HU_MOD", "US")

_SANE = 1e5  # a rescale beyond it would not be one of CT, and would overflow


@dataclass(frozen=True)
class FileWindow:
    """A window that a file's own tags give (PS3.3 C.11.2), for ``medray.imaging.window.apply_file_window``."""

    center: float  # HU
    width: float  # HU
    function: str  # LINEAR, LINEAR_EXACT or SIGMOID; LINEAR where the file does not say


def read_headers(source: Source, allow_burned_in: bool = True) -> list[Header]:
    """Read what a CT file says of its slices, stopping before the pixels.

    Args:
        source: the file's bytes, or a binary file object at its start.
        allow_burned_in: read an image into which text may be burned, too.

    Returns:
        One Header per frame in the file's order; a plain CT image is one frame. Frames of an enhanced multi-frame
        image (PS3.3 C.7.6.16) have ``frame`` 1, 2, ... and "/frame<k>" at the end of ``slice_id``.

    Raises:
        Unreadable: not DICOM, not CT, not one sample a pixel, or without pixels, rescale, position, orientation,
            spacing or identifiers. The reason never quotes the file's text but for its modality, rescale type and
            photometric interpretation. And as ``medray.imaging.burned_in.check_burned_in`` where that is not allowed.
    """
    elements = read_elements(source, with_pixels=False)
    headers = [frame.header for frame in _read_frames(elements)]
    if not allow_burned_in:
        check_burned_in(elements)
    return headers


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
    groups = functional_groups(elements)
    first = groups[0] if groups else (elements,)
    centers = numbers(find(first, CENTER), CENTER, optional=True)
    widths = numbers(find(first, WIDTH), WIDTH, optional=True)
    if len(centers) != len(widths):
        raise Unreadable(f"{len(centers)} window centers, {len(widths)} window widths")
    function = text_of(find(first, VOI_FUNCTION)) or "LINEAR"
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
    # screenshots and dose reports may say that they are of modality CT
    if is_secondary_capture(elements) and not {SLOPE, POSITION, ORIENTATION, SPACING} <= elements.index.keys():
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

    frames = []
    for header, places in frame_headers(elements):
        rescale_type = text_of(find(places, RESCALE_TYPE))
        if rescale_type not in _HOUNSFIELD_TYPES:
            raise Unreadable(f"rescaled values are {plain(rescale_type)}, not Hounsfield units")
        slope = numbers(find(places, SLOPE), SLOPE)[0]
        intercept = numbers(find(places, INTERCEPT), INTERCEPT)[0]
        if slope == 0 or abs(slope) > _SANE or abs(intercept) > _SANE:
            raise Unreadable(f"rescale of slope {slope:g} and intercept {intercept:g}")
        frames.append(_Frame(header, slope, intercept))
    return frames
