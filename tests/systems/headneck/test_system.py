"""Which organs a run learns, and what folds are balanced on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medray.systems.headneck import recipes
from medray.systems.headneck.cases import read_cases
from medray.systems.headneck.phantoms import NAMES
from medray.systems.headneck.source import PlanningCT
from medray.systems.headneck.system import fold_notes, labels_for, source_for, strata

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
