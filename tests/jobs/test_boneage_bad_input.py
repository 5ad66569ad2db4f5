"""What a user of the bone age jobs can get wrong, and films among good ones that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import ray
from chest_films import write_png
from conftest import the_error

from medray.engine.data.samples import read_index
from medray.engine.derive.derive import derive
from medray.engine.derive.function import FunctionWorker
from medray.engine.derive.inputs import Inputs, joined
from medray.shards.store import Store
from medray.systems.boneage.ages import refused_films
from medray.systems.boneage.films.source import HandFilm
from medray.systems.boneage.phantoms.hand import draw_hand
from medray.systems.boneage.stages.between import Hands, Masks, Points, Region
from medray.systems.boneage.stages.rows import ABOUT

Job = Callable[..., tuple[int, str]]
ROWS, COLUMNS = 104, 80
GOOD = [f"good{number}" for number in range(6)]
AGES = "id,boneage,male\ngood0,60,False\ngood1,100,True\ngood2,140,False\n"


def marked(film: str, points: np.ndarray) -> dict[str, Any]:
    """As the VGG Image Annotator saves it."""
    regions = [
        {"shape_attributes": {"name": "point", "cx": float(x), "cy": float(y)}, "region_attributes": {"point": name}}
        for name, (x, y) in zip(("tip", "thumb", "capitate"), points, strict=True)
    ]
    return {"filename": film, "size": 1, "regions": regions}


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """Drawn hands with their masks, points and ages: images/ and labels/."""
    points, lines = {}, []
    (tmp_path / "labels").mkdir()
    for number, name in enumerate(GOOD):
        hand = draw_hand(np.random.default_rng(number), 40 + 20 * number, "F", ROWS, COLUMNS)
        write_png(tmp_path / "images" / f"{name}.png", hand.image)
        write_png(tmp_path / "images" / "masks" / f"{name}.png", hand.mask * np.uint8(255))
        points[name] = marked(f"{name}.png", hand.points)
        lines.append(f"{name},{40 + 20 * number},{'False' if number % 2 else 'True'},{name}")
    (tmp_path / "labels" / "via.json").write_text(json.dumps(points))
    write_ages(tmp_path, lines)
    return tmp_path


def write_ages(folder: Path, lines: Sequence[str], header: str = "id,boneage,male,patient") -> None:
    (folder / "labels" / "ages.csv").write_text("\n".join([header, *lines]) + "\n")


def ages_of(folder: Path) -> list[str]:
    return (folder / "labels" / "ages.csv").read_text().splitlines()[1:]


def add_points(folder: Path, film: str, points: np.ndarray) -> None:
    path = folder / "labels" / "via.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {film: marked(f"{film}.png", points)}))


def flags(folder: Path, *more: object) -> list[object]:
    private = ("--public-ids", "--key-dir", folder / "private", "--out", folder / "out", "--workers", 0)
    return [
        "--images",
        folder / "images",
        "--labels",
        folder / "labels",
        "--recipe",
        "phantom",
        "--folds",
        2,
        *private,
        *more,
    ]


# ---- what is said before anything starts ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ("--models", "X"),
            "--models X: no model is called so; parts are A B C, regression classification, girls boys both",
        ),
        (("--models", "A-girls-boys"), "--models A-girls-boys: no model is called so"),
        (("--models",), "--models: name one or more"),
        (
            ("--registered", "--no-register"),
            "--registered --no-register: films on the canvas are registered; leave one of",
        ),
        (
            ("--no-register", "--models", "B"),
            "without registration there are no regions B and C; no registration: --no-re",
        ),
        (("--name", "../up"), "--name ../up: letters, digits"),
        (("--labels", "absent.csv"), "--labels absent.csv: "),
        (("--images", "absent"), "absent: no such folder or file"),
        (("--train-folds", 2), "--train-folds 2: with --folds 2 they are 0 to 1"),
    ],
)
def test_wrong_flags_end_with_a_line(
    more: tuple[object, ...], message: str, given: Path, run_in_process: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(given)
    assert message in the_error(run_in_process("boneage_cv", *flags(given, *more)))
    assert not (given / "out" / "runs").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--size-px", 32), "--size-px 32: must be at least 64"),
        (("--masks", "a/b"), "--masks a/b: letters, digits"),
        (("--scale", 0), "--scale 0.0: above 0, at most 1"),
        (("--until", "hands"), "invalid choice 'hands' for argument '--until'"),
        (("--recipe", "other"), "invalid choice 'other' for argument '--recipe'"),
        (("--inputs", "weight"), "invalid choice 'weight' for argument '--inputs'"),
    ],
)
def test_values_that_no_flag_takes(
    more: tuple[object, ...], message: str, given: Path, run_in_process: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, text = run_in_process("boneage_cv", *flags(given, *more))
    assert status == 2
    assert message in " ".join(text.replace("│", " ").split())
    assert "Traceback" not in text
    assert not (given / "out").exists()


@pytest.mark.parametrize(
    ("ages", "message"),
    [
        (
            "id,boneage,male\ngood0,60,False\ngood1,-3,True\n",
            'line 3: boneage is "-3", no number of months from 0 to 240',
        ),
        (
            "id,boneage,male\ngood0,5.5,False\ngood1,17,True\n",
            "the largest boneage is 17: are these years? name the column",
        ),
        ("id,boneage_years,male\ngood0,60,False\n", 'line 2: boneage_years is "60", no number of years from 0 to 20'),
        ("id,boneage,male\ngood0,250,False\n", 'boneage is "250", no number of months from 0 to 240'),
        ("id,boneage,male\ngood0,about nine,False\n", "boneage is 10 characters, no number"),
        ("id,boneage,male\ngood0,60,maybe\n", 'line 2: male is "maybe", not True or False'),
        ("id,boneage,sex\ngood0,60,1\n", 'sex is "1", not M or F (numbers only in a column named male'),
        (
            "name,months\ngood0,60\n",
            "no column names the films; none of its 2 columns has a known name: is its first line the header?; known names are",
        ),
        ("id,months\ngood0,60\n", "no column holds bone ages; its columns are id, months; known names are"),
        ("id,boneage\ngood0,60\ngood0,61\n", "lines 2 and 3 are one film with other values; keep one of them"),
        ("id,boneage\n,60\n", "line 2 names no film"),
        ("id,boneage\ngood0,\n", "no film has a bone age, and training needs some; fill in the column boneage"),
        ("", "there is no row in it"),
    ],
)
def test_a_table_of_ages_that_cannot_be_meant_is_named_by_its_line(
    ages: str, message: str, given: Path, run_in_process: Job
) -> None:
    (given / "labels" / "ages.csv").write_text(ages)
    error = the_error(run_in_process("boneage_cv", *flags(given)))
    assert message in error
    assert "--labels" in error
    assert not (given / "out").exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("more.csv", AGES, "ages.csv and more.csv are both a CSV of ages"),
        ("more.json", "{", "not JSON as VIA writes it"),
        (
            "more.json",
            json.dumps({"a": marked("a.png", np.zeros((3, 2)))}).replace('"tip"', '"elbow"'),
            "film 1: a point with no name that is known; call it tip, thumb or capitate",
        ),
        ("more.json", json.dumps({"a": marked("good0.png", np.zeros((3, 2)))}), "has the tip of one film elsewhere"),
    ],
)
def test_exports_that_cannot_be_meant(name: str, text: str, message: str, given: Path, run_in_process: Job) -> None:
    (given / "labels" / name).write_text(text)
    assert message in the_error(run_in_process("boneage_cv", *flags(given)))


def test_points_without_ages_are_no_labels(given: Path, run_in_process: Job) -> None:
    (given / "labels" / "ages.csv").unlink()
    message = the_error(run_in_process("boneage_cv", *flags(given)))
    assert "there is no CSV of ages in this folder; put one beside the exports of VIA" in message


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--search", "lr=1..2"), "--search lr=1..2: no such field"),
        (("--backbones", "modernn"), "modernn"),
        (("--objective", "auc"), "mae"),
    ],
)
def test_what_cannot_be_searched_is_said(more: tuple[str, ...], message: str, given: Path, run_in_process: Job) -> None:
    own = ("--backbones", "phantom") if "--backbones" not in more else ()
    place = (
        "--images",
        given / "images",
        "--labels",
        given / "labels",
        "--out",
        given / "out",
        "--key-dir",
        given / "k",
    )
    status, text = run_in_process("boneage_tune", *own, *place, *more)
    assert status == 2
    assert message in " ".join(text.replace("│", " ").split())
    assert "Traceback" not in text
    assert not (given / "out" / "searches").exists()


# ---- films among good ones ----------------------------------------------------------------------------------------------


def shards_of(folder: Path) -> pd.DataFrame:
    columns = ["film_id", "patient_id", "age_months", "sex", "has_mask", "has_points", "points"]
    found = (pd.read_parquet(path, columns=columns) for path in (folder / "out" / "shards").rglob("*.parquet"))
    return pd.concat(found).set_index("film_id")


def told(folder: Path) -> dict[str, tuple[str, str | None]]:
    """File → what became of it, and why."""
    inventory = pd.read_parquet(folder / "out" / "inventory.parquet")
    names = [path.removeprefix(f"{folder}/images/") for path in inventory["path"]]
    return dict(zip(names, zip(inventory["status"], inventory["reason"], strict=True), strict=True))


@pytest.mark.usefixtures("local_ray")
def test_films_that_cannot_be_used_cost_no_neighbour(given: Path, run_in_process: Job) -> None:
    images, hand = given / "images", draw_hand(np.random.default_rng(9), 90, "M", ROWS, COLUMNS)
    write_png(images / "black.png", np.zeros((ROWS, COLUMNS), np.uint8))
    (images / "cut.png").write_bytes((images / "good0.png").read_bytes()[:-60])
    (images / "notes.txt").write_text("not a film")
    for shift, name in enumerate(("outside", "nobody", "ageless", "stranger", "oddmask"), start=1):
        write_png(images / f"{name}.png", np.roll(hand.image, shift, 1))
    for path in (images / "twice.png", images / "again" / "twice.png"):
        write_png(path, hand.image)
    lines = [f"{name},100,1," for name in ("outside", "oddmask", "twice", "black", "cut", "absent")]
    write_ages(given, [*ages_of(given), *lines, "nobody,100,,", "ageless,,1,"])
    write_png(images / "masks" / "oddmask.png", hand.mask[:, :40] * np.uint8(255))
    write_png(images / "masks" / "ofnofilm.png", hand.mask * np.uint8(255))
    add_points(given, "outside", np.array([hand.points[0], (COLUMNS + 30, 50), hand.points[2]]))
    add_points(given, "elsewhere", hand.points)
    status, text = run_in_process("boneage_cv", *flags(given, "--until", "shards"))
    assert status == 0, text

    shards = shards_of(given)
    assert {*GOOD} <= {*shards.index}
    good = shards.loc[GOOD]
    assert good["age_months"].tolist() == [40 + 20 * number for number in range(6)]
    assert (good[["has_mask", "has_points"]] == 1).all(axis=None)
    assert {*shards.index} - {*GOOD} >= {"outside", "nobody", "ageless", "stranger", "oddmask"}
    assert not {"black", "cut", "absent", "elsewhere"} & {*shards.index}
    assert shards.loc["outside", "has_points"] == 0  # the film stays, its points do not
    assert shards.loc["oddmask", "has_mask"] == 0
    assert pd.isna(shards.loc["nobody", "sex"])
    assert shards.loc[["ageless", "stranger"], "age_months"].isna().all()

    became = told(given)
    for name, (state, reason) in {
        "black.png": ("quarantined", "an empty film: every pixel is 0"),
        "cut.png": ("quarantined", "damaged pixels"),
        "notes.txt": ("quarantined", ""),
        "outside.png": ("repaired", "a point lies outside of the film: its points are left out"),
        "oddmask.png": (
            "repaired",
            "mask: 40 × 104 pixels are other proportions than the film's 80 × 104: it is left out",
        ),
        "ageless.png": ("unlabelled", "the label file knows no age of it"),
        "stranger.png": ("unlabelled", "not in the label file"),
        "masks/ofnofilm.png": ("unused", "a mask of no film that is used"),
    }.items():
        assert became[name][0] == state, (name, became[name])
        assert reason in str(became[name][1]), (name, became[name])
    assert {became[f"{name}.png"][0] for name in GOOD} == {"ok"}
    assert sorted(became[name][0] for name in ("twice.png", "again/twice.png")) == ["duplicate", "ok"]
    said = " ".join(text.split())
    for line in (
        "1 films that exports of VIA have points or outlines of are not there: those of other films",
        "2 films of unknown sex: only the models of both sexes read them",  # the one without a row, too
        "1 films are not in the label file: they are predicted, never trained on",
        "1 films have no age in the label file: they are predicted, never trained on",
        "1 masks are of no film that is used",
    ):
        assert line in said, line


@pytest.mark.usefixtures("local_ray")
def test_another_naming_of_columns_gives_the_same_films(given: Path, run_in_process: Job) -> None:
    status, text = run_in_process("boneage_cv", *flags(given, "--until", "shards"))
    assert status == 0, text
    wanted = shards_of(given)
    # as a German Excel saves it
    rows = [line.split(",") for line in ages_of(given)]
    years = [f"{int(age) / 12:.9f}".replace(".", ",") for _, age, _, _ in rows]
    sexes = ["M" if male == "True" else "F" for _, _, male, _ in rows]
    renamed = [f"{row[0]}.png;{row[3]};{sex};{age}" for row, sex, age in zip(rows, sexes, years, strict=True)]
    write_ages(given, renamed, "File Name;Patient ID;Gender;Bone Age (years)")
    (given / "out").rename(given / "before")
    status, text = run_in_process("boneage_cv", *flags(given, "--until", "shards"))
    assert status == 0, text
    found = shards_of(given)
    assert found["age_months"].to_numpy() == pytest.approx(wanted["age_months"].to_numpy(), abs=1e-5)
    assert found.drop(columns=["age_months", "points"]).equals(wanted.drop(columns=["age_months", "points"]))


@pytest.mark.usefixtures("local_ray")
def test_points_of_other_films_alone_end_it_before_anything_is_trained(given: Path, run_in_process: Job) -> None:
    path = given / "labels" / "via.json"
    path.write_text(path.read_text().replace("good", "other"))
    error = the_error(run_in_process("boneage_cv", *flags(given)))
    assert "none of 6 films has points (tip, thumb, capitate)" in error
    assert "--no-register" in error
    assert not list((given / "out" / "runs").rglob("history.json"))


# ---- hands and points that the networks find ------------------------------------------------------------------------------


FOUND = ("good0", "nohand", "twohands", "thumb", "good1")


@pytest.fixture
def found(tmp_path: Path, local_ray: None, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Films as shards and what two networks have found on them: of FOUND, one has no hand, one has two, and on one the thumb
    lies outside."""

    def here(work: Any, groups: Sequence[str]) -> Iterator[tuple[int, Any]]:
        """In place of actors, which take seconds to start."""
        worker, inputs = FunctionWorker(work.derivation), ray.get(work.inputs)
        for number, piece in enumerate(work.todo):
            worker.write(piece.run, inputs, piece.places, piece.folder, piece.name)
            yield number, None

    monkeypatch.setattr("medray.engine.derive.derive.done_by_actors", here)
    films, masks, points = [], [], []
    for number, name in enumerate(FOUND):
        hand = draw_hand(np.random.default_rng(number), 100, "F", ROWS, COLUMNS)
        mask, six = hand.mask.copy(), hand.points.copy()
        if name == "nohand":
            mask[:] = 0
        if name == "twohands":
            mask[:] = 0
            mask[10:90, 5:35] = mask[20:90, 45:75] = 1
        if name == "thumb":
            six[1] = COLUMNS + 40, 50
        ids = {"film_id": name, "patient_id": name}
        shape = {"rows": ROWS, "columns": COLUMNS, "image": hand.image.tobytes()}
        films.append(ids | shape | {"age_months": 100.0, "sex": "F", "has_points": 0, "has_mask": 0})
        masks.append(ids | {"found_rows": ROWS, "found_columns": COLUMNS, "found": (mask * np.uint8(255)).tobytes()})
        points.append(ids | {"found_points": six.ravel().tolist()})
    store = Store(tmp_path / "stages")
    stages = (
        ("films", films, HandFilm.shard_schema),
        ("masks", masks, Masks.schema),
        ("points", points, Points.schema),
    )
    for stage, rows, schema in stages:
        store.write_table(f"{stage}/a.parquet", pa.Table.from_pylist(rows, schema=schema))
    return {stage: read_index(store.sub(stage), ["film_id"]) for stage, _, _ in stages} | {"to": store}


def test_no_hand_two_hands_and_a_thumb_outside_cost_no_neighbour(
    found: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    pairs, _ = joined(found["films"], found["masks"], on="film_id")
    hands = derive(Hands(), pairs, found["to"].sub("hands"), what="hands")
    pairs, _ = joined(hands.index(["film_id"]), found["points"], on="film_id")
    region = derive(Region("A", 0.05, "points"), pairs, found["to"].sub("A"), what="region A")
    _, index = region.index([*ABOUT])
    assert index["film_id"].tolist() == ["good0", "good1"]
    lost = {"segmentation": hands.set_aside(), "registration": region.set_aside()}
    films = pd.DataFrame({"film_id": found["films"][1]["film_id"], "fold": 0})
    found_films = refused_films(lost, films, [0])
    assert found_films["held_out"].all()
    assert found_films[["film_id", "stage", "reason"]].to_dict("records") == [
        {"film_id": "nohand", "stage": "segmentation", "reason": "no hand was found on it"},
        {"film_id": "twohands", "stage": "segmentation", "reason": "two hands, or parts of two: a film must show one"},
        {"film_id": "thumb", "stage": "registration", "reason": "the thumb lies outside of the film"},
    ]
    said = capsys.readouterr().err
    assert "hands: 2 of 5 rows were set aside; the first reason: no hand was found on it" in said
    assert "region A: 1 of 3 rows were set aside; the first reason: the thumb lies outside of the film" in said


def test_films_of_other_proportions_than_the_canvas_are_set_aside(found: dict[str, Any]) -> None:
    wide = found["to"].read_table("films/a.parquet").to_pylist()[0]
    wide |= {"film_id": "wide", "rows": COLUMNS, "columns": ROWS}
    films = found["to"].read_table("films/a.parquet")
    both = pa.concat_tables([films.slice(0, 1), pa.Table.from_pylist([wide], schema=films.schema)])
    found["to"].write_table("canvas/a.parquet", both)
    rows, _ = read_index(found["to"].sub("canvas"), ["film_id"])
    hands = derive(Hands(masked=False), Inputs((rows,)), found["to"].sub("whole"), what="hands")
    region = derive(Region("B", 0.1, "canvas"), hands.index(["film_id"])[0], found["to"].sub("B"), what="region B")
    assert region.index(["film_id"])[1]["film_id"].tolist() == ["good0"]
    assert region.set_aside()["reason"].tolist() == ["80 × 104 pixels are not the canvas's proportions (2080 × 1600)"]
