from __future__ import annotations

import pytest

from medray.systems.boneage.words import age_words, short_age


@pytest.mark.parametrize(
    ("months", "long", "short"),
    [
        (123.4, "10 years 3 months", "10 y 3 m"),
        (11.6, "1 year 0 months", "1 y 0 m"),
        (0.2, "0 years 0 months", "0 y 0 m"),
        (-3.0, "−0 years 3 months", "−0 y 3 m"),
    ],
)
def test_an_age_is_the_same_in_long_and_in_short(months: float, long: str, short: str) -> None:
    assert (age_words(months), short_age(months)) == (long, short)
