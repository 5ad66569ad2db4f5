from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr

from medray.metrics.agreement import bland_altman, pearson, repeatability


def test_limits_of_agreement_by_hand() -> None:
    found = bland_altman([1, 2, 3], [2, 2, 5])  # differences 1, 0, 2
    assert (found.bias, found.low, found.high) == pytest.approx((1, 1 - 1.959964, 1 + 1.959964))
    assert np.isnan(bland_altman([], []).bias)
    assert bland_altman([1], [2]).bias == 1
    assert np.isnan(bland_altman([1], [2]).low)


def test_correlation_is_scipys_and_absent_where_nothing_varies() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 20))
    assert pearson(a, b) == pytest.approx(pearsonr(a, b)[0])
    assert np.isnan([pearson([1], [2]), pearson([1, 1], [1, 2]), pearson([], [])]).all()


def test_repeatability_covers_95_percent_of_pairs() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(1, 20, 20000)
    one, two = truth + rng.normal(0, 0.5, (2, 20000))
    found = repeatability(one, two)
    assert found == pytest.approx(1.96 * np.sqrt(2) * 0.5, rel=0.02)
    assert (np.abs(one - two) < found).mean() == pytest.approx(0.95, abs=0.005)
    assert np.isnan(repeatability([], []))
