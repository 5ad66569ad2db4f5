from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medray.systems.ich.classes import CLASSES
from medray.systems.ich.labels import read_labels


def write(path: Path, rows: list[str], header: str = "ID,Label") -> str:
    path.write_text("\n".join([header, *rows]) + "\n")
    return str(path)


def six(slice_id: str, **positive: int) -> list[str]:
    return [f"{slice_id}_{name},{positive.get(name, 0)}" for name in CLASSES]


def test_the_long_table_becomes_one_row_a_slice(tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path / "l.csv", six("ID_a", subdural=1, any=1) + six("ID_b")))
    assert labels.table.loc["ID_a"].tolist() == [0, 0, 0, 0, 1, 1]
    assert labels.table.loc["ID_b"].tolist() == [0] * 6
    assert labels.conflicts == {}


def test_identical_repeats_are_merged_and_contradictions_set_aside(tmp_path: Path) -> None:
    rows = six("ID_a") + six("ID_a") + six("ID_b") + ["ID_b_subdural,1"] + six("ID_c", epidural=1) + six("ID_d")
    labels = read_labels(write(tmp_path / "l.csv", rows))
    assert labels.repeated_rows == 6
    assert labels.conflicts == {
        "ID_b": "the label file says both 0 and 1 for subdural",
        "ID_c": '"any" is not the OR of the five types',
    }
    assert labels.table.loc[["ID_b", "ID_c"]].isna().all(axis=None)
    assert labels.table.loc[["ID_a", "ID_d"]].notna().all(axis=None)


def test_a_packed_file_is_read_whatever_its_name(tmp_path: Path) -> None:
    plain = write(tmp_path / "l.csv", six("ID_a", subdural=1, any=1))
    for name in ("l.csv.gz", "packed.csv"):
        (tmp_path / name).write_bytes(gzip.compress(Path(plain).read_bytes()))
        assert read_labels(str(tmp_path / name)).table.equals(read_labels(plain).table)
    (tmp_path / "half.gz").write_bytes((tmp_path / "l.csv.gz").read_bytes()[:-12])
    with pytest.raises(ValueError, match=r"half.gz: a damaged gzip file; unpack or fetch it again$"):
        read_labels(str(tmp_path / "half.gz"))


def wide(path: Path, header: str, *rows: str) -> str:
    path.write_text("\n".join([header, *rows]) + "\n")
    return str(path)


def test_of_some_classes_the_others_are_unknown(tmp_path: Path) -> None:
    rows = ["ID_a_any,1", "ID_b_any,0", "ID_c_epidural,0", "ID_c_subdural,1", "ID_d_epidural,1", "ID_e_subdural,"]
    table = read_labels(write(tmp_path / "l.csv", rows)).table
    expected = {
        "ID_a": [np.nan] * 5 + [1],
        # any is the OR of the types: they are 0 with it, and it is 1 with one of them. But of types that the file does
        # not speak of nothing is known
        "ID_b": [0, np.nan, np.nan, np.nan, 0, 0],
        "ID_c": [0, np.nan, np.nan, np.nan, 1, 1],
        "ID_d": [1, np.nan, np.nan, np.nan, np.nan, 1],
        "ID_e": [np.nan] * 6,
    }
    np.testing.assert_array_equal(table.loc[list(expected)], list(expected.values()))


def test_a_file_that_says_any_alone_says_nothing_of_the_types(tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path / "l.csv", ["ID_a_any,1", "ID_b_any,0"]))
    assert labels.table["any"].tolist() == [1, 0]
    assert labels.table[list(CLASSES[:-1])].isna().all(axis=None)
    assert labels.stated == ("any",)
    assert labels.notes() == []


def test_without_any_it_is_the_or_of_the_types(tmp_path: Path) -> None:
    rows = [*six("ID_a", subdural=1)[:5], *six("ID_b")[:5], "ID_c_epidural,0"]
    labels = read_labels(write(tmp_path / "l.csv", rows))
    assert labels.table["any"].to_dict() == pytest.approx({"ID_a": 1, "ID_b": 0, "ID_c": np.nan}, nan_ok=True)
    assert labels.notes() == ['the file does not say "any": it is the OR of the five types']


def test_a_contradiction_needs_not_all_of_the_classes(tmp_path: Path) -> None:
    rows = ["ID_a_any,0", "ID_a_subdural,1", "ID_b_any,1", *six("ID_b")[:5], "ID_c_any,1", "ID_c_subdural,0"]
    labels = read_labels(write(tmp_path / "l.csv", rows))
    assert set(labels.conflicts) == {"ID_a", "ID_b"}
    assert labels.table.loc[["ID_a", "ID_b"]].isna().all(axis=None)
    assert labels.table.loc["ID_c", ["subdural", "any"]].tolist() == [0, 1]


def test_a_table_of_slices_is_read_and_one_of_studies_explained(tmp_path: Path) -> None:
    labels = read_labels(wide(tmp_path / "w.csv", "site;SOPInstanceUID;Subdural;ANY", "x;1.2.3;1;1", "x;1.2.4;;0"))
    np.testing.assert_array_equal(labels.table[["subdural", "any"]], [[1, 1], [0, 0]])
    with pytest.raises(ValueError, match=r"w.csv: a table by study does not say which slices bleed.*ich_predict"):
        read_labels(wide(tmp_path / "w.csv", "study_id,any", "1.2,1"))


def test_ids_lose_the_suffix_of_an_image_and_nothing_else(tmp_path: Path) -> None:
    rows = six("1.2.840.5.dcm") + six("IM.0001") + six("b.DCM") + six("b", subdural=1, any=1)
    labels = read_labels(write(tmp_path / "l.csv", rows))
    assert labels.table.index.tolist() == ["1.2.840.5", "IM.0001", "b"]
    assert labels.conflicts == {"b": "the label file says both 0 and 1 for any, subdural"}


@pytest.mark.parametrize("separator", [",", ";", "\t", ", "])
@pytest.mark.parametrize(("quote", "mark", "end"), [("", "", "\n"), ('"', "\ufeff", "\r\n"), ("", "\ufeff", "\r")])
@pytest.mark.parametrize("header", ["ID,Label", "id,label", "Label,ID", ",ID,Label"])
def test_however_it_was_saved(tmp_path: Path, separator: str, quote: str, mark: str, end: str, header: str) -> None:
    lines = [header]
    for row in six("ID_a", subdural=1, any=1) + six("ID_b"):
        name, label = row.split(",")
        of_column = {"id": name, "label": label, "": "7"}
        lines.append(",".join(of_column[column.lower()] for column in header.split(",")))
    text = end.join(separator.join(f"{quote}{cell}{quote}" for cell in line.split(",")) for line in lines)
    (tmp_path / "l.csv").write_bytes((mark + text + end).encode())
    table = read_labels(str(tmp_path / "l.csv")).table
    assert table.loc[["ID_a", "ID_b"]].to_numpy().tolist() == [[0, 0, 0, 0, 1, 1], [0] * 6]


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (["x,0"], "Image,any", 'neither a column ID and a column Label .* "ID,Label".* its columns are Image, any'),
        (["ID_a_bleeding,0"], "ID,Label", "line 2: no class"),
        (["ID_a_any,0", "ID_a_subdural,2"], "ID,Label", 'line 3: label is "2", neither 0 nor 1'),
        (["ID_a_any,0", "", "ID_a_subdural,2"], "ID,Label", "line 4: label is"),
        (["nounderscore,0"], "ID,Label", "line 2: no class"),
        (["_any,0"], "ID,Label", "line 2: no class"),
        (["ID_b_any,0"], "ID_a_any,0", 'its first line is a row of labels; write the names .* above it, such as "ID,Label"$'),
        (["1.2.4,0"], "1.2.3,1", "its first line is a row of labels"),
        (["ID_a_any,", "ID_b_any,"], "ID,Label", "no label in it that can be used; all of its cells are empty; fill them in$"),
        (["ID_a_any,1", "ID_a_any,0"], "ID,Label", "no label in it that can be used; 1 slices whose labels contradict"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_one_line(tmp_path: Path, rows: list[str], header: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        read_labels(write(tmp_path / "l.csv", rows, header))
    assert "\n" not in str(error.value)


def test_another_encoding_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_bytes("\n".join(["ID,Label", *six("ID_a")]).encode("utf-16"))
    with pytest.raises(ValueError, match=r"^--labels .*l.csv: not a CSV file in UTF-8; save it as one$"):
        read_labels(str(tmp_path / "l.csv"))


def test_an_absent_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="absent.csv: cannot be read"):
        read_labels(str(tmp_path / "absent.csv"))


@pytest.mark.real_data
def test_the_real_series(head_ct_dir: Path) -> None:
    labels = read_labels(str(head_ct_dir / "stage_2_train.csv"))
    assert len(labels.table) == 36
    assert labels.table.sum().astype(int).to_dict() == {
        "epidural": 0, "intraparenchymal": 9, "intraventricular": 8, "subarachnoid": 0, "subdural": 0, "any": 11,
    }  # fmt: skip


@pytest.mark.real_data
@pytest.mark.slow
def test_all_labels_of_the_challenge_pass_through_the_long_form(head_ct_dir: Path, tmp_path: Path) -> None:
    wide = pd.read_csv(head_ct_dir / "rsna2019_stage1_labels_wide.csv.gz")
    long = wide.melt(id_vars="Image", var_name="name", value_name="Label")
    long["ID"] = long["Image"] + "_" + long["name"]
    long[["ID", "Label"]].to_csv(tmp_path / "long.csv", index=False)
    labels = read_labels(str(tmp_path / "long.csv"))
    assert len(labels.table) == 674_258
    assert labels.conflicts == {}
    expected = wide.set_index("Image")[list(CLASSES)].sort_index().to_numpy()
    assert np.array_equal(labels.table.sort_index().to_numpy(), expected)
