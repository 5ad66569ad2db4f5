"""Weights of several models for one answer, for any score: probabilities, ages, votes of a grade."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import optuna

Mean = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(models, rows, ...) predictions and (models,) weights → (rows, ...)."""
Find = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(models, rows, ...) predictions and (rows, ...) truth → (models,) weights; equal where there is no row."""


def nested(
    predictions: np.ndarray, truth: np.ndarray, folds: np.ndarray, find: Find, mean: Mean
) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Blend every fold with weights found on the other folds only, so that the blend can be scored on all of them.

    Args:
        predictions: (models, rows, ...). truth: (rows, ...). folds: (rows,).
    Returns:
        (rows, ...), and fold → (models,) weights.
    """
    blended = np.empty(predictions.shape[1:])
    weights: dict[int, np.ndarray] = {}
    for fold in np.unique(folds):
        own = folds == fold
        found = find(predictions[:, ~own], truth[~own])
        blended[own] = mean(predictions[:, own], found)
        weights[int(fold)] = found
    return blended, weights


def weighted_mean(
    predictions: np.ndarray, weights: np.ndarray, values: Callable[[np.ndarray], np.ndarray] = np.asarray
) -> np.ndarray:
    """A ``Mean``; model by model, without a second array of all of them.

    Args:
        values: of one model's predictions what is averaged, such as their logits.
    """
    total = np.zeros(predictions.shape[1:])
    for share, one in zip(shares(weights, len(predictions)), predictions, strict=True):
        total += share * values(one)
    return total


def search(loss: Callable[[np.ndarray], float], models: int, trials: int, seed: int) -> np.ndarray:
    """(models,) weights that minimise ``loss``; the same for the same arguments. Every single model and equal weights are
    tried first, so the result is never worse than the best of those.

    Args:
        loss: of (models,) weights that sum to 1: for a score of which more is better, such as kappa, its negative.
        trials: with those that it begins with: at least models + 1 are made.
    """
    names = [f"w{i}" for i in range(models)]

    def objective(trial: optuna.Trial) -> float:
        return loss(shares([trial.suggest_float(name, 0, 1) for name in names], models, zero_is_equal=True))

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a line a trial otherwise; there is no setting of one study
    try:
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
        for start in (*np.eye(models), np.ones(models)):
            study.enqueue_trial(dict(zip(names, start.tolist(), strict=True)))
        study.optimize(objective, n_trials=max(trials, models + 1))
    finally:
        optuna.logging.set_verbosity(verbosity)
    return shares([study.best_params[name] for name in names], models, zero_is_equal=True)


def shares(weights: Any, models: int, zero_is_equal: bool = False) -> np.ndarray:
    """Scaled to sum 1; all 0 are equal shares where a search may draw them, and a mistake elsewhere."""
    given = np.asarray(weights, dtype=np.float64)
    if given.shape != (models,):
        raise ValueError(f"{given.size} weights for {models} models")
    if not np.isfinite(given).all() or (given < 0).any():
        raise ValueError(f"weights must be 0 or more: {given.tolist()}")
    if not given.any():
        if not zero_is_equal:
            raise ValueError("all weights are 0")
        return np.full(models, 1 / models)
    return given / given.sum()
