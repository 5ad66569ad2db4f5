"""What the ensemble answers, what it was fitted on, and that no film had a part in its own answer."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from boneage_ages import FEW, drawn

from medray.systems.boneage.scores.ensemble import Ensemble, Group, Member, groups_of, members_in, present_mean
from medray.systems.boneage.scores.ensemble_fit import fit, half_width
from medray.systems.boneage.scores.nesting import line_of, parts_of, weights_of


def error(months: pd.Series, table: pd.DataFrame) -> float:
    return float((months - table["age_months"]).abs().mean())


def test_names_and_groups() -> None:
    assert Member.of("B-classification-girls") == Member("B", "classification", "girls")
    for name in ("p_months", "A-regression", "A-regression-men", "-regression-girls"):
        with pytest.raises(ValueError, match=f"column {name}: no model's name"):
            Member.of(name)
    table = pd.DataFrame({"sex": ["F", "M", None, float("nan"), "", "f"]})
    assert groups_of(table).tolist() == ["girls", "boys", "unknown", "unknown", "unknown", "unknown"]
    assert list(members_in(drawn(3))) == list(FEW)


def test_where_a_model_has_not_read_a_film_the_others_weights_are_scaled_up() -> None:
    nan = float("nan")
    predictions = np.array([[10.0, nan, nan, nan], [20.0, 20.0, nan, nan], [40.0, 40.0, 40.0, nan]])
    found = present_mean(predictions, np.array([0.5, 0.25, 0.25]))
    np.testing.assert_allclose(found, [20, 30, 40, nan])
    # those that have read it weigh nothing: their plain mean, and not nothing
    np.testing.assert_allclose(present_mean(predictions, np.array([1.0, 0, 0])), [10, 30, 40, nan])
    assert np.isnan(present_mean(np.zeros((0, 2)), np.zeros(0))).all()


@pytest.mark.slow
def test_on_the_films_that_fitted_it_no_member_is_better() -> None:
    for seed in range(8):
        table = drawn(90, seed=seed, noise=20)
        ensemble = fit(table, correct=False).ensemble
        found = ensemble.of(table)
        for name, group in ensemble.groups.items():
            own = table if name == "unknown" else table[found["group"] == name]
            blended = pd.Series(present_mean(own[list(group.members)].to_numpy().T, np.array(group.weights)), own.index)
            for one in (*(own[member] for member in group.members), own[list(group.members)].mean(axis=1)):
                assert error(blended, own) <= error(one, own) + 1e-9
            assert sum(group.weights) == pytest.approx(1)


def test_girls_are_answered_by_models_of_girls_and_of_both_and_films_of_unknown_sex_by_those_of_both() -> None:
    table = drawn(120)
    table.loc[table.index[:10], "sex"] = None
    table.loc[table.index[:10], ["A-regression-girls", "A-regression-boys"]] = np.nan
    groups = fit(table).ensemble.groups
    assert groups["girls"].members == ("A-regression-girls", "A-regression-both", "B-regression-both")
    assert groups["boys"].members == ("A-regression-boys", "A-regression-both", "B-regression-both")
    assert groups["unknown"].members == ("A-regression-both", "B-regression-both")
    assert [groups[name].films for name in ("girls", "boys", "unknown")] == [55, 55, 120]  # both have read all
    assert groups["girls"].weights[0] > groups["girls"].weights[1]  # the better one


def test_what_is_scored_has_no_part_in_its_own_answer() -> None:
    """The ages of one part's films are made nonsense: their own answers and intervals stay, the others' do not."""
    for folds in (2, 3):
        table = drawn(120, folds=folds, a_patient=2)
        before = fit(table).answers
        part = (table["fold"] == 1) & (table["sex"] == "F")
        assert part.sum() > 15
        changed = table.copy()
        changed.loc[part, "age_months"] = 240 - changed.loc[part, "age_months"]
        after = fit(changed).answers
        shown = ["constant", "ensemble", "corrected", "low", "high"]
        pd.testing.assert_frame_equal(after.loc[part, shown], before.loc[part, shown])
        assert before.loc[part, "low"].notna().all()
        others = (table["fold"] != 1) & (table["sex"] == "F")
        assert (after.loc[others, "corrected"] - before.loc[others, "corrected"]).abs().min() > 1e-3


def test_within_one_fold_weights_and_line_of_a_part_are_of_the_other_patients() -> None:
    table = drawn(100, folds=1, a_patient=2)
    girls = table[table["sex"] == "F"]
    names = ["A-regression-girls", "A-regression-both", "B-regression-both"]
    answers = fit(table).answers.loc[girls.index]
    assert set(answers["part"]) == set(range(5))
    for part, own in answers.groupby("part"):
        others = girls[answers["part"] != part]
        assert not set(girls.loc[own.index, "patient_id"]) & set(others["patient_id"])
        weights, _ = weights_of(others, names)
        blended = present_mean(girls.loc[own.index, names].to_numpy().T, weights)
        np.testing.assert_allclose(own["ensemble"], blended)
        line = line_of(present_mean(others[names].to_numpy().T, weights), others["age_months"].to_numpy())
        np.testing.assert_allclose(own["corrected"], line.at(blended))
        assert (own["constant"] == others["age_months"].median()).all()


def test_parts_are_the_folds_or_parts_of_the_patients_of_one() -> None:
    table = drawn(60, folds=3, a_patient=2)
    assert parts_of(table).tolist() == table["fold"].tolist()
    one = drawn(60, folds=1, a_patient=2)
    parts = pd.Series(parts_of(one), one["patient_id"])
    assert set(parts) == set(range(5))
    assert (parts.groupby(level=0).nunique() == 1).all()  # a patient is in one of them
    assert parts.value_counts().max() <= 20
    # as many as there are patients; and the names of patients, which are hashes of a key, have no part in it
    assert set(parts_of(drawn(3, folds=1))) == {0, 1, 2}
    assert set(parts_of(drawn(1))) == {0}
    renamed = one.assign(patient_id=[f"{i * 7919 % 1000}-{name}" for i, name in enumerate(one["patient_id"].str[::-1])])
    renamed["patient_id"] = renamed["patient_id"].groupby(one["patient_id"]).transform("first")
    assert parts_of(renamed).tolist() == parts.tolist()


@pytest.mark.slow
def test_results_do_not_depend_on_the_order_of_films() -> None:
    table = drawn(60, folds=1)
    mixed = table.sample(frac=1, random_state=1)
    one, two = fit(table), fit(mixed)
    pd.testing.assert_frame_equal(one.answers, two.answers.loc[one.answers.index])


def test_the_line_undoes_a_pull_to_the_mean() -> None:
    table = drawn(300, pull=0.6, noise=4)
    found = fit(table)
    for group in found.ensemble.groups.values():
        assert group.slope == pytest.approx(1 / 0.6, abs=0.1)
        assert group.intercept == pytest.approx(127 - 127 / 0.6, abs=12)
    answers = found.answers
    assert error(answers["corrected"], table) < 0.6 * error(answers["ensemble"], table)
    assert found.ensemble.answer == "corrected"
    assert fit(table, correct=False).ensemble.answer == "ensemble"
    line = line_of(np.array([100.0] * 5 + [140] * 5), np.array([90.0] * 5 + [170] * 5))
    assert (line.intercept, line.slope) == (pytest.approx(-110), pytest.approx(2))


def test_no_line_that_says_nothing() -> None:
    rising = np.arange(10.0)
    assert line_of(rising[:9], rising[:9]).reason == "9 films with a known age: a line needs 10"
    assert line_of(np.full(10, 5.0), rising).reason == "the predicted ages do not differ"
    assert line_of(rising, -rising).reason == "the films that were read as older are not older"
    np.testing.assert_array_equal(line_of(rising, -rising).at(rising), rising)


def test_the_width_is_the_conformal_quantile() -> None:
    errors = np.arange(1.0, 101.0)
    assert half_width(errors[:18]) is None
    assert half_width(errors[:19]) == 19  # ceil(20 · 0.95) = 19
    assert half_width(errors[:39]) == 38
    assert half_width(errors[::-1]) == 96  # ceil(101 · 0.95)
    assert half_width(np.zeros(20)) == 0


@pytest.mark.slow
def test_the_width_holds_95_percent_of_new_films() -> None:
    held = []
    for seed in range(20):
        table = drawn(400, seed=seed)
        new = Ensemble.of(fit(table[:200]).ensemble, table[200:])
        age = table["age_months"][200:]
        held.append(((new["low"] <= age) & (age <= new["high"])).mean())
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)


def test_of_few_films_nothing_is_fitted_and_it_says_so() -> None:
    table = drawn(8)
    found = fit(table)
    girls = found.ensemble.groups["girls"]
    assert girls.weights == (1 / 3,) * 3
    assert (girls.intercept, girls.slope, girls.half_width, girls.films) == (0, 1, None, 4)
    assert girls.reasons == {
        "weights": "4 films with a known age: weights need 10",
        "correction": "4 films with a known age: a line needs 10",
        "interval": "4 films with a known age: an interval needs 19",
    }
    np.testing.assert_allclose(found.answers["ensemble"], found.answers["mean"])
    assert found.answers["low"].isna().all()
    one = fit(drawn(1))
    assert one.answers["ensemble"].notna().all()
    assert one.answers["constant"].isna().all()  # no other film to be the median of


def test_weights_come_from_films_that_every_model_has_read() -> None:
    table = drawn(40)
    table.loc[table.index[:33], "B-regression-both"] = np.nan
    unknown = fit(table).ensemble.groups["unknown"]
    assert unknown.weights == (0.5, 0.5)
    assert unknown.reasons["weights"] == "40 films with a known age, of which all 2 models have read 7: weights need 10"
    assert unknown.slope != 1  # the line is of all 40
    assert weights_of(table, [])[0].shape == (0,)


def test_films_without_a_known_age_are_answered_as_new_ones_are() -> None:
    table = drawn(60)
    table.loc[table.index[:4], "age_months"] = np.nan
    found = fit(table)
    new = found.ensemble.of(table[:4])
    pd.testing.assert_frame_equal(found.answers.loc[new.index, list(new.columns)], new)
    assert (found.answers["part"][:4] == -1).all()


def test_new_films_lack_models_sexes_and_truth() -> None:
    groups = {
        "girls": Group(("A-regression-girls", "A-regression-both"), (0.75, 0.25), 10.0, 0.5, 8.0, 50),
        "boys": Group(("A-regression-both",), (1.0,), films=3),
        "unknown": Group(("A-regression-both",), (1.0,), half_width=200.0),
    }
    ensemble = Ensemble(groups)
    nan = float("nan")
    table = pd.DataFrame(
        {
            "sex": ["F", "F", "F", "M", None],
            "A-regression-girls": [100, nan, nan, 100, 100],
            "A-regression-both": [60, 60, nan, 60, 60],
        },
        index=list("abcde"),
    )
    found = ensemble.of(table)
    assert found.index.tolist() == list("abcde")
    assert found["group"].tolist() == ["girls", "girls", "girls", "boys", "unknown"]
    np.testing.assert_allclose(found["ensemble"], [90, 60, nan, 60, 60])
    np.testing.assert_allclose(found["corrected"], [55, 40, nan, 60, 60])
    np.testing.assert_allclose(found["low"], [47, 32, nan, nan, 0])  # no age below 0
    np.testing.assert_allclose(found["high"], [63, 48, nan, nan, 240])
    np.testing.assert_allclose(Ensemble(groups, correct=False).of(table)["low"], [82, 52, nan, nan, 0])
    without = ensemble.of(table[["sex", "A-regression-girls"]])
    np.testing.assert_allclose(without["ensemble"], [100, nan, nan, nan, nan])


def test_there_and_back_as_json() -> None:
    ensemble = fit(drawn(60)).ensemble
    told = json.loads(json.dumps(ensemble.identity()))
    assert Ensemble.from_json(told) == ensemble
    told["groups"]["girls"]["weights"] = [1.0]
    with pytest.raises(ValueError, match="1 weights for 3 models"):
        Ensemble.from_json(told)


def test_models_that_nobody_has_trained_are_no_members() -> None:
    table = drawn(40, models=("A-regression-boys",))
    found = fit(table)
    assert found.ensemble.groups["girls"].members == ()
    assert found.answers.loc[table["sex"] == "F", "ensemble"].isna().all()
    assert found.answers.loc[table["sex"] == "M", "ensemble"].notna().all()
    assert np.isnan(found.ensemble.of(table[:1])["ensemble"].iloc[0])
    assert Ensemble.from_json(json.loads(json.dumps(found.ensemble.identity()))) == found.ensemble
