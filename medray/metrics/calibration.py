"""Whether probabilities come true: calibration in the large, and the slope, with 95% intervals of rows that come in patients.

Cox DR. Two further applications of a model for binary regression. Biometrika 1958; 45: 562-565; as Van Calster and others ask for
(BMC Medicine 2019; 17: 230). The variance is the sandwich's over patients (Liang and Zeger, Biometrika 1986; 73: 13-22).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import t as student
from sklearn.linear_model import LogisticRegression

from medray.metrics.intervals import Figure, Score, undefined

LEAST_CALIBRATION = 10
"""With fewer patients of the rarer class there is no interval, as the simulation in tests/benchmarks/bench_intervals.py shows."""
_CLIP = 1e-6  # a logit of a saturated probability would be the whole fit
_WIDEST = 30.0  # of an intercept: odds of 10^13


def calibration_line(probabilities: np.ndarray, labels: np.ndarray, patients: np.ndarray) -> dict[str, Figure]:
    """How labels follow from the logits of probabilities.

    Args:
        probabilities, labels: (rows,), labels 0, 1 or NaN, which does not count.
        patients: (rows,) whose they are.
    Returns:
        intercept: what is to be added to every logit so that as many are positive as expected, 0 where that is so
        already; slope: how much steeper or (below 1) flatter the logits should be. Figures as
        ``medray.metrics.intervals.intervals`` gives them.
    """
    known = ~np.isnan(labels)
    truth, of = labels[known], pd.factorize(patients[known])[0]
    for kind, name in ((1, "positive"), (0, "negative")):
        if not (truth == kind).any():
            return {each: undefined(f"no label is {name}") for each in ("intercept", "slope")}
    given = logit(np.clip(np.asarray(probabilities, np.float64)[known], _CLIP, 1 - _CLIP))
    rests = Score(lambda weights: float("nan"), truth, least=LEAST_CALIBRATION)
    count, reason = rests.rests_on(of)[0], rests.lacks(of)
    return {
        "intercept": _figure(_intercept(given, truth, of), count, reason),
        "slope": _figure(_slope(given, truth, of), count, reason),
    }


def _figure(found: tuple[float, float] | None, count: int, reason: str | None) -> Figure:
    if found is None:
        return undefined("probabilities part the labels, or are all alike")
    value, error = found
    if reason is not None:
        return {"value": value, "low": None, "high": None, "reason": reason}
    half = float(student.ppf(0.975, count - 1)) * error
    return {"value": value, "low": value - half, "high": value + half}


def _intercept(given: np.ndarray, truth: np.ndarray, of: np.ndarray) -> tuple[float, float] | None:
    """Value and standard error."""

    def surplus(shift: float) -> float:
        return float((truth - expit(given + shift)).sum())

    if surplus(-_WIDEST) * surplus(_WIDEST) >= 0:
        return None
    shift = float(brentq(surplus, -_WIDEST, _WIDEST))
    return shift, float(_errors(np.ones((len(given), 1)), truth, expit(given + shift), of)[0])


def _slope(given: np.ndarray, truth: np.ndarray, of: np.ndarray) -> tuple[float, float] | None:
    """Value and standard error."""
    positive = given[truth == 1]
    negative = given[truth == 0]
    if positive.min() >= negative.max() or positive.max() <= negative.min():
        return None
    fit = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(given[:, None], truth)
    fitted = fit.predict_proba(given[:, None])[:, 1]
    return float(fit.coef_[0, 0]), float(_errors(np.column_stack([np.ones(len(given)), given]), truth, fitted, of)[1])


def _errors(design: np.ndarray, truth: np.ndarray, fitted: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Of the coefficients: (rows, k) design, patients numbered from 0."""
    spread = np.linalg.pinv(design.T @ (design * (fitted * (1 - fitted))[:, None]))
    count = int(of.max()) + 1
    moved = np.stack([np.bincount(of, column * (truth - fitted), minlength=count) for column in design.T], axis=1)
    return np.sqrt(np.diag(spread @ (moved.T @ moved) @ spread) * count / max(count - 1, 1))
