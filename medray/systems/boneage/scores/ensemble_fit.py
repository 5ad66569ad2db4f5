"""Held-out ages of several models → the ensemble for new films, and answers to the held-out ones that can be scored.

Everything is fitted twice: on all films with a known age, for new films; and nested (``nesting``), so that no film
has a part in its own answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medray.systems.boneage.scores.ensemble import (
    SEXES_OF,
    Ensemble,
    Group,
    as_ages,
    groups_of,
    members_in,
    predictions_of,
    present_mean,
)
from medray.systems.boneage.scores.nesting import LEAST_FILMS, line_of, nested_ages, weights_of
from medray.systems.boneage.words import number

LEAST_INTERVAL = 19
"""So many residuals must there be before the largest of them holds 95%."""


@dataclass(frozen=True)
class Fit:
    """What ``fit`` finds."""

    ensemble: Ensemble
    answers: pd.DataFrame
    """Of the ages' index: group, part (-1 where the film fitted nothing), mean (of the models of its group), constant
    (median age of the other parts), ensemble, corrected, low, high; months. Films without a known age are answered as
    new ones."""
    weights: dict[str, list[list[float]]]
    """Group → for each part, the weights by which it was answered."""


def fit(ages: pd.DataFrame, correct: bool = True) -> Fit:
    """Weights of little mean absolute error, a line against the pull to the mean, and a conformal width, by group.

    The group "unknown" is fitted on all films, whatever their sex: models of both have read them all.

    Args:
        ages: one row a held-out film, of an index without repetition: the columns ``ensemble.ABOUT`` and one for each
            model, NaN where it has not read the film.
        correct: the answer is the corrected age.
    Raises:
        ValueError: a column that is no model's.
    """
    members, groups = members_in(ages), groups_of(ages)
    columns = ["mean", "constant", "ensemble", "corrected", "low", "high"]
    answers = pd.DataFrame(index=ages.index, columns=columns, dtype=np.float64)
    parts = pd.Series(-1, index=ages.index)
    fitted: dict[str, Group] = {}
    weights: dict[str, list[list[float]]] = {}
    for name, sexes in SEXES_OF.items():
        names = [one for one, member in members.items() if member.sexes in sexes]
        own = groups == name
        rows = ages[(own | (name == "unknown")) & ages["age_months"].notna().to_numpy()]
        read = np.isfinite(predictions_of(rows, names))
        if read.any():  # a model that has read none of these films has no say in them
            names = [one for one, reads in zip(names, read.any(axis=1), strict=True) if reads]
        rows = rows[read.any(axis=0)]
        fitted[name], of_rows, by_part = _fit_group(rows, names, correct)
        weights[name] = by_part
        shown = of_rows.index[groups_of(rows) == name]
        answers.loc[shown] = of_rows.loc[shown, answers.columns]
        parts.loc[shown] = of_rows.loc[shown, "part"]
        answers.loc[own, "mean"] = present_mean(predictions_of(ages[own], names), np.ones(len(names)))
    ensemble = Ensemble(fitted, correct)
    new = parts.to_numpy() < 0
    said = ["ensemble", "corrected", "low", "high"]
    answers.loc[new, said] = ensemble.of(ages[new])[said]
    answers.insert(0, "part", parts)
    answers.insert(0, "group", groups)
    return Fit(ensemble, answers, weights)


def _fit_group(
    rows: pd.DataFrame, names: Sequence[str], correct: bool
) -> tuple[Group, pd.DataFrame, list[list[float]]]:
    """Of films with a known age that a model has read: the group, their nested answers (columns of ``Fit.answers``),
    and the weights of each part."""
    predictions, truth = predictions_of(rows, names), rows["age_months"].to_numpy(dtype=np.float64)
    answers, by_part = nested_ages(rows, names)
    column = "corrected" if correct else "ensemble"
    half = np.full(len(rows), np.nan)
    for part in by_part:  # the width of a part: of the others' errors, in whose answers it had no part either
        own = (answers["part"] == part).to_numpy()
        others, _ = nested_ages(rows[~own], names)
        half[own] = _number(half_width(np.abs(others[column].to_numpy() - truth[~own])))
    weights, equal = weights_of(rows, names)
    line = line_of(present_mean(predictions, weights), truth)
    answer = answers[column].to_numpy()
    width = half_width(np.abs(answer - truth))
    reasons = {
        "weights": _why_equal(predictions),
        "correction": line.reason,
        "interval": _why_no_interval(len(rows)),
    }
    group = Group(
        members=tuple(names),
        weights=tuple(weights.tolist()),
        intercept=line.intercept,
        slope=line.slope,
        half_width=width,
        films=len(rows),
        equal_share=equal,
        reasons={what: why for what, why in reasons.items() if why},
    )
    answers["mean"] = present_mean(predictions, np.ones(len(names)))
    answers["low"], answers["high"] = (as_ages(answer + side * half) for side in (-1, 1))
    return group, answers, [by_part[part].tolist() for part in sorted(by_part)]


def _number(value: float | None) -> float:
    return np.nan if value is None else value


def _why_no_interval(films: int) -> str:
    return (
        ""
        if films >= LEAST_INTERVAL
        else f"{number(films, 'film')} with a known age: an interval needs {LEAST_INTERVAL}"
    )


def _why_equal(predictions: np.ndarray) -> str:
    models, films = predictions.shape
    whole = int(np.isfinite(predictions).all(axis=0).sum()) if models else 0
    if models < 2 or whole >= LEAST_FILMS:
        return ""
    read = "" if whole == films else f", of which all {models} models have read {whole}"
    return f"{number(films, 'film')} with a known age{read}: weights need {LEAST_FILMS}"


def half_width(errors: np.ndarray) -> float | None:
    """The conformal half width of a 95% interval (split conformal prediction): of n absolute errors the
    ceil((n + 1) · 0.95)-th smallest; None of fewer than LEAST_INTERVAL."""
    n = len(errors)
    if n < LEAST_INTERVAL:
        return None
    return float(np.sort(errors)[-(-(n + 1) * 95 // 100) - 1])
