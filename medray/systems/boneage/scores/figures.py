"""Scores of held-out films: mean absolute errors of every model and of the ensemble, with 95% intervals over
patients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from medray.metrics.intervals import Figure, rate
from medray.systems.boneage.scores.bias import bias
from medray.systems.boneage.scores.calendar_age import against_calendar, between_films
from medray.systems.boneage.scores.comparisons import fitted, pairs, source_table
from medray.systems.boneage.scores.ensemble import (
    SEXES_OF,
    Ensemble,
    Member,
    groups_of,
    members_in,
    predictions_of,
    present_mean,
)
from medray.systems.boneage.scores.ensemble_fit import Fit
from medray.systems.boneage.scores.means import means, parts_of_films
from medray.systems.boneage.words import SEXES

ANSWERS = ("ensemble", "corrected", "mean", "constant")
"""Of every film: the nested ensemble, the same after its nested line, the plain mean of the models, the median age of
the other films."""


def film_table(ages: pd.DataFrame, fit: Fit) -> pd.DataFrame:
    """One row a held-out film: ``ages``, what ``fit`` answers, and error: answer − age_months, NaN where one of them
    is not known."""
    table = ages.join(fit.answers)
    return table.assign(error=table[fit.ensemble.answer] - table["age_months"])


def score(films: pd.DataFrame, fit: Fit, refused: pd.DataFrame) -> dict[str, Any]:
    """Everything that metrics.json says; errors are in months, predicted − true.

    Args:
        films: from ``film_table``. refused: film_id, stage, reason.
    """
    answer = fit.ensemble.answer
    members = members_in(films.drop(columns=[*fit.answers.columns, "error"]))
    scored = films[films["error"].notna()].reset_index(drop=True)
    return {
        "answer": answer,
        "counts": counts(films, scored, refused),
        "mae": mean_absolute_errors(scored, members),
        "models": {name: vars(member) for name, member in members.items()},
        "source_table": source_table(scored, members),
        "pairs": pairs(scored, members, answer),
        "fitted": fitted(scored, fit.ensemble),
        "bias": bias(scored),
        "interval": {
            "within": means(within(scored), scored["patient_id"].to_numpy(), rate),
            "half_width": {name: group.half_width for name, group in fit.ensemble.groups.items()},
        },
        "calendar": against_calendar(films, answer),
        "repeatability": between_films(films, answer),
        "weights_by_part": fit.weights,
    }  # fmt: skip


def counts(films: pd.DataFrame, scored: pd.DataFrame, refused: pd.DataFrame) -> dict[str, int]:
    groups = groups_of(scored)
    return {
        "films": len(films),
        "scored": len(scored),
        "patients": scored["patient_id"].nunique(),
        **{name: int((groups == name).sum()) for name in SEXES_OF},
        "without_age": int(films["age_months"].isna().sum()),
        "without_answer": int(films["ensemble"].isna().sum()),
        "refused": refused["film_id"].nunique(),
    }


def mean_absolute_errors(scored: pd.DataFrame, members: Mapping[str, Member]) -> dict[str, dict[str, Figure]]:
    """Method → part of the films (``parts_of_films``) → mean absolute error, months, its interval, and how many films
    and patients there are. Methods: ANSWERS; each model; the plain mean of the models of each region, head and sexes,
    such as "region A", of the films that one of them has read. A model counts the films that it reads."""
    truth = scored["age_months"].to_numpy(dtype=np.float64)
    methods = {name: scored[name].to_numpy(dtype=np.float64) for name in (*ANSWERS, *members)}
    for what in ("region", "head", "sexes"):
        for value in dict.fromkeys(getattr(member, what) for member in members.values()):
            of = predictions_of(scored, [name for name, one in members.items() if getattr(one, what) == value])
            methods[f"{what} {value}"] = present_mean(of, np.ones(len(of)))
    parts, patients = parts_of_films(scored), scored["patient_id"].to_numpy()
    return {
        name: means({part: np.where(own, np.abs(months - truth), np.nan) for part, own in parts.items()}, patients)
        for name, months in methods.items()
    }


def within(scored: pd.DataFrame) -> dict[str, np.ndarray]:
    """Part of the films → (rows,) 1 where the age lies in the film's interval, whose width other films have given;
    NaN where there is none."""
    age = scored["age_months"]
    inside = ((scored["low"] <= age) & (age <= scored["high"])).to_numpy(dtype=np.float64)
    inside[scored["high"].isna()] = np.nan
    return {part: np.where(own, inside, np.nan) for part, own in parts_of_films(scored).items()}


def untested(metrics: Mapping[str, Any], ensemble: Ensemble) -> str:
    """ "no film of girls could be given an interval here", of groups that have a width for new films; nothing where all were."""
    within = metrics["interval"]["within"]
    groups = [
        SEXES[name] for name, g in ensemble.groups.items() if g.half_width is not None and not within[name]["films"]
    ]
    return f"no film of {' or '.join(groups)} could be given an interval here" if groups else ""
