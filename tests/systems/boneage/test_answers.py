"""What a table, headers and a flag say of new films, and what is written of their ages."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from chest_films import dicom, write_png

from medray.engine.derive.scan import scan_here
from medray.shards.store import Store
from medray.systems.boneage.films.inventory import assemble
from medray.systems.boneage.films.source import HandFilm
from medray.systems.boneage.predict.answers import (
    COLUMNS,
    PHANTOMS,
    REFUSED,
    WHOLE_YEARS,
    FilmSet,
    band_words,
    film_set,
    hand_words,
    known_films,
    read_table,
    write_answers,
)
from medray.systems.boneage.predict.new_films import FILMS_PER_PIECE, SCHEMA
from medray.systems.boneage.scores.ensemble import Ensemble, Group

GROUP = Group(("A-regression-both",), (1.0,), half_width=12.0, films=40)
METHOD = {
    "models": {"A-regression-both": "net"}, "folds": [0],
    "stage_folds": [0], "masks": "segmentation", "points": "keypoints",
    "how": "points", "ensemble": Ensemble(dict.fromkeys(("girls", "boys", "unknown"), GROUP), False).identity(),
}  # fmt: skip


def films_in(folder: Path, table: str | None = None, sex: str | None = None) -> FilmSet:
    store = Store(folder)
    labels = None
    if table is not None:
        path = folder.parent / "table.csv"
        path.write_text(table)
        labels = read_table(str(path))
    return film_set(assemble(scan_here(HandFilm(), store, store.files()), None), store, labels, sex)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures, two DICOM films, a mask, and a file that is none."""
    own = tmp_path / "films"
    write_png(own / "masks" / "1.png")
    write_png(own / "anna" / "1.png")
    write_png(own / "ben" / "2.png")
    header = {"PatientSex": "M", "PatientAge": "010Y", "PatientID": "carl", "SOPInstanceUID": "1.2.3"}
    (own / "c.dcm").write_bytes(dicom(np.arange(2000, dtype=np.uint8).reshape(50, 40), **header))
    old = header | {"PatientAge": "052Y", "PatientID": "dora", "SOPInstanceUID": "1.2.4", "PatientSex": "O"}
    (own / "d.dcm").write_bytes(dicom(np.arange(2000, dtype=np.uint8).reshape(40, 50), **old))
    (own / "notes.txt").write_text("none")
    return own


def test_sex_patient_and_calendar_age_come_of_the_table_then_the_header_then_the_flag(folder: Path) -> None:
    table = "image,male,patient,calendar_age_months\n1,False,p1,100\n1.2.3,False,,\nelsewhere,True,,\n"
    films = films_in(folder, table, "M")
    found = pd.DataFrame(films.rows).set_index("film_id")
    assert found["sex"].to_dict() == {"1": "F", "2": "M", "1.2.3": "F", "1.2.4": "M"}
    assert found["sex_from"].to_dict() == {"1": "table", "2": "flag", "1.2.3": "table", "1.2.4": "flag"}
    assert found["patient_id"].replace({np.nan: None}).to_dict() == {
        "1": "p1",
        "2": None,
        "1.2.3": "carl",
        "1.2.4": "dora",
    }
    assert found["calendar_months"].tolist() == pytest.approx([100, np.nan, 120, np.nan], nan_ok=True)
    assert found["note"]["1.2.3"] == f"table and header name different sexes: the table's is taken; {WHOLE_YEARS}"
    assert found["note"]["1.2.4"] == "the header's age of 52 years is left out: no child's"
    assert found["shown"].tolist() == ["anna/1.png", "ben/2.png", "c.dcm", "d.dcm"]
    assert films.aside.values.tolist() == [["notes.txt", "neither PNG, JPEG nor DICOM"]]
    assert films.warnings == ("2 of 4 films are not in --table",)


def test_without_table_and_flag_only_a_header_knows_the_sex(folder: Path) -> None:
    found = pd.DataFrame(films_in(folder).rows)
    assert found["sex_from"].tolist() == ["unknown", "unknown", "header", "unknown"]
    assert found["sex"].replace({np.nan: None}).tolist() == [None, None, "M", None]


def test_points_of_an_export_beside_the_table_belong_to_the_film_of_their_name(folder: Path) -> None:
    own = folder.parent / "labels"
    own.mkdir()
    (own / "films.csv").write_text("image,male\n1,True\n2,True\n")
    marks = [
        {"shape_attributes": {"name": "point", "cx": x, "cy": 5}, "region_attributes": {"name": name}}
        for x, name in enumerate(("tip", "thumb", "capitate"))
    ]
    (own / "via.json").write_text(json.dumps({"2.png9": {"filename": "2.png", "size": 9, "regions": marks}}))
    store = Store(folder)
    inventory = assemble(scan_here(HandFilm(), store, store.files()), None)
    found = film_set(inventory, store, read_table(str(own)), None).rows
    assert [one["points"] for one in found] == [None, [0, 5, 1, 5, 2, 5], None, None]


def test_a_single_film_is_called_by_its_file(folder: Path) -> None:
    (one,) = films_in(folder / "anna" / "1.png").rows
    assert (one["film_id"], one["shown"]) == ("1", "1.png")


def test_pieces_number_the_films_through() -> None:
    films = FilmSet([{"film_id": str(i)} for i in range(FILMS_PER_PIECE + 2)], pd.DataFrame())
    first, second = films.pieces()
    assert (first.first, len(first.rows), second.names) == (1, FILMS_PER_PIECE, ["film00017", "film00018"])
    assert [first.name, second.name] == ["films00001", "films00017"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("image,male\n7,True\n", "--table: none of its 1 films is one of the 4 that are there; it must name the files"),
        ("image,male\n1,2\n", '--table .*table.csv: line 2: male is "2", not True or False'),
        ("who,male\n1,True\n", "--table .*table.csv: no column names the films"),
        ("image,calendar_age\n1,9.5\n", "--table .*: are these years\\? name the column calendar_age_years"),
    ],
)
def test_a_table_that_cannot_be_meant_is_one_line_that_names_the_flag(folder: Path, table: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        films_in(folder, table)
    assert "--labels" not in str(error.value)


@pytest.mark.parametrize(
    ("difference", "calendar", "words"),
    [
        (12.0, 120.0, "within 10% of calendar age"),
        (12.1, 120.0, "more than 10% above calendar age"),
        (-12.1, 120.0, "more than 10% below calendar age"),
        (np.nan, np.nan, ""),
    ],
)
def test_the_normal_band(difference: float, calendar: float, words: str) -> None:
    assert band_words(difference, calendar) == words


def test_hands_in_words() -> None:
    assert hand_words(None, False) == "thumb on the right of the film"
    assert hand_words("R", True) == "right hand, mirrored: thumb on the left of the film"
    assert hand_words("L", None) == "left hand, as laid"
    assert hand_words(None, None) == "as laid"


# ---- what is written -----------------------------------------------------------------------------------------------


def film(number: int, **more: Any) -> dict[str, Any]:
    about = {
        "film_id": f"own{number}",
        "patient_id": "hanna",
        "sex": "F",
        "sex_from": "table",
        "calendar_months": 100.0,
        "note": "",
    }
    return {"path": f"/in/{number}.png", "shown": f"{number}.png"} | about | more


def part(number: int, months: float | None = 105.04, **more: Any) -> dict[str, Any]:
    empty = dict.fromkeys(SCHEMA.names)
    found = {"months": months, "low": 93.0, "high": 117.0, "mirrored": False, "pixels_hash": f"hash{number}"}
    return empty | {"name": f"film{number:05d}"} | found | more


def refused(number: int, stage: str, reason: str) -> dict[str, Any]:
    return part(number, None, low=None, high=None, mirrored=None, stage=stage, reason=reason)


def write(
    to: Path,
    films: list[dict[str, Any]],
    parts: list[dict[str, Any]],
    aside: list[list[str]] | None = None,
    **more: Any,
) -> list[str]:
    every = FilmSet(films, pd.DataFrame(aside or [], columns=["path", "reason"]))
    half = len(parts) // 2
    tables = [pa.Table.from_pylist(some, schema=SCHEMA) for some in (parts[:half], parts[half:])]
    return write_answers(Store(to), tables, every, more.pop("trained", set()), METHOD, "published", **more)


FILMS = [
    film(1), film(2, calendar_months=130.0, sex=None, sex_from="unknown"),
    film(3, patient_id=None, calendar_months=np.nan), film(4),
]  # fmt: skip
PARTS = [
    part(1), part(2, 160.0, low=None, high=None, mirrored=True, note="the networks disagree about its points"),
    part(3, 59.7, mirrored=None), refused(4, "segmentation", "no hand was found on it"),
]  # fmt: skip


def test_ages_refused_films_and_warnings(tmp_path: Path) -> None:
    lines = write(tmp_path, FILMS, PARTS, [["sub/x.txt", "no film"]], trained={"hash3"}, caution=PHANTOMS)
    ages = pd.read_csv(tmp_path / "ages.csv", keep_default_na=False)
    assert tuple(ages.columns) == COLUMNS
    one, two, three = ages.to_dict("records")
    assert (one["film"], one["patient"], one["bone_age"], one["bone_age_months"]) == ("own1", "hanna", "8 y 9 m", 105.0)
    assert (float(one["difference_months"]), one["normal_band"]) == (5.0, "within 10% of calendar age")
    assert (float(one["low_months"]), float(one["high_months"])) == (93.0, 117.0)
    assert (two["sex"], two["sex_from"], two["hand"]) == ("", "unknown", "mirrored: thumb on the left of the film")
    assert (two["low_months"], two["normal_band"]) == ("", "more than 10% above calendar age")
    assert (three["bone_age"], three["calendar_months"], three["normal_band"], three["hand"]) == (
        "5 y 0 m",
        "",
        "",
        "as laid",
    )
    assert ages["trained_on"].astype(str).tolist() == ["False", "False", "True"]
    assert ages["method"].tolist() == ["published"] * 3
    lost = pd.read_csv(tmp_path / "refused.csv", keep_default_na=False)
    assert tuple(lost.columns) == REFUSED
    assert lost.values.tolist() == [
        ["own4", "segmentation", "no hand was found on it", "film00004", "4.png"],
        ["x.txt", "file", "no film", "", "sub/x.txt"],
    ]
    assert lines == [
        f"  3 films → {tmp_path}: ages.csv, ages.html; 2 refused, refused.csv says why",
        "! leakage: of 3 films 1 are in the training data, pixel by pixel",
        "! 1 film of unknown sex: only the models of both sexes are asked; knowing it is worth about 1.4 months on "
        "RSNA films",
        "! 1 film with a bone age more than 10% off the calendar age",
        "! 1 film: the networks disagree about its points",
    ]


def test_one_film_is_told_on_the_terminal(tmp_path: Path) -> None:
    lines = write(tmp_path, FILMS[:1], PARTS[:1])
    assert lines[1:] == [
        "  8 y 9 m (105.0 months; 95%: 93.0 to 117.0), girl; thumb on the right of the film; +5.0 months to calendar "
        "age: within 10% of calendar age"
    ]


def test_the_page_shows_all_of_it_and_no_identifier(tmp_path: Path) -> None:
    picture = cv2.imencode(".png", np.full((40, 60, 3), 90, np.uint8))[1].tobytes()
    for number in (1, 2, 4):
        (tmp_path / f"film0000{number}.png").write_bytes(picture)
    repeatability = {"months": 7.25, "pairs": 31, "patients": 20}
    write(tmp_path, FILMS, PARTS, [["sub/x.txt", "no film"]], caution=PHANTOMS, repeatability=repeatability)
    page = (tmp_path / "ages.html").read_text()
    assert not re.search(r"own\d|hanna|sub/x", page)
    for text in (
        "This run was trained on phantoms", "8 y 9 m", "93.0 to 117.0",
        "more than 10% above calendar age", "sex unknown",
        "no hand was found on it", "no film", "± 12.0 months", "less than 7.2 months", "31 pairs", "Greulich and Pyle",
        "film00001 … film00002",
    ):  # fmt: skip
        assert text in page, text
    assert page.count("data:image/webp") == 3
    assert 'src="http' not in page and "<script" not in page  # noqa: PT018
    assert "own1" in (tmp_path / "ages.csv").read_text()


def test_a_child_with_one_film_has_no_curve(tmp_path: Path) -> None:
    write(tmp_path, [FILMS[0], FILMS[2]], [part(1), part(2)])
    assert "Children with several films" not in (tmp_path / "ages.html").read_text()


def test_nothing_that_could_be_read_leaves_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"no film has an answer; first reason: no hand was found on it; .*refused\.csv has all"
    ):
        write(tmp_path, FILMS[:1], [refused(1, "segmentation", "no hand was found on it")])
    assert pd.read_csv(tmp_path / "refused.csv")["stage"].tolist() == ["segmentation"]
    assert "no hand was found on it" in (tmp_path / "ages.html").read_text()
    assert pd.read_csv(tmp_path / "ages.csv").empty


def test_films_of_a_single_fold_that_it_held_out_are_not_known(tmp_path: Path) -> None:
    shards, results = Store(tmp_path / "shards"), Store(tmp_path / "results")
    shards.write_table("a.parquet", pa.table({"film_id": ["007", "7"], "pixels_hash": ["x", "y"]}))
    results.write_bytes("films.csv", b"film_id,error\n007,0.5\n")
    assert known_films(results, shards, {0}) == {"y"}
    assert known_films(results, shards, {0, 1}) == {
        "x",
        "y",
    }  # another fold's network, of any stage, has learned from it
