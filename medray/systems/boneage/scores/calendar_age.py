"""Bone age against calendar age, where that is known: by how much they differ, and two films of a child soon after
each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from medray.metrics.agreement import repeatability
from medray.metrics.intervals import LEAST_PATIENTS
from medray.systems.boneage.scores.means import means
from medray.systems.boneage.words import number

NORMAL_SHARE = 0.1
"""Of the calendar age: a bone age that differs by more is outside of the normal band."""
SOON_MONTHS = 6.0
"""Between two films of a patient, so near that bone and calendar have gone on alike."""


def differences(months: np.ndarray, calendar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows,) bone − calendar age, months, and 1 where that is more than NORMAL_SHARE of the calendar age, else 0;
    NaN where one of them is not known, or a calendar age is 0."""
    difference = np.where(calendar > 0, months - calendar, np.nan)
    beyond = (np.abs(difference) > NORMAL_SHARE * calendar).astype(np.float64)
    return difference, np.where(np.isnan(difference), np.nan, beyond)


def against_calendar(films: pd.DataFrame, answer: str) -> dict[str, Any]:
    """Of films with a calendar age: the mean difference and the share beyond the normal band, by the answer
    (predicted) and by the label (true), and how often both are on the same side of the band (alike). With a reason in
    place of figures where no film has a calendar age and an answer.

    Args:
        films: columns patient_id, age_months, calendar_months, and the one that ``answer`` names.
    """
    calendar = films["calendar_months"].to_numpy(dtype=np.float64)
    predicted, predicted_beyond = differences(films[answer].to_numpy(dtype=np.float64), calendar)
    true, true_beyond = differences(films["age_months"].to_numpy(dtype=np.float64), calendar)
    if not np.isfinite(predicted).any():
        return {"reason": "no film has a calendar age"}
    alike = np.where(
        np.isnan(predicted_beyond) | np.isnan(true_beyond), np.nan, (predicted_beyond == true_beyond).astype(np.float64)
    )
    values = {
        "predicted": predicted,
        "true": true,
        "predicted_beyond": predicted_beyond,
        "true_beyond": true_beyond,
        "alike": alike,
    }
    return dict(means(values, films["patient_id"].to_numpy()))


def between_films(films: pd.DataFrame, answer: str) -> dict[str, Any]:
    """The repeatability coefficient of neighbouring films of one patient at most SOON_MONTHS apart: 95% of such pairs
    differ by less in what the answer says beyond the calendar age, by error alone. months, how many pairs and
    patients; None with a reason where fewer than LEAST_PATIENTS patients have such films."""
    known = films[films["calendar_months"].notna() & films[answer].notna()]
    first, second, who = [], [], []
    for patient, own in known.sort_values("calendar_months", kind="stable").groupby("patient_id", sort=False):
        calendar = own["calendar_months"].to_numpy(dtype=np.float64)
        beyond = own[answer].to_numpy(dtype=np.float64) - calendar
        soon = np.flatnonzero(np.diff(calendar) <= SOON_MONTHS)
        first += beyond[soon].tolist()
        second += beyond[soon + 1].tolist()
        who += [patient] * len(soon)
    there = {"pairs": len(first), "patients": len(set(who))}
    if there["patients"] < LEAST_PATIENTS:
        reason = (
            f"{number(there['patients'], 'patient')} with two films of calendar ages at most {SOON_MONTHS:g} months "
            f"apart, fewer than {LEAST_PATIENTS}"
        )
        return {"months": None, "reason": reason} | there
    return {"months": repeatability(first, second)} | there
