"""Scores of held-out films, by tables whose figures were worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from boneage_ages import drawn, refused

from medray.systems.boneage.objective import OBJECTIVES, score_folds
from medray.systems.boneage.scores.bands import BANDS_MONTHS, band_of, band_words
from medray.systems.boneage.scores.bias import bias, slope
from medray.systems.boneage.scores.calendar_age import against_calendar, between_films, differences
from medray.systems.boneage.scores.comparisons import best_member, fitted, pairs, source_table
from medray.systems.boneage.scores.ensemble import members_in
from medray.systems.boneage.scores.ensemble_fit import Fit, fit
from medray.systems.boneage.scores.figures import film_table, score
from medray.systems.boneage.scores.means import means, parts_of_films
from medray.systems.boneage.task import AgeTask
from medray.systems.boneage.words import age_words, caution, child_word, number


def scored(ages: pd.DataFrame, correct: bool = False) -> tuple[pd.DataFrame, Fit]:
    found = fit(ages, correct)
    films = film_table(ages, found)
    return films[films["error"].notna()].reset_index(drop=True), found


def test_bands_hold_their_lower_edge() -> None:
    assert band_of(np.array([0, 23.9, 24, 59, 60, 131, 132, 168, 228, np.nan])).tolist() == [
        0,
        0,
        1,
        1,
        2,
        3,
        4,
        5,
        5,
        0,
    ]
    assert band_words()[1] == "24 to 59 months (2–5 years)"
    assert band_words()[-1] == "168 months and more (14 years and more)"
    assert len(band_words()) == len(BANDS_MONTHS) - 1


def test_words() -> None:
    assert age_words(123.4) == "10 years 3 months"
    assert age_words(11.6) == "1 year 0 months"
    assert age_words(13) == "1 year 1 month"
    assert age_words(-3.0) == "−0 years 3 months"
    assert age_words(None) == age_words(float("nan")) == "age unknown"
    assert [child_word(sex) for sex in ("F", "M", None, float("nan"), "")] == ["girl", "boy", *["sex unknown"] * 3]
    assert number(1, "film") == "1 film"
    assert caution({"scored": 199}) == "; 199 films: no claim of accuracy"
    assert caution({"scored": 200}) == ""


def test_means_are_of_what_is_known_and_have_an_interval_from_five_patients_on() -> None:
    patients = np.array(list("aabcdef"))
    nan = np.nan
    found = means(
        {
            "all": np.arange(7.0),
            "four": np.array([1, 3, 5, 7, 9, nan, nan]),
            "none": np.full(7, nan),
            "alike": np.ones(7),
        },
        patients,
    )
    assert found["all"]["value"] == 3
    assert found["all"]["low"] < 3 < found["all"]["high"]
    assert (found["all"]["films"], found["all"]["patients"]) == (7, 6)
    assert (found["four"]["value"], found["four"]["low"]) == (5, None)
    assert found["four"]["reason"] == "4 patients, fewer than 5"
    assert (found["none"]["value"], found["none"]["reason"], found["none"]["films"]) == (None, "no film", 0)
    # of 7 of 7 there is an interval, but drawing from them again does not show it
    assert (found["alike"]["value"], found["alike"]["low"]) == (1, None)


def test_mean_absolute_errors_by_hand() -> None:
    """Four films of four children: errors of the two models 2, −4, 6, 8 and 10, −, 10, 10."""
    ages = pd.DataFrame(
        {
            "film_id": list("wxyz"), "patient_id": list("abcd"), "sex": ["F", "F", "M", None],
            "age_months": [20.0, 100.0, 140.0, 170.0], "calendar_months": [np.nan] * 4, "fold": [0, 1, 0, 1],
            "A-regression-both": [22.0, 96.0, 146.0, 178.0], "B-regression-girls": [30.0, np.nan, np.nan, np.nan],
        }
    )  # fmt: skip
    found = fit(ages, correct=True)
    films = film_table(ages, found)
    metrics = score(films, found, refused([("v", "segmentation", "no hand"), ("v", "points", "no thumb")]))
    assert metrics["counts"] == {
        "films": 4, "scored": 4, "patients": 4, "girls": 2, "boys": 1, "unknown": 1, "without_age": 0,
        "without_answer": 0, "refused": 1,
    }  # fmt: skip
    maes = metrics["mae"]
    assert maes["A-regression-both"]["all"]["value"] == pytest.approx((2 + 4 + 6 + 8) / 4)
    assert maes["A-regression-both"]["girls"]["value"] == pytest.approx(3)
    assert maes["B-regression-girls"]["all"] == {
        "value": 10, "low": None, "high": None, "reason": "1 patient, fewer than 5", "films": 1, "patients": 1,
    }  # fmt: skip
    # of w the mean of both, 26; equal weights, no line
    for name in ("mean", "ensemble", "corrected"):
        assert maes[name]["all"]["value"] == pytest.approx((6 + 4 + 6 + 8) / 4)
    assert maes["region A"]["all"]["value"] == maes["A-regression-both"]["all"]["value"]
    assert maes["sexes girls"]["all"]["films"] == 1
    by_band = [maes["ensemble"][band]["value"] for band in band_words()]
    assert by_band == [pytest.approx(6), None, None, pytest.approx(4), pytest.approx(6), pytest.approx(8)]
    assert sum(maes["ensemble"][band]["films"] for band in band_words()) == 4
    assert metrics["bias"]["signed"]["girls"]["all"]["value"] == pytest.approx((6 - 4) / 2)
    assert [metrics["bias"]["signed"]["girls"]["all"][key] for key in ("low_months", "high_months")] == [None, None]
    assert metrics["bias"]["slope"]["value"] is None
    assert metrics["interval"]["within"]["all"]["value"] is None
    assert metrics["calendar"] == {"reason": "no film has a calendar age"}


def test_parts_of_the_films_are_whole() -> None:
    films, _ = scored(drawn(50))
    parts = parts_of_films(films)
    assert sum(parts[name].sum() for name in ("girls", "boys", "unknown")) == 50
    assert sum(parts[name].sum() for name in band_words()) == 50


def test_signed_errors_and_what_they_run_with() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(24, 216, 200)
    films = pd.DataFrame(
        {
            "patient_id": [f"p{i}" for i in range(200)], "sex": ["F", "M"] * 100, "age_months": truth,
            "error": np.where(np.arange(200) % 2 == 0, 5.0, -3.0) - 0.1 * (truth - 120) + rng.normal(0, 2, 200),
        }
    )  # fmt: skip
    films["ensemble"] = truth - 0.3 * (truth - 120)
    found = bias(films)
    assert found["slope"]["value"] == pytest.approx(-1.2, abs=0.15)  # a tenth of twelve months
    assert found["slope"]["low"] < -1.2 < found["slope"]["high"]
    assert found["slope_before"]["value"] == pytest.approx(-3.6)
    girls = found["signed"]["girls"]["all"]
    own = films.loc[films["sex"] == "F", "error"]
    assert girls["value"] == pytest.approx(own.mean())
    assert girls["high_months"] == pytest.approx(own.mean() + 1.959964 * own.std())
    assert sum(found["signed"]["boys"][band]["films"] for band in band_words()) == 100
    assert found["correlation"] == pytest.approx(np.corrcoef(truth, truth + films["error"])[0, 1])
    few = slope(np.zeros(4), np.arange(4.0), np.array(list("aabc")))
    assert (few["value"], few["reason"]) == (None, "3 patients, fewer than 5")
    assert slope(np.arange(6.0), np.full(6, 100.0), np.arange(6))["value"] is None  # all of one age


def test_differences_are_film_by_film_and_against_the_best_member() -> None:
    ages = drawn(200)
    films, found = scored(ages)
    members = members_in(ages)
    by_name = {pair["of"]: pair for pair in pairs(films, members, "ensemble")}
    assert list(by_name) == [
        "ensemble − best member", "ensemble − mean of the models", "corrected − ensemble",
        "ensemble − median age alone",
        "A-regression-girls − A-regression-both", "A-regression-boys − A-regression-both",
    ]  # fmt: skip
    off = {name: (films[name] - films["age_months"]).abs() for name in ("ensemble", *members)}
    best = off["A-regression-girls"].where(films["sex"] == "F", off["A-regression-boys"])
    pair = by_name["ensemble − best member"]
    assert pair["value"] == pytest.approx((off["ensemble"] - best).mean())
    assert pair["low"] < pair["value"] < pair["high"] < 0
    assert (pair["films"], pair["lead"]) == (200, True)
    # paired: much narrower than the two errors' own intervals would allow
    assert pair["high"] - pair["low"] < 2 * 1.96 * np.hypot(off["ensemble"].std(), best.std()) / np.sqrt(200)
    pair = by_name["A-regression-girls − A-regression-both"]
    girls = films["sex"] == "F"
    assert pair["value"] == pytest.approx((off["A-regression-girls"] - off["A-regression-both"])[girls].mean())
    assert (pair["films"], pair["lead"]) == (100, False)
    told = fitted(films, found.ensemble)
    assert set(told) == {"girls", "boys", "unknown"}
    assert all(of["ensemble"] <= of["best"] for of in told.values())
    assert told["girls"]["best_member"] == "A-regression-girls"
    assert (told["girls"]["films"], told["unknown"]["films"]) == (100, 200)


def test_the_best_member_is_of_films_that_all_have_read() -> None:
    rows = pd.DataFrame({"age_months": [100.0, 100, 100], "x": [101, 101, 150], "y": [102, 102, np.nan]})
    assert best_member(rows, ["x", "y"]) == "x"
    assert best_member(rows.assign(y=np.nan), ["x", "y"]) is None
    assert best_member(rows, []) is None


def test_two_that_are_the_same_have_no_difference() -> None:
    films, _ = scored(drawn(60, models=("A-regression-both",)))
    for pair in pairs(films, members_in(drawn(1, models=("A-regression-both",))), "ensemble")[:2]:
        assert (pair["value"], pair["reason"]) == (None, "both give the same age to every film")


def test_the_table_laid_out_as_the_sources() -> None:
    models = [f"{region}-regression-{sexes}" for region in "AC" for sexes in ("girls", "both")]
    ages = drawn(120, models=[*models, "A-classification-both"])
    films, _ = scored(ages)
    table = source_table(films, members_in(ages))
    assert {row: sorted(of) for row, of in table.items()} == {
        "A": ["both classification", "both regression", "girls regression"],
        "C": ["both regression", "girls regression"],
        "ensemble": ["both regression", "girls regression"],
    }
    assert table["C"]["girls regression"]["films"] == 60
    assert table["ensemble"]["both regression"]["films"] == 120
    worst = max(table[region]["both regression"]["value"] for region in "AC")
    assert table["ensemble"]["both regression"]["value"] < worst


def test_the_interval_is_scored_by_widths_of_other_films() -> None:
    ages = drawn(300)
    films, found = scored(ages, correct=True)
    metrics = score(films, found, refused())
    inside = metrics["interval"]["within"]
    assert inside["all"]["value"] == pytest.approx(0.95, abs=0.03)
    assert inside["all"]["films"] == 300
    assert metrics["interval"]["half_width"]["girls"] == found.ensemble.groups["girls"].half_width


def test_bone_age_against_calendar_age() -> None:
    difference, beyond = differences(np.array([100.0, 110.1, 110, 80, 5]), np.array([100.0, 100, 100, np.nan, 0]))
    np.testing.assert_allclose(difference, [0, 10.1, 10, np.nan, np.nan])
    np.testing.assert_allclose(beyond, [0, 1, 0, np.nan, np.nan])
    films = pd.DataFrame(
        {
            "patient_id": list("abcd"), "age_months": [100.0, 120.0, np.nan, 90.0],
            "calendar_months": [100.0, 100.0, 100.0, np.nan], "ensemble": [115.0, 115.0, 100.0, 90.0],
        }
    )  # fmt: skip
    found = against_calendar(films, "ensemble")
    assert (found["predicted"]["value"], found["predicted"]["films"]) == (10, 3)
    assert (found["true"]["value"], found["true"]["films"]) == (10, 2)
    assert found["predicted_beyond"]["value"] == pytest.approx(2 / 3)
    assert found["true_beyond"]["value"] == 0.5
    assert (found["alike"]["value"], found["alike"]["films"]) == (0.5, 2)


def test_repeatability_of_films_soon_after_each_other() -> None:
    """Five children with two films four months apart, between which what is read beyond the calendar age moves by
    3 months; one whose films are a year apart; three films of one child are two pairs."""
    rows = []
    for child in "abcde":
        rows += [(child, 100.0, 110.0), (child, 104.0, 117.0)]
    rows += [("f", 100.0, 100.0), ("f", 112.0, 190.0), ("e", 108.0, 124.0), ("g", np.nan, 10.0)]
    films = pd.DataFrame(rows, columns=["patient_id", "calendar_months", "ensemble"])
    found = between_films(films, "ensemble")
    assert found == {"months": pytest.approx(1.959964 * 3), "pairs": 6, "patients": 5}
    few = between_films(films[films["patient_id"] != "a"], "ensemble")
    assert few["months"] is None
    assert "4 patients with two films of calendar ages at most 6 months apart, fewer than 5" in few["reason"]


def test_a_search_looks_at_held_out_films_only() -> None:
    table = pd.DataFrame({"age_months": [100.0, 50.0, np.nan], "p_months": [110.0, 46.0, 3.0]})
    inner = pd.DataFrame({"age_months": [100.0], "p_months": [0.0]})
    found = score_folds(AgeTask(), [(table, inner), (table.assign(p_months=[100.0, 50.0, 0.0]), None)])
    assert found == {"mae": 3.5, "bias": 1.5}
    assert {*OBJECTIVES} <= {*found}
    nothing = score_folds(AgeTask(), [(table.assign(age_months=np.nan), None)])
    assert np.isnan(nothing["mae"])
