"""The files of a finished method, and what a prediction of new films reads of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from boneage_ages import drawn, refused

from medray.shards.store import Store
from medray.systems.boneage.results import conclude, flat, read_films, read_refused, summary, write_refused
from medray.systems.boneage.scores.ensemble import ABOUT, Ensemble

REFUSED = refused([("x2", "keypoints", "the thumb lies outside of the film"), ("x1", "segmentation", "no hand")])


def test_all_files_of_a_finished_method(tmp_path: Path) -> None:
    out, ages = Store(tmp_path), drawn(80)
    ages.loc[0, "sex"] = None
    quality = {"overlap of masks, IoU": {"value": 0.93, "films": 7}}
    metrics = conclude(out, ages.sample(frac=1, random_state=3), REFUSED, {"epochs": 3}, True, quality)
    assert out.names() == ["films.csv", "method.json", "metrics.json", "refused.csv"]
    assert out.read_json("metrics.json") == metrics
    assert metrics["quality"] == quality
    films = read_films(out)
    assert films["film_id"].tolist() == sorted(ages["film_id"])
    assert films.columns[: len(ABOUT)].tolist() == list(ABOUT)
    assert pd.isna(films["sex"][0])
    np.testing.assert_allclose(films["error"], films["corrected"] - films["age_months"], atol=2e-3)
    assert films["error"].abs().mean() == pytest.approx(metrics["mae"]["corrected"]["all"]["value"], abs=1e-3)
    assert read_refused(out)["film_id"].tolist() == ["x1", "x2"]
    method = out.read_json("method.json")
    assert (method["epochs"], method["correct"]) == (3, True)
    ensemble = Ensemble.from_json(method["ensemble"])
    assert ensemble.of(ages)["corrected"].notna().all()
    assert ensemble.answer == "corrected"


@pytest.mark.slow
def test_the_same_films_in_another_order_with_other_names_have_the_same_scores(tmp_path: Path) -> None:
    """Identifiers are hashes of a key that differs from --out to --out."""
    ages = drawn(60, models=("A-regression-both", "B-regression-both"), folds=1)
    other = ages.assign(film_id=ages["film_id"].str[::-1], patient_id=ages["patient_id"].str[::-1])
    one = conclude(Store(tmp_path / "one"), ages, REFUSED, {}, False)
    two = conclude(Store(tmp_path / "two"), other.sample(frac=1, random_state=5), REFUSED, {}, False)
    assert one == two


def test_lines_for_a_terminal_and_values_for_the_tracker(tmp_path: Path) -> None:
    metrics = conclude(Store(tmp_path), drawn(60), REFUSED, {}, False)
    lines = summary(metrics)
    assert lines[0] == (
        "60 held-out films of 60 patients (30 of girls, 30 of boys); 2 refused; 60 films: no claim of accuracy"
    )
    text = "\n".join(lines)
    value = metrics["mae"]["ensemble"]["all"]["value"]
    assert f"ensemble                    {value:.2f}  (95% " in text
    assert "ensemble − best member: " in text
    assert "95% intervals hold" in text
    values = flat(metrics)
    assert values["oof/mae"] == values["oof/mae_ensemble"] == value
    assert values["oof/mae/A-regression-girls"] == metrics["mae"]["A-regression-girls"]["all"]["value"]
    assert all(isinstance(one, float) for one in values.values())
    many = conclude(Store(tmp_path), drawn(200, models=("A-regression-both",)), REFUSED, {}, False)
    assert "claim" not in summary(many)[0]


@pytest.mark.parametrize("films", [1, 3])
def test_one_film_and_three_patients(tmp_path: Path, films: int) -> None:
    metrics = conclude(Store(tmp_path), drawn(films), refused(), {}, True)
    json.dumps(metrics, allow_nan=False)
    assert metrics["counts"]["scored"] == films
    for method in metrics["mae"].values():
        assert all(figure["low"] is None for figure in method.values())
    assert "oof/within_interval" not in flat(metrics)
    assert f"{films} film" in summary(metrics)[0]


def test_bad_tables(tmp_path: Path) -> None:
    out, ages = Store(tmp_path), drawn(12)
    with pytest.raises(ValueError, match="a table of ages without calendar_months"):
        conclude(out, ages.drop(columns="calendar_months"), REFUSED, {}, False)
    with pytest.raises(ValueError, match="more than one row of 1 film: one row a film"):
        conclude(out, pd.concat([ages, ages[:1]]), REFUSED, {}, False)
    with pytest.raises(ValueError, match="column months: no model's name"):
        conclude(out, ages.assign(months=3.0), REFUSED, {}, False)
    assert not out.names()
    with pytest.raises(ValueError, match="none of 12 held-out films has both a known age and a prediction"):
        conclude(out, ages.assign(age_months=np.nan), REFUSED, {}, False)
    assert out.names() == ["films.csv", "method.json", "refused.csv"]  # to look into


def test_refused_films_are_counted_by_reason_and_those_that_only_teach_are_told_apart(tmp_path: Path) -> None:
    every = [("x3", "registration", "no thumb"), ("x2", "segmentation", "no hand"), ("x1", "segmentation", "no hand")]
    table, said = refused(every, [True, False, True]), list[str]()
    found = write_refused(Store(tmp_path), table, said.extend)
    assert found["film_id"].tolist() == read_refused(Store(tmp_path))["film_id"].tolist() == ["x1", "x2", "x3"]
    assert said == [
        f"3 films refused by the stages so far; {tmp_path}/refused.csv names them",
        "2 films (1 of them in folds that are only learned from): segmentation, no hand",
        "1 film: registration, no thumb",
    ]
    metrics = conclude(Store(tmp_path), drawn(30), table, {}, False)
    assert read_refused(Store(tmp_path))["held_out"].tolist() == [True, False, True]
    assert (metrics["counts"]["refused"], metrics["counts"]["refused_in_training"]) == (2, 1)
    assert "; 2 refused, and 1 film of folds that are only learned from; " in summary(metrics)[0]
    assert write_refused(Store(tmp_path), refused(), said.extend).empty
    assert said[-1] == "0 films refused by the stages so far"
