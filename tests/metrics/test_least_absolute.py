"""The weights are the optimum: against the textbook's primal program; and steadied, they serve rows that are new."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from medray.metrics.blend import nested, weighted_mean
from medray.metrics.least_absolute import EQUAL_SHARES, least_absolute, steady_weights


def drawn(seed: int, models: int, rows: int, whole: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.uniform(1, 228, rows)
    predictions = truth + rng.normal(0, rng.uniform(3, 30, models)[:, None], (models, rows)) + rng.normal(0, 4, rows)
    return (np.round(predictions), np.round(truth)) if whole else (predictions, truth)


def error(predictions: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> float:
    return float(np.abs(weights @ predictions - truth).mean())


def primal(predictions: np.ndarray, truth: np.ndarray) -> float:
    """The least mean absolute error, with an unknown for each row's error."""
    models, rows = predictions.shape
    slack = np.eye(rows)
    found = linprog(
        np.r_[np.zeros(models), np.full(2 * rows, 1 / rows)],
        A_eq=np.vstack([np.hstack([predictions.T, -slack, slack]), np.r_[np.ones(models), np.zeros(2 * rows)][None]]),
        b_eq=np.r_[truth, 1],
        method="highs",
    )
    return float(found.fun)


@pytest.mark.parametrize("seed", range(12))
def test_no_weights_are_better(seed: int) -> None:
    """Whole months, as labels are, make ties; 1, 2 and more rows than models, and fewer."""
    for rows in (1, 2, 5, 60):
        predictions, truth = drawn(seed, 6, rows, whole=seed % 2 == 0)
        weights = least_absolute(predictions, truth)
        assert weights.min() >= 0
        assert weights.sum() == pytest.approx(1, abs=1e-12)
        assert error(predictions, truth, weights) == pytest.approx(primal(predictions, truth), abs=1e-8)
        assert all(error(predictions, truth, weights) <= error(predictions, truth, one) for one in np.eye(6))
        assert error(predictions, truth, weights) <= error(predictions, truth, np.full(6, 1 / 6)) + 1e-9
        np.testing.assert_array_equal(weights, least_absolute(predictions, truth))


def test_two_models_by_hand() -> None:
    """One is 2 months too high and one 6 too low: three parts of the first make it exact."""
    truth = np.array([12.0, 60, 120, 200])
    np.testing.assert_allclose(least_absolute(np.stack([truth + 2, truth - 6]), truth), [0.75, 0.25], atol=1e-9)


def test_models_that_are_the_same_share_a_weight_somehow() -> None:
    truth = np.array([12.0, 60, 120])
    weights = least_absolute(np.stack([truth + 2, truth + 2, truth - 2, truth - 2]), truth)
    assert weights[:2].sum() == pytest.approx(0.5)


def test_without_rows_and_with_one_model() -> None:
    np.testing.assert_array_equal(least_absolute(np.zeros((4, 0)), np.zeros(0)), np.full(4, 0.25))
    np.testing.assert_array_equal(least_absolute(np.full((1, 3), 5.0), np.arange(3.0)), [1.0])
    with pytest.raises(ValueError, match="no model"):
        least_absolute(np.zeros((0, 3)), np.arange(3.0))
    with pytest.raises(ValueError, match="not finite"):
        least_absolute(np.array([[1.0, np.nan]]), np.arange(2.0))


def test_it_finds_the_weights_of_a_nested_blend() -> None:
    predictions, truth = drawn(3, 3, 90)
    folds = np.arange(90) % 3
    blended, weights = nested(predictions, truth, folds, least_absolute, weighted_mean)
    np.testing.assert_array_equal(weights[1], least_absolute(predictions[:, folds != 1], truth[folds != 1]))
    assert np.abs(blended - truth).mean() < np.abs(predictions.mean(axis=0) - truth).mean()


def alike(rng: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Six models of the same quality whose errors are in part the same."""
    truth = rng.uniform(1, 228, rows)
    return truth + rng.normal(0, 8, rows) + rng.laplace(0, 7, (6, rows)), truth


def test_of_few_rows_steadied_weights_serve_new_rows_better_than_exact_ones_and_of_many_they_follow_them() -> None:
    rng = np.random.default_rng(0)
    exact, steady, equal = [], [], []
    for _ in range(20):
        (some, truth), (new, new_truth) = alike(rng, 60), alike(rng, 2000)
        weights, share = steady_weights(some, truth, np.arange(60) % 5)
        exact.append(error(new, new_truth, least_absolute(some, truth)))
        steady.append(error(new, new_truth, weights))
        equal.append(share)
    assert np.mean(steady) < np.mean(exact) - 0.1
    assert np.mean(equal) > 0.5
    truth = rng.uniform(1, 228, 600)  # one good model among poor ones is found
    uneven = truth + rng.normal(0, 1, (6, 600)) * np.array([4, 40, 40, 40, 40, 40])[:, None]
    weights, share = steady_weights(uneven, truth, np.arange(600) % 5)
    assert share == 0
    np.testing.assert_array_equal(weights, least_absolute(uneven, truth))


@pytest.mark.parametrize("seed", range(8))
def test_steadied_weights_are_no_worse_than_the_best_model_and_than_equal_ones_on_their_own_rows(seed: int) -> None:
    predictions, truth = drawn(seed, 6, 30)
    weights, share = steady_weights(predictions, truth, np.arange(30) % 3)
    assert share in EQUAL_SHARES
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    for one in (*np.eye(6), np.full(6, 1 / 6)):
        assert error(predictions, truth, weights) <= error(predictions, truth, one) + 1e-9
    again, _ = steady_weights(predictions, truth, 7 - np.arange(30) % 3)
    np.testing.assert_array_equal(weights, again)  # names of parts say nothing


def test_of_one_part_or_one_model_nothing_is_steadied() -> None:
    predictions, truth = drawn(1, 3, 20)
    np.testing.assert_array_equal(
        steady_weights(predictions, truth, np.zeros(20))[0], least_absolute(predictions, truth)
    )
    assert steady_weights(predictions[:1], truth, np.arange(20) % 2) == (np.ones(1), 0.0)
