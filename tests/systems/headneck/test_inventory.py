"""Which files make a case, and what is said of those that make none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from medray.shards.case_table import files_of
from medray.shards.inventory import Inventory, Refused
from medray.systems.headneck.cases import Cases, read_cases
from medray.systems.headneck.inventory import ANOTHER_SERIES, SEVERAL_SETS, assemble
from medray.systems.headneck.source import BETWEEN, STRUCTURES, PlanningCT

ORGANS = ("Brainstem", "Parotid_L")
COLUMNS = ["path", "size_bytes", "status", "reason", *PlanningCT.scan_schema.names]


def touched(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def row(path: str, kind: str = "nifti", **more: Any) -> dict[str, Any]:
    return dict.fromkeys(COLUMNS) | {"path": path, "size_bytes": 1, "status": "ok", "kind": kind} | more


def scanned(folder: Path, *more: dict[str, Any]) -> pd.DataFrame:
    rows = [row(str(path)) for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".csv"]
    return pd.DataFrame([*rows, *more], columns=COLUMNS)


def openkbp(folder: Path) -> None:
    for patient in ("pt_1", "pt_2"):
        touched(
            folder, f"{patient}/ct.nii.gz", f"{patient}/organs/Brainstem.nii.gz", f"{patient}/organs/LeftParotid.nii.gz"
        )
    touched(folder, "pt_2/organs/PTV70.nii.gz", "pt_1/notes.txt")


def found_in(folder: Path, *more: dict[str, Any], organs: tuple[str, ...] = ORGANS, **names: str) -> Inventory:
    return assemble(scanned(folder, *more), replace(read_cases(str(folder)), organs=organs, names=names))


def test_folders_of_patients(tmp_path: Path) -> None:
    openkbp(tmp_path)
    found = found_in(tmp_path)
    assert found.rows["scan_id"].tolist() == ["pt_1", "pt_2"]
    assert found.rows["patient_id"].tolist() == ["pt_1", "pt_2"]
    files = found.rows["files"][0]
    assert {*files} == {"ct", "Brainstem", "Parotid_L"}
    assert files["Parotid_L"] == [f"{tmp_path}/pt_1/organs/LeftParotid.nii.gz"]
    assert found.warnings == ("names that are no organ's here: PTV70 1; --names gives them one",)
    assert found.notes == ("organs, and in how many of 2 cases they are drawn: Brainstem 2, Parotid_L 2",)
    status = found.table.set_index(found.table["path"].str.removeprefix(f"{tmp_path}/"))["status"]
    assert status["pt_1/notes.txt"] == "unused"
    assert status["pt_2/organs/PTV70.nii.gz"] == "unused"
    assert status["pt_1/ct.nii.gz"] == "ok"


def test_a_name_of_the_users_own(tmp_path: Path) -> None:
    openkbp(tmp_path)
    found = found_in(tmp_path, organs=("Larynx",), PTV70="Larynx")
    assert [sorted(files) for files in found.rows["files"]] == [["ct"], ["Larynx", "ct"]]
    assert found.warnings == ()


def test_an_organ_that_no_case_has_is_refused_with_those_that_are_there(tmp_path: Path) -> None:
    openkbp(tmp_path)
    with pytest.raises(
        Refused,
        match="--organs Lens_L: drawn in no case that can be used; there are Brainstem 2, Parotid_L 2, and .*PTV70 1",
    ):
        found_in(tmp_path, organs=("Brainstem", "Lens_L"))


def test_a_damaged_mask_costs_its_case_and_no_neighbour(tmp_path: Path) -> None:
    openkbp(tmp_path)
    table = scanned(tmp_path)
    bad = table["path"].str.endswith("pt_1/organs/Brainstem.nii.gz")
    table.loc[bad, ["status", "reason"]] = ["quarantined", "a damaged gzip file"]
    found = assemble(table, replace(read_cases(str(tmp_path)), organs=ORGANS))
    assert found.rows["scan_id"].tolist() == ["pt_2"]
    assert found.warnings[0] == "1 cases are set aside; the first reason: Brainstem: a damaged gzip file"
    of = found.table.set_index("path")
    assert of.loc[f"{tmp_path}/pt_1/ct.nii.gz", "reason"] == "its case is set aside: Brainstem: a damaged gzip file"
    assert str(tmp_path) not in " ".join(found.warnings)


def test_two_masks_of_an_organ(tmp_path: Path) -> None:
    openkbp(tmp_path)
    touched(tmp_path, "pt_2/organs/brain_stem.nii.gz")
    found = found_in(tmp_path)
    assert found.rows["scan_id"].tolist() == ["pt_1"]
    assert "Brainstem: 2 masks or structures of it; leave one" in found.warnings[0]


def test_a_table(tmp_path: Path) -> None:
    touched(tmp_path, "a/ct.nii.gz", "a/masks/Brainstem.nii.gz", "b/0001.dcm", "b/0002.dcm", "b.rtstruct")
    (tmp_path / "table.csv").write_text(
        "Patient,scan,ct,structures,organs\np1,plan,a/ct.nii.gz,,a/masks\np2,,b,b.rtstruct,\n"
    )
    uri = str(tmp_path / "table.csv")
    assert files_of(uri) == str(tmp_path)
    cases = replace(read_cases(uri), organs=ORGANS)
    drawn = {"kind": STRUCTURES, "drawn": np.array(["Lt Parotid", "Brainstem"], dtype=object), "series_id": "1"}
    table = scanned(tmp_path)
    for name, value in drawn.items():
        table[name] = table[name].astype(object)
        table.at[int(table.index[table["path"].str.endswith("rtstruct")][0]), name] = value
    found = assemble(table, cases)
    assert found.rows["scan_id"].tolist() == ["p1_plan", "p2"]
    assert found.rows["visit"].tolist() == ["1", "1"]
    assert found.rows["files"][0]["Brainstem"] == [f"{tmp_path}/a/masks/Brainstem.nii.gz"]
    assert found.rows["files"][1]["ct"] == [f"{tmp_path}/b/0001.dcm", f"{tmp_path}/b/0002.dcm"]
    assert found.rows["files"][1][STRUCTURES] == [f"{tmp_path}/b.rtstruct"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("patient,organs\np,x\n", "no column ct; found patient, organs; wanted patient, ct"),
        ("patient,ct\np,\n", "line 2 names no ct"),
        ("patient,ct,structures,organs\np,a,b,c\n", "line 2 names structures and organs; leave one of them empty"),
        ("patient,ct\np,a\np,b\n", "line 3 is a scan that another line names already"),
        (
            "patient,scan,ct\na,b_c,x\na_b,c,y\n",
            "line 3: its patient and scan make the same name as another line's; rename one",
        ),
    ],
)
def test_a_table_that_is_none(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(ValueError, match=f"--images .*table.csv: {why}"):
        read_cases(str(tmp_path / "table.csv"))


def dicom(tmp_path: Path, *more: dict[str, Any]) -> pd.DataFrame:
    touched(tmp_path, *(f"{i}" for i in range(4)))
    slices = [row(f"{tmp_path}/{i}", "dicom", series_id=f"s{i // 2}", patient=f"p{i // 2}") for i in range(4)]
    return pd.DataFrame([*slices, *more], columns=COLUMNS)


def structures(name: str, series: str | None, *drawn: str) -> dict[str, Any]:
    return row(
        name, STRUCTURES, series_id=series, drawn=np.array(drawn, dtype=object), patient="p"
    )  # as Arrow gives a list


def test_dicom_headers_tell_series_and_what_was_drawn_on_them(tmp_path: Path) -> None:
    table = dicom(
        tmp_path,
        structures("rs0", "s0", *ORGANS, "BODY"),
        structures("rs9", "s9", "Brainstem"),
        structures("rs?", None),
    )
    found = assemble(table, Cases(None, {}, ORGANS))
    assert found.rows["patient_id"].tolist() == ["p0", "p1"]
    assert [sorted(files) for files in found.rows["files"]] == [["ct", "structures"], ["ct"]]
    of = found.table.set_index("path")
    assert of.loc["rs9", ["status", "reason"]].tolist() == ["quarantined", ANOTHER_SERIES]
    assert of.loc["rs?", "reason"] == ANOTHER_SERIES
    assert any("2 structure sets are left out" in line for line in found.warnings)
    assert any("BODY 1" in line for line in found.warnings)


def test_a_series_beside_which_a_file_is_broken_may_lack_its_end(tmp_path: Path) -> None:
    """Of a gap in the middle the slices tell; a first slice that is broken would cut the organs."""
    slices = [row(f"{home}/{i}", "dicom", series_id=f"s{home}", patient=f"p{home}") for home in "ab" for i in range(3)]
    broken = row("a/3", "", status="quarantined", reason="truncated: 84 bytes expected, 2 found")
    sets = [structures(f"{home}/rs", f"s{home}", *ORGANS) for home in "ab"]
    found = assemble(pd.DataFrame([*slices, *sets, broken], columns=COLUMNS), Cases(None, {}, ORGANS))
    assert found.rows["patient_id"].tolist() == ["pb"]
    assert found.warnings[0] == (
        "1 cases are set aside; the first reason: 1 files beside its slices cannot be read, and may be slices of it (truncated: 84 "
        "bytes expected, 2 found); export it anew"
    )
    for harmless in (broken | {"path": "c/3"}, broken | {"reason": "DICOM of modality SR, not CT"}):
        table = pd.DataFrame([*slices, *sets, harmless], columns=COLUMNS)
        assert assemble(table, Cases(None, {}, ORGANS)).rows["patient_id"].tolist() == ["pa", "pb"]
    together = pd.DataFrame([*slices, *sets, broken], columns=COLUMNS)
    together["path"] = together["path"].str.replace("/", "")  # all in one folder: nobody knows whose it was
    assert assemble(together, Cases(None, {}, ORGANS)).rows["patient_id"].tolist() == ["pa", "pb"]


def test_two_structure_sets_of_a_series_are_nobodys_guess(tmp_path: Path) -> None:
    table = dicom(tmp_path, structures("rs0", "s0", "Brainstem"), structures("rs1", "s0", "Brainstem"))
    with pytest.raises(
        Refused, match="--organs Brainstem Parotid_L: drawn in no case that can be used; there are none"
    ):
        assemble(table, Cases(None, {}, ORGANS))
    found = assemble(
        dicom(tmp_path, *table.to_dict("records")[4:], structures("rs2", "s1", *ORGANS)), Cases(None, {}, ORGANS)
    )
    assert found.rows["patient_id"].tolist() == ["p1"]
    assert "several structure sets of its series" in found.warnings[0]


def test_a_set_that_names_a_second_series_is_that_of_the_one_that_is_here(tmp_path: Path) -> None:
    table = dicom(
        tmp_path,
        structures("rs0", BETWEEN.join(("mr", "s0")), *ORGANS),
        structures("rs1", "s1"),
        structures("rs2", "s1"),
    )
    found = assemble(table, Cases(None, {}, ORGANS))
    assert found.rows["files"][0][STRUCTURES] == ["rs0"]
    of = found.table.set_index("path")
    assert of.loc[["rs1", "rs2"], "reason"].tolist() == [SEVERAL_SETS] * 2


def test_two_files_of_one_name_and_masks_that_are_not_there(tmp_path: Path) -> None:
    openkbp(tmp_path)
    touched(tmp_path, "pt_1/CT.nrrd", "x/ct.nii.gz", "x/masks/Brainstem.nii.gz", "x/masks/Parotid_L.nii.gz")
    found = found_in(tmp_path)
    assert found.rows["scan_id"].tolist() == ["pt_2", "x"]
    assert "several files are called ct" in found.warnings[0]
    (tmp_path / "table.csv").write_text("patient,ct,organs\na,x/ct.nii.gz,x/masks\nb,pt_2/ct.nii.gz,pt_2/organz\n")
    found = assemble(scanned(tmp_path), replace(read_cases(str(tmp_path / "table.csv")), organs=ORGANS))
    assert found.rows["patient_id"].tolist() == ["a"]
    assert "organs: no mask lies there; name the folder of its masks" in found.warnings[0]


def test_cases_that_are_set_aside_do_not_count(tmp_path: Path) -> None:
    openkbp(tmp_path)
    touched(tmp_path, "pt_1/organs/Lens_L.nii.gz")
    table = scanned(tmp_path)
    table.loc[table["path"].str.endswith("pt_1/ct.nii.gz"), ["status", "reason"]] = ["quarantined", "4 axes"]
    with pytest.raises(
        Refused, match="--organs Lens_L: drawn in no case that can be used; there are Brainstem 1, Parotid_L 1"
    ):
        assemble(table, replace(read_cases(str(tmp_path)), organs=(*ORGANS, "Lens_L")))


def test_slices_of_two_patients_in_a_series(tmp_path: Path) -> None:
    table = dicom(tmp_path, structures("rs1", "s1", *ORGANS))
    table.loc[0, "patient"] = "other"
    found = assemble(table, Cases(None, {}, ORGANS))
    assert found.rows["patient_id"].tolist() == ["p1"]
    assert "its slices name no patient, or several" in found.warnings[0]


def test_nothing_at_all(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are no files in it"):
        read_cases(str(tmp_path))
    openkbp(tmp_path)
    table = scanned(tmp_path).assign(status="quarantined", reason="it is damaged")
    with pytest.raises(Refused, match="none of 2 cases can be used; the first reason: ct: it is damaged"):
        assemble(table, replace(read_cases(str(tmp_path)), organs=ORGANS))
    assert np.array_equal(table["status"], ["quarantined"] * len(table))


def test_two_dates_of_a_patient_are_one_patients(tmp_path: Path) -> None:
    """Else a fold could learn from one and be scored on the other."""
    for home in ("pt_1/2020", "pt_1/2021/plan", "pt_2"):
        touched(tmp_path, f"{home}/ct.nii.gz", f"{home}/organs/Brainstem.nii.gz")
    rows = found_in(tmp_path, organs=("Brainstem",)).rows
    assert rows["patient_id"].tolist() == ["pt_1", "pt_1", "pt_2"]
    assert rows["scan_id"].tolist() == ["pt_1_2020", "pt_1_2021_plan", "pt_2"]


def test_a_mask_in_two_formats_is_nobodys_guess(tmp_path: Path) -> None:
    openkbp(tmp_path)
    touched(tmp_path, "pt_1/organs/Brainstem.nrrd")
    found = found_in(tmp_path)
    assert found.rows["scan_id"].tolist() == ["pt_2"]
    assert "Brainstem: 2 masks or structures of it" in found.warnings[0]


def test_what_lies_among_an_exported_series_costs_no_case(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("patient,ct,organs\np,T1,organs\n")
    touched(tmp_path, "organs/Brainstem.nii.gz", "T1/1", "T1/2", "T1/RS", "T1/RD", "T1/Thumbs.db")
    why = {"RD": "DICOM of modality RTDOSE, not CT", "Thumbs.db": "neither NIfTI, NRRD nor DICOM; export the volume"}
    kinds = {"1": "dicom", "2": "dicom", "RS": "structures"}
    rows = [
        row(str(path), kinds.get(path.name, "nifti"))
        | ({"status": "quarantined", "reason": why[path.name]} if path.name in why else {})
        for path in sorted(tmp_path.rglob("*"))
        if path.is_file() and path.suffix != ".csv"
    ]
    cases = replace(read_cases(str(tmp_path / "t.csv")), organs=("Brainstem",))
    found = assemble(pd.DataFrame(rows, columns=COLUMNS), cases)
    assert found.rows["files"][0]["ct"] == [f"{tmp_path}/T1/1", f"{tmp_path}/T1/2"]
