"""Signed errors: who is read as too old or too young, by sex and age, and how far ages are pulled to the mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from medray.metrics.agreement import bland_altman, pearson
from medray.metrics.intervals import LEAST_PATIENTS, Figure, Score, intervals, undefined
from medray.systems.boneage.scores.bands import band_words
from medray.systems.boneage.scores.means import means, number_of, parts_of_films
from medray.systems.boneage.words import number


def bias(scored: pd.DataFrame) -> dict[str, Any]:
    """Of films with a known age and an answer; errors are predicted − true, months.

    Returns:
        signed: sex ("all", "girls", "boys") → "all" or a band → mean error with its interval and number, and the 95%
            limits of agreement low_months, high_months (None of fewer than LEAST_PATIENTS patients).
        slope: months of error a year of true age, and slope_before of the ensemble before its line; below 0: the
            young are read as too old and the old as too young. correlation: of predicted and true age.
    """
    truth = scored["age_months"].to_numpy(dtype=np.float64)
    error = scored["error"].to_numpy(dtype=np.float64)
    patients = scored["patient_id"].to_numpy()
    parts = parts_of_films(scored)
    whose = {
        (sex, part): parts[sex] & parts[part] for sex in ("all", "girls", "boys") for part in ("all", *band_words())
    }
    found = means({f"{sex}/{part}": np.where(own, error, np.nan) for (sex, part), own in whose.items()}, patients)
    signed: dict[str, dict[str, Any]] = {}
    for (sex, part), own in whose.items():
        figure = found[f"{sex}/{part}"]
        limits = bland_altman(truth[own], truth[own] + error[own])
        enough = figure["patients"] >= LEAST_PATIENTS
        signed.setdefault(sex, {})[part] = figure | {
            "low_months": limits.low if enough else None,
            "high_months": limits.high if enough else None,
        }
    before = scored["ensemble"].to_numpy(dtype=np.float64) - truth
    related = pearson(truth, truth + error)
    enough = found["all/all"]["patients"] >= LEAST_PATIENTS and np.isfinite(related)
    return {
        "signed": signed,
        "slope": slope(error, truth, patients),
        "slope_before": slope(before, truth, patients),
        "correlation": related if enough else None,
    }


def slope(errors: np.ndarray, truth: np.ndarray, patients: np.ndarray) -> Figure:
    """Months of error a year of true age, by least squares, with its interval over patients."""
    there = number_of(errors, patients)
    if there["patients"] < LEAST_PATIENTS:
        return undefined(f"{number(there['patients'], 'patient')}, fewer than {LEAST_PATIENTS}") | there
    years = truth / 12

    def statistic(weights: np.ndarray) -> float:
        if not weights.any():
            return float("nan")
        x = years - np.average(years, weights=weights)
        spread = float((weights * x * x).sum())
        return float((weights * x * errors).sum()) / spread if spread > 1e-9 else float("nan")

    return intervals({"slope": Score(statistic, np.zeros(len(errors)), ())}, patients)["slope"] | there
