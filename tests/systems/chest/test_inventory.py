from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from chest_films import dicom, noise, write_png

from medray.engine.derive.scan import scan_here
from medray.shards.inventory import Inventory
from medray.shards.store import Store
from medray.systems.chest.classes import FINDINGS
from medray.systems.chest.inventory import assemble
from medray.systems.chest.labels import Labels, read_labels
from medray.systems.chest.source import Radiograph


def scan_of(folder: Path) -> pd.DataFrame:
    return scan_here(Radiograph(), Store(folder), Store(folder).files())


def inventory_of(folder: Path, labels: Labels | None = None) -> Inventory:
    return assemble(scan_of(folder), labels)


def table_of(tmp_path: Path, text: str) -> Labels:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    return read_labels(str(path))


def statuses(found: Inventory) -> dict[str, str]:
    names = found.table["path"].str.rsplit("/", n=1).str[1]
    return dict(zip(names, found.table["status"], strict=True))


HEAD = "Image Index,Finding Labels,Patient ID,Patient Age,Patient Sex,View Position\n"


def test_every_kind_of_film_has_its_status(tmp_path: Path) -> None:
    films = tmp_path / "films"
    for number in range(4):
        write_png(films / f"0000000{number}_000.png")
    write_png(films / "copy" / "00000001_000.png")
    (films / "note.txt").write_text("no film")
    (films / "half.png").write_bytes((films / "00000001_000.png").read_bytes()[:20])
    labels = table_of(
        tmp_path,
        HEAD + "00000001_000.png,Mass,1,50,M,PA\n00000002_000.png,No Finding,2,60,F,LL\n"
        "00000003_000.png,Edema,3,70,F,AP\n00000009_000.png,Edema,9,70,F,AP\n",
    )
    found = inventory_of(films, labels)
    assert statuses(found) == {
        "00000000_000.png": "unlabelled",
        "00000001_000.png": "duplicate",
        "00000002_000.png": "quarantined",
        "00000003_000.png": "ok",
        "note.txt": "quarantined",
        "half.png": "quarantined",
    }  # fmt: skip  (of the two 00000001_000 the first one by path, not the copy, is kept)
    reasons = found.table.set_index("status")["reason"]
    assert "a lateral film" in reasons["quarantined"].tolist()[0]
    assert reasons["unlabelled"] == "not in the label file"
    rows = found.rows.set_index("image_id")
    assert rows.index.tolist() == ["00000000_000", "00000001_000", "00000003_000"]
    assert rows["patient_id"].tolist() == ["00000000", "1", "3"]
    assert rows["Mass"].tolist()[1:] == [1, 0]
    assert np.isnan(rows.loc["00000000_000", list(FINDINGS)].astype(float)).all()
    assert rows["age_years"].tolist()[1:] == [50, 70]
    assert rows["view"].tolist() == [None, "PA", "AP"]
    assert "split" not in rows
    assert found.warnings == (
        "1 films of the label file are not there",
        "1 films are not in the label file: they are predicted, never trained on",
    )
    missing = [n for n in Radiograph.shard_schema.names if n not in {*rows.reset_index().columns}]
    assert missing == ["rows", "columns", "image", "pixels_hash"]


def test_the_split_comes_along_and_films_of_none_are_not_trained_on(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_png(tmp_path / "films" / f"{name}.png")
    labels = table_of(tmp_path, "image,patient,Mass,split\na,1,1,train\nb,2,0,test\nc,3,1,\n")
    found = inventory_of(tmp_path / "films", labels)
    assert found.rows["split"].tolist() == ["train", "test", None]
    assert found.table["status"].tolist() == ["ok", "ok", "unlabelled"]
    assert np.isnan(found.rows["Mass"].iloc[2])
    assert found.warnings == ("1 films are in none of the splits: they are predicted, never trained on",)


def test_names_alike_in_two_folders_are_told_apart_by_the_path(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        write_png(tmp_path / "films" / patient / "view1.jpg.png")
        write_png(tmp_path / "films" / patient / "view1.png")
    labels = table_of(
        tmp_path, "Path,patient,Mass\ndata/p1/view1.png,1,1\ndata/p2/view1.png,2,0\n".replace("data/", "")
    )
    found = inventory_of(tmp_path / "films", labels)
    assert found.rows.set_index("image_id")["Mass"].to_dict()["p1/view1"] == 1
    assert found.rows.set_index("image_id")["Mass"].to_dict()["p2/view1"] == 0
    alone = inventory_of(tmp_path / "films")
    assert set(alone.rows["image_id"]) >= {"p1/view1", "p2/view1"}
    assert alone.rows["image_id"].is_unique
    assert alone.table["status"].eq("ok").all()


def test_files_that_were_moved_join_by_their_name_alone(tmp_path: Path) -> None:
    write_png(tmp_path / "films" / "a.png")
    labels = table_of(tmp_path, "Path,patient,Mass\nelsewhere/x/a.png,1,1\nelsewhere/x/b.png,1,1\n")
    assert inventory_of(tmp_path / "films", labels).rows["Mass"].tolist() == [1]


def test_dicom_joins_by_its_uid_whatever_the_file_is_called(tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    (films / "one").write_bytes(dicom(noise(1), SOPInstanceUID="1.2.3", PatientAge="040Y"))
    (films / "two").write_bytes(dicom(noise(1), SOPInstanceUID="1.2.3"))
    (films / "three.dcm").write_bytes(dicom(noise(2), SOPInstanceUID="1.2.4", ViewPosition="LL"))
    (films / "four.dcm").write_bytes(dicom(noise(2), SOPInstanceUID="1.2.5"))
    labels = table_of(tmp_path, "SOPInstanceUID,patient,Edema\n1.2.3,x,1\n1.2.4,y,1\nfour.dcm,z,0\n")
    found = inventory_of(films, labels)
    assert statuses(found) == {"one": "ok", "two": "duplicate", "three.dcm": "quarantined", "four.dcm": "ok"}
    rows = found.rows.set_index("image_id")
    assert rows["Edema"].to_dict() == {"1.2.3": 1, "1.2.5": 0}
    assert rows.loc["1.2.3", ["patient_id", "view", "age_years"]].tolist() == ["x", "PA", 40]


def test_without_labels_each_nameless_film_is_its_own_patient(tmp_path: Path) -> None:
    write_png(tmp_path / "00000013_005.png")
    write_png(tmp_path / "x.png")
    found = inventory_of(tmp_path)
    assert found.rows["patient_id"].tolist() == ["00000013", "x"]
    assert found.warnings == ("1 films name no patient: each counts as one of its own",)


def test_films_whose_labels_contradict_each_other_are_unlabelled(tmp_path: Path) -> None:
    write_png(tmp_path / "films" / "a.png")
    write_png(tmp_path / "films" / "b.png")
    labels = table_of(tmp_path, "image,patient,Mass\na,1,1\na,1,0\nb,2,1\n")
    found = inventory_of(tmp_path / "films", labels)
    assert found.table["status"].tolist() == ["unlabelled", "ok"]
    assert found.table["reason"][0] == "the label file gives it twice, and not the same"


def test_nothing_that_joins_or_is_usable_is_an_error(tmp_path: Path) -> None:
    write_png(tmp_path / "films" / "a.png")
    with pytest.raises(ValueError, match="none of its 1 rows belongs to one of 1 films; they must name the files"):
        inventory_of(tmp_path / "films", table_of(tmp_path, "image,patient,Mass\nz,1,1\n"))
    with pytest.raises(ValueError, match="all 1 that could be are lateral"):
        inventory_of(tmp_path / "films", table_of(tmp_path, "image,patient,Mass,view\na,1,1,Lateral\n"))
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.png").write_text("no film")
    with pytest.raises(ValueError, match=r"none of 1 files is a usable film; most often: neither PNG.* \(1\)"):
        inventory_of(tmp_path / "texts")


@pytest.mark.real_data
def test_the_real_films_join_the_real_lists(chest_dir: Path) -> None:
    labels = read_labels(str(chest_dir))
    found = inventory_of(chest_dir / "nih_64px", labels)
    assert len(found.rows) == 1000
    assert found.rows["split"].value_counts().to_dict() == {"train": 725, "test": 181, "val": 94}
    assert found.rows["view"].isin(["PA", "AP"]).all()
    assert found.rows["image_id"].is_unique
    assert found.rows[list(FINDINGS)].isin([0.0, 1.0]).all(axis=None)
    assert "111,120 films of the label file are not there" in found.warnings
