from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from chest_films import dicom, noise, write_png
from conftest import shared_data
from PIL import Image

from medray.engine.derive.scan import scan_here
from medray.shards.files import texts_of
from medray.shards.inventory import Inventory, Refused, set_aside
from medray.shards.pseudonym import Pseudonyms
from medray.shards.reading import encode_rows
from medray.shards.store import Store
from medray.systems.boneage.films.inventory import assemble
from medray.systems.boneage.films.labels import Labels, labels_for, read_labels
from medray.systems.boneage.films.source import HandFilm

OWN = "films name no patient: each counts as one of its own"


def inventory_of(folder: Path, labels: Labels | None = None, source: HandFilm | None = None) -> Inventory:
    source = source or HandFilm()
    scan = scan_here(source, Store(folder), Store(folder).files())
    return assemble(scan, None if labels is None else labels_for(labels, source))


def labels_of(tmp_path: Path, table: str, points: dict[str, list[float]] | None = None) -> Labels:
    """Of a CSV, and an export of VIA that has a thumb, or an outline, of some films."""
    folder = tmp_path / "labels"
    folder.mkdir(exist_ok=True)
    (folder / "ages.csv").write_text(table)
    films: dict[str, Any] = {}
    for film, values in (points or {}).items():
        shape: dict[str, Any] = {"name": "point", "cx": values[0], "cy": values[1]}
        if len(values) > 2:
            shape = {"name": "polygon", "all_points_x": values[0::2], "all_points_y": values[1::2]}
        region = {"shape_attributes": shape, "region_attributes": {"point": "thumb"}}
        films[film] = {"filename": film, "size": -1, "regions": [region]}
    (folder / "via.json").write_text(json.dumps(films))
    return read_labels(str(folder))


def write_mask(path: Path, rows: int = 48, columns: int = 40) -> Path:
    mask = np.zeros((rows, columns), np.uint8)
    mask[rows // 4 :, columns // 4 :] = 255
    return write_png(path, mask)


def names(paths: pd.Series, folder: Path) -> list[str]:
    return [path.removeprefix(f"{folder}/") for path in paths]


def statuses(found: Inventory, folder: Path) -> dict[str, str]:
    return dict(zip(names(found.table["path"], folder), found.table["status"], strict=True))


def reasons(found: Inventory, folder: Path) -> dict[str, str]:
    return dict(zip(names(found.table["path"], folder), found.table["reason"], strict=True))


def test_every_kind_of_file_has_its_status(tmp_path: Path) -> None:
    films = tmp_path / "films"
    for name in ("1", "2", "3", "copy/1"):
        write_png(films / f"{name}.png")
    (films / "note.txt").write_text("no film")
    write_mask(films / "masks" / "1.png")
    write_mask(films / "masks" / "9.png")
    (films / "masks" / "readme.txt").write_text("masks")
    labels = labels_of(tmp_path, "id,boneage,sex,patient\n1,100,F,a\n2,,M,b\n4,90,F,c\n")
    found = inventory_of(films, labels)
    assert statuses(found, films) == {
        "1.png": "ok", "2.png": "unlabelled", "3.png": "unlabelled", "copy/1.png": "duplicate", "note.txt": "quarantined",
        "masks/1.png": "ok", "masks/9.png": "unused", "masks/readme.txt": "quarantined",
    }  # fmt: skip
    assert reasons(found, films)["2.png"] == "the label file knows no age of it"
    assert reasons(found, films)["3.png"] == "not in the label file"
    assert list(found.rows.columns) == [
        "film_id", "patient_id", "film_rows", "film_columns", "age_months", "sex", "calendar_months", "points", "outline_px",
        "files",
    ]  # fmt: skip
    rows = found.rows.set_index("film_id")
    assert rows.index.tolist() == ["1", "2", "3"]
    assert rows["patient_id"].tolist() == ["a", "b", "3"]
    assert rows["sex"].tolist() == ["F", "M", None]
    assert rows["age_months"].isna().tolist() == [False, True, True]
    assert rows["files"].tolist() == [
        {"film": f"{films}/1.png", "mask": f"{films}/masks/1.png"}, {"film": f"{films}/2.png"}, {"film": f"{films}/3.png"},
    ]  # fmt: skip
    assert found.warnings == (
        "1 films of the label file are not there",
        "1 films are not in the label file: they are predicted, never trained on",
        "1 films have no age in the label file: they are predicted, never trained on",
        "1 films of unknown sex: only the models of both sexes read them",
        f"1 {OWN}",
        "1 masks are of no film that is used",
    )
    assert found.table["item_id"].fillna("").tolist() == ["1", "2", "3", "1", "1", "", "", ""]
    assert "unlabelled" not in set(set_aside(found.table)["status"])


def test_the_inventory_is_what_the_engine_reads(tmp_path: Path) -> None:
    films = tmp_path / "films"
    write_png(films / "1.png")
    write_mask(films / "masks" / "1.png")
    found = inventory_of(films, labels_of(tmp_path, "id,boneage\n1,100\n", {"1.png": [30.0, 40.0]}))
    links = found.links("film_id")
    assert sorted(names(found.table.loc[links["place"], "path"], films)) == ["1.png", "masks/1.png"]
    assert set(links["item"]) == {"1"}
    assert json.loads(texts_of(found.rows)[0]) == {"film": [f"{films}/1.png"], "mask": [f"{films}/masks/1.png"]}
    good, lost = encode_rows(HandFilm(), Store(films), found.rows.to_dict("records"))
    assert lost == {}
    assert (good[0]["has_mask"], good[0]["has_points"]) == (1, 1)
    assert np.isnan(good[0]["points"]).tolist() == [True, True, False, False, True, True]
    missing = {*HandFilm.shard_schema.names} - {*found.rows.columns}
    assert missing == {"rows", "columns", "image", "mask", "has_mask", "has_points", "pixels_hash"}
    assert set(Pseudonyms(None).all("film", found.rows["film_id"])) == {"1"}


def test_labels_come_before_headers(tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    for number, sex in enumerate("FFO"):
        (films / f"{number}.dcm").write_bytes(
            dicom(
                noise(number),
                SOPInstanceUID=f"1.2.{number}",
                PatientID=f"Name{number}",
                PatientSex=sex,
                PatientAge="010Y",
            )
        )
    (films / "old.dcm").write_bytes(
        dicom(noise(9), SOPInstanceUID="1.2.9", PatientID="x", PatientSex="M", PatientAge="040Y")
    )
    table = "id,boneage,sex,calendar_age_months,patient\n1.2.0,100,M,110,p\n1.dcm,90,,,\n2,80,,,\n"
    found = inventory_of(films, labels_of(tmp_path, table))
    rows = found.rows.set_index("film_id")
    assert rows.index.tolist() == ["1.2.0", "1.2.1", "1.2.2", "1.2.9"]
    assert rows["age_months"].tolist()[:3] == [100, 90, 80]
    assert rows["sex"].tolist() == ["M", "F", None, "M"]
    assert rows["patient_id"].tolist() == ["p", "Name1", "Name2", "x"]
    assert rows["calendar_months"].tolist()[:3] == [110, 120, 120]
    assert math.isnan(rows["calendar_months"].iloc[3])
    assert "1 films have a calendar age above 300 months in their header: it is left out" in found.warnings


def test_new_films_need_no_labels_and_no_masks(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png")
    write_png(tmp_path / "b" / "c.png")
    write_mask(tmp_path / "masks" / "a.png")
    found = inventory_of(tmp_path)
    assert found.rows["film_id"].tolist() == ["a", "c"]
    assert found.rows["patient_id"].tolist() == ["a", "c"]
    assert found.rows["sex"].tolist() == [None, None]
    assert found.rows["age_months"].isna().all()
    assert [list(files) for files in found.rows["files"]] == [["film"], ["film"]]
    assert statuses(found, tmp_path) == {"a.png": "ok", "b/c.png": "ok", "masks/a.png": "unused"}
    assert found.warnings == ("2 films of unknown sex: only the models of both sexes read them", f"2 {OWN}")


def test_points_of_another_film_are_counted(tmp_path: Path) -> None:
    write_png(tmp_path / "films" / "1.png")
    write_png(tmp_path / "films" / "2.png")
    labels = labels_of(
        tmp_path, "id,boneage,sex\n1,100,F\n", {"1.png": [3.0, 4.0], "8.png": [1, 2], "9.png": [1, 1, 9, 1, 9, 9]}
    )
    found = inventory_of(tmp_path / "films", labels)
    assert found.rows["points"].tolist()[0][2:4] == [3, 4]
    assert found.rows["points"].tolist()[1] is None
    assert (
        "2 films that exports of VIA have points or outlines of are not there: those of other films" in found.warnings
    )
    assert not any("label file are not there" in line for line in found.warnings)
    assert found.notes == (
        "exports of VIA: points of 1 films (2 in the exports), outlines of 0 films (1 in the exports)",
    )
    assert not inventory_of(tmp_path / "films", labels_of(tmp_path, "id,boneage,sex\n1,100,F\n")).notes


def test_a_film_that_only_an_export_names_is_learned_from_without_an_age(tmp_path: Path) -> None:
    write_png(tmp_path / "films" / "1.png")
    write_png(tmp_path / "films" / "2.png")
    found = inventory_of(tmp_path / "films", labels_of(tmp_path, "id,boneage\n1,100\n", {"2.png": [1, 1, 9, 1, 9, 9]}))
    assert found.rows["outline_px"].tolist() == [None, [1, 1, 9, 1, 9, 9]]
    assert found.table["status"].tolist() == ["ok", "unlabelled"]
    assert found.table["reason"][1] == "not in the label file: only what is drawn on it is learned from"


def test_csv_and_export_may_name_a_film_in_two_ways(tmp_path: Path) -> None:
    films = tmp_path / "films" / "x"
    films.mkdir(parents=True)
    (films / "one.dcm").write_bytes(dicom(noise(1), SOPInstanceUID="1.2.3"))
    write_png(films / "two.png")
    labels = labels_of(tmp_path, "id,boneage\n1.2.3,100\ntwo,90\n", {"one.dcm": [3, 4], "x/two.png": [5, 6]})
    rows = inventory_of(tmp_path / "films", labels).rows.set_index("film_id")
    assert rows["age_months"].to_dict() == {"1.2.3": 100, "two": 90}
    assert [points[2:4] for points in rows["points"]] == [[3, 4], [5, 6]]


def test_points_that_could_be_of_several_films_are_left_out(tmp_path: Path) -> None:
    for site in ("a", "b"):
        write_png(tmp_path / "films" / site / "1.png")
    labels = labels_of(tmp_path, "path,boneage\na/1.png,100\nb/1.png,90\n", {"1.png": [3, 4]})
    found = inventory_of(tmp_path / "films", labels)
    assert found.rows["age_months"].tolist() == [100, 90]
    assert found.rows["points"].tolist() == [None, None]
    assert (
        "1 names in exports of VIA could be of several films: their points and outlines are left out" in found.warnings
    )


def test_masks_lie_in_folders_of_their_name_at_any_depth(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for name in ("a/1", "b/1", "c/2", "films/3"):
        write_png(folder / f"{name}.png")
    for name in ("a/hands/1", "hands/b/1", "c/x/hands/deep/2", "hands/3"):
        write_mask(folder / f"{name}.png")
    labels = labels_of(tmp_path, "path,boneage\na/1,100\nb/1,90\n2,80\n3,70\n")
    found = inventory_of(folder, labels, HandFilm(masks="hands"))
    paired = {tuple(names(pd.Series([files["film"], files["mask"]]), folder)) for files in found.rows["files"]}
    assert paired == {
        ("a/1.png", "a/hands/1.png"), ("b/1.png", "hands/b/1.png"), ("c/2.png", "c/x/hands/deep/2.png"),
        ("films/3.png", "hands/3.png"),
    }  # fmt: skip
    assert (found.table["status"] == "ok").all()


def test_a_mask_is_found_by_its_films_uid_and_by_exactly_its_folders_first(tmp_path: Path) -> None:
    films = tmp_path / "films"
    for name in ("1", "a/1"):
        write_png(films / f"{name}.png")
    (films / "x.dcm").write_bytes(dicom(noise(1), SOPInstanceUID="1.2.3"))
    for name in ("1", "1.2.3"):
        write_mask(films / "masks" / f"{name}.png")
    found = inventory_of(films, labels_of(tmp_path, "path,boneage\na/1,100\nx.dcm,90\n"))
    paired = {Path(files["film"]).name: Path(files["mask"]).name for files in found.rows["files"] if "mask" in files}
    assert paired == {"1.png": "1.png", "x.dcm": "1.2.3.png"}
    assert next(files for files in found.rows["files"] if "mask" in files)["film"] == f"{films}/1.png"


def test_masks_that_cannot_be_told_are_set_aside_and_the_films_stay(tmp_path: Path) -> None:
    films = tmp_path / "films"
    for name in ("a/1", "b/1", "2", "3"):
        write_png(films / f"{name}.png")
    for name in ("masks/1.png", "masks/2.png", "other/masks/2.png", "masks/4.png"):
        write_mask(films / name)
    Image.fromarray(noise(1)).save(films / "masks" / "3.jpg")
    found = inventory_of(films, labels_of(tmp_path, "path,boneage\na/1,100\nb/1,90\n2,80\n3,70\n"))
    assert [list(files) for files in found.rows["files"]] == [["film"]] * 4
    why = reasons(found, films)
    assert why["masks/1.png"] == "a mask of several films of one name: put it into the same folders as its film"
    assert why["masks/2.png"] == why["other/masks/2.png"] == "two masks of one film: keep one"
    assert why["masks/3.jpg"] == "a mask that is no PNG: other formats blur its edge"
    assert why["masks/4.png"] == "a mask of no film that is used"
    assert "1 masks are of no film that is used" in found.warnings
    assert any(line.startswith("4 masks are set aside; the first reason: a mask") for line in found.warnings)
    assert (statuses(found, films)["masks/1.png"], statuses(found, films)["masks/4.png"]) == ("quarantined", "unused")


def test_a_film_whose_folder_above_is_called_masks_is_a_film(tmp_path: Path) -> None:
    films = tmp_path / "masks" / "films"
    write_png(films / "1.png")
    assert inventory_of(films).rows["film_id"].tolist() == ["1"]
    write_mask(tmp_path / "only" / "masks" / "1.png")
    with pytest.raises(
        Refused, match="all 1 files lie in a folder called masks, in which masks are looked for; name the folder"
    ):
        inventory_of(tmp_path / "only")


def test_nothing_that_joins_or_is_usable_is_refused(tmp_path: Path) -> None:
    films = tmp_path / "films"
    write_png(films / "1.png")
    labels = labels_of(tmp_path, "id,boneage\n7,100\n8,90\n", {"1.png": [1, 2]})
    with pytest.raises(
        Refused, match="--labels: none of its 2 films is one of the 1 that are there; they must name the files"
    ):
        inventory_of(films, labels)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.png").write_text("no film")
    with pytest.raises(Refused, match=r"none of 1 files is a usable film; most often: neither PNG.* \(1\)") as refused:
        inventory_of(tmp_path / "texts")
    assert len(refused.value.table) == 1
    for name in ("p/masks", "q/masks"):
        write_mask(tmp_path / "two" / name / "1.png")
    with pytest.raises(Refused, match="all 2 files lie in folders with masks: there is no film"):
        inventory_of(tmp_path / "two")
    empty = scan_here(HandFilm(), Store(films), [])
    with pytest.raises(Refused, match="there is no file"):
        assemble(empty, labels)


def test_a_black_film_is_set_aside_with_its_reason_and_its_neighbours_are_not(tmp_path: Path) -> None:
    write_png(tmp_path / "1.png")
    write_png(tmp_path / "2.png", np.zeros((48, 40), np.uint8))
    found = inventory_of(tmp_path)
    good, lost = encode_rows(HandFilm(), Store(tmp_path), found.rows.to_dict("records"))
    assert [row["film_id"] for row in good] == ["1"]
    assert lost == {"2": "an empty film: every pixel is 0"}


@pytest.mark.real_data
def test_the_real_films_join_the_real_table() -> None:
    folder = shared_data("hand_xray")
    found = inventory_of(folder / "images", read_labels(str(folder / "boneage-training-dataset.csv")))
    assert len(found.rows) == 40
    assert found.rows["sex"].isin(["F", "M"]).all()
    assert found.rows["age_months"].between(1, 228).all()
    assert found.rows["film_rows"].eq(2080).all()
    assert found.warnings == ("12,571 films of the label file are not there", f"40 {OWN}")
    row = found.rows.set_index("film_id").loc["2838"]
    table = pd.read_csv(folder / "boneage-training-dataset.csv", index_col="id")
    assert row["age_months"] == table.loc[2838, "boneage"]
    assert row["sex"] == ("M" if table.loc[2838, "male"] else "F")
