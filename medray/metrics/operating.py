"""Yes or no at thresholds that other patients have given: how often it is right, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from medray.metrics.intervals import Score, f1, intervals, rate, undefined

SPECIFICITIES = (0.8, 0.9, 0.95)
LEAST_FOR_THRESHOLD = 20
"""Negatives of other folds that a threshold is put above: of fewer, the 95th percentile is a matter of one."""
LEAST_AT = 20
"""Patients of each kind, for a predictive value at another rate of disease."""


def threshold_at(specificity: float, scores: np.ndarray, labels: np.ndarray) -> float | None:
    """The lowest threshold, at or above which a row is positive, with at least this specificity on these rows; None with fewer than
    ``LEAST_FOR_THRESHOLD`` negatives.

    Args:
        scores, labels: (rows,), labels 0, 1 or NaN, which does not count.
    """
    negatives = np.sort(scores[labels == 0])
    if len(negatives) < LEAST_FOR_THRESHOLD:
        return None
    below = negatives[int(np.ceil(specificity * len(negatives) - 1e-9)) - 1]
    return float(np.nextafter(below, np.inf))


def operating_points(
    scores: np.ndarray,
    labels: np.ndarray,
    patients: np.ndarray,
    folds: np.ndarray,
    prevalence: float | None = None,
    specificities: tuple[float, ...] = SPECIFICITIES,
) -> dict[str, Any]:
    """What comes of thresholds for given specificities, each fold's chosen on the other folds.

    Args:
        scores, labels, patients, folds: (rows,), labels NaN where unknown.
        prevalence: at which predictive values are also given.
    Returns:
        Specificity that was aimed at ("0.90") → threshold: of all folds together, for new images; thresholds: fold, as text → its own;
        what ``decided`` gives for all folds, and by_fold: fold → the same. Without another fold, or with too few negatives in
        them, the figures have a reason in place of a value.
    """
    known = ~np.isnan(labels)
    scores, labels, patients, folds = scores[known], labels[known], patients[known], folds[known]
    out = {}
    for aim in specificities:
        own = {str(k): threshold_at(aim, scores[folds != k], labels[folds != k]) for k in np.unique(folds)}
        at = np.array([np.nan if own[str(k)] is None else own[str(k)] for k in folds], dtype=np.float64)
        answers = np.where(np.isnan(at), np.nan, scores >= at)
        out[f"{aim:.2f}"] = {
            "threshold": threshold_at(aim, scores, labels),
            "thresholds": own,
            **decided(answers, labels, patients, prevalence),
            "by_fold": {
                str(k): decided(answers[folds == k], labels[folds == k], patients[folds == k], prevalence)
                for k in np.unique(folds)
            },
        }
    return out


def decided(
    answers: np.ndarray, labels: np.ndarray, patients: np.ndarray, prevalence: float | None = None
) -> dict[str, Any]:
    """How often answers are right.

    Args:
        answers, labels: (rows,) 1 or 0; rows where one of them is NaN do not count.
    Returns:
        counts: true_positives, false_positives, true_negatives, false_negatives, and the patients of the positives; figures, as
        ``intervals`` gives them: sensitivity, specificity, ppv, npv, f1; with a prevalence also ppv_at and npv_at it, and it.
    """
    there = ~np.isnan(answers) & ~np.isnan(labels)
    answers, labels, patients = answers[there], labels[there], patients[there]
    names = ("sensitivity", "specificity", "ppv", "npv", "f1", *(("ppv_at", "npv_at") if prevalence else ()))
    counts = {
        "true_positives": int(((answers == 1) & (labels == 1)).sum()),
        "false_positives": int(((answers == 1) & (labels == 0)).sum()),
        "true_negatives": int(((answers == 0) & (labels == 0)).sum()),
        "false_negatives": int(((answers == 0) & (labels == 1)).sum()),
        "positive_patients": len(np.unique(patients[labels == 1])),
    }
    about = {"counts": counts} | ({"prevalence": prevalence} if prevalence else {})
    if not there.any():
        reason = "there is no threshold: too few negatives in other folds, or no other fold"
        return about | {name: undefined(reason) for name in names}
    found = intervals(_scores(answers, labels, prevalence), patients)
    return about | {name: found[name] for name in names}


def _scores(answers: np.ndarray, labels: np.ndarray, prevalence: float | None) -> Mapping[str, Score]:
    scores = {
        "sensitivity": rate(np.where(labels == 1, answers, np.nan)),
        "specificity": rate(np.where(labels == 0, 1 - answers, np.nan)),
        "ppv": rate(np.where(answers == 1, labels, np.nan), labels),
        "npv": rate(np.where(answers == 0, 1 - labels, np.nan), labels),
        "f1": f1(answers, labels),
    }
    if prevalence:
        scores |= {f"{kind}_at": _at(prevalence, kind, answers, labels) for kind in ("ppv", "npv")}
    return scores


def _at(prevalence: float, kind: str, answers: np.ndarray, labels: np.ndarray) -> Score:
    """A predictive value at another rate of disease, by Bayes' rule."""

    def value(weights: np.ndarray) -> float:
        positives, negatives = weights @ labels, weights @ (1 - labels)
        if not positives or not negatives:
            return float("nan")
        sensitivity = weights @ (answers * labels) / positives
        specificity = weights @ ((1 - answers) * (1 - labels)) / negatives
        right, wrong = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
        if kind == "npv":
            right, wrong = specificity * (1 - prevalence), (1 - sensitivity) * prevalence
        return float(right / (right + wrong)) if right + wrong else float("nan")

    return Score(value, labels, (1, 0), LEAST_AT)
