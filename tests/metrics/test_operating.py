from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from medray.metrics.operating import decided, operating_points, threshold_at


def drawn(patients: int, seed: int = 0, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores, labels, patients and folds of two rows a patient; fold 1 has other scores."""
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(patients), 2)
    labels = (rng.random(patients) < 0.4).astype(float)[of]
    folds = of % 2
    scores = 1.5 * labels + rng.normal(0, 0.7, patients)[of] + rng.normal(0, 0.7, len(of)) + shift * folds
    return scores, labels, of, folds


def test_a_threshold_is_the_lowest_with_that_specificity() -> None:
    scores, labels, *_ = drawn(200)
    for aim in (0.8, 0.95, 1.0):
        at = threshold_at(aim, scores, labels)
        assert at is not None
        assert (scores[labels == 0] < at).mean() >= aim
        lower = np.max(scores[(labels == 0) & (scores < at)])
        assert (scores[labels == 0] < lower).mean() < aim
    assert threshold_at(0.9, scores[:30], np.where(np.arange(30) < 19, 0.0, 1.0)) is None


def test_a_fold_is_decided_at_the_threshold_of_the_others() -> None:
    scores, labels, of, folds = drawn(300, shift=1.0)
    point = operating_points(scores, labels, of, folds)["0.90"]
    assert point["thresholds"] == {str(k): threshold_at(0.9, scores[folds != k], labels[folds != k]) for k in (0, 1)}
    at = np.where(folds == 0, point["thresholds"]["0"], point["thresholds"]["1"])
    answers = scores >= at
    assert point["sensitivity"]["value"] == pytest.approx(sk.recall_score(labels, answers))
    assert point["specificity"]["value"] == pytest.approx(sk.recall_score(labels, answers, pos_label=0))
    assert point["ppv"]["value"] == pytest.approx(sk.precision_score(labels, answers))
    assert point["npv"]["value"] == pytest.approx(sk.precision_score(labels, answers, pos_label=0))
    assert point["f1"]["value"] == pytest.approx(sk.f1_score(labels, answers))
    assert sum(point["counts"][n] for n in ("true_positives", "false_negatives")) == labels.sum()
    # fold 1 scores higher: a threshold of fold 0 lets too many through, and that is seen
    assert point["by_fold"]["1"]["specificity"]["value"] < 0.7 < 0.95 < point["by_fold"]["0"]["specificity"]["value"]
    for name in ("sensitivity", "specificity", "ppv", "npv"):
        assert point[name]["low"] < point[name]["value"] < point[name]["high"]
    assert point["threshold"] == threshold_at(0.9, scores, labels)
    labels[::3] = np.nan
    again = operating_points(scores, labels, of, folds)["0.90"]
    assert sum(n for name, n in again["counts"].items() if name != "positive_patients") == np.isfinite(labels).sum()


def test_where_there_is_no_other_fold_the_reason_is_said() -> None:
    scores, labels, of, folds = drawn(100)
    point = operating_points(scores, labels, of, np.zeros_like(folds))["0.90"]
    assert point["sensitivity"]["value"] is None
    assert "no other fold" in point["sensitivity"]["reason"]
    assert point["threshold"] is not None  # for new images
    nothing = operating_points(scores, np.full(len(of), np.nan), of, folds)["0.90"]
    assert nothing["threshold"] is None
    assert nothing["counts"]["positive_patients"] == 0


def test_predictive_values_at_a_prevalence_are_bayes() -> None:
    scores, labels, of, _ = drawn(400)
    found = decided((scores > 0.7).astype(float), labels, of, prevalence=0.02)
    sensitivity, specificity = found["sensitivity"]["value"], found["specificity"]["value"]
    expected = sensitivity * 0.02 / (sensitivity * 0.02 + (1 - specificity) * 0.98)
    assert found["ppv_at"]["value"] == pytest.approx(expected)
    assert found["ppv_at"]["low"] < expected < found["ppv_at"]["high"] < found["ppv"]["value"]
    assert found["npv_at"]["value"] > found["npv"]["value"]
    same = decided((scores > 0.7).astype(float), labels, of, prevalence=float(labels.mean()))
    assert same["ppv_at"]["value"] == pytest.approx(same["ppv"]["value"])
