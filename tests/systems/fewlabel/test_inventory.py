"""Which files make a case, and what is said of those that make none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from medray.shards.inventory import Refused
from medray.systems.fewlabel.inventory import assemble
from medray.systems.fewlabel.source import FewLabelCT
from medray.systems.fewlabel.sources import Sources, read_sources
from medray.systems.fewlabel.system import fold_notes, strata

COLUMNS = ["path", "size_bytes", "status", "reason", *FewLabelCT.scan_schema.names]


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    for source in "ab":
        for kind in ("images", "masks"):
            (tmp_path / source / kind).mkdir(parents=True)
            for case in (1, 2):
                (tmp_path / source / kind / f"c{case}.nii.gz").write_bytes(b"x")
    (tmp_path / "a" / "notes.txt").write_bytes(b"x")
    (tmp_path / "s.csv").write_text("name,images,masks,organs\na,a/images,a/masks,Liver\nb,b/images,b/masks,Spleen\n")
    return read_sources(str(tmp_path / "s.csv"))


def scanned(sources: Sources, **bad: str) -> pd.DataFrame:
    """All files, of which those that end as said are damaged."""
    folder = Path(sources.cases[0]["ct"][0]).parents[2]
    rows: list[dict[str, Any]] = []
    for path in sorted(str(p) for p in folder.rglob("*") if p.is_file()):
        why = next((reason for name, reason in bad.items() if path.endswith(name.replace("_", "/") + ".nii.gz")), None)
        status = "quarantined" if why or path.endswith(("txt", "csv")) else "ok"
        rows.append(dict.fromkeys(COLUMNS) | {"path": path, "size_bytes": 1, "status": status, "reason": why})
    return pd.DataFrame(rows, columns=COLUMNS)


def test_cases_of_two_sources_with_equal_names_are_two(sources: Sources) -> None:
    found = assemble(scanned(sources), sources)
    assert found.rows["scan_id"].tolist() == ["a/c1", "a/c2", "b/c1", "b/c2"]
    assert found.rows["origin"].tolist() == ["a", "a", "b", "b"]
    assert found.rows["patient_id"].nunique() == 4
    assert {*found.rows["files"][0]} == {"ct", "labels "}
    assert found.notes == ("source a: 2 cases, Liver", "source b: 2 cases, Spleen")
    status = found.table.set_index(found.table["path"].str.rpartition("/")[2])["status"]
    assert status[["notes.txt", "s.csv"]].tolist() == ["unused", "unused"]


def test_a_patient_that_dicom_names_in_two_sources_is_one(sources: Sources) -> None:
    scan = scanned(sources)
    scan["patient"] = np.nan  # as pandas has it of a column without any
    assert assemble(scan, sources).rows["patient_id"].tolist() == ["a/c1", "a/c2", "b/c1", "b/c2"]
    scan["patient"] = scan["patient"].astype(object)
    scan.loc[scan["path"].str.endswith(("a/images/c1.nii.gz", "b/images/c2.nii.gz")), "patient"] = "PID 7"
    found = assemble(scan, sources)
    assert found.rows["patient_id"].tolist() == ["PID 7", "a/c2", "b/c1", "PID 7"]
    assert found.warnings == ("patients in several sources, each of whom stays in one fold: 1",)
    told = replace(sources, cases=[case | {"patient": "told"} for case in sources.cases])
    assert {*assemble(scan, told).rows["patient_id"]} == {"told"}  # an expression of the user's comes first


@pytest.mark.parametrize(
    ("why", "kept"),
    [
        ("DICOM of modality RTSTRUCT, not CT", True), ("neither NIfTI, NRRD nor DICOM; export it", True),
        ("cut short after 12 bytes", False),  # a slice that is damaged is no reason to take the rest for a whole
    ],
)  # fmt: skip
def test_what_is_no_slice_costs_its_series_nothing(sources: Sources, tmp_path: Path, why: str, kept: bool) -> None:
    plan, (first, *others) = tmp_path / "a" / "images" / "plan.nii.gz", sources.cases
    plan.write_bytes(b"x")
    both = replace(sources, cases=(first | {"ct": [*first["ct"], str(plan)]}, *others))
    found = assemble(scanned(both, images_plan=why), both)
    assert ("a/c1" in found.rows["scan_id"].tolist()) == kept
    if kept:
        assert found.rows.set_index("scan_id").loc["a/c1", "files"]["ct"] == first["ct"]


def test_a_damaged_file_costs_its_case_and_no_neighbour(sources: Sources) -> None:
    found = assemble(scanned(sources, a_masks_c1="cut short"), sources)
    assert found.rows["scan_id"].tolist() == ["a/c2", "b/c1", "b/c2"]
    assert found.warnings == ("source a: 1 cases are set aside; the first reason: labels : cut short",)
    other = found.table[found.table["path"].str.endswith("a/images/c1.nii.gz")].iloc[0]
    assert (other["status"], other["reason"]) == ("quarantined", "its case is set aside: labels : cut short")


def test_a_source_of_which_nothing_is_left_is_refused(sources: Sources) -> None:
    with pytest.raises(Refused, match="source b: no case can be used; the first reason: ct: cut short"):
        assemble(scanned(sources, b_images_c1="cut short", b_images_c2="cut short"), sources)
    bare = replace(sources, cases=tuple(c | {"labels": {}} if c["source"] == "b" else c for c in sources.cases))
    with pytest.raises(Refused, match="source b: no case has a mask; give masks the names of their scans"):
        assemble(scanned(sources), bare)
    one = replace(sources, cases=tuple(c | {"labels": {}} if c["case"] == "c1" else c for c in sources.cases))
    assert (
        "source a: 1 of 2 cases have no mask: they are predicted, and not learned from"
        in assemble(scanned(sources), one).warnings
    )


def test_folds_hold_each_source_and_say_where_one_is_not_learned_from() -> None:
    index = pd.DataFrame({
        "scan_id": list("abcd"), "patient_id": list("abcd"), "origin": ["x", "x", "y", "x"], "fold": [0, 1, 0, 1],
        "organs_labelled": 1,
    })  # fmt: skip
    assert strata(index).tolist() == [0, 0, 1, 0]
    notes = fold_notes(index)
    assert notes == [
        "source y: no scan is in fold 1",
        "source y: all its scans are in fold 0, whose networks do not learn from it",
    ]
