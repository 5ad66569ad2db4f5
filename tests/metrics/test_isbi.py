from __future__ import annotations

import numpy as np
import pytest

from medray.metrics.isbi import isbi_score, mean_present
from medray.metrics.lesions import LesionMatch
from medray.metrics.overlap import Overlap


def match(found: list[bool], true: list[bool]) -> LesionMatch:
    n, m = len(found), len(true)
    return LesionMatch(np.ones(n), np.array(found, bool), np.ones(m), np.array(true, bool), np.ones(n), np.ones(m))


def test_by_hand() -> None:
    """Three scans. Dice: 2·40/140, 2·90/250, 2·10/60 → mean of .571429, .72, .333333. Predictive value: 1, .6, .5.
    LTPR: 1/2, 1, 1/4. LFPR: 0, 1/3, 1/2. Volumes 100, 100, 40 and 40, 150, 20: correlation .618590."""
    overlaps = [Overlap(100, 40, 40), Overlap(100, 150, 90), Overlap(40, 20, 10)]
    lesions = [
        match([True, False], [True]),
        match([True], [True, True, False]),
        match([True] + [False] * 3, [True, False]),
    ]
    found = isbi_score(overlaps, lesions, [1, 1, 1])
    assert found.dice == pytest.approx((4 / 7 + 0.72 + 1 / 3) / 3)
    assert found.predictive_value == pytest.approx(0.7)
    assert found.true_positive_rate == pytest.approx(7 / 12)
    assert found.false_positive_rate == pytest.approx(5 / 18)
    # deviations 20, 20, -40 and -30, 80, -50: 3000 / √(2400 · 9800)
    assert found.correlation == pytest.approx(3000 / np.sqrt(2400 * 9800))
    by_hand = 0.5415873 / 8 + 0.7 / 8 + (1 - 0.2777778) / 4 + 0.5833333 / 4 + 0.6185896 / 4
    assert found.score == pytest.approx(by_hand, abs=1e-6)


def test_volumes_are_volumes_and_no_counts_of_voxels() -> None:
    overlaps = [Overlap(100, 100, 100), Overlap(100, 50, 50)]
    lesions = [match([True], [True])] * 2
    assert np.isnan(isbi_score(overlaps, lesions, [1, 1]).correlation)
    assert isbi_score(overlaps, lesions, [1, 4]).correlation == pytest.approx(1)


def test_finding_nothing_earns_nothing() -> None:
    some, nothing = Overlap(10, 10, 5), Overlap(10, 0, 0)
    found = isbi_score([some, nothing], [match([True], [True]), match([False], [])], [1, 1])
    assert found.false_positive_rate == 0.5
    assert found.predictive_value == 0.25
    # a scan without lesions in which nothing was found is absent from every mean
    clean = isbi_score([some, Overlap(0, 0, 0)], [match([True], [True]), match([], [])], [1, 1])
    assert (clean.dice, clean.false_positive_rate, clean.true_positive_rate) == (0.5, 0, 1)
    assert np.isnan(mean_present([np.nan]))
