"""Lookup tables whose descriptor does not say what it should."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from medray.imaging.elements import Elements
from medray.imaging.lut import looked_up
from medray.imaging.tags import LUT_DATA, LUT_DESCRIPTOR

SIGNED_16, UNSIGNED_16 = (-32768, 32767), (0, 65535)


def item(entries: np.ndarray, first: int, bits: int) -> Elements:
    data = struct.pack("<3H", len(entries) & 0xFFFF, first & 0xFFFF, bits) + entries.astype("<u2").tobytes()
    index = {LUT_DESCRIPTOR: (b"", 0, 6), LUT_DATA: (b"OW", 6, len(data) - 6)}
    return Elements(data, "<", False, "", index)


@pytest.mark.parametrize(
    ("bits", "highest", "white"),
    [
        (12, 4095, 4095),
        (12, 4000, 4095),  # a table that does not reach the top
        (16, 4095, 4095),  # Agfa
        (16, 40000, 65535),
        (12, 4096, 4095),  # one too many by rounding
        (10, 4095, 4095),
        (8, 60000, 65535),
        (12, 0, 1),
    ],
)
def test_white_is_the_depth_that_the_entries_have(bits: int, highest: int, white: int) -> None:
    entries = np.linspace(0, highest, 256)
    found, at_white, note = looked_up(item(entries, 0, bits), np.array([0, 255]), UNSIGNED_16)
    assert found.tolist() == [0, highest]
    assert at_white == white
    assert (note is None) == (white == (1 << bits) - 1)


@pytest.mark.parametrize(
    ("first", "span", "mapped"),
    [
        (-1000, SIGNED_16, -1000),
        (-1000, (-1000, 64535), -1000),  # unsigned, and a rescale of -1000
        (40000, UNSIGNED_16, 40000),
        (40000, (-1024, 64511), 40000),
        (-1000, (0, 4095), -1000),  # 64536 would map none of them
        (61000, UNSIGNED_16, 61000),
        (500, SIGNED_16, 500),
    ],
)
def test_the_first_mapped_value_is_signed_where_values_can_be(
    first: int, span: tuple[float, float], mapped: int
) -> None:
    entries = np.arange(1, 4002)
    values = np.array([mapped - 1, mapped, mapped + 1, mapped + 700])
    assert looked_up(item(entries, first, 12), values, span)[0].tolist() == [1, 1, 2, 701]
