"""Bands of age, by which folds of patients and figures are looked at."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

BANDS_MONTHS = (0.0, 24.0, 60.0, 96.0, 132.0, 168.0, float("inf"))
"""Below 2, 5, 8, 11 and 14 years, and older. A band holds its lower edge, not its upper one."""


def band_of(months: np.ndarray) -> np.ndarray:
    """(rows,) the number of the band that an age lies in; the first one's for an unknown age."""
    return np.searchsorted(BANDS_MONTHS[1:-1], np.nan_to_num(np.asarray(months, dtype=np.float64)), side="right")


def band_words() -> list[str]:
    """Of each band: "24 to 59 months (2–5 years)"."""
    words = []
    for low, high in pairwise(BANDS_MONTHS):
        if np.isfinite(high):
            words.append(f"{low:g} to {high - 1:g} months ({low / 12:g}–{high / 12:g} years)")
        else:
            words.append(f"{low:g} months and more ({low / 12:g} years and more)")
    return words
