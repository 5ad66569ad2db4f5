from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from lesion_files import brain, inventory_of, las, write, write_table

from medray.shards.store import Store
from medray.systems.lesion.answers import known_scans, patients_of, write_answers
from medray.systems.lesion.cases import read_cases
from medray.systems.lesion.new_scans import OTHER_GRID, SCHEMA

PLACE = {"x_mm": 1.0, "y_mm": 2.0, "z_mm": 3.0}


def row(scan_id: str, visit: str, ml: float = 0.1, **more: Any) -> dict[str, Any]:
    empty = {name: None for name in SCHEMA.names}
    return empty | {
        "scan_id": scan_id, "patient_id": scan_id[0], "visit": visit, "name": f"scan0000{visit}", "ml": ml,
        "pixels_hash": scan_id, "findings": [],
    } | more  # fmt: skip


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write(tmp_path, "f.nii", las(brain()))
    write(tmp_path, "spare.nii", las(brain()))
    cells = [("q", "base"), ("p", "m10"), ("p", "m2"), ("r", "base")]
    return write_table(tmp_path, [{"patient": p, "visit": v, "flair": "f.nii"} for p, v in cells])


def written(images: Path, rows: list[dict[str, Any]], repeatability: float | None = 0.25) -> tuple[list[str], Store]:
    to = Store(images.parent / "to")
    half = len(rows) // 2
    parts = [pa.Table.from_pylist(some, schema=SCHEMA) for some in (rows[:half], rows[half:])]
    known = {"ml": repeatability, "pairs": 3, "patients": 2}
    return write_answers(to, parts, read_cases(str(images)), inventory_of(images), {"q_base"}, known), to


def read(to: Store, name: str) -> pd.DataFrame:
    return pd.read_csv(Path(to.uri) / name)


FINDING = {"mm3": 16.0, "score": 0.9, "site": None, **PLACE}
ROWS = [
    row("p_m2", "1", findings=[FINDING, FINDING | {"mm3": 24.0}]),
    row("p_m10", "2", ml=0.2, before="1", changes=[
        {"kind": "new", "before_mm3": 0.0, "after_mm3": 100.0, **PLACE},
    ]),
    row("q_base", "1", note="t1 is missing: 0 is taken for it"),
    row("r_base", "1", ml=None, findings=None, reason="flair: cut short"),
]  # fmt: skip


def test_patients_have_their_visits_in_order_and_scans_are_numbered_through(images: Path) -> None:
    patients = patients_of(inventory_of(images))
    assert [[visit["scan_id"] for visit in patient.visits] for patient in patients] == [
        ["p_m2", "p_m10"], ["q_base"], ["r_base"],
    ]  # fmt: skip
    assert [patient.names for patient in patients] == [["scan00001", "scan00002"], ["scan00003"], ["scan00004"]]
    assert patients[1].name == "patient00003"


def test_tables_of_scans_lesions_changes_and_what_was_set_aside(images: Path) -> None:
    lines, to = written(images, ROWS)
    scans = read(to, "scans.csv").set_index("scan_id")
    assert scans["visit"].to_dict() == {"p_m2": "m2", "p_m10": "m10", "q_base": "base"}
    assert scans["lesions"].to_dict() == {"p_m2": 2, "p_m10": 0, "q_base": 0}
    assert scans["trained_on"].to_dict() == {"p_m2": False, "p_m10": False, "q_base": True}
    assert scans["note"]["q_base"] == "t1 is missing: 0 is taken for it"
    lesions = read(to, "lesions.csv")
    assert lesions[["scan_id", "number", "mm3", "probability"]].to_numpy().tolist() == [
        ["p_m2", 1, 16, 0.9], ["p_m2", 2, 24, 0.9],
    ]  # fmt: skip
    changes = read(to, "changes.csv")
    assert changes["kind"].tolist() == ["all lesions", "new"]
    total = changes.iloc[0]
    assert (total["visit_before"], total["visit_after"]) == ("m2", "m10")
    assert (total["before_mm3"], total["after_mm3"], total["repeatability_mm3"]) == (100, 200, 250)
    aside = read(to, "set_aside.csv")
    told = dict(zip([Path(path).name for path in aside["path"]], aside["reason"], strict=True))
    assert told["r_base"] == "flair: cut short"
    assert told["spare.nii"] == "no case needs it"
    assert "3 scans →" in lines[0]
    assert "1 scans could not be read" in lines[0]
    assert lines[1] == "! leakage: 1 of the scans are in the training data, pixel by pixel"


def test_a_change_without_a_repeatability_and_visits_on_other_grids_are_said(images: Path) -> None:
    other = row("p_m10", "2", before="1", no_change=OTHER_GRID)
    lines, to = written(images, [ROWS[0], other], None)
    assert f"! 1 of the visits: {OTHER_GRID}" in lines
    assert lines[-1] == "! changes.csv: this run had no two visits of a held-out patient: no repeatability is known"
    (total,) = read(to, "changes.csv").to_dict("records")
    assert (total["kind"], total["note"]) == ("all lesions", OTHER_GRID)
    assert pd.isna(total["repeatability_mm3"])


def test_nothing_that_could_be_read_leaves_the_reasons(images: Path) -> None:
    with pytest.raises(
        ValueError, match=r"no scan could be read; first reason: flair: cut short; .*set_aside\.csv has all"
    ):
        written(images, [ROWS[3]])
    assert "flair: cut short" in set(read(Store(images.parent / "to"), "set_aside.csv")["reason"])


def test_a_single_network_has_not_learned_from_what_it_held_out(tmp_path: Path) -> None:
    shards, results = Store(tmp_path / "shards"), Store(tmp_path / "results")
    table = pa.table({"scan_id": ["007", "7"], "pixels_hash": ["x", "y"]})
    shards.write_table("a.parquet", table)
    results.write_bytes("scans.csv", b"scan_id,dice\n007,0.5\n")
    assert known_scans(results, shards, [0]) == {"y"}
    assert known_scans(results, shards, [0, 1]) == {"x", "y"}  # the other network has learned from it
