"""Weights and a line that a film's answer takes from other patients' films only.

Parts are the folds, or, where only one fold is there, five parts of its patients. The weights and the line of a part
come from the films of the other parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medray.metrics.least_absolute import steady_weights
from medray.shards.folds import assign_folds
from medray.systems.boneage.scores.bands import band_of
from medray.systems.boneage.scores.ensemble import ABOUT, as_ages, members_in, predictions_of, present_mean
from medray.systems.boneage.words import number

LEAST_FILMS = 10
"""With fewer, weights are equal and there is no line."""
PARTS = 5


@dataclass(frozen=True)
class Line:
    """true ≈ intercept + slope · predicted."""

    intercept: float = 0.0
    slope: float = 1.0
    reason: str = ""
    """Why there is none: then what is predicted stays as it is."""

    def at(self, predicted: np.ndarray) -> np.ndarray:
        return self.intercept + self.slope * predicted


def nested_ages(rows: pd.DataFrame, names: Sequence[str]) -> tuple[pd.DataFrame, dict[int, np.ndarray]]:
    """The nested ensemble of some models.

    Args:
        rows: films with a known age: the columns ``ensemble.ABOUT`` and the models, NaN where one has not read a film.
        names: of the models.
    Returns:
        Of the same index: part, constant (the median age of the other parts' films), ensemble (the weighted mean),
        corrected (after the line), months. And part → (models,) weights.
    """
    predictions, truth = predictions_of(rows, names), rows["age_months"].to_numpy(dtype=np.float64)
    parts = parts_of(rows[[*ABOUT, *names]])
    blended, corrected, constant = (np.full(len(rows), np.nan) for _ in range(3))
    weights: dict[int, np.ndarray] = {}
    for part in map(int, np.unique(parts)):
        own = parts == part
        weights[part], _ = weights_of(rows[~own], names)
        line = line_of(present_mean(predictions[:, ~own], weights[part]), truth[~own])
        blended[own] = present_mean(predictions[:, own], weights[part])
        corrected[own] = as_ages(line.at(blended[own]))
        blended[own] = as_ages(blended[own])
        constant[own] = np.median(truth[~own]) if (~own).any() else np.nan
    columns = {"part": parts, "constant": constant, "ensemble": blended, "corrected": corrected}
    return pd.DataFrame(columns, index=rows.index), weights


def parts_of(rows: pd.DataFrame) -> np.ndarray:
    """(rows,) int: the fold of each, or, where there is but one, one of PARTS parts of the patients (fewer of fewer
    patients), balanced over bands of age."""
    folds = rows["fold"].to_numpy(dtype=np.int64)
    if len(np.unique(folds)) > 1:
        return folds
    patients = _numbered(rows)
    parts = min(PARTS, len(np.unique(patients)))
    if parts < 2:
        return np.zeros(len(rows), dtype=np.int64)
    of_patient = assign_folds(patients, band_of(rows["age_months"].to_numpy(dtype=np.float64)), parts, seed=0)
    return of_patient.loc[patients].to_numpy(dtype=np.int64)


def _numbered(rows: pd.DataFrame) -> np.ndarray:
    """(rows,) the number of each one's patient, in the order of what their films show: identifiers are hashes of a
    key, and results must not depend on it."""
    shown = in_order(rows)
    numbers, _ = pd.factorize(rows["patient_id"].to_numpy()[shown])
    out = np.empty(len(rows), dtype=np.int64)
    out[shown] = numbers
    return out


def in_order(ages: pd.DataFrame) -> np.ndarray:
    """(rows,) places that sort films by fold, age and what the models say, and by their identifiers only where all of
    that is the same."""
    keys = ages[["fold", "age_months", "calendar_months", *members_in(ages), "film_id"]].reset_index(drop=True)
    return keys.sort_values(list(keys.columns), kind="stable").index.to_numpy()


def weights_of(rows: pd.DataFrame, names: Sequence[str]) -> tuple[np.ndarray, float]:
    """(models,) weights for films of other patients, and how much of them is equal (``steady_weights``); of the films
    that all models have read, and equal where these are fewer than LEAST_FILMS.

    Args:
        rows: as ``nested_ages``.
    """
    predictions, truth = predictions_of(rows, names), rows["age_months"].to_numpy(dtype=np.float64)
    whole = np.isfinite(predictions).all(axis=0)
    if not len(predictions):
        return np.zeros(0), 1.0
    if whole.sum() < LEAST_FILMS:
        return np.full(len(predictions), 1 / len(predictions)), 1.0
    return steady_weights(predictions[:, whole], truth[whole], parts_of(rows.loc[whole, [*ABOUT, *names]]))


def line_of(predicted: np.ndarray, truth: np.ndarray) -> Line:
    """The least-squares line; none of fewer than LEAST_FILMS films, of ages that do not differ, or one that does not
    rise."""
    if len(truth) < LEAST_FILMS:
        return Line(reason=f"{number(len(truth), 'film')} with a known age: a line needs {LEAST_FILMS}")
    spread = predicted - predicted.mean()
    if np.ptp(predicted) < 1e-6:
        return Line(reason="the predicted ages do not differ")
    slope = float((spread * (truth - truth.mean())).sum() / (spread**2).sum())
    if slope <= 0:
        return Line(reason="the films that were read as older are not older")
    return Line(float(truth.mean() - slope * predicted.mean()), slope)
