"""The page of a finished method: its sections, what they say of few films, and the pictures of films on their way."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from boneage_ages import FEW, drawn, refused

from medray.report.about import About
from medray.report.page import PHANTOM_WARNING
from medray.shards.store import Store
from medray.systems.boneage.published import PUBLISHED, SOURCE_TABLE
from medray.systems.boneage.report import write_report
from medray.systems.boneage.report.children import section
from medray.systems.boneage.report.pictures import (
    _LONG_PX,
    _RING_PX,
    DRAWN,
    FOUND,
    WORST,
    chosen,
    collect,
    outlined,
    pointed,
)
from medray.systems.boneage.results import conclude, read_films

REFUSED = refused(
    [("x1", "segmentation", "no hand"), ("x2", "segmentation", "no hand"), ("x3", "keypoints", "no thumb")]
)
ROWS, COLUMNS = 60, 50


@dataclass(frozen=True)
class Rows:
    store: Store
    files: Sequence[str]


def about(out: Store, phantom: bool = False, **histories: Any) -> About:
    inventory = pd.DataFrame({"path": ["a/x.png"], "film_id": ["f"], "status": ["ok"], "reason": [None]})
    return About(out, inventory, inventory, inventory, histories, {"epochs": 3}, phantom)


def page_of(out: Store) -> str:
    """The text of report.html, tables cell by cell; without drawings."""
    text = re.sub(r"<(svg|style).*?</\1>", "", out.read_bytes("report.html").decode(), flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", text)))


def written(to: Path, ages: pd.DataFrame, correct: bool = False, phantom: bool = False, **histories: Any) -> str:
    out = Store(to)
    conclude(out, ages, REFUSED, {}, correct, {"overlap of masks, IoU": {"value": 0.93, "films": 7}})
    films = [row(film_id, 90) for film_id in chosen(read_films(out))]
    out.sub("films").write_table("part-0.parquet", pa.Table.from_pylist(films))
    plots = write_report(out, about(out, phantom, **histories), {"films": Rows(out.sub("films"), ["part-0.parquet"])})
    assert {
        "agreement.png",
        "signed-error-by-sex-and-age.png",
        "ages-by-sex.png",
        "images/one-film-on-its-way.png",
    } <= {*plots}
    assert all(data.startswith(b"\x89PNG") for data in plots.values())
    return page_of(out)


def test_a_page_of_few_films_claims_nothing(tmp_path: Path) -> None:
    ages = drawn(80, pull=0.8)
    ages["calendar_months"] = ages["age_months"] + 12
    text = written(tmp_path, ages, correct=True)
    assert "80 films: no claim of accuracy." in text
    assert PHANTOM_WARNING not in text
    mae = Store(tmp_path).read_json("metrics.json")["mae"]["corrected"]["all"]
    months = f"{mae['value']:.2f} (95% {mae['low']:.2f} to {mae['high']:.2f}) months"
    assert f"The mean absolute error is {months} on 80 held-out films" in text
    assert "ensemble, corrected (the answer)" in text
    for title in (
        "By region, head and sex", "By age", "Laid out as the source's table", "Agreement",
        "Signed error by sex and age", "Ages by sex", "The worst films", "One film on its way", "The ensemble",
        "The interval", "Bone age and calendar age",
        "Refused films", "Learning curves", "Files set aside", "How it was made",
    ):  # fmt: skip
        assert title in text
    assert "None of these figures compares with one of this page" in text
    assert all(row["system"] in text for row in PUBLISHED)
    assert "segmentation no hand 2 keypoints no thumb 1" in text
    assert "3 held-out films beside 80 that were read" in text
    assert "only learned from" not in text
    assert "overlap of masks, IoU 0.93 7" in text
    assert "Bone − calendar age of 80 films" in text
    assert all(name in text for name in FEW)


@pytest.mark.slow
def test_children_with_several_films_have_a_curve(tmp_path: Path) -> None:
    ages = drawn(60, a_patient=3)
    ages["calendar_months"] = ages["age_months"] + 5.0
    assert "Children with several films" not in written(tmp_path / "unknown", drawn(60, a_patient=3))
    text = written(tmp_path / "known", ages)
    assert "Children with several films" in text
    assert "12 of 20 children are shown" in text
    films = read_films(Store(tmp_path / "known"))
    shown = section(films, "ensemble")
    assert shown is not None
    axes = [axis for axis in shown.figure.axes if axis.get_visible()]
    own = films[films["patient_id"] == "patient-0000"].sort_values("calendar_months")
    line = next(axis for axis in axes if own["film_id"].iloc[0] in axis.get_title(loc="left") + axis.get_title()).lines[
        1
    ]
    np.testing.assert_allclose(line.get_ydata(), own["ensemble"] / 12)


def test_films_that_were_refused_in_folds_that_only_teach_are_told_apart(tmp_path: Path) -> None:
    out, every = Store(tmp_path), [("x1", "segmentation", "no hand"), ("x2", "segmentation", "no hand")]
    metrics = conclude(out, drawn(30), refused(every, [True, False]), {}, False)
    assert (metrics["counts"]["refused"], metrics["counts"]["refused_in_training"]) == (1, 1)
    write_report(out, about(out), {})
    text = page_of(out)
    assert "held out of folds only learned from films segmentation no hand 1 1 2" in text
    assert "1 held-out film beside 30 that were read" in text
    assert "1 more film of folds that were not held out" in text


@pytest.mark.slow
def test_a_page_of_phantoms_says_so_and_one_of_many_films_has_no_caution(tmp_path: Path) -> None:
    text = written(tmp_path, drawn(200, models=("A-regression-both", "B-regression-both")), phantom=True)
    assert PHANTOM_WARNING in text
    assert "no claim" not in text
    assert "ensemble (the answer)" in text
    assert "Not given: no film has a calendar age." in text


@pytest.mark.parametrize("films", [1, 3])
def test_one_film_and_three_patients_break_nothing(tmp_path: Path, films: int) -> None:
    text = written(tmp_path, drawn(films))
    assert f"{films} film{'s' * (films > 1)}: no claim of accuracy" in text
    assert "95% limits of agreement −" not in text
    assert "Pearson" not in text
    assert "weights need 10" in text
    assert "No film could be given one" in text
    assert "nan" not in text.lower().split()


def test_one_model_of_one_sex(tmp_path: Path) -> None:
    text = written(tmp_path, drawn(30, models=("A-regression-boys",)))
    assert "15 films with no prediction not scored." in text
    assert "15 held-out films of 15 patients" in text


@pytest.mark.slow
def test_an_error_by_epoch_is_drawn_where_epochs_were_scored(tmp_path: Path) -> None:
    entries = [
        {
            "epoch": n,
            "system": {},
            "metrics": {"train_loss": 1 / n, "held_out_mae_months": 30 / n, "learning_rate": 1e-3},
        }
        for n in (1, 2)
    ]
    ages = drawn(12, models=("A-regression-both",))
    text = written(tmp_path, ages, **{"published-A-regression-both/fold0": entries})
    assert "the mean absolute error below is of the rows that were scored after each epoch" in text
    plain = [entry | {"metrics": {"train_loss": 1.0, "learning_rate": 1e-3}} for entry in entries]
    text = written(tmp_path, ages, **{"published-A-regression-both/fold0": plain})
    assert "No epoch was scored" in text


def test_films_to_be_shown_are_the_median_one_and_the_worst() -> None:
    errors = [1.0, -2.0, 30.0, 4.0, -50.0, 6.0, 7.0, 8.0, 9.0, np.nan]
    films = pd.DataFrame({"film_id": [f"f{i}" for i in range(10)], "error": errors})
    found = chosen(films)
    assert found[0] == "f6"
    assert found[1:3] == ["f4", "f2"]
    assert set(found) == {"f6", "f4", "f2", "f8", "f7", "f5"}  # the median one is the fifth of the worst, too
    assert len(found) == WORST
    assert chosen(films[-1:]) == []


def row(film_id: str, value: int, **more: Any) -> dict[str, Any]:
    image = np.full((ROWS, COLUMNS), value, np.uint8)
    return {
        "film_id": film_id, "sex": "F", "age_months": 120.0, "rows": ROWS, "columns": COLUMNS, "image": image.tobytes(),
    } | more  # fmt: skip


def mask(top: int, left: int, rows: int, columns: int) -> bytes:
    out = np.zeros((ROWS, COLUMNS), np.uint8)
    out[top : top + rows, left : left + columns] = 1
    return out.tobytes()


def stages(to: Path) -> dict[str, Rows]:
    """Of three films; the second was refused by the keypoints, the third by the segmentation."""
    points = [25.0, 10.0, 40.0, 30.0, 25.0, 50.0]
    nan = float("nan")
    rows = {
        "films": [
            row("a", 100, mask=mask(5, 5, 40, 30), points=points),
            row("b", 110, mask=None, points=None),
            row("c", 120, mask=None, points=[nan] * 6),
        ],
        "hands": [
            row("a", 50, mask=mask(8, 8, 40, 30), points=points),
            row("b", 60, mask=mask(8, 8, 40, 30), points=None),
        ],
        "points": [
            {"film_id": "a", "found_points": [26.0, 12.0, 41.0, 31.0, nan, nan]},
            {"film_id": "b", "found_points": None},
        ],
        "A": [row("a", 70, mirrored=1)],
        "B": [row("a", 80, mirrored=0)],
    }
    found = {}
    for stage, of in rows.items():
        store = Store(to).sub(stage)
        store.write_table("part-0.parquet", pa.Table.from_pylist(of[:1]), row_group_size=1)
        names = ["part-0.parquet"]
        if len(of) > 1:
            store.write_table("part-1.parquet", pa.Table.from_pylist(of[1:]), row_group_size=1)
            names.append("part-1.parquet")
        found[stage] = Rows(store, names)
    return found


def test_the_chain_of_a_film_is_in_the_order_of_the_stages(tmp_path: Path) -> None:
    c, a, b = collect(["c", "a", "nowhere", "b"], stages(tmp_path))
    assert [one.film_id for one in (a, b, c)] == ["a", "b", "c"]
    assert a.about == "girl, 10 years 0 months"
    titles = ["film", "mask", "equalised hand, points"]
    assert [title for title, _ in a.tiles] == [*titles, "A, mirrored", "B"]
    assert [title for title, _ in b.tiles] == [*titles, "A", "B"]
    assert [image is not None for _, image in a.tiles] == [True] * 5
    assert [image is not None for _, image in b.tiles] == [True, True, True, False, False]
    assert [image is not None for _, image in c.tiles] == [True, False, False, False, False]
    of_a = dict(a.tiles)
    assert of_a["A, mirrored"][0, 0] == 70
    assert of_a["equalised hand, points"][0, 0].tolist() == [50, 50, 50]  # the hand, not the film


def test_stages_that_were_left_out_have_no_tile(tmp_path: Path) -> None:
    every = stages(tmp_path)
    (a,) = collect(["a"], {"films": every["films"], "A": every["A"]})
    assert [title for title, _ in a.tiles] == ["film", "A, mirrored"]
    (a,) = collect(["a"], {"films": every["films"], "points": every["points"]})
    assert [title for title, _ in a.tiles] == ["film", "film, points"]
    assert collect(["a"], {}) == []


def test_outlines_and_points_lie_where_they_were_given(tmp_path: Path) -> None:
    film = row("a", 100, mask=mask(10, 10, 30, 20), points=[25.0, 10.0, 40.0, 30.0, np.nan, np.nan])
    hand = row("a", 50, mask=mask(20, 20, 30, 20))
    picture, factor = outlined(film, hand), _LONG_PX / ROWS  # small films are shown larger
    assert picture.shape == (_LONG_PX, round(COLUMNS * factor), 3)

    def at(column: float, row: float, picture: np.ndarray) -> list[int]:
        found: list[int] = picture[round((row + 0.5) * factor - 0.5), round((column + 0.5) * factor - 0.5)].tolist()
        return found

    for edge, colour in ((10, DRAWN), (20, FOUND)):  # the upper one, somewhere along it
        there = picture[round(edge * factor) - 2 : round(edge * factor) + 3, round(25 * factor)]
        assert list(colour) in there.tolist()
    assert at(15, 15, picture) == [100] * 3
    assert not (outlined(film, hand | {"mask": b"\1" * (ROWS * COLUMNS)}) == FOUND).all(axis=2).any()
    picture = pointed(hand, film, {"found_points": [25.0, 12.0, 5.0, 40.0, np.nan, np.nan]})
    assert at(25, 12, picture) == at(5, 40, picture) == list(FOUND)
    assert at(40 - _RING_PX / factor, 30, picture) == list(DRAWN)
    # of a film that is shown smaller, too
    large = np.zeros((2 * _LONG_PX, 800), np.uint8)
    film = {"rows": 2 * _LONG_PX, "columns": 800, "image": large.tobytes()}
    small = pointed(film, None, {"found_points": [400.0, 600.0, *[np.nan] * 4]})
    assert small.shape == (_LONG_PX, 400, 3)
    assert small[300, 200].tolist() == list(FOUND)


def test_published_figures_stand_with_what_they_compare_with() -> None:
    assert SOURCE_TABLE["ensemble"]["both regression"] == 7.52
    assert all(row["compares with"] and row["films and truth"] for row in PUBLISHED)
