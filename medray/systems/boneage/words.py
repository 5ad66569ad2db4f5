"""Ages, sexes, methods and numbers in words, for terminals and pages."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

FEW_FILMS = 200
"""Fewer scored films allow no claim of accuracy."""
SEXES = {"girls": "girls", "boys": "boys", "unknown": "unknown sex"}
"""Groups of films."""
METHODS = {
    "ensemble": "ensemble",
    "corrected": "ensemble, corrected",
    "mean": "mean of the models",
    "constant": "median age of the sex alone",
}
_CHILD = {"F": "girl", "M": "boy"}


def age_words(months: float | None) -> str:
    """ "10 years 3 months" of 123.4, "age unknown" of None or NaN; rounded to whole months."""
    if months is None or not np.isfinite(months):
        return "age unknown"
    sign, years, rest = _whole(months)
    return f"{sign}{number(years, 'year')} {number(rest, 'month')}"


def short_age(months: float) -> str:
    """The same where there is little room, on a picture: "10 y 3 m" of 123.4."""
    sign, years, rest = _whole(months)
    return f"{sign}{years} y {rest} m"


def _whole(months: float) -> tuple[str, int, int]:
    """Sign, years and months of an age."""
    whole = round(abs(months))
    return "−" * (months < 0 and whole > 0), *divmod(whole, 12)


def child_word(sex: object) -> str:
    """Of "F", "M", or whatever stands for unknown."""
    return _CHILD.get(sex, "sex unknown") if isinstance(sex, str) else "sex unknown"


def number(count: int, what: str) -> str:
    """ "1 film", "1,200 films"."""
    return f"{count:,} {what}{'s' * (count != 1)}"


def caution(counts: Mapping[str, int]) -> str:
    """ "; 40 films: no claim of accuracy" of so few, nothing of more."""
    scored = counts["scored"]
    return f"; {number(scored, 'film')}: no claim of accuracy" if scored < FEW_FILMS else ""
