"""Lookup tables of DICOM: modality LUT (PS3.3 C.11.1) and VOI LUT (C.11.2)."""

from __future__ import annotations

import numpy as np

from medray.imaging.elements import Elements
from medray.imaging.tags import LUT_DATA, LUT_DESCRIPTOR
from medray.imaging.types import Unreadable


def looked_up(item: Elements, values: np.ndarray) -> tuple[np.ndarray, int]:
    """Values through one item of a LUT sequence.

    Args:
        item: holds LUT Descriptor and LUT Data.
        values: any shape; those below the first mapped value get the first entry, those beyond the last get the last
            (C.11.1.1.1).
    Returns:
        The entries, uint16 of the same shape, and how many bits an entry has.
    Raises:
        Unreadable: a table that is not there, is short, or has no sensible depth.
    """
    descriptor, data = item.get(LUT_DESCRIPTOR), item.get(LUT_DATA)
    if descriptor is None or len(descriptor) < 6 or not data:
        raise Unreadable("a lookup table without descriptor or data")
    entries, first, bits = (int(v) for v in np.frombuffer(descriptor[:6], f"{item.endian}u2"))
    entries = entries or 1 << 16  # C.11.1.1.1: 0 means 65536
    if values.min() < 0 and first >= 1 << 15:  # first is signed where the values are
        first -= 1 << 16
    if not 8 <= bits <= 16:
        raise Unreadable(f"a lookup table of {bits} bits")
    # entries of 8 bits come one a byte or one a word (C.11.1.1.1 allows both)
    width = 1 if bits == 8 and len(data) < 2 * entries else 2
    if len(data) < width * entries:
        raise Unreadable(f"a lookup table of {entries} entries with data for {len(data) // width}")
    table = np.frombuffer(data, f"{item.endian}u{width}", count=entries).astype(np.uint16)
    index = np.clip(np.floor(np.asarray(values, dtype=np.float64) + 0.5) - first, 0, entries - 1)
    return table[index.astype(np.intp)], bits
