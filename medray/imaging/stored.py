"""Stored values of pixels: native ones are a view of the file, compressed ones are decoded under a guard.

Pixel data: PS3.5 8 and A.4.
"""

from __future__ import annotations

import struct
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from pydicom.encaps import generate_frames

from medray.imaging.decoding.codec import SYNTAXES, codestream, decode, fault_of
from medray.imaging.decoding.codestream import Codestream
from medray.imaging.decoding.guard import guarded
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

_warnings = threading.Lock()


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


@dataclass(frozen=True)
class Stored:
    """One frame's stored values, and what they mean where the compressed stream knows better than the header."""

    values: np.ndarray  # (rows, columns) unsigned, lowest bit of the value in bit 0
    bits: int  # how many low bits carry the value
    signed: bool  # two's complement
    note: str | None = None  # in what the stream contradicts the header, None where nothing


def stored_values(elements: Elements, layout: PixelLayout, wanted: list[int]) -> Iterator[Stored]:
    """Yield the wanted frames (counted from 0). Raises Unreadable."""
    _, start, length = elements.index[PIXELS]
    signed = layout.representation == 1
    if elements.transfer_syntax in NATIVE:
        values = _native_values(elements, layout, start, length)
        for i in wanted:
            yield Stored(values[i] >> layout.shift if layout.shift else values[i], layout.bits_stored, signed)
    elif elements.transfer_syntax not in SYNTAXES:
        raise Unreadable("no decoder for the transfer syntax")
    else:
        for encoded in _streams(elements, layout, start, length, wanted):
            yield _decoded(elements.transfer_syntax, layout, encoded)


def numbers_of(stored: Stored) -> np.ndarray:
    """Stored values as the numbers they mean: PS3.5 8.1.1, bits above the stored ones are nobody's."""
    values = stored.values.astype(np.int64) & ((1 << stored.bits) - 1)
    if stored.signed:
        sign = 1 << (stored.bits - 1)
        values = (values ^ sign) - sign
    return values.astype(np.int32)


def _native_values(elements: Elements, layout: PixelLayout, start: int, length: int) -> np.ndarray:
    """(frames, rows, columns), a view of the file's bytes: PS3.5 8.1.1."""
    expected = layout.frame_bytes * layout.frames
    found = len(elements.data) - start if length == UNDEFINED else min(length, len(elements.data) - start)
    if found < expected:
        raise Unreadable(f"truncated pixels: {expected} bytes expected, {found} found")
    data = elements.data
    if elements.endian == ">" and layout.bits_allocated == 8 and elements.index[PIXELS][0] == b"OW":
        # PS3.5 A.3: 8-bit pixels in 16-bit words come with each pair swapped.
        whole_words = elements.data[start : start + expected] + bytes(expected % 2)
        data, start = np.frombuffer(whole_words, ">u2").astype("<u2").tobytes(), 0
    dtype = f"{elements.endian}u{layout.bits_allocated // 8}"
    values = np.frombuffer(data, dtype, count=layout.rows * layout.columns * layout.frames, offset=start)
    return values.reshape(layout.frames, layout.rows, layout.columns)


def _decoded(syntax: str, layout: PixelLayout, encoded: bytes) -> Stored:
    """One compressed frame: PS3.5 A.4."""
    stream = codestream(syntax, encoded)
    if stream is not None and (stream.rows, stream.columns, stream.components) != (layout.rows, layout.columns, 1):
        raise Unreadable(
            f"the compressed stream holds {stream.rows} × {stream.columns} × {stream.components}, "
            f"the header says {layout.rows} × {layout.columns} × 1"
        )
    values, facts = guarded(
        decode, encoded, layout.rows * layout.columns * 4, syntax=syntax, rows=layout.rows, columns=layout.columns,
        bytes_allocated=layout.bits_allocated // 8,
    )  # fmt: skip
    if fault := fault_of(facts):
        raise Unreadable(f"damaged pixels: {fault}")
    if values.shape != (layout.rows, layout.columns) or values.dtype.kind not in "iu":
        raise Unreadable("damaged pixels: the decoder gave another image than it was asked for")
    if values.dtype.itemsize < layout.bits_allocated // 8:  # a stream of 8 bits in a file of 16; a sign goes along
        values = values.astype(f"{values.dtype.kind}{layout.bits_allocated // 8}")
    unsigned: np.ndarray = values.view(f"u{values.dtype.itemsize}")
    return _meant(unsigned >> layout.shift if layout.shift else unsigned, layout, stream)


def _meant(values: np.ndarray, layout: PixelLayout, stream: Codestream | None) -> Stored:
    """The values with the bits and the sign that they have: a stream is what it was encoded from, a header may have been
    written by somebody else (pydicom reads it so too)."""
    bits, signed = layout.bits_stored, layout.representation == 1
    if stream is None:
        return Stored(values, bits, signed)
    if stream.signed:  # decoded with its sign, which reaches to the top
        note = None if signed else "signed pixels, though the header calls them unsigned"
        return Stored(values, 8 * values.dtype.itemsize, True, note)
    highest = int(values.max())
    if highest >> max(1, stream.precision - layout.shift):
        raise Unreadable(f"damaged pixels: values beyond the {stream.precision} bits of the compressed stream")
    if highest >> bits:
        note = f"pixels of {stream.precision} bits, though the header says {bits}"
        return Stored(values, max(bits, stream.precision), signed, note)
    return Stored(values, bits, signed)


def _streams(elements: Elements, layout: PixelLayout, start: int, length: int, wanted: list[int]) -> Iterator[bytes]:
    """The streams of the wanted frames, in ascending order: the fragments of each joined."""
    end = _end_of_fragments(elements.data, start) if length == UNDEFINED else start + length
    data = elements.data[start:end]
    if layout.frames == 1:
        yield b"".join(_fragments(data))
        return
    offsets, lengths = elements.get(EXTENDED_OFFSETS), elements.get(EXTENDED_LENGTHS)
    extended = (offsets, lengths) if offsets and lengths and len(offsets) == len(lengths) else None
    # pydicom warns of oddities, and filters belong to the process: one thread at a time
    with _warnings, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            frames = list(generate_frames(data, number_of_frames=layout.frames, extended_offsets=extended))
        except Exception as error:  # of many types, and a message may quote anything
            raise Unreadable(f"damaged pixels: the fragments of a frame ({type(error).__name__})") from None
    if len(frames) != layout.frames:
        raise Unreadable(f"truncated pixels: {layout.frames} compressed frames expected, {len(frames)} found")
    yield from (frames[i] for i in wanted)


def _fragments(data: bytes) -> Iterator[bytes]:
    """The items behind the first one, which is the offset table: PS3.5 A.4."""
    position, first = 0, True
    while position + 8 <= len(data):
        group, element, length = struct.unpack_from("<HHL", data, position)
        if (group << 16 | element) != ITEM:
            return
        if not first:
            yield data[position + 8 : position + 8 + length]
        position, first = position + 8 + length, False


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
