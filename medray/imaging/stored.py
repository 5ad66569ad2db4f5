"""Stored values of pixels: native ones are a view of the file, compressed ones are decoded by pydicom.

Pixel data: PS3.5 8 and A.4.
"""

from __future__ import annotations

import struct
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from pydicom.pixels import get_decoder
from pydicom.uid import AllTransferSyntaxes

from medray.imaging.elements import ITEM, NATIVE, SEQUENCE_END, UNDEFINED, Elements, integer
from medray.imaging.tags import (
    BITS_ALLOCATED,
    BITS_STORED,
    EXTENDED_LENGTHS,
    EXTENDED_OFFSETS,
    HIGH_BIT,
    PIXELS,
    REPRESENTATION,
)
from medray.imaging.types import Unreadable

# One plugin a syntax, and GDCM only where there is no other: pydicom would try each in turn, and on a damaged JPEG 2000
# stream, which OpenJPEG refuses, GDCM ends the whole process.
_PLUGINS = ("pylibjpeg", "pyjpegls", "pydicom", "gdcm", "pillow")

_decoding = threading.Lock()


class Sized(Protocol):
    """The header of a slice or of a film."""

    @property
    def rows(self) -> int: ...
    @property
    def columns(self) -> int: ...


@dataclass(frozen=True)
class PixelLayout:
    """How the stored values lie in the pixel data: PS3.3 C.7.6.3.1."""

    rows: int
    columns: int
    frames: int
    bits_allocated: int
    bits_stored: int
    representation: int
    shift: int  # empty low bits: 0 but in files of before 1993, which could put the value higher

    @staticmethod
    def of(elements: Elements, header: Sized, frames: int) -> PixelLayout:
        allocated, stored, high = (integer(elements, tag) for tag in (BITS_ALLOCATED, BITS_STORED, HIGH_BIT))
        representation = integer(elements, REPRESENTATION)
        if allocated not in (8, 16, 32) or not 1 <= stored <= allocated or not stored - 1 <= high < allocated:
            raise Unreadable(f"{allocated} bits allocated, {stored} stored, high bit {high}")
        if representation not in (0, 1):
            raise Unreadable(f"PixelRepresentation is {representation}")
        return PixelLayout(header.rows, header.columns, frames, allocated, stored, representation, high + 1 - stored)

    @property
    def frame_bytes(self) -> int:
        return self.rows * self.columns * self.bits_allocated // 8


def stored_values(elements: Elements, layout: PixelLayout, wanted: list[int]) -> Iterator[np.ndarray]:
    """Yield (rows, columns) unsigned stored values of the wanted frames (counted from 0)."""
    _, start, length = elements.index[PIXELS]
    if elements.transfer_syntax in NATIVE:
        values = _native_values(elements, layout, start, length)
        frames: Iterator[np.ndarray] = (values[i] for i in wanted)
    else:
        frames = (_decoded_values(elements, layout, start, length, i) for i in wanted)
    for stored in frames:
        yield stored >> layout.shift if layout.shift else stored


def _native_values(elements: Elements, layout: PixelLayout, start: int, length: int) -> np.ndarray:
    """(frames, rows, columns), a view of the file's bytes: PS3.5 8.1.1."""
    expected = layout.frame_bytes * layout.frames
    found = len(elements.data) - start if length == UNDEFINED else min(length, len(elements.data) - start)
    if found < expected:
        raise Unreadable(f"truncated pixels: {expected} bytes expected, {found} found")
    data: bytes | memoryview = elements.data
    if elements.endian == ">" and layout.bits_allocated == 8 and elements.index[PIXELS][0] == b"OW":
        # PS3.5 A.3: 8-bit pixels in 16-bit words come with each pair swapped.
        swapped = np.frombuffer(data, ">u2", count=(expected + 1) // 2, offset=start)
        data, start = swapped.astype("<u2").tobytes(), 0
    dtype = f"{elements.endian}u{layout.bits_allocated // 8}"
    values = np.frombuffer(data, dtype, count=layout.rows * layout.columns * layout.frames, offset=start)
    return values.reshape(layout.frames, layout.rows, layout.columns)


def _decoded_values(elements: Elements, layout: PixelLayout, start: int, length: int, frame: int) -> np.ndarray:
    """(rows, columns) of one compressed frame, decoded by pydicom: PS3.5 A.4."""
    try:
        # found, not made: pydicom warns where it makes a UID of damaged text
        syntax = next(syntax for syntax in AllTransferSyntaxes if syntax == elements.transfer_syntax)
        decoder = get_decoder(syntax)
        plugin = next(name for name in _PLUGINS if name in decoder.available_plugins)
    except (StopIteration, NotImplementedError):
        raise Unreadable("no decoder for the transfer syntax") from None
    end = _end_of_fragments(elements.data, start) if length == UNDEFINED else start + length
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
    offsets, lengths = elements.get(EXTENDED_OFFSETS), elements.get(EXTENDED_LENGTHS)
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
        if (group << 16 | element) == SEQUENCE_END:
            return position
        if (group << 16 | element) != ITEM:
            break
        if length > len(data) - position:
            found = len(data) - position
            raise Unreadable(f"truncated pixels: {length} bytes expected in a compressed fragment, {found} found")
        position += length
    raise Unreadable("truncated pixels: compressed data without an end")
