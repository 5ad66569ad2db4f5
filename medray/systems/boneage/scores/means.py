"""Means over films with their intervals over patients, and the parts of the films that they are of."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from medray.metrics.intervals import Figure, Score, intervals, mean, undefined
from medray.systems.boneage.scores.bands import band_of, band_words
from medray.systems.boneage.scores.ensemble import SEXES_OF, groups_of


def parts_of_films(films: pd.DataFrame) -> dict[str, np.ndarray]:
    """(rows,) bool of "all", of "girls", "boys" and "unknown", and of each band of the true age."""
    groups, bands = groups_of(films), band_of(films["age_months"].to_numpy())
    out = {"all": np.ones(len(films), dtype=bool)} | {name: groups == name for name in SEXES_OF}
    return out | {words: bands == number for number, words in enumerate(band_words())}


def means(
    values: Mapping[str, np.ndarray], patients: np.ndarray, kind: Callable[[np.ndarray], Score] = mean
) -> dict[str, Figure]:
    """Name → mean of the (rows,) values that are not NaN, its 95% interval or why there is none, and of how many
    films and patients it is.

    Args:
        kind: ``rate`` where the values are 0 or 1.
    """
    found = intervals({name: kind(own) for name, own in values.items()}, patients)
    out = {}
    for name, own in values.items():
        figure = found[name] if np.isfinite(own).any() else undefined("no film")
        out[name] = figure | number_of(own, patients)
    return out


def number_of(values: np.ndarray, patients: np.ndarray) -> dict[str, int]:
    """films, patients: of how many the (rows,) values are not NaN."""
    there = np.isfinite(values)
    return {"films": int(there.sum()), "patients": len(np.unique(patients[there]))}
