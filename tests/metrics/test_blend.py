"""Nested blending of anything: ages in months, and grades by kappa."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from medray.metrics.blend import nested, search, weighted_mean


def ages(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(3, rows) ages in months by three models, the first the best, (rows,) the truth, and (rows,) folds."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(12, 216, 300)
    noise = np.array([3.0, 12.0, 40.0])[:, None] * rng.normal(size=(3, 300))
    return truth + noise, truth, np.arange(300) % 3


def by_error(predictions: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return search(lambda w: float(np.abs(weighted_mean(predictions, w) - truth).mean()), len(predictions), 40, 0)


def test_ages_are_blended_by_their_mean_error_with_weights_of_the_other_folds() -> None:
    predictions, truth, folds = ages()
    blended, weights = nested(predictions, truth, folds, by_error, weighted_mean)
    assert set(weights) == {0, 1, 2}
    assert all(own.argmax() == 0 and own.sum() == pytest.approx(1) for own in weights.values())
    assert np.abs(blended - truth).mean() < np.abs(predictions.mean(axis=0) - truth).mean() / 2
    for fold in range(3):
        np.testing.assert_array_equal(
            blended[folds == fold], weighted_mean(predictions[:, folds == fold], weights[fold])
        )
    truth[folds == 1] = 0.0  # what is held out does not move its own weights
    again = nested(predictions, truth, folds, by_error, weighted_mean)[1]
    np.testing.assert_array_equal(again[1], weights[1])
    assert not np.array_equal(again[0], weights[0])


def test_a_score_of_which_more_is_better_is_searched_by_its_negative() -> None:
    predictions, truth, _ = ages()
    grade = (truth // 60).astype(int)

    def loss(weights: np.ndarray) -> float:
        return -float(
            cohen_kappa_score(grade, (weighted_mean(predictions, weights) // 60).astype(int), weights="quadratic")
        )

    found = search(loss, 3, 30, 0)
    assert loss(found) <= min(loss(one) for one in np.eye(3))
    assert found.argmax() == 0
