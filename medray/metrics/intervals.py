"""95% intervals of scores of rows that come in patients, or the reason why there is none.

AUCs, rates and means over patients of any kind have the intervals of ``medray.metrics.clustered``. Of any other score patients are resampled: rows of one patient
are not independent. How often the intervals hold the truth is what tests/benchmarks/bench_intervals.py prints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm
from scipy.stats import t as student

from medray.metrics.binary import Ranking, log_losses
from medray.metrics.clustered import ANY, Range, clustered_mean, components, mean_interval, rate_interval

LEAST_PATIENTS = 5
"""With fewer patients of the rarer class there is no interval."""
LEAST_PRECISION = 10
"""Of an average precision, which depends on the few positives with the highest scores."""
LEAST_AT_SENSITIVITY = 100
"""Of a specificity at a given sensitivity: its threshold rests on the few positives with the lowest scores."""

LEAST_RATE = 8
"""Patients, of a rate."""
LEAST_BRIER = 8
LEAST_PREDICTIVE = 20
"""Of a predictive value: few of its patients are wrong, and which of them there are is chance."""
LEAST_F1 = 10
LEAST_KAPPA = 10
"""Of patients of whom somebody says yes, and of those of whom both say no."""

LEAST_DEFINED = 0.5
"""Part of the draws of patients in which a score has a value: of fewer they tell of other figures."""

Statistic = Callable[[np.ndarray], float]
"""Weights of the rows that count → figure; NaN where it is undefined."""
Figure = dict[str, Any]
"""value, low and high of its 95% interval: float, or None; and a reason where one of them is None."""


@dataclass(frozen=True, eq=False)
class Score:
    """A figure of rows, and the labels on which its uncertainty rests."""

    statistic: Statistic
    labels: np.ndarray
    """(rows,) 1 positive, 0 not, NaN: the row does not count."""
    classes: tuple[int, ...] = (1, 0)
    """Which of the labels must come from enough patients; empty: rows of any."""
    least: int = LEAST_PATIENTS
    ranked: np.ndarray | None = None
    """(rows,) the scores that an AUC ranks."""
    parts: Mapping[str, Score] = field(default_factory=dict)
    """The AUCs that this is the mean of."""
    rows: np.ndarray | None = None
    """(rows,) bool: those that count, where ``labels`` does not say."""
    own: Callable[[np.ndarray], tuple[float, float] | None] | None = None
    """Its interval, where it is not of draws: of the patients of the rows that count."""

    @cached_property
    def known(self) -> np.ndarray:
        """(rows,) bool: the rows that count."""
        return ~np.isnan(self.labels) if self.rows is None else self.rows

    def value(self, weights: np.ndarray) -> float:
        """The figure for (rows,) weights."""
        return self.statistic(weights if self.known.all() else weights[self.known])

    def rests_on(self, patients: np.ndarray) -> tuple[int, str]:
        """Of how many patients the rarer class is, and in words: "3 positive patients"."""
        counts = [(len(np.unique(patients[self.labels == kind])), _WHOSE[kind]) for kind in self.classes]
        number, words = min(counts or [(len(np.unique(patients[self.known])), _ANY)], key=lambda count: count[0])
        return number, f"{number} {words[number != 1]}"

    def lacks(self, patients: np.ndarray) -> str | None:
        """Why there is no interval, for (rows,) patients; None where there is one."""
        for name, part in self.parts.items():
            if (reason := part.lacks(patients)) is not None:
                return f"{name} has {reason}"
        number, words = self.rests_on(patients)
        return f"{words}, fewer than {self.least}" if number < self.least and not self.parts else None


_WHOSE = {1: ("positive patient", "positive patients"), 0: ("patient with negatives", "patients with negatives")}
_ANY = ("patient", "patients")


def auc(scores: np.ndarray, labels: np.ndarray) -> Score:
    """Area under the ROC curve of (rows,) scores; rows whose label is NaN do not count, here and below."""
    known = ~np.isnan(labels)
    return Score(Ranking(scores[known], labels[known]).auc, labels, ranked=scores)


def mean_auc(parts: Mapping[str, Score]) -> Score:
    """The mean of AUCs of the same rows; undefined as soon as one is, since a mean over fewer is another figure."""

    def mean(weights: np.ndarray) -> float:
        return float(np.mean([part.value(weights) for part in parts.values()]))

    rows = len(next(iter(parts.values())).labels)
    return Score(mean, np.zeros(rows), parts=parts)


def average_precision(scores: np.ndarray, labels: np.ndarray) -> Score:
    known = ~np.isnan(labels)
    return Score(Ranking(scores[known], labels[known]).average_precision, labels, least=LEAST_PRECISION)


def specificity_at(sensitivity: float, scores: np.ndarray, labels: np.ndarray) -> Score:
    """The highest specificity of a threshold with at least this sensitivity."""
    known = ~np.isnan(labels)
    ranking = Ranking(scores[known], labels[known])
    return Score(lambda weights: ranking.specificity_at(sensitivity, weights), labels, least=LEAST_AT_SENSITIVITY)


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> Score:
    """Mean binary cross-entropy, in nats; undefined without positives, of which it would say nothing."""
    of_all = mean(log_losses(probabilities, labels), labels)
    return of_all if (labels == 1).any() else replace(of_all, statistic=lambda weights: float("nan"))


def brier(probabilities: np.ndarray, labels: np.ndarray) -> Score:
    """Mean squared difference of probability and label (Brier 1950)."""
    return replace(mean((np.asarray(probabilities, np.float64) - labels) ** 2, labels), least=LEAST_BRIER)


def rate(hits: np.ndarray, labels: np.ndarray | None = None) -> Score:
    """The part of (rows,) that are 1, of those that are 1 or 0; NaN does not count: a sensitivity is the rate of answers among
    positives.

    Args:
        labels: of all rows, for a predictive value, the rate of true answers among those of one kind: enough patients must be
            positive for it.
    """
    counts = ~np.isnan(hits)
    counted = np.asarray(hits, dtype=np.float64)[counts]

    def statistic(weights: np.ndarray) -> float:
        return float(np.average(counted, weights=weights)) if weights.any() else float("nan")

    def own(patients: np.ndarray) -> tuple[float, float] | None:
        return rate_interval(counted, patients)

    if labels is None:
        return Score(statistic, np.where(counts, 0.0, np.nan), (), LEAST_RATE, own=own)
    return Score(statistic, labels, (1,), LEAST_PREDICTIVE, rows=counts, own=own)


def f1(decided: np.ndarray, labels: np.ndarray) -> Score:
    """Of (rows,) answers, 1 or 0; rows whose label or answer is NaN do not count."""
    counted = np.where(np.isnan(decided), np.nan, labels)
    known = ~np.isnan(counted)
    both, either = (decided * labels)[known], (decided + labels)[known]

    def statistic(weights: np.ndarray) -> float:
        every = weights @ either
        return float(2 * (weights @ both) / every) if every and weights @ labels[known] else float("nan")

    return Score(statistic, counted, (1,), LEAST_F1)


def kappa(first: np.ndarray, second: np.ndarray) -> Score:
    """Cohen's, of two (rows,) answers of 1 or 0; undefined where one of the two always says the same."""
    counted = np.where(np.isnan(first) | np.isnan(second), np.nan, np.maximum(first, second))
    known = ~np.isnan(counted)
    one, other = first[known], second[known]

    def statistic(weights: np.ndarray) -> float:
        total = weights.sum()
        if not total:
            return float("nan")
        a, b, same = weights @ one / total, weights @ other / total, weights @ (one == other) / total
        chance = a * b + (1 - a) * (1 - b)
        return float((same - chance) / (1 - chance)) if chance < 1 - 1e-12 else float("nan")

    return Score(statistic, counted, (1, 0), LEAST_KAPPA)


def mean(values: np.ndarray, labels: np.ndarray | None = None, within: Range = ANY) -> Score:
    """The mean of (rows,) values, or of paired differences; NaN does not count.

    Args:
        labels: (rows,) where positive rows weigh most, as in a loss of a rare class, they must come from enough patients.
            None: patients of any kind.
        within: what a value can be, as a Dice is 0 to 1: so far the interval reaches, but for that of labels.
    """
    kinds = np.zeros(len(values)) if labels is None else np.nan_to_num(labels)
    counted = values[~np.isnan(values)]

    def statistic(weights: np.ndarray) -> float:
        return float(np.average(counted, weights=weights)) if weights.any() else float("nan")

    counts = np.where(np.isnan(values), np.nan, kinds)
    if labels is not None:
        return Score(statistic, counts, (1,))
    return Score(statistic, counts, (), own=lambda patients: clustered_mean(counted, patients, within))


def intervals(scores: Mapping[str, Score], groups: np.ndarray, samples: int = 1000, seed: int = 0) -> dict[str, Figure]:
    """Value and 95% interval of each score, or why there is none.

    All scores see the same draws of patients, so that the mean of a difference is paired. The interval of what is
    resampled is the bootstrap's percentile interval, expanded for small samples as in Hesterberg 2015, The American
    Statistician 69: 371-386, with the number of patients of the rarer class. Draws in which a score is undefined do
    not count.

    Args:
        scores: name → score of the same rows.
        groups: (rows,) the patient of each row.
        samples: draws of patients.
    """
    # numbered as they appear, not as they sort: identifiers are hashes of a key, and results must not depend on it
    patients, distinct = pd.factorize(groups)
    ones = np.ones(len(patients))
    out = {name: _undefined(score) | _finite(score.value(ones)) for name, score in scores.items()}
    open_ = {name: score for name, score in scores.items() if out[name]["value"] is not None}
    drawn: dict[str, list[float]] = {}
    for name, score in open_.items():
        out[name] |= {"reason": score.lacks(patients)}
        if out[name]["reason"] is None and (score.parts or score.ranked is not None):
            out[name] |= _of_aucs(list(score.parts.values()) or [score], patients, len(distinct))
        elif out[name]["reason"] is None and score.own is not None:
            low, high = score.own(patients[score.known]) or (None, None)
            out[name] |= {"low": low, "high": high} | (
                {"reason": "its patients do not differ, or it is undefined without one of them"} if low is None else {}
            )
        elif out[name]["reason"] is None:
            drawn[name] = []
    rng = np.random.default_rng(seed)
    for _ in range(samples if drawn else 0):
        times = np.bincount(rng.integers(0, len(distinct), len(distinct)), minlength=len(distinct))
        weights = times[patients].astype(np.float64)
        for name, values in drawn.items():
            values.append(scores[name].value(weights))
    for name, values in drawn.items():
        finite = np.array(values)[np.isfinite(values)]
        if len(finite) < LEAST_DEFINED * samples:
            out[name] |= {"reason": "in most draws of patients it is undefined"}
            continue
        tail = expanded_tail(scores[name].rests_on(patients)[0])
        low, high = np.quantile(finite, [tail, 1 - tail])
        out[name] |= {"low": float(low), "high": float(high)}
    return {name: {key: v for key, v in of.items() if key != "reason" or v is not None} for name, of in out.items()}


def expanded_tail(number: int) -> float:
    """The share of draws outside each end of an interval that rests on so many patients, 2 or more; .025 for many."""
    return float(norm.cdf(np.sqrt(number / (number - 1)) * student.ppf(0.025, number - 1)))


def undefined(reason: str) -> Figure:
    """A figure that cannot be had."""
    return {"value": None, "low": None, "high": None, "reason": reason}


def _of_aucs(aucs: list[Score], patients: np.ndarray, size: int) -> Figure:
    parts = []
    for one in aucs:
        assert one.ranked is not None
        parts.append(components(one.ranked[one.known], one.labels[one.known], patients[one.known], size))
    found = mean_interval(parts)
    if found is None:
        apart = all(part.auc == 1 for part in parts)
        return {
            "reason": "all positives rank above all negatives" if apart else "patients do not differ in how they rank"
        }
    return {"low": found[0], "high": found[1]}


def _undefined(score: Score) -> Figure:
    if score.parts:
        return undefined("an AUC that it is the mean of is undefined")
    if not score.known.any():
        return undefined("no row counts" if score.own else "no label is known")
    absent = [name for kind, name in ((1, "positive"), (0, "negative")) if not (score.labels == kind).any()]
    return undefined(f"no label is {absent[0]}" if absent else "it has no finite value")


def _finite(value: float) -> Figure:
    return {"value": float(value)} if np.isfinite(value) else {}
