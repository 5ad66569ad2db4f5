from __future__ import annotations

import cv2
import numpy as np
import pytest

from medray.imaging.resize import resize, shrunk


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("channels", [(), (1,), (3,), (5,)])
@pytest.mark.parametrize(
    ("size", "way"),
    [
        ((20, 10), cv2.INTER_AREA),
        ((40, 10), cv2.INTER_AREA),  # one side stays
        ((64, 64), cv2.INTER_LINEAR),
        ((20, 64), cv2.INTER_LINEAR),  # one side grows
        ((41, 30), cv2.INTER_LINEAR),
    ],
)
def test_both_sides_shrink_by_area_and_all_else_is_linear(
    channels: tuple[int, ...], size: tuple[int, int], way: int
) -> None:
    image = noise(40, 30, *channels)
    found = resize(image, *size)
    assert found.shape == (*size, *channels)
    assert np.array_equal(found, cv2.resize(image, size[::-1], interpolation=way).reshape(found.shape))


def test_the_same_size_is_the_same_image() -> None:
    image = noise(40, 30, 3)
    assert resize(image, 40, 30) is image


def test_a_small_bright_spot_is_not_stepped_over_and_an_edge_is_no_staircase() -> None:
    spot = np.zeros((64, 64), np.uint8)
    spot[9, 9] = 255
    assert resize(spot, 16, 16).max() > 0
    edge = np.repeat(np.array([[0, 200]], np.uint8), 2, axis=0)
    assert len(np.unique(resize(edge, 8, 8))) > 2


@pytest.mark.parametrize(
    ("shape", "size_px", "expected"),
    [
        ((300, 200), 100, (150, 100)), ((200, 301), 100, (100, 150)), ((64, 64), 256, (64, 64)),
        ((256, 300), 256, (256, 300)), ((1023, 1024), 256, (256, 256)),
    ],
)  # fmt: skip
def test_the_shorter_side_is_at_most_the_size(shape: tuple[int, int], size_px: int, expected: tuple[int, int]) -> None:
    assert shrunk(noise(*shape), size_px).shape == expected


def test_shrinking_is_the_mean_over_the_area() -> None:
    image = noise(64, 64)
    means = image.reshape(32, 2, 32, 2).mean(axis=(1, 3))
    assert np.abs(shrunk(image, 32) - means).max() <= 0.5
