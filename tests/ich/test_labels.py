from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medray.ich.classes import CLASSES
from medray.ich.labels import read_labels


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


def test_missing_rows_are_missing_labels(tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path / "l.csv", six("ID_a")[:3]))
    assert np.isnan(labels.table.loc["ID_a", "any"])


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (["x,0"], "Image,any", 'the header is "Image,any"'),
        (["ID_a_bleeding,0"], "ID,Label", "line 2: no class"),
        (["ID_a_any,0", "ID_a_subdural,2"], "ID,Label", 'line 3: label "2" is neither 0 nor 1'),
        (["nounderscore,0"], "ID,Label", "line 2: no class"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, rows: list[str], header: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_labels(write(tmp_path / "l.csv", rows, header))


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
