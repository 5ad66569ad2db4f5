from __future__ import annotations

import gzip
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medray.systems.chest.classes import FINDINGS
from medray.systems.chest.labels import OFFICIAL, OWN, THREE, Labels, read_labels

ENTRY = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"


def entry(folder: Path, rows: list[str], header: str = ENTRY, name: str = "Data_Entry_2017.csv") -> str:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("\n".join([header, *rows]) + "\n")
    return str(folder / name)


FOUR = [
    "00000001_000.png,Cardiomegaly|Effusion,0,1,058Y,M,PA",
    "00000001_001.png,No Finding,1,1,59,M,AP",
    "00000002_000.png,Pleural_Thickening,0,2,414,F,PA",
    "00000003_000.png,Hernia,0,3,20,F,LL",
]


def test_finding_strings_become_columns(tmp_path: Path) -> None:
    labels = read_labels(entry(tmp_path, FOUR))
    table = labels.table
    assert table.index.tolist() == ["00000001_000", "00000001_001", "00000002_000", "00000003_000"]
    assert {name for name in FINDINGS if table.loc["00000001_000", name]} == {"Cardiomegaly", "Effusion"}
    assert table.loc["00000001_001", list(FINDINGS)].tolist() == [0] * 14
    assert table["patient_id"].tolist() == ["00000001", "00000001", "00000002", "00000003"]
    assert table["age_years"].tolist()[:2] == [58, 59]
    assert np.isnan(table["age_years"].iloc[2])  # nobody is 414
    assert table["sex"].tolist() == ["M", "M", "F", "F"]
    assert table["view"].tolist() == ["PA", "AP", "PA", "LL"]
    assert labels.split is None
    assert read_labels(str(tmp_path)).table.equals(table)  # the folder, too


def test_the_official_lists_are_the_split_and_hold_no_val(tmp_path: Path) -> None:
    uri = entry(tmp_path, FOUR)
    (tmp_path / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png\n")
    (tmp_path / "test_list.txt").write_text("00000002_000.png")
    for given in (uri, str(tmp_path)):
        labels = read_labels(given)
        assert labels.table["split"].tolist() == ["train", "train", "test", None]
        assert labels.split == OFFICIAL


def test_official_lists_of_other_films_are_refused(tmp_path: Path) -> None:
    uri = entry(tmp_path, FOUR)
    (tmp_path / "train_val_list.txt").write_text("00000009_000.png\n")
    (tmp_path / "test_list.txt").write_text("images/00000002_000.png\n")
    with pytest.raises(
        ValueError, match=r"none of the 2 names in the official lists is a film of .*Data_Entry_2017.csv"
    ):
        read_labels(uri)


def test_a_film_in_both_official_lists_is_refused(tmp_path: Path) -> None:
    uri = entry(tmp_path, FOUR)
    for name in ("train_val_list.txt", "test_list.txt"):
        (tmp_path / name).write_text("00000001_000.png\n")
    with pytest.raises(ValueError, match="1 films are in both official lists"):
        read_labels(uri)


def three(folder: Path, **rows: list[str]) -> str:
    folder.mkdir(exist_ok=True)
    for split in ("train", "val", "test"):
        (folder / f"{split}_list.txt").write_text("\n".join(rows[split]) + "\n")
    return str(folder)


def line(name: str, *positive: str) -> str:
    return " ".join([name, *(str(int(finding in positive)) for finding in FINDINGS)])


def lists(folder: Path) -> str:
    return three(
        folder,
        train=[line("00000001_000.png", "Mass"), line("00000001_001.png")],
        val=[line("00000002_000.png", "Hernia")],
        test=[line("00000003_000.png", "Edema", "Mass")],
    )


def test_three_lists_hold_labels_and_the_split(tmp_path: Path) -> None:
    labels = read_labels(lists(tmp_path))
    assert labels.split == THREE
    assert labels.table["split"].tolist() == ["train", "train", "val", "test"]
    assert labels.table["patient_id"].tolist() == ["00000001", "00000001", "00000002", "00000003"]
    assert labels.table[["Mass", "Hernia", "Edema"]].to_numpy().tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0], [1, 0, 1]]
    assert labels.table["view"].isna().all()
    for path in tmp_path.iterdir():  # and packed
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert read_labels(str(tmp_path)).table.equals(labels.table)


def test_data_entry_beside_three_lists_adds_age_sex_and_view_only(tmp_path: Path) -> None:
    folder = lists(tmp_path)
    entry(tmp_path, FOUR)
    labels = read_labels(folder)
    assert labels.table["view"].tolist() == ["PA", "AP", "PA", "LL"]
    assert labels.table["Mass"].tolist() == [1, 0, 0, 1]
    assert len(labels.warnings) == 1
    assert labels.warnings[0].startswith("8 labels of 3 films differ between the lists and Data_Entry")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lists_that_were_saved_by_an_editor(tmp_path: Path, encoding: str, end: str) -> None:
    def again(path: Path) -> None:
        path.write_bytes(path.read_text().replace("\n", end).encode(encoding))

    plain = read_labels(lists(tmp_path / "three"))
    for path in (tmp_path / "three").iterdir():
        again(path)
    assert read_labels(str(tmp_path / "three")).table.equals(plain.table)
    uri = entry(tmp_path / "official", FOUR)
    (tmp_path / "official" / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png\n")
    (tmp_path / "official" / "test_list.txt").write_text("00000002_000.png\n00000003_000.png")
    for path in (tmp_path / "official").iterdir():
        again(path)
    assert read_labels(uri).table["split"].tolist() == ["train", "train", "test", "test"]


def test_lists_in_another_encoding_are_one_line(tmp_path: Path) -> None:
    folder = lists(tmp_path)
    path = tmp_path / "val_list.txt"
    path.write_bytes(path.read_text().encode("utf-16"))
    with pytest.raises(ValueError, match=r"^--labels .*val_list.txt: not a text file in UTF-8; save it as one$"):
        read_labels(folder)
    uri = entry(tmp_path, FOUR)
    for name in ("train_val_list.txt", "test_list.txt"):
        (tmp_path / name).write_bytes("00000001_000.png\r\n".encode("utf-16"))
    with pytest.raises(ValueError, match=r"^--labels .*train_val_list.txt: not a text file in UTF-8; save it as one$"):
        read_labels(uri)


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators(tmp_path: Path, separator: str) -> None:
    rows = [row.replace(",", separator) for row in FOUR]
    labels = read_labels(entry(tmp_path, rows, ENTRY.replace(",", separator)))
    assert labels.table["Effusion"].tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("cut", [0, 1])
def test_a_patient_in_two_splits_is_refused_and_not_named(tmp_path: Path, cut: int) -> None:
    if cut:
        folder = three(
            tmp_path, train=[line("00000001_000.png")], val=[line("00000002_000.png")], test=[line("00000001_001.png")]
        )
    else:
        folder = str(tmp_path / "own.csv")
        Path(folder).write_text("path,patient,Mass,split\na.png,alice,1,train\nb.png,alice,0,Test\nc.png,bob,1,val\n")
    with pytest.raises(ValueError, match="1 patients have films in two of the splits") as error:
        read_labels(folder)
    assert "00000001" not in str(error.value)
    assert "alice" not in str(error.value)
    assert "folds are drawn by patient" in str(error.value)


@pytest.mark.parametrize("name", ["some.csv", "some.csv.gz"])
def test_any_table_with_a_path_a_patient_and_findings(tmp_path: Path, name: str) -> None:
    text = (
        "Path,patient_id,pleural thickening,MASS,Pleural Effusion,Sex,Frontal/Lateral,AP/PA,Split,comment\n"
        "a/view1.jpg,p1,1.0,-1.0,0,Female,Frontal,AP,train,fine\n"
        "a/view2.jpg,p1,,u,1,Female,Lateral,,valid,\n"
    ).replace(",valid", ",train")
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    labels = read_labels(str(tmp_path / name))
    assert labels.table.index.tolist() == ["a/view1", "a/view2"]
    columns = ["Pleural_Thickening", "Mass", "Effusion"]
    np.testing.assert_array_equal(labels.table[columns], [[1, np.nan, 0], [np.nan, np.nan, 1]])
    assert labels.table[[f for f in FINDINGS if f not in columns]].isna().all(axis=None)
    assert labels.table["view"].tolist() == ["AP", "LATERAL"]
    assert labels.table["sex"].tolist() == ["F", "F"]
    assert labels.split == OWN


def own(tmp_path: Path, text: str) -> Labels:
    (tmp_path / "own.csv").write_text(text)
    return read_labels(str(tmp_path / "own.csv"))


def test_no_finding_answers_for_empty_cells_and_contradicts_findings(tmp_path: Path) -> None:
    labels = own(
        tmp_path, "image,patient,Mass,Edema,No Finding\na,1,,,1\nb,1,1,,1\nc,2,1,,0\nc,2,1,,0\nd,3,0,1,\nd,3,1,1,\n"
    )
    np.testing.assert_array_equal(labels.table.loc["a", ["Mass", "Edema", "Hernia"]].astype(float), [0, 0, np.nan])
    assert labels.conflicts == {
        "b": '"No Finding" and a finding',
        "d": "the label file gives it twice, and not the same",
    }
    assert labels.table.loc[["b", "d"], list(FINDINGS)].isna().all(axis=None)
    assert labels.table.loc["c", "Mass"] == 1
    assert labels.warnings[0] == "1 repeated label rows, merged"
    assert labels.table.index.is_unique


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "image,patient,Pneumothorx,Mass\na,1,1,0\n",
            r'"Pneumothorx" \(did you mean Pneumothorax\?\): no finding .* drop it',
        ),
        (
            "image,patient,Support Devices\na,1,1\n",
            r'"Support Devices": no finding that medray knows; there are Atelectasis',
        ),
        ("image,patient,remark\na,1,nice\n", "no column is named like a finding"),
        ("image,Mass\na,1\n", "no column names the patients .*its columns are image, Mass; without it"),
        ("patient,Mass\na,1\n", "no column names the images"),
        ("image,patient,Mass\na,1,0\nb,1,maybe\n", 'line 3: Mass is "maybe", neither 0 nor 1'),
        ("image,patient,Mass\na,,0\n", "line 2: image or patient is empty"),
        ("image,patient,Mass,split\na,1,0,fold1\n", 'line 2: split "fold1" is not train, val or test'),
        ("image,patient,Mass,mass\na,1,0,1\n", "2 columns are named mass"),
        ("image,patient,Finding Labels\na,1,Mass|Lump\n", 'line 2: "Lump": no finding .*, and No Finding'),
        ("image,patient,Mass\n", "there is no row in it"),
        ("", "there is no row in it"),
        ("image,patient,Mass\n\na,1,0,0,0\n", "line 3 has 5 cells, the header has 3"),
        ('image,patient,Mass\n"a,1,0\n', "not a CSV file"),
    ],
)
def test_a_wrong_table_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        own(tmp_path, text)
    assert "own.csv" in str(error.value)
    assert "\n" not in str(error.value)


def test_wrong_lists_are_one_line(tmp_path: Path) -> None:
    good = {"train": [line("00000001_000.png")], "val": [line("00000002_000.png")], "test": [line("00000003_000.png")]}
    with pytest.raises(ValueError, match=r"val_list.txt: line 1: a line must be a file name and 14 times 0 or 1"):
        read_labels(three(tmp_path / "a", **good | {"val": ["00000002_000.png 1"]}))
    with pytest.raises(ValueError, match=r"test_list.txt: line 1: a label is neither 0 nor 1"):
        read_labels(three(tmp_path / "b", **good | {"test": [line("00000003_000.png")[:-1] + "2"]}))
    with pytest.raises(ValueError, match=r"1 names in the lists are none of ChestX-ray14's"):
        read_labels(three(tmp_path / "c", **good | {"train": [line("film.png")]}))
    uri = entry(tmp_path / "c", FOUR)
    (tmp_path / "c" / "train_val_list.txt").write_text("00000001_000.png\n")
    with pytest.raises(ValueError, match=r"test_list.txt: the official list has file names only"):
        read_labels(uri)


def test_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="absent.csv: cannot be read"):
        read_labels(str(tmp_path / "absent.csv"))
    with pytest.raises(ValueError, match="neither train_list.txt.* nor Data_Entry_2017"):
        read_labels(str(tmp_path))
    entry(tmp_path, FOUR)
    entry(tmp_path, FOUR, name="Data_Entry_2017_v2020.csv")
    with pytest.raises(ValueError, match="2 files are named Data_Entry_2017"):
        read_labels(str(tmp_path))


@pytest.mark.real_data
def test_all_112120_films_of_the_real_lists(chest_dir: Path) -> None:
    start = time.perf_counter()
    labels = read_labels(str(chest_dir))
    assert time.perf_counter() - start < 15  # two seconds alone on the machine
    table = labels.table
    assert len(table) == 112_120
    assert table["patient_id"].nunique() == 30_805
    assert table["split"].value_counts().to_dict() == {"train": 78_468, "val": 11_219, "test": 22_433}
    assert (table.groupby("patient_id")["split"].nunique() == 1).all()
    assert table["view"].value_counts().to_dict() == {"PA": 67_310, "AP": 44_810}
    assert int(table["Hernia"].sum()) == 227
    assert int(table["Infiltration"].sum()) == 19_870
    assert labels.conflicts == {}
    assert labels.warnings[0].startswith("188 labels of ")


@pytest.mark.real_data
def test_the_real_data_entry_agrees_with_its_own_strings(chest_dir: Path) -> None:
    path = chest_dir / "Data_Entry_2017_v2020.csv.gz"
    labels = read_labels(str(path))
    raw = pd.read_csv(path).set_index("Image Index")["Finding Labels"]
    assert labels.split is None
    assert (labels.table[list(FINDINGS)].sum(axis=1).to_numpy() == (raw.str.count(r"\|") + (raw != "No Finding"))).all()
    assert int(labels.table["Infiltration"].sum()) == 19_894
