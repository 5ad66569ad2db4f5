"""Intervals of AUCs, rates and means whose rows come in patients. Of an AUC nonparametric, for clustered data (Obuchowski 1997).

Obuchowski NA. Nonparametric analysis of clustered ROC curve data. Biometrics 1997; 53: 567-578. With one row a patient
it is the variance of DeLong, DeLong and Clarke-Pearson (1988).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm, rankdata
from scipy.stats import t as student

_LEVEL = 0.95
Range = tuple[float, float]
ANY: Range = (-np.inf, np.inf)


@dataclass(frozen=True, eq=False)
class Components:
    """An AUC, and how far the rows of each patient move it."""

    auc: float
    of_positives: np.ndarray
    """(patients,) sum over its positives of (share of negatives below − AUC), by the number of positives."""
    of_negatives: np.ndarray
    """(patients,) sum over its negatives of (share of positives above − AUC), by the number of negatives."""
    positive: np.ndarray
    """(patients,) bool: which have a positive row."""
    negative: np.ndarray
    """The same of a negative row; a patient may have both."""

    @property
    def rarer(self) -> np.ndarray:
        """(patients,) bool: those of the class of which fewer patients are."""
        return self.positive if self.positive.sum() <= self.negative.sum() else self.negative


def components(scores: np.ndarray, labels: np.ndarray, patients: np.ndarray, size: int) -> Components:
    """From ranks, in O(n log n); ties count half.

    Args:
        scores, labels: (rows,), labels 0 or 1 of both kinds.
        patients: (rows,) int, below ``size``.
    """
    positive = labels == 1
    count, others = int(positive.sum()), int((~positive).sum())
    ranks = rankdata(scores)
    below = (ranks[positive] - rankdata(scores[positive])) / others
    above = 1 - (ranks[~positive] - rankdata(scores[~positive])) / count
    auc = float(below.mean())
    of, of_others = patients[positive], patients[~positive]
    return Components(
        auc,
        np.bincount(of, below - auc, minlength=size) / count,
        np.bincount(of_others, above - auc, minlength=size) / others,
        np.bincount(of, minlength=size) > 0,
        np.bincount(of_others, minlength=size) > 0,
    )


def mean_variance(aucs: Sequence[Components]) -> float:
    """The variance of the mean of AUCs of the same patients; of one AUC, Obuchowski's.

    The covariance of two AUCs is Obuchowski's for two tests, with the geometric mean of their corrections for small
    samples, since each may know other patients' labels.
    """

    def summed(members: Sequence[np.ndarray], parts: Sequence[np.ndarray]) -> np.ndarray:
        counts = [int(of.sum()) for of in members]
        scaled = [np.sqrt(n / (n - 1)) * part for n, part in zip(counts, parts, strict=True)]
        return np.sum(scaled, axis=0) / len(aucs)

    positives, negatives = [a.of_positives for a in aucs], [a.of_negatives for a in aucs]
    of_positives = summed([a.positive for a in aucs], positives)
    of_negatives = summed([a.negative for a in aucs], negatives)
    every = [a.positive | a.negative for a in aucs]
    both = summed(every, positives) @ summed(every, negatives)
    return max(0.0, float(of_positives @ of_positives + of_negatives @ of_negatives + 2 * both))


def mean_interval(aucs: Sequence[Components]) -> tuple[float, float] | None:
    """The 95% interval of the mean of AUCs; None where they have no variance, as when positives and negatives part.

    On the logit scale, so that it stays within 0 and 1, with Student's t: of one AUC with as many degrees of freedom
    as the rarer class has patients, less one. Of several the patients are counted as Kish counts a weighted sample, each
    with its share of the AUCs' variances: as many as one AUC has where all rest on the same patients, more where not.
    """
    variance, value = mean_variance(aucs), float(np.mean([a.auc for a in aucs]))
    if variance <= 0 or not 0 < value < 1:
        return None
    shares = np.sum([mean_variance([a]) / a.rarer.sum() * a.rarer for a in aucs], axis=0)
    if not shares.any():
        return None
    count = shares.sum() ** 2 / (shares @ shares)
    half = student.ppf((1 + _LEVEL) / 2, count - 1) * np.sqrt(variance) / (value * (1 - value))
    low, high = expit(logit(value) + np.array([-half, half]))
    return float(low), float(high)


def rate_interval(hits: np.ndarray, patients: np.ndarray) -> tuple[float, float] | None:
    """The 95% interval of a rate: Wilson's (1927) of as many independent rows as tell as much.

    Their number is p (1 - p) by the variance between patients (as Kott and Carr 1997, Journal of Official Statistics 13:
    123-136), the rows at most; with patients who are all alike, as at a rate of 0 or 1, it is the number of patients. The quantile is
    the geometric mean of the normal one and Student's: with the one alone 91% of the intervals of 8 patients held the truth, with the
    other up to 98.5% (tests/benchmarks/RESULTS.md).

    Args:
        hits: (rows,) 0 or 1.
        patients: (rows,) int.
    Returns:
        None for fewer than two patients.
    """
    own = np.unique(patients, return_inverse=True)[1]
    count, rows = int(own.max()) + 1, len(hits)
    if count < 2:
        return None
    rate = float(hits.mean())
    apart = np.bincount(own, hits - rate)
    variance = count / (count - 1) * float(apart @ apart) / rows**2
    size = min(rate * (1 - rate) / variance, rows) if variance > 0 else count
    square = float(norm.ppf((1 + _LEVEL) / 2) * student.ppf((1 + _LEVEL) / 2, count - 1))
    middle = (rate + square / (2 * size)) / (1 + square / size)
    half = np.sqrt(square / size * (rate * (1 - rate) + square / (4 * size))) / (1 + square / size)
    return float(np.clip(middle - half, 0.0, rate)), float(np.clip(middle + half, rate, 1.0))  # rounding


def clustered_mean(values: np.ndarray, patients: np.ndarray, within: Range = ANY) -> tuple[float, float] | None:
    """``jackknife`` of a mean over rows, at once.

    Args:
        values: (rows,). patients: (rows,) int.
    """
    own = np.unique(patients, return_inverse=True)[1]
    rows, sums = np.bincount(own), np.bincount(own, values)
    if len(rows) < 2:
        return None
    return _jackknifed(sums.sum() / rows.sum(), (sums.sum() - sums) / (rows.sum() - rows), rows, within)


def jackknife(
    statistic: Callable[[np.ndarray], float], patients: np.ndarray, within: Range = ANY
) -> tuple[float, float] | None:
    """The 95% interval of a smooth figure of rows, by the jackknife over patients (Efron and Stein 1981, Annals of Statistics 9:
    586-596) and Student's t, with the patients counted as Kish counts a sample in which some weigh more.

    Args:
        statistic: weights of the rows → figure. patients: (rows,) int.
        within: what the figure can be: so far the interval reaches.
    Returns:
        None for fewer than two patients, where they do not differ, and where the figure is undefined without one of them.
    """
    own = np.unique(patients, return_inverse=True)[1]
    rows = np.bincount(own)
    if len(rows) < 2:
        return None
    without = np.array([statistic((own != one).astype(np.float64)) for one in range(len(rows))])
    return _jackknifed(statistic(np.ones(len(own))), without, rows, within)


def _jackknifed(value: float, without: np.ndarray, rows: np.ndarray, within: Range) -> tuple[float, float] | None:
    """Of the figure without each patient, who has so many rows."""
    error = np.sqrt((len(rows) - 1) / len(rows) * ((without - value) ** 2).sum())
    if not np.isfinite(error) or error < 1e-12 * max(abs(value), 1):
        return None
    half = student.ppf((1 + _LEVEL) / 2, rows.sum() ** 2 / (rows**2).sum() - 1) * error
    return float(max(value - half, within[0])), float(min(value + half, within[1]))
