from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from medray.metrics.binary import Ranking, calibration_bins, log_losses, unsmoothed


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores with many ties, labels with both classes, whole-number weights as a bootstrap draws them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = draw(st.integers(4, 60))
    scores = np.round(rng.random(rows), draw(st.integers(1, 3)))
    labels = rng.integers(0, 2, rows)
    labels[:2] = 0, 1
    weights = rng.integers(0, 4, rows).astype(float)
    weights[:2] = 1
    return scores, labels, weights


@given(scored())
@settings(max_examples=200, deadline=None)
def test_auc_and_average_precision_equal_scikit_learns(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    scores, labels, weights = case
    ranking = Ranking(scores, labels)
    for w in (None, weights):
        assert ranking.auc(w) == pytest.approx(sk.roc_auc_score(labels, scores, sample_weight=w), abs=1e-9)
        expected = sk.average_precision_score(labels, scores, sample_weight=w)
        assert ranking.average_precision(w) == pytest.approx(expected, abs=1e-9)


@given(scored())
@settings(max_examples=50, deadline=None)
def test_log_loss_equals_scikit_learns(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    scores, labels, _ = case
    clipped = np.clip(scores.astype(np.float64), 1e-15, 1 - 1e-15)
    assert log_losses(scores, labels).mean() == pytest.approx(sk.log_loss(labels, clipped), abs=1e-9)


def test_a_certain_mistake_costs_the_clip_and_not_infinity() -> None:
    assert log_losses(np.array([0.0]), np.array([1.0]))[0] == pytest.approx(-np.log(1e-15))
    assert log_losses(np.array([1.0]), np.array([0.0]))[0] == pytest.approx(-np.log(1e-15), rel=2e-3)


def test_absent_classes_have_no_auc() -> None:
    assert np.isnan(Ranking(np.array([0.1, 0.2]), np.array([0, 0])).auc())
    assert np.isnan(Ranking(np.array([0.1, 0.2]), np.array([0, 0])).average_precision())
    assert np.isnan(Ranking(np.array([0.1, 0.2]), np.array([1, 1])).specificity_at(0.9))


@pytest.mark.filterwarnings("error")
def test_without_rows_all_is_undefined() -> None:
    nothing = Ranking(np.zeros(0), np.zeros(0))
    figures = nothing.auc(), nothing.average_precision(), nothing.specificity_at(0.9)
    assert np.isnan(figures).all()
    assert calibration_bins(np.zeros(0), np.zeros(0)).shape == (0, 3)


def test_calibration_bins_hold_every_row_once() -> None:
    bins = calibration_bins(np.linspace(0, 1, 25), np.ones(25), bins=10)
    assert bins[:, 2].sum() == 25
    assert np.all(np.diff(bins[:, 0]) > 0)


def test_specificity_is_that_of_the_best_threshold_that_finds_enough() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
    labels = np.array([1, 1, 0, 1, 0, 1, 0, 0])
    ranking = Ranking(scores, labels)
    assert ranking.specificity_at(0.5) == 1.0
    assert ranking.specificity_at(0.75) == 0.75
    assert ranking.specificity_at(0.95) == 0.5
    assert ranking.specificity_at(0.0) == 1.0
    assert np.isnan(Ranking(scores, np.zeros(8)).specificity_at(0.95))
    doubled = ranking.specificity_at(0.95, np.array([1, 1, 3, 1, 0, 1, 1, 0]))
    assert doubled == pytest.approx(1 / 4)


def test_a_tied_negative_is_not_told_from_a_positive() -> None:
    assert Ranking(np.array([0.5, 0.5, 0.1]), np.array([1, 0, 0])).specificity_at(1.0) == 0.5


@pytest.mark.parametrize("smoothing", [0.02, 0.1])
def test_smoothing_is_undone_and_the_order_stays(smoothing: float) -> None:
    rng = np.random.default_rng(0)
    chances = rng.beta(0.05, 4, 200_000)
    labels = (rng.random(len(chances)) < chances).astype(float)
    noise = 0.02 * rng.normal(size=len(chances))  # of a fit
    fitted = np.clip(chances * (1 - smoothing) + smoothing / 2 + smoothing * noise, 1e-9, 1)
    plain = unsmoothed(fitted, smoothing)
    assert (np.argsort(plain, kind="stable") == np.argsort(fitted, kind="stable")).all()
    assert plain.min() > 0
    assert plain.max() < 1
    middle = (chances > 0.01) & (chances < 0.99)
    np.testing.assert_allclose(plain[middle], chances[middle], atol=0.01)
    best, before, after = (log_losses(p, labels).mean() for p in (chances.clip(1e-12), fitted, plain))
    assert after - best < 0.1 * (before - best)
    assert unsmoothed(np.array([0.0, 1.0]), smoothing) == pytest.approx([0, 1], abs=1e-4)
    assert unsmoothed(fitted, 0.0) is fitted
