"""Outputs of all models as one table, films that a stage has set aside, and how good the stages before were."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa

from medray.shards.store import Store
from medray.systems.boneage.ages import joined_ages, quality, refused_films
from medray.systems.boneage.results import REFUSED


@dataclass(frozen=True)
class Rows:
    store: Store
    files: list[str]


def outputs(months: Mapping[str, float], sex: Mapping[str, str], fold: Mapping[str, int]) -> pd.DataFrame:
    """As ``out_of_fold`` gives them; where nobody knows the sex, a batch has no text."""
    films = [*months]
    return pd.DataFrame(
        {
            "p_months": [*months.values()], "age_months": 100.0, "calendar_months": math.nan, "film_id": films,
            "patient_id": [f"p{film}" for film in films], "sex": [sex[film] for film in films],
            "fold": [fold[film] for film in films],
        }
    )  # fmt: skip


def test_a_film_is_one_row_with_the_months_of_each_model_that_reads_it() -> None:
    sex, fold = {"a": "F", "b": "M", "c": ""}, {"a": 0, "b": 1, "c": 0}
    girls = outputs({"a": 90.0}, sex, fold)
    both = outputs({"c": 30.0, "b": 20.0, "a": 10.0}, sex, fold)
    table = joined_ages({"A-regression-girls": girls, "B-regression-both": both})
    assert table["film_id"].tolist() == ["a", "b", "c"]
    assert table["patient_id"].tolist() == ["pa", "pb", "pc"]
    assert table["fold"].tolist() == [0, 1, 0]
    assert table["sex"].tolist() == ["F", "M", None]
    assert table["B-regression-both"].tolist() == [10.0, 20.0, 30.0]
    assert table["A-regression-girls"][0] == 90.0
    assert table["A-regression-girls"][1:].isna().all()
    assert list(table.columns) == [
        "film_id", "patient_id", "age_months", "sex", "calendar_months", "fold", "A-regression-girls", "B-regression-both",
    ]  # fmt: skip


def test_films_that_only_one_model_reads_are_there_too() -> None:
    sex, fold = {"a": "F", "b": "M"}, {"a": 0, "b": 1}
    table = joined_ages({
        "A-regression-girls": outputs({"a": 1.0}, sex, fold), "A-regression-boys": outputs({"b": 2.0}, sex, fold),
    })  # fmt: skip
    assert table[["A-regression-girls", "A-regression-boys"]].isna().to_numpy().tolist() == [
        [False, True],
        [True, False],
    ]


def aside(*rows: tuple[str, str]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["id", "reason"])
    return table.assign(network_fold=-1)


def test_a_refused_film_has_the_first_stage_and_its_reason_once() -> None:
    index = pd.DataFrame({"film_id": list("abcde"), "fold": [0, 0, 1, 0, 2]})
    lost = {
        "segmentation": aside(("b", "no hand"), ("c", "two hands")),
        "registration": aside(("b", "of another region"), ("a", "no thumb"), ("e", "no thumb")),
    }
    found = refused_films(lost, index, [0, 2])
    assert found.columns.tolist() == [*REFUSED]
    assert [*found.itertuples(index=False, name=None)] == [
        ("b", 0, True, "segmentation", "no hand"),
        ("c", 1, False, "segmentation", "two hands"),  # lost to training: its owner wants to know
        ("a", 0, True, "registration", "no thumb"),
        ("e", 2, True, "registration", "no thumb"),
    ]
    assert refused_films({"segmentation": aside()}, index, [0]).columns.tolist() == [*REFUSED]


def test_masks_and_points_are_judged_where_somebody_has_drawn(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_table(
        "a.parquet",
        pa.table(
            {"iou": pa.array([0.8, None]), "error_part": pa.array([0.02, 0.04]), "thumb_right": pa.array([1.0, 0.0])}
        ),
    )
    store.write_table(
        "b.parquet",
        pa.table(
            {
                "iou": pa.array([0.9]),
                "error_part": pa.array([None], pa.float64()),
                "thumb_right": pa.array([None], pa.float64()),
            }
        ),
    )
    stage = Rows(store, ["a.parquet", "b.parquet"])
    found = quality({"films": stage, "masks": stage, "points": stage})
    masks, points, side = found.values()
    assert side == {"value": 50.0, "films": 2}
    assert (masks["films"], round(masks["value"] or 0, 9)) == (2, 0.85)
    assert (points["films"], round(points["value"] or 0, 9)) == (2, 3.0)
    assert quality({"films": stage}) == {}
    store.write_table("none.parquet", pa.table({"iou": pa.array([None], pa.float64())}))
    assert [*quality({"masks": Rows(store, ["none.parquet"])}).values()] == [{"value": None, "films": 0}]
