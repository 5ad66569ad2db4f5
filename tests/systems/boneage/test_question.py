"""What a table, headers and a flag say of new films, and which run is asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from chest_films import dicom, write_png

from medray.engine.derive.scan import scan_here
from medray.engine.train.finished import model_of
from medray.shards.store import Store
from medray.systems.boneage.films.inventory import assemble
from medray.systems.boneage.films.source import HandFilm
from medray.systems.boneage.predict.new_films import FILMS_PER_PIECE
from medray.systems.boneage.predict.question import (
    WHOLE_YEARS,
    FilmSet,
    film_set,
    known_films,
    read_table,
)


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


def test_exports_of_via_beside_the_table_are_not_read(folder: Path) -> None:
    own = folder.parent / "labels"
    own.mkdir()
    (own / "films.csv").write_text("image,male\n1,True\n")
    (own / "via.json").write_text("{")
    head = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
    (own / "via.csv").write_text(f"{head}\n2.png,1,{{}},1,0,{{,{{\n")
    store = Store(folder)
    inventory = assemble(scan_here(HandFilm(), store, store.files()), None)
    found = film_set(inventory, store, read_table(str(own)), None)
    assert [one["sex_from"] for one in found.rows] == ["table", "unknown", "header", "unknown"]
    assert found.warnings == ("3 of 4 films are not in --table",)


def test_films_of_one_name_that_share_a_row_are_said(folder: Path) -> None:
    write_png(folder / "emma" / "1.png")
    films = films_in(folder, "image,male\n1,False\n2,True\n")
    assert [one["sex"] for one in films.rows if one["film_id"].endswith("1")] == ["F", "F"]
    assert films.warnings == (
        "2 of 5 films are not in --table",
        "2 films share a row of --table: what it says is taken for each of them",
    )


def test_a_single_film_is_called_by_its_file(folder: Path) -> None:
    (one,) = films_in(folder / "anna" / "1.png").rows
    assert (one["film_id"], one["shown"]) == ("1", "1.png")


def test_pieces_number_the_films_through() -> None:
    films = FilmSet([{"film_id": str(i)} for i in range(FILMS_PER_PIECE + 2)], pd.DataFrame())
    first, second = films.pieces()
    assert (first.first, len(first.rows), second.names) == (1, FILMS_PER_PIECE, ["film00017", "film00018"])
    assert [first.name, second.name] == ["films00001", "films00017"]


def test_groups_are_those_of_the_films_at_hand() -> None:
    assert FilmSet([{"sex": "F"}, {"sex": None}, {"sex": "F"}], pd.DataFrame()).groups == {"girls", "unknown"}


def test_a_name_that_the_run_has_not_is_said_with_those_that_it_has(tmp_path: Path) -> None:
    out = Store(tmp_path / "out")
    with pytest.raises(ValueError, match="--name b: --run .*/out holds no models/; name the --out of a finished bo"):
        model_of(out, "b", "boneage_cv.py")
    out.write_json("models/a/method.json", {})
    assert model_of(out, "a", "boneage_cv.py") == "a"
    with pytest.raises(ValueError, match="--name b: --run .*/out has a$"):
        model_of(out, "b", "boneage_cv.py")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("image,boneage\n1,60\n", "--table .*table.csv: no column says sex, patient or calendar age; its columns are"),
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


def test_films_of_a_single_fold_that_it_held_out_are_not_known(tmp_path: Path) -> None:
    shards, results = Store(tmp_path / "shards"), Store(tmp_path / "results")
    shards.write_table("a.parquet", pa.table({"film_id": ["007", "7"], "pixels_hash": ["x", "y"]}))
    results.write_bytes("films.csv", b"film_id,error\n007,0.5\n")
    assert known_films(results, shards, {0}) == {"y"}
    assert known_films(results, shards, {0, 1}) == {
        "x",
        "y",
    }  # another fold's network, of any stage, has learned from it
