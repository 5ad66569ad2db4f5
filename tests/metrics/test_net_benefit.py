from __future__ import annotations

import numpy as np
import pytest

from medray.metrics.net_benefit import decision_curve, net_benefit


def test_by_hand() -> None:
    answers, labels = np.array([1.0, 1, 1, 0, 0]), np.array([1.0, 1, 0, 1, 0])
    assert net_benefit(answers, labels, 0.2) == pytest.approx(2 / 5 - 1 / 5 * 0.25)
    assert np.isnan(net_benefit(np.zeros(0), np.zeros(0), 0.2))


def test_a_good_model_is_worth_more_than_everybody_and_nobody() -> None:
    rng = np.random.default_rng(0)
    p = rng.beta(1, 5, 50_000)
    labels = (rng.random(len(p)) < p).astype(float)
    curve = decision_curve(p, labels)
    assert (curve["model"] >= np.maximum(curve["all"], 0) - 1e-3).all()
    rate = labels.mean()
    np.testing.assert_allclose(curve["all"], rate - (1 - rate) * curve["threshold"] / (1 - curve["threshold"]))
    labels[::2] = np.nan
    assert decision_curve(p, labels)["model"].iloc[2] == pytest.approx(curve["model"].iloc[2], abs=0.005)
