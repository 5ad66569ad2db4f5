"""Weighted log loss, AUC and average precision of binary labels, fast enough to bootstrap over 674,258 slices.

The point values equal scikit-learn's (a test holds them to 1e-9). They are written here because a bootstrap
evaluates them a thousand times with other row weights: sorting once and reusing the order makes that affordable.
"""

from __future__ import annotations

import numpy as np

CLIP = 1e-15
"""Probabilities are clipped to [CLIP, 1 - CLIP] in float64 before a logarithm, as scikit-learn's log_loss once did."""


NEAR_END = 1e-3
"""As near to 0 or 1 ``unsmoothed`` bends, so that no two probabilities become one."""


def unsmoothed(probabilities: np.ndarray, smoothing: float) -> np.ndarray:
    """Probabilities of labels from those of smoothed labels, to which a network was fitted: (p - s / 2) / (1 - s).

    A fitted p wanders on both sides of s / 2, which stands for 0. What would lie within ``NEAR_END`` of 0 or 1, or beyond, is bent
    towards it: order, and with it AUC, stays, and nothing becomes so sure that one mistake outweighs all else (2e-5 with s = .1).

    Args:
        probabilities: any shape. smoothing: s, from 0 to below 1: in the loss it makes 0 into s / 2 and 1 into 1 - s / 2.
    """
    if not smoothing:
        return probabilities
    plain = (np.asarray(probabilities, dtype=np.float64) - smoothing / 2) / (1 - smoothing)
    low, high = np.minimum(plain, NEAR_END), np.minimum(1 - plain, NEAR_END)
    plain = np.where(plain < NEAR_END, NEAR_END**2 / (2 * NEAR_END - low), plain)
    return np.where(plain > 1 - NEAR_END, 1 - NEAR_END**2 / (2 * NEAR_END - high), plain)


def log_losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Binary cross-entropy of each entry, in nats, same shape; NaN where the label is NaN."""
    clipped = np.clip(np.asarray(probabilities, dtype=np.float64), CLIP, 1 - CLIP)
    labels = np.asarray(labels, dtype=np.float64)
    return -(labels * np.log(clipped) + (1 - labels) * np.log1p(-clipped))


def calibration_bins(probabilities: np.ndarray, labels: np.ndarray, bins: int = 10) -> np.ndarray:
    """(bins with members, 3): mean probability, observed rate, members, in bins of equal count."""
    order = np.argsort(probabilities, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return np.array([[probabilities[p].mean(), labels[p].mean(), len(p)] for p in parts]).reshape(-1, 3)


class Ranking:
    """One class's scores, sorted once; AUC and average precision for any row weights in one pass.

    Args:
        scores: (rows,) higher means more positive.
        labels: (rows,) 0 or 1, no NaN.
    """

    def __init__(self, scores: np.ndarray, labels: np.ndarray) -> None:
        self.order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
        ordered = np.asarray(scores, dtype=np.float64)[self.order]
        self.positive = np.asarray(labels, dtype=np.float64)[self.order]
        self.tie_ends = np.flatnonzero(np.append(np.diff(ordered) != 0, True))[: len(ordered)]

    def curve(self, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Cumulated weight of true and of false positives at each distinct threshold, highest first; 0 without rows."""
        weight = np.ones(len(self.order)) if weights is None else np.asarray(weights, dtype=np.float64)[self.order]
        if not len(self.order):
            return np.zeros(1), np.zeros(1)
        true = np.cumsum(weight * self.positive)[self.tie_ends]
        false = np.cumsum(weight * (1 - self.positive))[self.tie_ends]
        return true, false

    def auc(self, weights: np.ndarray | None = None) -> float:
        """Area under the ROC curve by the trapezoidal rule; NaN where a class is absent."""
        true, false = self.curve(weights)
        if not true[-1] or not false[-1]:
            return float("nan")
        return float(np.trapezoid(np.append(0, true), np.append(0, false)) / true[-1] / false[-1])

    def average_precision(self, weights: np.ndarray | None = None) -> float:
        """Sum of precision times rise in recall; NaN without positives."""
        true, false = self.curve(weights)
        if not true[-1]:
            return float("nan")
        predicted = true + false
        precision = np.divide(true, predicted, out=np.zeros_like(true), where=predicted > 0)
        return float(np.sum(np.diff(true, prepend=0.0) * precision) / true[-1])

    def specificity_at(self, sensitivity: float, weights: np.ndarray | None = None) -> float:
        """The highest specificity of a threshold with at least this sensitivity; NaN where a class is absent."""
        true, false = self.curve(weights)
        if not true[-1] or not false[-1]:
            return float("nan")
        found = true / true[-1] >= sensitivity - 1e-12  # the last threshold finds all
        return float(1 - false[found].min() / false[-1])
