from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medray.imaging.intensity import (
    between_percentiles,
    brain_mask,
    high_passed,
    smoothed,
    whitened,
)
from medray.imaging.types import Unreadable

BRAIN = ndimage.binary_dilation(np.pad(np.ones((1, 1, 1), bool), 9), iterations=7)
IMAGE = np.where(BRAIN, np.random.default_rng(0).normal(20, 30, BRAIN.shape), 0).astype(np.float32)


def test_the_brain_is_where_any_channel_is_not_0() -> None:
    assert (IMAGE[BRAIN] < 0).sum() > 100
    assert np.array_equal(brain_mask([IMAGE]), BRAIN)
    upper, lower = IMAGE.copy(), IMAGE.copy()
    upper[:9], lower[9:] = 0, 0
    assert np.array_equal(brain_mask([upper, lower]), BRAIN)
    with pytest.raises(Unreadable, match="an empty brain"):
        brain_mask([np.zeros((3, 3, 3))] * 2)


def test_whitened_in_the_brain_and_0_outside() -> None:
    found = whitened(IMAGE, BRAIN)
    assert found.dtype == np.float32
    assert found[BRAIN].mean() == pytest.approx(0, abs=1e-6)
    assert found[BRAIN].std() == pytest.approx(1, abs=1e-6)
    assert not found[~BRAIN].any()
    assert not whitened(np.full(BRAIN.shape, 7.0), BRAIN).any()


def test_percentiles_of_the_brain_are_0_and_1() -> None:
    found = between_percentiles(IMAGE, BRAIN, 10, 90)
    low, high = np.percentile(IMAGE[BRAIN].astype(np.float64), [10, 90])
    middle = BRAIN & (low < IMAGE) & (high > IMAGE)
    assert np.allclose(found[middle], (IMAGE[middle] - low) / (high - low), atol=1e-6)
    assert (found[BRAIN & (low >= IMAGE)] == 0).all()
    assert (found[BRAIN & (high <= IMAGE)] == 1).all()
    assert not found[~BRAIN].any()
    assert not between_percentiles(np.full(BRAIN.shape, 7.0), BRAIN).any()


def test_high_pass_and_gaussian_add_up_to_the_image() -> None:
    assert np.allclose(smoothed(IMAGE, BRAIN) + high_passed(IMAGE, BRAIN), IMAGE, atol=1e-4)
    assert np.allclose(smoothed(IMAGE, BRAIN)[BRAIN], ndimage.gaussian_filter(IMAGE, 5, mode="constant")[BRAIN])
    assert not smoothed(IMAGE, BRAIN)[~BRAIN].any()


def test_the_deviation_may_differ_along_thick_slices() -> None:
    point = np.zeros((31, 31, 31), dtype=np.float32)
    point[15, 15, 15] = 1
    spread = smoothed(point, np.ones(point.shape, bool), (3, 3, 1))
    assert spread[18, 15, 15] == pytest.approx(spread[15, 15, 16], rel=0.05)
