"""Which organs a run learns, and what folds are balanced on."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medray.systems.headneck import recipes
from medray.systems.headneck.cases import read_cases
from medray.systems.headneck.phantoms import NAMES
from medray.systems.headneck.source import PlanningCT
from medray.systems.headneck.system import fold_notes, labels_for, scan_notes, source_for, strata

TASK, SOURCE = recipes.small(), PlanningCT()


@pytest.fixture
def folder(tmp_path: Path) -> str:
    for name in (
        "p1/ct.nii.gz",
        "p1/organs/Brainstem.nii.gz",
        "p1/organs/Stamm.nii.gz",
        "p2/ct.nii.gz",
        "p2/organs/lt parotid.nii.gz",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return str(tmp_path)


def test_all_organs_of_the_masks_where_none_is_named(folder: str) -> None:
    assert source_for(SOURCE, TASK, folder).organs == ("Brainstem", "Parotid_L")
    assert source_for(replace(SOURCE, names=("stamm=Larynx",)), TASK, folder).organs == (
        "Brainstem",
        "Larynx",
        "Parotid_L",
    )
    assert source_for(SOURCE, TASK, None).organs == NAMES
    assert source_for(SOURCE, replace(TASK, organs=("Lens_L",)), folder).organs == ("Lens_L",)
    assert TASK.reading(source_for(SOURCE, TASK, folder)).class_names == ("Brainstem", "Parotid_L")
    cases = labels_for(read_cases(folder), replace(SOURCE, organs=("Lens_L",), names=("a=Lens_L",)))
    assert (cases.organs, cases.names) == (("Lens_L",), {"a": "Lens_L"})


@pytest.mark.parametrize(
    ("organs", "why"),
    [
        (("left parotid",), "--organs left parotid: no TG-263 name of the table; did you mean Parotid_L"),
        (("PTV",), "--organs PTV: no TG-263 name of the table; --names gives it one"),
        (("Lens_L", "Lens_L"), "--organs Lens_L Lens_L: each once"),
    ],
)
def test_organs_that_cannot_be_learned(folder: str, organs: tuple[str, ...], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        source_for(SOURCE, replace(TASK, organs=organs), folder)


def test_structure_sets_want_the_organs_named(tmp_path: Path) -> None:
    (tmp_path / "1.dcm").write_bytes(b"x")
    with pytest.raises(ValueError, match="--organs: name those to learn"):
        source_for(SOURCE, TASK, str(tmp_path))
    assert source_for(SOURCE, replace(TASK, organs=("Brainstem",)), str(tmp_path)).organs == ("Brainstem",)


def test_a_mirror_would_make_left_of_right() -> None:
    with pytest.raises(ValueError, match="--flip-axes W: a flip makes Parotid_L its other side's; take --mirror"):
        replace(TASK, organs=("Brainstem", "Parotid_L"), flip_axes=("D", "W"))
    assert replace(TASK, organs=("Brainstem",), flip_axes=("W",)).flip_axes == ("W",)


def test_folds_are_balanced_on_how_much_is_drawn() -> None:
    index = pd.DataFrame({"organs_drawn": [0, 1, 5, 10, 10, 9]})
    assert strata(index).tolist() == [0, 1, 2, 3, 3, 3]
    assert np.array_equal(strata(index.assign(organs_drawn=0)), np.zeros(6))
    notes = fold_notes(
        pd.DataFrame(
            {
                "organs_drawn": [0, 3],
                "fold": [0, 1],
                "scan_id": ["a", "b"],
                "patient_id": ["a", "b"],
                "pixels_hash": ["1", "2"],
            }
        )
    )
    assert notes == ["no organ is drawn in any scan of fold 0"]


@pytest.mark.parametrize("name", ["../../evil", "a/b", "ct", "structures", ".x"])
def test_an_organ_is_no_path_and_no_other_file_of_a_case(folder: str, name: str) -> None:
    named = replace(SOURCE, names=(f"stamm={name}",))
    with pytest.raises(ValueError, match=f"--organs {re.escape(name)}: "):
        source_for(named, replace(TASK, organs=("Brainstem", name)), folder)


@pytest.mark.parametrize("spacing", [(0.0, 1.0, 1.0), (-1.0, 1.0, 1.0), (1.0, float("nan"), 1.0), (1.0, 1.0, 1e9)])
def test_a_spacing_that_is_none(spacing: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="--spacing-mm .*: slices, rows and columns, each from 0.1 to 50 mm"):
        PlanningCT(spacing_mm=spacing)


def test_lengths_follow_the_sources_grid_or_it_is_said_that_they_do_not() -> None:
    gridded = replace(TASK, organs=("Brainstem",)).reading(
        PlanningCT(organs=("Brainstem",), spacing_mm=(5.0, 4.0, 4.0))
    )
    assert gridded.grid_mm == (5.0, 4.0, 4.0)
    index = pd.DataFrame({
        "fold": [0, 1, 1], "organs_ml": [[1.0, 2.0], [1.0, None], [1.5, None]], "spacing_mm": [[3.0, 1.0, 1.0]] * 3,
    })  # fmt: skip
    task = replace(TASK, organs=("Brainstem", "Lens_L"), grid_mm=(3.0, 1.0, 1.0))
    (line,) = scan_notes(index, task, (0, 1))
    assert line.startswith("! fold 0: Lens_L: drawn in no scan that it learns from")
    _, off = scan_notes(index, replace(task, grid_mm=(2.5, 3.9, 3.9)), (0,))
    assert off.startswith("! --grid-mm 2.5 3.9 3.9: the scans have 3.00 × 1.00 × 1.00 mm")
    with pytest.raises(ValueError, match="--organs Eye_L: drawn in none of the scans that could be read"):
        scan_notes(index.assign(organs_ml=[[1.0, None]] * 3), replace(task, organs=("Brainstem", "Eye_L")), (0,))


def test_every_patient_of_the_other_folds_is_learned_from() -> None:
    index = pd.DataFrame({"patient_id": list("abcdef"), "organs_drawn": 1})
    assert not TASK.keeps_inner(index)


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ("patient,ct,organs\np1,p1/ct.nii.gz,p1/organ\n", "no case has a mask, .*no mask lies there; name the folder"),
        ("patient,ct,organs\np1,p1/ct.nii.gz,\n", "no case has a mask, .*organs: empty in every line"),
        ("patient,ct,organ\np1,p1/ct.nii.gz,p1/organs\n", "t.csv: column organ; call it organs, or take it out"),
        (
            "patient,ct,organs\np3,p1/ct.nii.gz,p3/organs\n",
            r"of an organ that TG-263 knows by its name \(Stamm, xyz\), .*--names 'Stamm=Parotid_L' says",
        ),
    ],
)
def test_a_table_without_an_organ_says_what_is_wrong_with_it(folder: str, table: str, why: str) -> None:
    (Path(folder) / "t.csv").write_text(table)
    for name in ("Stamm", "xyz"):
        (Path(folder) / "p3" / "organs").mkdir(parents=True, exist_ok=True)
        (Path(folder) / "p3" / "organs" / f"{name}.nii.gz").write_bytes(b"x")
    with pytest.raises(ValueError, match=why):
        source_for(SOURCE, TASK, f"{folder}/t.csv")
