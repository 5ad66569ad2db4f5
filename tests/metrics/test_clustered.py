from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import t as student
from sklearn.metrics import roc_auc_score

from medray.metrics.clustered import components, mean_interval, mean_variance


def rows(seed: int, patients: int = 12, ties: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, labels of both kinds, patients; some patients have rows of one kind only, one has none."""
    rng = np.random.default_rng(seed)
    of = np.sort(np.r_[rng.integers(0, patients - 1, 6 * patients), 0, 1, 2, 3])
    labels = (rng.random(len(of)) < rng.choice([0, 0, 0.3, 0.8, 1], patients)[of]).astype(np.float64)
    labels[np.searchsorted(of, [0, 1, 2, 3])] = [0, 1, 0, 1]
    scores = labels + rng.normal(size=patients)[of] + rng.normal(size=len(of))
    return (np.round(scores, 1) if ties else scores), labels, of


def by_loop(scores: list[np.ndarray], labels: list[np.ndarray], of: np.ndarray, a: int, b: int) -> tuple[float, float]:
    """AUC of a, and its covariance with b's, as the paper writes them: every pair of a positive and a negative."""
    kernels, aucs = [], []
    for k in (a, b):
        positive, negative = scores[k][labels[k] == 1], scores[k][labels[k] == 0]
        kernels.append(np.array([[1.0 if x > y else 0.5 if x == y else 0.0 for y in negative] for x in positive]))
        aucs.append(kernels[-1].mean())
    s10 = s01 = s11 = 0.0
    m, n = (labels[a] == 1).sum(), (labels[a] == 0).sum()
    for patient in np.unique(of):
        sums = []
        for k, kernel, auc in zip((a, b), kernels, aucs, strict=True):
            x, y = of[labels[k] == 1] == patient, of[labels[k] == 0] == patient
            v10 = sum(kernel[i].mean() for i in np.flatnonzero(x))
            v01 = sum(kernel[:, j].mean() for j in np.flatnonzero(y))
            sums.append((v10 - x.sum() * auc, v01 - y.sum() * auc))
        s10 += sums[0][0] * sums[1][0]
        s01 += sums[0][1] * sums[1][1]
        s11 += (sums[0][0] * sums[1][1] + sums[1][0] * sums[0][1]) / 2
    i10, i01, i = (len(np.unique(of[which])) for which in (labels[a] == 1, labels[a] == 0, labels[a] >= 0))
    s10, s01, s11 = s10 * i10 / (i10 - 1) / m, s01 * i01 / (i01 - 1) / n, s11 * i / (i - 1)
    return aucs[0], s10 / m + s01 / n + 2 * s11 / (m * n)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), ties=st.booleans())
def test_the_variance_is_that_of_a_double_loop(seed: int, ties: bool) -> None:
    scores, labels, of = rows(seed, ties=ties)
    found = components(scores, labels, of, size=12)
    auc, variance = by_loop([scores], [labels], of, 0, 0)
    assert found.auc == pytest.approx(auc, abs=1e-12)
    assert found.auc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert mean_variance([found]) == pytest.approx(max(variance, 0), abs=1e-12)


def test_the_variance_of_a_mean_holds_the_covariance_of_its_aucs() -> None:
    first, labels, of = rows(1)
    second = first + np.random.default_rng(2).normal(size=len(first))
    both = [first, second]
    found = [components(scores, labels, of, size=12) for scores in both]
    expected = np.mean([[by_loop(both, [labels] * 2, of, a, b)[1] for a in (0, 1)] for b in (0, 1)])
    assert mean_variance(found) == pytest.approx(expected, abs=1e-12)
    assert mean_variance([found[0], found[0]]) == pytest.approx(mean_variance(found[:1]))


def test_with_one_row_a_patient_it_is_delongs() -> None:
    scores, labels, _ = rows(3)
    positive, negative = scores[labels == 1], scores[labels == 0]
    kernel = (positive[:, None] > negative).astype(np.float64) + 0.5 * (positive[:, None] == negative)
    of_positives, of_negatives = kernel.mean(axis=1), kernel.mean(axis=0)
    delong = of_positives.var(ddof=1) / len(positive) + of_negatives.var(ddof=1) / len(negative)
    found = components(scores, labels, np.arange(len(scores)), size=len(scores))
    assert mean_variance([found]) == pytest.approx(delong, abs=1e-14)


def test_the_interval_is_students_on_the_logit_scale() -> None:
    scores, labels, of = rows(4)
    found = components(scores, labels, of, size=12)
    interval = mean_interval([found])
    assert interval is not None
    rarer = min(len(np.unique(of[labels == kind])) for kind in (0, 1))
    half = student.ppf(0.975, rarer - 1) * np.sqrt(mean_variance([found])) / (found.auc * (1 - found.auc))
    assert interval == pytest.approx(expit(logit(found.auc) + np.array([-half, half])))
    assert mean_interval([found, found]) == pytest.approx(interval)  # the same patients are not counted twice


def test_aucs_of_other_patients_together_rest_on_more() -> None:
    scores, labels, of = rows(5)
    first, second = (components(scores, labels, of + shift, size=24) for shift in (0, 12))
    rarer = 2 * min(len(np.unique(of[labels == kind])) for kind in (0, 1))
    half = student.ppf(0.975, rarer - 1) * np.sqrt(mean_variance([first]) / 2) / (first.auc * (1 - first.auc))
    assert mean_interval([first, second]) == pytest.approx(expit(logit(first.auc) + np.array([-half, half])))


def test_rows_that_part_have_no_interval() -> None:
    labels, of = np.array([0.0, 1, 0, 1, 0, 1]), np.array([0, 0, 1, 1, 2, 2])
    assert mean_interval([components(labels, labels, of, size=3)]) is None
    assert mean_interval([components(np.ones(6), labels, of, size=3)]) is None
