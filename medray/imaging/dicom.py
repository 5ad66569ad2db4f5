"""CT images in DICOM files to slices in Hounsfield units.

The header is read here, not by pydicom's Dataset, for one reason: the challenge's identifiers break the standard, and
pydicom warns of each. A warning can only be silenced for the whole process, which is not safe between threads, and a
reader that shards 750,000 files runs in many. What is read is little (twenty tags), nothing is guessed, and the tests
compare it with pydicom's reading, tag by tag. Compressed pixels are decoded by pydicom and its plugins.

Structure of a file: PS3.10 7.1; of a data element: PS3.5 7.1; of sequences: PS3.5 7.5; of pixel data: PS3.5 8 and A.4.
"""

from __future__ import annotations

import math
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from pydicom.pixels import get_decoder
from pydicom.uid import AllTransferSyntaxes

from medray.imaging.hounsfield import to_hounsfield
from medray.imaging.types import Header, Slice, Unreadable

Source = bytes | bytearray | memoryview | BinaryIO

_TRANSFER_SYNTAX = 0x00020010
_SOP_INSTANCE, _MODALITY = 0x00080018, 0x00080060
_PATIENT_ID, _STUDY, _SERIES = 0x00100020, 0x0020000D, 0x0020000E
_POSITION, _ORIENTATION = 0x00200032, 0x00200037
_SAMPLES, _PHOTOMETRIC, _FRAMES = 0x00280002, 0x00280004, 0x00280008
_ROWS, _COLUMNS, _SPACING = 0x00280010, 0x00280011, 0x00280030
_BITS_ALLOCATED, _BITS_STORED, _HIGH_BIT, _REPRESENTATION = 0x00280100, 0x00280101, 0x00280102, 0x00280103
_CENTER, _WIDTH, _VOI_FUNCTION = 0x00281050, 0x00281051, 0x00281056
_INTERCEPT, _SLOPE, _RESCALE_TYPE = 0x00281052, 0x00281053, 0x00281054
_SHARED, _PER_FRAME = 0x52009229, 0x52009230
_EXTENDED_OFFSETS, _EXTENDED_LENGTHS = 0x7FE00001, 0x7FE00002
_FLOAT_PIXELS, _DOUBLE_PIXELS, _PIXELS = 0x7FE00008, 0x7FE00009, 0x7FE00010

# In an enhanced image these tags lie inside functional groups (PS3.3 C.7.6.16): tag -> the group that holds it.
_GROUP_OF = {
    _POSITION: 0x00209113,  # Plane Position
    _ORIENTATION: 0x00209116,  # Plane Orientation
    _SPACING: 0x00289110,  # Pixel Measures
    _INTERCEPT: 0x00289145,  # Pixel Value Transformation
    _SLOPE: 0x00289145,
    _RESCALE_TYPE: 0x00289145,
    _CENTER: 0x00289132,  # Frame VOI LUT
    _WIDTH: 0x00289132,
    _VOI_FUNCTION: 0x00289132,
}
_NAMES = {
    _SOP_INSTANCE: "SOPInstanceUID",
    _PATIENT_ID: "PatientID",
    _STUDY: "StudyInstanceUID",
    _SERIES: "SeriesInstanceUID",
    _POSITION: "ImagePositionPatient",
    _ORIENTATION: "ImageOrientationPatient",
    _SPACING: "PixelSpacing",
    _FRAMES: "NumberOfFrames",
    _ROWS: "Rows",
    _COLUMNS: "Columns",
    _SAMPLES: "SamplesPerPixel",
    _BITS_ALLOCATED: "BitsAllocated",
    _BITS_STORED: "BitsStored",
    _HIGH_BIT: "HighBit",
    _REPRESENTATION: "PixelRepresentation",
    _INTERCEPT: "RescaleIntercept",
    _SLOPE: "RescaleSlope",
    _CENTER: "WindowCenter",
    _WIDTH: "WindowWidth",
}
# What a rescale may produce and still be Hounsfield units (PS3.3 C.11.1.1.2); "US" is "unspecified", common in old CT.
_HOUNSFIELD_TYPES = ("", "HU", "HU_MOD", "US")

_SANE = 1e5  # a rescale beyond it would not be one of CT, and would overflow

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_FIRST_READ = 1 << 16  # bytes; the header of nearly every single-frame file fits

_IMPLICIT, _DEFLATED, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
_NATIVE = (_IMPLICIT, "1.2.840.10008.1.2.1", _DEFLATED, _BIG_ENDIAN)

# One plugin a syntax, and GDCM only where there is no other: pydicom would try each in turn, and on a damaged JPEG 2000
# stream, which OpenJPEG refuses, GDCM ends the whole process.
_PLUGINS = ("pylibjpeg", "pyjpegls", "pydicom", "gdcm", "pillow")

_decoding = threading.Lock()


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
    return [frame.header for frame in _read_frames(_read_elements(source, with_pixels=False))]


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
    elements = _read_elements(source, with_pixels=True)
    frames = _read_frames(elements)
    layout = _PixelLayout.of(elements, frames[0].header, len(frames))
    wanted = [i for i, one in enumerate(frames) if frame is None or one.header.frame == frame]
    if not wanted:
        raise Unreadable(f"no frame {frame}: the file has {len(frames)}")
    slices = []
    for i, stored in zip(wanted, _stored_values(elements, layout, wanted), strict=True):
        pixels_hu, repaired = to_hounsfield(
            stored,
            bits_stored=layout.bits_stored,
            pixel_representation=layout.representation,
            slope=frames[i].slope,
            intercept=frames[i].intercept,
        )
        slices.append(Slice(header=frames[i].header, pixels_hu=pixels_hu, repaired=repaired))
    return slices


def read_windows(source: Source) -> list[FileWindow]:
    """Read the windows that a file's own tags give (PS3.3 C.11.2), stopping before the pixels.

    Returns:
        One FileWindow per pair of WindowCenter and WindowWidth, the preferred one first; empty where the file gives
        none. An enhanced multi-frame image answers for its first frame.

    Raises:
        Unreadable: not DICOM, or a window that is not a pair of numbers.
    """
    elements = _read_elements(source, with_pixels=False)
    groups = _functional_groups(elements)
    first = groups[0] if groups else (elements,)
    centers = _numbers(_find(first, _CENTER), _CENTER, optional=True)
    widths = _numbers(_find(first, _WIDTH), _WIDTH, optional=True)
    if len(centers) != len(widths):
        raise Unreadable(f"{len(centers)} window centers, {len(widths)} window widths")
    function = _text(_find(first, _VOI_FUNCTION)) or "LINEAR"
    return [FileWindow(center, width, function) for center, width in zip(centers, widths, strict=True)]


# ---- one frame's meaning -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Frame:
    header: Header
    slope: float
    intercept: float


def _read_frames(elements: _Elements) -> list[_Frame]:
    """Everything a header must say before its pixels mean anything."""
    modality = _text(elements.get(_MODALITY))
    if modality != "CT":
        raise Unreadable(f"modality is {_plain(modality)}, not CT" if modality else "no modality")
    if _FLOAT_PIXELS in elements.index or _DOUBLE_PIXELS in elements.index:
        raise Unreadable("floating-point pixel data")
    if _PIXELS not in elements.index:
        raise Unreadable("no pixel data")
    samples = _integer(elements, _SAMPLES)
    if samples != 1:
        raise Unreadable(f"{samples} samples a pixel (colour), not 1")
    photometric = _text(elements.get(_PHOTOMETRIC))
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise Unreadable(f"photometric interpretation is {_plain(photometric)}, not monochrome")

    groups = _functional_groups(elements)
    declared = _numbers(elements.get(_FRAMES), _FRAMES, optional=True)
    count = int(declared[0]) if declared else 1
    if groups and count != len(groups):
        raise Unreadable(f"{count} frames declared, {len(groups)} described")
    if not groups and count != 1:
        raise Unreadable(f"{count} frames without a position each")
    ids = {tag: _required_text(elements, tag) for tag in (_SOP_INSTANCE, _PATIENT_ID, _STUDY, _SERIES)}
    rows, columns = _integer(elements, _ROWS), _integer(elements, _COLUMNS)
    if rows == 0 or columns == 0:
        raise Unreadable("an image without rows or columns")

    frames = []
    for i, places in enumerate(groups or [(elements,)]):
        rescale_type = _text(_find(places, _RESCALE_TYPE))
        if rescale_type not in _HOUNSFIELD_TYPES:
            raise Unreadable(f"rescaled values are {_plain(rescale_type)}, not Hounsfield units")
        slope = _numbers(_find(places, _SLOPE), _SLOPE)[0]
        intercept = _numbers(_find(places, _INTERCEPT), _INTERCEPT)[0]
        if slope == 0 or abs(slope) > _SANE or abs(intercept) > _SANE:
            raise Unreadable(f"rescale of slope {slope:g} and intercept {intercept:g}")
        number = i + 1 if groups else 0
        header = Header(
            slice_id=f"{ids[_SOP_INSTANCE]}/frame{number}" if groups else ids[_SOP_INSTANCE],
            patient_id=ids[_PATIENT_ID],
            study_id=ids[_STUDY],
            series_id=ids[_SERIES],
            frame=number,
            rows=rows,
            columns=columns,
            position_xyz_mm=_vector(places, _POSITION, 3),  # type: ignore[arg-type]
            orientation_rc=_orientation(places),
            spacing_rc_mm=_spacing(places),
        )
        frames.append(_Frame(header, slope, intercept))
    return frames


def _functional_groups(elements: _Elements) -> list[tuple[_Elements, ...]]:
    """For each frame of an enhanced image, where to look for a tag: its own groups, the shared ones, the top."""
    per_frame = elements.items(_PER_FRAME)
    shared = tuple(elements.items(_SHARED)[:1])
    return [(own, *shared, elements) for own in per_frame]


def _find(places: tuple[_Elements, ...], tag: int) -> bytes | None:
    """The first value of a tag in the places' functional group for it, or directly in a place."""
    for place in places:
        for group in place.items(_GROUP_OF[tag])[:1]:
            if tag in group.index:
                return group.get(tag)
        if tag in place.index:
            return place.get(tag)
    return None


def _orientation(places: tuple[_Elements, ...]) -> tuple[float, float, float, float, float, float]:
    cosines = _vector(places, _ORIENTATION, 6)
    row, column = np.array(cosines[:3]), np.array(cosines[3:])
    if max(abs(row @ row - 1), abs(column @ column - 1), abs(row @ column)) > 0.01:
        raise Unreadable("ImageOrientationPatient is not two perpendicular unit vectors")
    return cosines  # type: ignore[return-value]


def _spacing(places: tuple[_Elements, ...]) -> tuple[float, float]:
    spacing = _vector(places, _SPACING, 2)
    if min(spacing) <= 0:
        raise Unreadable("PixelSpacing is not above 0")
    return spacing  # type: ignore[return-value]


def _vector(places: tuple[_Elements, ...], tag: int, size: int) -> tuple[float, ...]:
    numbers = _numbers(_find(places, tag), tag)
    if len(numbers) != size:
        raise Unreadable(f"{_NAMES[tag]} has {len(numbers)} values, not {size}")
    return tuple(numbers)


def _numbers(value: bytes | None, tag: int, *, optional: bool = False) -> list[float]:
    """The numbers of a DS or IS value (PS3.5 6.2): at least one, unless optional."""
    text = _text(value)
    if not text:
        if optional:
            return []
        raise Unreadable(f"no {_NAMES[tag]}")
    try:
        numbers = [float(part) for part in text.split("\\")]
    except ValueError:
        numbers = [float("nan")]
    if not all(map(math.isfinite, numbers)):
        raise Unreadable(f"{_NAMES[tag]} is not a number")
    return numbers


def _integer(elements: _Elements, tag: int) -> int:
    """The first value of a US element."""
    value = elements.get(tag)
    if value is None or len(value) < 2:
        raise Unreadable(f"no {_NAMES[tag]}")
    return int.from_bytes(value[:2], "little" if elements.endian == "<" else "big")


def _required_text(elements: _Elements, tag: int) -> str:
    text = _text(elements.get(tag))
    if not text:
        raise Unreadable(f"no {_NAMES[tag]}")
    return text


def _text(value: bytes | None) -> str:
    """A text value without its padding. An id has to be the same everywhere, not legible, so the character set of
    the file is not consulted: UTF-8 where it is that, else one character a byte."""
    if not value:
        return ""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    return text.strip(" \0")


def _plain(code: str) -> str:
    """A code string (PS3.5 6.2, CS) that is safe to quote: 16 characters of A-Z, 0-9, blank and underscore."""
    return code if len(code) <= 16 and all(c.isascii() and (c.isalnum() or c in " _") for c in code) else "odd text"


# ---- pixels --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _PixelLayout:
    """How the stored values lie in the pixel data: PS3.3 C.7.6.3.1."""

    rows: int
    columns: int
    frames: int
    bits_allocated: int
    bits_stored: int
    representation: int
    shift: int  # empty low bits: 0 but in files of before 1993, which could put the value higher

    @staticmethod
    def of(elements: _Elements, header: Header, frames: int) -> _PixelLayout:
        allocated, stored, high = (_integer(elements, tag) for tag in (_BITS_ALLOCATED, _BITS_STORED, _HIGH_BIT))
        representation = _integer(elements, _REPRESENTATION)
        if allocated not in (8, 16, 32) or not 1 <= stored <= allocated or not stored - 1 <= high < allocated:
            raise Unreadable(f"{allocated} bits allocated, {stored} stored, high bit {high}")
        if representation not in (0, 1):
            raise Unreadable(f"PixelRepresentation is {representation}")
        return _PixelLayout(header.rows, header.columns, frames, allocated, stored, representation, high + 1 - stored)

    @property
    def frame_bytes(self) -> int:
        return self.rows * self.columns * self.bits_allocated // 8


def _stored_values(elements: _Elements, layout: _PixelLayout, wanted: list[int]) -> Iterator[np.ndarray]:
    """Yield (rows, columns) unsigned stored values of the wanted frames (counted from 0)."""
    _, start, length = elements.index[_PIXELS]
    if elements.transfer_syntax in _NATIVE:
        values = _native_values(elements, layout, start, length)
        frames: Iterator[np.ndarray] = (values[i] for i in wanted)
    else:
        frames = (_decoded_values(elements, layout, start, length, i) for i in wanted)
    for stored in frames:
        yield stored >> layout.shift if layout.shift else stored


def _native_values(elements: _Elements, layout: _PixelLayout, start: int, length: int) -> np.ndarray:
    """(frames, rows, columns), a view of the file's bytes: PS3.5 8.1.1."""
    expected = layout.frame_bytes * layout.frames
    found = len(elements.data) - start if length == _UNDEFINED else min(length, len(elements.data) - start)
    if found < expected:
        raise Unreadable(f"truncated pixels: {expected} bytes expected, {found} found")
    data: bytes | memoryview = elements.data
    if elements.endian == ">" and layout.bits_allocated == 8 and elements.index[_PIXELS][0] == b"OW":
        # PS3.5 A.3: 8-bit pixels in 16-bit words come with each pair swapped.
        swapped = np.frombuffer(data, ">u2", count=(expected + 1) // 2, offset=start)
        data, start = swapped.astype("<u2").tobytes(), 0
    dtype = f"{elements.endian}u{layout.bits_allocated // 8}"
    values = np.frombuffer(data, dtype, count=layout.rows * layout.columns * layout.frames, offset=start)
    return values.reshape(layout.frames, layout.rows, layout.columns)


def _decoded_values(elements: _Elements, layout: _PixelLayout, start: int, length: int, frame: int) -> np.ndarray:
    """(rows, columns) of one compressed frame, decoded by pydicom: PS3.5 A.4."""
    try:
        # found, not made: pydicom warns where it makes a UID of damaged text
        syntax = next(syntax for syntax in AllTransferSyntaxes if syntax == elements.transfer_syntax)
        decoder = get_decoder(syntax)
        plugin = next(name for name in _PLUGINS if name in decoder.available_plugins)
    except (StopIteration, NotImplementedError):
        raise Unreadable("no decoder for the transfer syntax") from None
    end = _end_of_fragments(elements.data, start) if length == _UNDEFINED else start + length
    options: dict[str, Any] = {
        "rows": layout.rows,
        "columns": layout.columns,
        "samples_per_pixel": 1,
        "photometric_interpretation": "MONOCHROME2",
        "bits_allocated": layout.bits_allocated,
        "bits_stored": layout.bits_stored,
        "pixel_representation": layout.representation,
        "number_of_frames": layout.frames,
        "pixel_keyword": "PixelData",
        "allow_excess_frames": False,
    }
    offsets, lengths = elements.get(_EXTENDED_OFFSETS), elements.get(_EXTENDED_LENGTHS)
    if offsets and lengths and len(offsets) == len(lengths):
        options["extended_offsets"] = (offsets, lengths)
    # pydicom warns of oddities in compressed streams, and filters belong to the process: one thread at a time.
    with _decoding, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            encoded = bytes(elements.data[start:end])
            decoded, _ = decoder.as_array(encoded, index=frame, validate=False, decoding_plugin=plugin, **options)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a plugin in Rust panics past Exception; and a message may quote anything
            reason = f"cannot decode pixels ({syntax.name}): {type(error).__name__}"
            raise Unreadable(reason) from error
    return decoded.view(f"u{decoded.dtype.itemsize}")


def _end_of_fragments(data: bytes, start: int) -> int:
    """Walk the items of encapsulated pixel data (PS3.5 A.4) to the end of the last whole one."""
    position = start
    while position + 8 <= len(data):
        group, element, length = struct.unpack_from("<HHL", data, position)
        position += 8
        if (group << 16 | element) == _SEQUENCE_END:
            return position
        if (group << 16 | element) != _ITEM:
            break
        if length > len(data) - position:
            found = len(data) - position
            raise Unreadable(f"truncated pixels: {length} bytes expected in a compressed fragment, {found} found")
        position += length
    raise Unreadable("truncated pixels: compressed data without an end")


# ---- data elements -------------------------------------------------------------------------------------------------


class _EndsEarly(Unreadable):
    """The bytes ran out inside a data element."""


@dataclass(frozen=True)
class _Elements:
    """The data elements of a data set or a sequence item: where each value lies, none of them interpreted."""

    data: bytes
    endian: str  # "<" or ">"
    explicit: bool
    transfer_syntax: str
    index: dict[int, tuple[bytes, int, int]]  # tag -> value representation (b"" if implicit), start, length

    def get(self, tag: int) -> bytes | None:
        """The bytes of a value; None where the tag is absent."""
        if tag not in self.index:
            return None
        _, start, length = self.index[tag]
        return self.data[start : start + length]

    def items(self, tag: int) -> list[_Elements]:
        """The items of a sequence; none where the tag is absent."""
        if tag not in self.index:
            return []
        vr, position, length = self.index[tag]
        # PS3.5 6.2.2 note 2: a sequence of unknown VR is implicit little endian inside
        endian, explicit = ("<", False) if vr == b"UN" else (self.endian, self.explicit)
        end = position + length
        items = []
        while position + 8 <= end:
            item, length = _unpack_tag(self.data, position, endian)
            position += 8
            if item != _ITEM:
                break
            stop = end if length == _UNDEFINED else position + length
            if stop > end:
                raise Unreadable("a damaged sequence in the header")
            index, position = _walk(self.data, position, stop, endian, explicit)
            items.append(_Elements(self.data, endian, explicit, self.transfer_syntax, index))
        return items


def _read_elements(source: Source, *, with_pixels: bool) -> _Elements:
    """Read a file's data set: all bytes where pixels are wanted, else no more than needed to reach them."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _parse(bytes(source))
    if with_pixels:
        return _parse(source.read())
    data, complete = source.read(_FIRST_READ), False
    while True:
        try:
            elements = _parse(data)
            if complete or _PIXELS in elements.index:
                return elements
        except _EndsEarly:
            if complete:
                raise
        more = source.read(len(data))
        complete = not more
        data += more


def _parse(data: bytes) -> _Elements:
    """Find every data element of a file up to its pixels: PS3.10 7.1, PS3.5 7.1."""
    if len(data) < 132 or data[128:132] != b"DICM":
        raise Unreadable("not a DICOM file: no DICM at byte 128")
    meta, position = _walk(data, 132, len(data), "<", True, only_group=0x0002)
    if _TRANSFER_SYNTAX not in meta:
        raise Unreadable("no transfer syntax")
    _, start, length = meta[_TRANSFER_SYNTAX]
    syntax = data[start : start + length].decode("ascii", "replace").strip(" \0")
    if syntax == _DEFLATED:
        try:
            data, position = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[position:]), 0
        except zlib.error:
            raise Unreadable("the deflated data set is damaged") from None
    endian = ">" if syntax == _BIG_ENDIAN else "<"
    explicit = syntax != _IMPLICIT
    try:
        index, _ = _walk(data, position, len(data), endian, explicit)
    except RecursionError:
        raise Unreadable("sequences nested beyond reason") from None
    return _Elements(data, endian, explicit, syntax, index)


def _walk(
    data: bytes, position: int, end: int, endian: str, explicit: bool, *, only_group: int | None = None
) -> tuple[dict[int, tuple[bytes, int, int]], int]:
    """Step over data elements without reading their values: PS3.5 7.1.

    Stops at ``end``, after an item delimiter, at the pixels (which it notes), or before a group other than
    ``only_group``.

    Returns:
        (tag -> (value representation, start, length), position after the last element). A sequence of undefined
        length is noted with the length that it turned out to have.
    """
    index: dict[int, tuple[bytes, int, int]] = {}
    header, long_length = struct.Struct(f"{endian}HH2sH").unpack_from, struct.Struct(f"{endian}L").unpack_from
    while position + 8 <= end:
        group, element, vr, length = header(data, position)
        tag = group << 16 | element
        if only_group is not None and group != only_group:
            return index, position
        if explicit and vr in _SHORT_VRS:
            position += 8
        elif explicit and (vr in _LONG_VRS or (vr.isalpha() and vr.isupper() and length == 0)):
            # a VR of tomorrow has the long form too (PS3.5 7.1.2)
            if position + 12 > end:
                raise _EndsEarly("the header ends inside a data element")
            length = long_length(data, position + 8)[0]
            position += 12
        elif explicit and vr.isalpha() and vr.isupper():
            position += 8
        else:
            # implicit, or a delimiter, or one of the writers that fall back to implicit half way
            vr, length = b"", long_length(data, position + 4)[0]
            position += 8
        if tag == _ITEM_END:
            return index, position
        if tag in (_PIXELS, _FLOAT_PIXELS, _DOUBLE_PIXELS):
            index[tag] = (vr, position, length)
            return index, position
        start = position
        if length == _UNDEFINED:
            inside = ("<", False) if vr == b"UN" else (endian, explicit)
            position = _after_sequence(data, position, end, *inside)
        else:
            position += length
        if position > end:
            raise _EndsEarly("the header ends inside a data element")
        index[tag] = (vr, start, position - start)
    if position < end and data[position:end].strip(b"\0"):
        raise _EndsEarly("the header ends inside a data element")
    return index, end


def _after_sequence(data: bytes, position: int, end: int, endian: str, explicit: bool) -> int:
    """The position after a sequence of undefined length: PS3.5 7.5.2."""
    while position + 8 <= end:
        tag, length = _unpack_tag(data, position, endian)
        position += 8
        if tag == _SEQUENCE_END:
            return position
        if tag != _ITEM:
            raise Unreadable("a damaged sequence in the header")
        if length == _UNDEFINED:
            _, position = _walk(data, position, end, endian, explicit)
        else:
            position += length
    raise _EndsEarly("the header ends inside a sequence")


def _unpack_tag(data: bytes, position: int, endian: str) -> tuple[int, int]:
    group, element, length = struct.unpack_from(f"{endian}HHL", data, position)
    return group << 16 | element, length
