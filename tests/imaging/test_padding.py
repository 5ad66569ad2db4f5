"""Padding: which values a file names, and which pixels of them lie around the image."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from medray.imaging.elements import Elements
from medray.imaging.hounsfield import PADDED, to_hounsfield
from medray.imaging.padding import at_the_border, padding_range
from medray.imaging.tags import PADDING_LIMIT, PIXEL_PADDING

SIZE = 64
OUTSIDE = np.hypot(*np.indices((SIZE, SIZE)) - (SIZE - 1) / 2) > SIZE / 2


def tagged(*words: int) -> Elements:
    """Padding value and, where given, range limit, as 16 bits each."""
    data = struct.pack(f"<{len(words)}H", *(word & 0xFFFF for word in words))
    tags = (PIXEL_PADDING, PADDING_LIMIT)[: len(words)]
    return Elements(data, "<", True, "", {tag: (b"US", 2 * i, 2) for i, tag in enumerate(tags)})


def water_head() -> np.ndarray:
    """(rows, columns) int16 HU: air, a skull ring, brain of 35 HU with a ventricle of water, padded with 0."""
    y, x = np.indices((SIZE, SIZE)) - (SIZE - 1) / 2
    radius = np.hypot(y, x)
    hu = np.full((SIZE, SIZE), -1000, np.int16)
    hu[radius < 24] = 900
    hu[radius < 20] = 35
    hu[radius < 6] = 0
    hu[OUTSIDE] = 0
    return hu


@pytest.mark.parametrize(
    ("words", "representation", "expected"),
    [
        ((-2000,), 1, (-2000, -2000)),
        ((-2000,), 0, (63536, 63536)),
        ((-2000, -1500), 1, (-2000, -1500)),
        ((-1500, -2000), 0, (63536, 64036)),
        ((0, 20), 0, (0, 20)),
        ((-10, 10), 1, (-10, 10)),
        ((-10, 10), 0, None),  # 10 to 65526: everything
    ],
)
def test_the_range_is_read_as_the_pixels_are(
    words: tuple[int, ...], representation: int, expected: tuple[int, int] | None
) -> None:
    assert padding_range(tagged(*words), representation) == expected


def test_without_the_tag_there_is_no_range() -> None:
    assert padding_range(Elements(b"", "<", True, "", {}), 1) is None


def test_only_what_is_joined_to_the_border_is_padding() -> None:
    hu = water_head()
    assert np.array_equal(at_the_border(hu, 0, 0), OUTSIDE)
    assert at_the_border(hu, 35, 35) is None


def read(stored: np.ndarray, padding: tuple[int, int] | None, bits: int = 16, intercept: float = 0, slope: float = 1):  # type: ignore[no-untyped-def]
    return to_hounsfield(
        stored, bits_stored=bits, pixel_representation=int(stored.dtype.kind == "i"), slope=slope, intercept=intercept,
        padding=padding,
    )  # fmt: skip


def test_padding_of_zero_is_air_and_the_water_of_the_ventricles_stays() -> None:
    hu = water_head()
    for slope, intercept in ((1, 0), (1.0, 0.25)):
        found, note = read(hu, (0, 0), slope=slope, intercept=intercept)
        assert (found[OUTSIDE] == -1024).all()
        assert np.array_equal(found[~OUTSIDE], hu[~OUTSIDE] + intercept)
        assert note is None
    assert (read(hu, None)[0][OUTSIDE] == 0).all()


def test_a_range_of_padding() -> None:
    hu = water_head()
    hu[OUTSIDE] = np.arange(OUTSIDE.sum()) % 3
    found, _ = read(hu, (0, 2))
    assert (found[OUTSIDE] == -1024).all()
    assert np.array_equal(found[~OUTSIDE], hu[~OUTSIDE])


def test_the_highest_value_as_padding_leaves_metal_as_it_is() -> None:
    stored = (water_head() + 1024).astype(np.uint16)
    stored[OUTSIDE] = 4095
    stored[30:33, 30:33] = 4095  # a clip
    found, _ = read(stored, (4095, 4095), bits=12, intercept=-1024)
    assert (found[OUTSIDE] == -1024).all()
    assert (found[30:33, 30:33] == 3071).all()


def test_padding_beyond_the_bits_stored_fills_the_word() -> None:
    """-2000 in 12 unsigned bits would be 2096: bone of 1072 HU, which the skull has too."""
    stored = (water_head() + 1024).astype(np.uint16)
    stored[10, 30:34] = 2096
    stored[OUTSIDE] = 63536
    found, _ = read(stored, (63536, 63536), bits=12, intercept=-1024)
    assert (found[OUTSIDE] == -1024).all()
    assert (found[10, 30:34] == 1072).all()


def test_a_value_that_no_tissue_has_is_padding_inside_too() -> None:
    stored = (water_head() + 1024).astype(np.uint16)
    stored[40:44, 30:34] = 63536  # a face that was blanked out
    found, note = read(stored, (63536, 63536), intercept=-1024)
    assert (found[40:44, 30:34] == -1024).all()
    assert note is None


@pytest.mark.parametrize("padding", [None, (62536, 62536), (0, 0)], ids=["no tag", "another value", "air"])
def test_overflowing_corners_are_padding_that_the_file_does_not_name(padding: tuple[int, int] | None) -> None:
    stored = (water_head() + 1024).astype(np.uint16)
    stored[OUTSIDE] = 63536
    stored[30:33, 30:33] = 63536  # metal
    found, note = read(stored, padding, intercept=-1024)
    assert (found[OUTSIDE] == -1024).all()
    assert (found[30:33, 30:33] == 32767).all()
    assert note == PADDED


def test_metal_in_one_corner_saturates() -> None:
    stored = np.full((8, 8), 1059, np.uint16)
    stored[0, 0] = 65535
    found, note = read(stored, None, intercept=-1024)
    assert (found[0, 0], found[1, 1], note) == (32767, 35, None)


def test_a_wrapped_file_may_be_padded() -> None:
    truth = water_head()
    stored = (truth & 0xFFF).astype(np.uint16)
    stored[OUTSIDE] = 2096
    found, note = read(stored, (2096, 2096), bits=12)
    assert note == "wrapped 12-bit"
    assert (found[OUTSIDE] == -1024).all()
    assert np.array_equal(found[~OUTSIDE], truth[~OUTSIDE])
