"""Lookup tables of DICOM: modality LUT (PS3.3 C.11.1) and VOI LUT (C.11.2)."""

from __future__ import annotations

import numpy as np

from medray.imaging.elements import Elements
from medray.imaging.tags import LUT_DATA, LUT_DESCRIPTOR
from medray.imaging.types import Unreadable

Span = tuple[float, float]
"""The lowest and the highest value that there can be, whether an image has them or not."""


def looked_up(item: Elements, values: np.ndarray, span: Span) -> tuple[np.ndarray, int, str | None]:
    """Values through one item of a LUT sequence.

    Args:
        item: holds LUT Descriptor and LUT Data.
        values: any shape; those below the first mapped value get the first entry, those beyond the last get the last
            (C.11.1.1.1).
        span: what the values can be.
    Returns:
        The entries, uint16 of the same shape; the entry that means white; what was assumed to know it, None for nothing.
    Raises:
        Unreadable: a table that is not there, is short, or has no sensible depth.
    """
    descriptor, data = item.get(LUT_DESCRIPTOR), item.get(LUT_DATA)
    if descriptor is None or len(descriptor) < 6 or not data:
        raise Unreadable("a lookup table without descriptor or data")
    entries, first, bits = (int(v) for v in np.frombuffer(descriptor[:6], f"{item.endian}u2"))
    entries = entries or 1 << 16  # C.11.1.1.1: 0 means 65536
    if not 8 <= bits <= 16:
        raise Unreadable(f"a lookup table of {bits} bits")
    # entries of 8 bits come one a byte or one a word (C.11.1.1.1 allows both)
    width = 1 if bits == 8 and len(data) < 2 * entries else 2
    if len(data) < width * entries:
        raise Unreadable(f"a lookup table of {entries} entries with data for {len(data) // width}")
    table = np.frombuffer(data, f"{item.endian}u{width}", count=entries).astype(np.uint16)
    first = _first_mapped(first, entries, span)
    index = np.clip(np.floor(np.asarray(values, dtype=np.float64) + 0.5) - first, 0, entries - 1)
    return table[index.astype(np.intp)], *_white(int(table.max()), bits)


def _first_mapped(first: int, entries: int, span: Span) -> int:
    """The first mapped value, 16 bits, as the number that they mean.

    It is signed where values may be negative (C.11.1.1.1), and implicit VR does not say which it is; nor do the values
    of one film, which may all be positive by chance. Of the two readings that one is meant whose table covers more of
    what values can be.
    """
    signed = first - (1 << 16) if first >= 1 << 15 else first

    def covered(start: int) -> float:
        return min(start + entries - 1, span[1]) - max(start, span[0])

    return signed if covered(signed) > covered(first) else first


def _white(highest: int, bits: int) -> tuple[int, str | None]:
    """The entry that means white, and what was assumed.

    It is the largest of the depth that the descriptor states, but for tables that it does not fit: Agfa's say 16 bits
    and reach 4095. A table that leaves the highest bit unused, or needs more bits, has as many as its highest entry.
    One step beyond the depth is rounding.
    """
    if 1 << (bits - 1) <= highest <= 1 << bits:
        return (1 << bits) - 1, None
    reached = max(highest.bit_length(), 1)
    return (1 << reached) - 1, f"a lookup table of {bits} bits whose entries have {reached}"
