"""Weights of several models for the least mean absolute error: exactly, by a linear program, and steadied for new rows."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog

from medray.metrics.blend import shares

EQUAL_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""How much of ``steady_weights`` may be equal weights."""


def least_absolute(predictions: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(models,) weights, 0 or more, that sum to 1 and minimise the mean absolute error; a ``blend.Find``.

    On these rows the weighted mean is never worse than the best single model, nor than equal weights. The same
    arguments give the same weights. Where several weights are equally good (two models that predict the same), it is
    one of them, in no set order; without rows the weights are equal.

    Args:
        predictions: (models, rows), finite. truth: (rows,), finite.
    Raises:
        ValueError: no model, or a value that is not finite.
    """
    models, rows = predictions.shape
    if not models:
        raise ValueError("no model to weigh")
    if not rows:
        return np.full(models, 1 / models)
    if not (np.isfinite(predictions).all() and np.isfinite(truth).all()):
        raise ValueError("a prediction or a truth is not finite: leave such rows out")
    # min Σ|P'w − y| over w ≥ 0, Σw = 1 has the dual  max y'd + t  over |d| ≤ 1 with P d + t ≤ 0: one constraint a model
    # instead of one a row, 30 times as fast for 12,000 rows. The weights are the prices of its constraints.
    found = linprog(
        np.append(-truth, -1.0),
        A_ub=np.column_stack([predictions, np.ones(models)]),
        b_ub=np.zeros(models),
        bounds=[(-1, 1)] * rows + [(None, None)],
        method="highs",
    )
    if found.status != 0:
        raise RuntimeError(f"the linear program of the weights has no solution: {found.message}")
    weights = shares(np.maximum(-found.ineqlin.marginals, 0), models)
    # the solver's tolerances are of 1e-7: a single model that is as good is taken as it is
    candidates = np.vstack([weights, np.eye(models)])
    errors = np.abs(candidates @ predictions - truth).mean(axis=1)
    return candidates[int(errors.argmin())]


def steady_weights(predictions: np.ndarray, truth: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights of ``least_absolute``, drawn towards equal ones as far as that helps on rows that they were not found on.

    Few rows fit their own accidents: of a hundred films, exact weights of six models are often worse on new films than
    equal ones. How much of the weights is equal, of EQUAL_SHARES, is what errs least when each part is answered by the
    others' weights (of two that err alike, the more equal). On the rows given the answer is never worse than the best
    single model.

    Args:
        predictions: (models, rows), finite. truth: (rows,), finite.
        parts: (rows,) that must not be split, such as folds or parts of the patients; of a single one, the weights are
            exact.
    Returns:
        (models,) weights, 0 or more, that sum to 1; and their equal share.
    Raises:
        ValueError: as ``least_absolute``.
    """
    exact = least_absolute(predictions, truth)
    models, names = len(predictions), np.unique(parts)
    if models < 2 or len(names) < 2:
        return exact, 0.0
    errors = np.zeros(len(EQUAL_SHARES))
    for part in names:
        own = parts == part
        found = _mixes(least_absolute(predictions[:, ~own], truth[~own]))
        errors += np.abs(found @ predictions[:, own] - truth[own]).sum(axis=1)
    mixes = _mixes(exact)
    here = np.abs(mixes @ predictions - truth).mean(axis=1)
    best_model = np.abs(predictions - truth).mean(axis=1).min()
    allowed = here <= best_model
    allowed[0] = True  # the exact ones, but for rounding
    errors[~allowed] = np.inf
    chosen = len(errors) - 1 - int(errors[::-1].argmin())
    return mixes[chosen], EQUAL_SHARES[chosen]


def _mixes(weights: np.ndarray) -> np.ndarray:
    """(shares, models): the weights with each of EQUAL_SHARES of equal ones."""
    equal = np.array(EQUAL_SHARES)[:, None]
    return (1 - equal) * weights + equal / len(weights)
