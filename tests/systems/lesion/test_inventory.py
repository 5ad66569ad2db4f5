from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lesion_files import brain, inventory_of, las, lesion, write, write_table
from volume_files import as_bytes, mr_series

from medray.shards.inventory import Inventory, Refused

GOOD, MASK = las(brain(1)), las(lesion())


def reasons(inventory: Inventory, folder: Path) -> dict[str, str]:
    table = inventory.table[inventory.table["status"] != "ok"]
    return {
        str(Path(path).relative_to(folder)): f"{status}: {why}"
        for path, status, why in table[["path", "status", "reason"]].to_numpy()
    }


def test_a_case_that_is_set_aside_costs_no_neighbour(tmp_path: Path) -> None:
    for name, data in {
        "good.nii": GOOD, "cut.nii": GOOD[:200], "4d.nii": las(np.ones((4, 4, 4, 3), np.float32)), "no.nii": b"no image",
        "mask.nii": MASK, "left.nii": GOOD, "shared.nii": GOOD,
    }.items():  # fmt: skip
        write(tmp_path, name, data)
    rows = [
        {"patient": patient, "visit": visit, "flair": flair, "t1": t1, "mask": "mask.nii" if patient == "a" else ""}
        for patient, visit, flair, t1 in (
            ("a", "1", "good.nii", "shared.nii"), ("a", "2", "cut.nii", "shared.nii"), ("b", "1", "4d.nii", "good.nii"),
            ("c", "1", "good.nii", "absent.nii"), ("d", "1", "no.nii", ""), ("e", "1", "", ""), ("f", "1", "good.nii", ""),
        )
    ]  # fmt: skip
    inventory = inventory_of(write_table(tmp_path, rows))
    assert inventory.rows["scan_id"].tolist() == ["a_1", "f_1"]
    assert inventory.rows["files"].tolist() == [
        {"flair": [f"{tmp_path}/good.nii"], "t1": [f"{tmp_path}/shared.nii"], "mask": [f"{tmp_path}/mask.nii"]},
        {"flair": [f"{tmp_path}/good.nii"]},
    ]
    assert inventory.warnings[0].startswith("5 cases are set aside; the first reason: flair: ")
    assert inventory.warnings[1] == "1 of 2 scans have no mask: they are predicted, never trained on"
    told = reasons(inventory, tmp_path)
    assert "4D, not 3D" in told["4d.nii"]
    assert "cut short" in told["cut.nii"]
    assert told["left.nii"] == told["table.csv"] == "unused: no case needs it"
    assert not {"good.nii", "shared.nii", "mask.nii"} & set(told)  # what another case uses is used
    by_path = inventory.table.set_index("path")["item_id"]
    assert by_path[f"{tmp_path}/shared.nii"] == "a_1"
    assert pd.isna(by_path[f"{tmp_path}/good.nii"])  # part of two scans
    assert len(inventory.links("scan_id")) == 4


def test_visits_are_numbered_in_their_order_and_one_that_is_lost_keeps_its_number(tmp_path: Path) -> None:
    write(tmp_path, "f.nii", GOOD)
    rows = [
        {"patient": "p", "visit": visit, "flair": path}
        for visit, path in (("m10", "f.nii"), ("m2", "f.nii"), ("m1", "gone.nii"))
    ]
    inventory = inventory_of(write_table(tmp_path, rows))
    assert dict(zip(inventory.rows["scan_id"], inventory.rows["visit"], strict=True)) == {"p_m10": "3", "p_m2": "2"}
    assert set(inventory.rows["patient_id"]) == {"p"}


def test_paths_outside_of_the_tables_folder_are_never_read(tmp_path: Path) -> None:
    write(tmp_path, "secret.nii", GOOD)
    write(tmp_path, "own/f.nii", GOOD)
    rows = [
        {"patient": patient, "flair": path}
        for patient, path in (("a", "../secret.nii"), ("b", f"{tmp_path}/secret.nii"), ("c", "x/../f.nii"), ("d", "/etc/hostname"))
    ]  # fmt: skip
    inventory = inventory_of(write_table(tmp_path / "own", rows))
    assert inventory.rows["patient_id"].tolist() == ["c"]
    assert inventory.warnings == (
        "3 cases are set aside; the first reason: flair: its file is not there, or not below the table's folder",
    )
    assert "secret" not in "".join(inventory.table["path"])


def test_a_folder_in_a_cell_is_a_series_of_dicom_files(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(1, 900, (3, 8, 10)).astype(np.int16)
    for i, dataset in enumerate(mr_series(stored)):
        write(tmp_path, f"p1/flair/{i}.dcm", as_bytes(dataset))
    write(tmp_path, "p2/flair/0.dcm", as_bytes(mr_series(stored)[0]))
    write(tmp_path, "p2/flair/notes.txt", b"lying about")
    rows = [{"patient": patient, "flair": f"{patient}/flair/"} for patient in ("p1", "p2")]
    inventory = inventory_of(write_table(tmp_path, rows))
    (row,) = inventory.rows.to_dict("records")
    assert row["files"] == {"flair": [f"{tmp_path}/p1/flair/{i}.dcm" for i in range(3)]}
    assert reasons(inventory, tmp_path)["p2/flair/0.dcm"].startswith(
        "quarantined: its case is set aside: flair: neither"
    )


def test_two_files_of_a_channel_set_their_visit_aside(tmp_path: Path) -> None:
    for name in ("sub-1_run-1_FLAIR.nii", "sub-1_run-2_FLAIR.nii", "sub-2_FLAIR.nii"):
        write(tmp_path, name, GOOD)
    inventory = inventory_of(tmp_path)
    assert inventory.rows["patient_id"].tolist() == ["2"]
    assert inventory.warnings == ("1 cases are set aside; the first reason: 2 files of its flair; name one in a table",)


def test_no_case_at_all_is_refused_with_the_first_reason_and_a_table(tmp_path: Path) -> None:
    write(tmp_path, "f.nii", b"")
    with pytest.raises(Refused, match="none of 1 cases can be used; the first reason: flair: an empty file") as error:
        inventory_of(write_table(tmp_path, [{"patient": "p", "flair": "f.nii"}]))
    assert set(error.value.table["status"]) == {"quarantined", "unused"}
