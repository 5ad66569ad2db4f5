"""Whether a lossless JPEG stream is as long as the pixels that came out of it.

The libraries that decode it fill in what a damaged stream has lost, and say nothing. But the coding is exact: pixels, predictor
and code table give the number of bits that the stream must have (ITU-T T.81 H.1.2). A damaged code shifts every code after
it, so that bits are missing at the end, or left over.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np

from medray.imaging.decoding.codestream import Codestream

_SIZES = np.zeros(1 << 16, np.uint8)
"""Difference of 16 bits → its category SSSS: the bits that follow the code (T.81 table H.2)."""
for _category in range(1, 17):
    _low = 1 << (_category - 1)
    _magnitudes = np.arange(_low, min(2 * _low, (1 << 15) + 1))
    _SIZES[_magnitudes & 0xFFFF] = _category
    _SIZES[-_magnitudes & 0xFFFF] = _category


def length_fault(stream: bytes, pixels: np.ndarray, frame: Codestream) -> str | None:
    """What the stream's length says, or None where it fits or cannot be told (several scans, restarts, colour).

    Args:
        stream: one image, SOI to EOI.
        pixels: (rows, columns) as decoded, unsigned.
    """
    segments = _segments(stream)
    if segments is None or pixels.ndim != 2:
        return None
    tables, scan, start = segments
    components, _, table, predictor, _, transform = struct.unpack_from(">6B", scan)
    if components != 1 or not 1 <= predictor <= 7 or (table >> 4) not in tables:
        return None
    code_bits = np.zeros(256, np.int64)
    for length, coded in tables[table >> 4].items():
        code_bits[coded] = length
    differences = _differences(pixels >> transform if transform else pixels, predictor, frame.precision - transform)
    categories = np.bincount(np.take(_SIZES, differences.ravel()), minlength=17)
    further = np.append(np.arange(16), 0)  # category 16 is one difference only, and has no further bits: H.1.2.2
    bits = int(categories @ (code_bits[:17] + further))
    end = stream.rfind(b"\xff\xd9")
    end = len(stream) if end < start else end
    while stream[end - 1] == 0xFF:  # fill bytes before a marker: T.81 B.1.1.2; data has a 0 behind each
        end -= 1
    found = end - start - stream.count(b"\xff\x00", start, end)
    wanted = (bits + 7) // 8
    if found < wanted:
        return f"the stream is too short by {wanted - found:,} of {wanted:,} bytes"
    return f"the stream is too long by {found - wanted:,} of {found:,} bytes" if found > wanted else None


def _segments(stream: bytes) -> tuple[dict[int, dict[int, list[int]]], bytes, int] | None:
    """Code tables (number → length of a code → categories), the scan's header, and where its data begins."""
    tables: dict[int, dict[int, list[int]]] = {}
    position = 2
    while position + 4 <= len(stream) and stream[position] == 0xFF:
        marker, size = stream[position + 1], struct.unpack_from(">H", stream, position + 2)[0]
        segment = stream[position + 4 : position + 2 + size]
        if marker == 0xDD and any(segment):  # restarts
            return None
        if marker == 0xDA:
            return (tables, segment, position + 2 + size) if len(segment) >= 6 else None
        if marker == 0xC4:
            tables |= _tables(segment)
        position += 2 + size
    return None


def _tables(segment: bytes) -> dict[int, dict[int, list[int]]]:
    """DHT: T.81 B.2.4.2."""
    found: dict[int, dict[int, list[int]]] = {}
    position = 0
    while position + 17 <= len(segment):
        number, counts = segment[position], segment[position + 1 : position + 17]
        position += 17
        found[number] = {}
        for length, count in enumerate(counts, start=1):
            found[number][length] = list(segment[position : position + count])
            position += count
    return found


def _differences(pixels: np.ndarray, predictor: int, precision: int) -> np.ndarray:
    """(rows, columns) uint16, modulo 2^16, against the prediction: T.81 H.1.2.1 and table H.1."""
    # Two predictors take half of a difference, which has to keep its sign; all else comes out right modulo 2^16.
    x: np.ndarray = pixels.astype(np.int32 if predictor in (5, 6, 7) else np.uint16, copy=False)
    out: np.ndarray = np.empty(x.shape, x.dtype)
    out[0, 0] = (int(x[0, 0]) - (1 << (precision - 1))) & 0xFFFF
    np.subtract(x[0, 1:], x[0, :-1], out=out[0, 1:])
    np.subtract(x[1:, 0], x[:-1, 0], out=out[1:, 0])
    here, left, above, corner = x[1:, 1:], x[1:, :-1], x[:-1, 1:], x[:-1, :-1]
    inner = out[1:, 1:]
    if predictor <= 3:
        np.subtract(here, (left, above, corner)[predictor - 1], out=inner)
    else:
        predicted: dict[int, Callable[[], np.ndarray]] = {
            4: lambda: left + above - corner,
            5: lambda: left + np.right_shift(above - corner, 1),
            6: lambda: above + np.right_shift(left - corner, 1),
            7: lambda: np.right_shift(left + above, 1),
        }
        np.subtract(here, predicted[predictor](), out=inner)
    return out.astype(np.uint16, copy=False)
