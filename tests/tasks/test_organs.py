"""What systems that find organs share: which organ a crop is cut around, and which voxels are of which."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from medray.systems.fewlabel import recipes as fewlabel
from medray.systems.headneck import recipes as headneck
from medray.systems.headneck.focus_task import FocusTask
from medray.systems.headneck.recipes import stage
from medray.tasks.organs import OrgansTask

ORGANS = ("Brainstem", "Parotid_L", "Lens_L")
INDEX = pd.DataFrame({"organs_ml": [[20.0, None, 0.0], [25.0, 30.0, None], [22.0, None, None], [21.0, 28.0, 0.2]]})
"""Of the lens one scan says that it is absent: there it is not met."""
TASKS = [replace(make(), organs=ORGANS) for make in (headneck.small, fewlabel.small)]


class Volume:
    classes = np.array([1, 2, 3])


@pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
def test_organs_that_few_scans_have_drawn_are_met_as_often(task: OrgansTask) -> None:
    """Each of these scans has them all; of the others a rare one is not there to be met."""
    own = task.learning_from(INDEX)
    assert own.scans_with == (4, 2, 1)
    assert own.identity() != task.identity()
    rng = np.random.default_rng(0)
    counts = np.bincount([own.class_around(Volume(), rng) or 0 for _ in range(5000)], minlength=4)[1:]  # type: ignore[arg-type]
    np.testing.assert_allclose(counts / 5000, np.array([1, 2, 4]) / 7, atol=0.02)
    np.testing.assert_allclose(counts * own.scans_with, np.full(3, 20000 / 7), rtol=0.1)
    nobody = task.learning_from(INDEX.assign(organs_ml=[[None] * 3] * 4))
    assert nobody.class_around(Volume(), rng) in (1, 2, 3)  # type: ignore[arg-type]


def test_small_organs_that_few_scans_have_drawn_are_met_as_often() -> None:
    task = replace(stage(FocusTask, headneck.small(), ("Parotid_L", "Lens_L")), organs=ORGANS).learning_from(INDEX)
    rng = np.random.default_rng(0)
    counts = np.bincount([task.class_around(Volume(), rng) or 0 for _ in range(5000)], minlength=4)  # type: ignore[arg-type]
    np.testing.assert_allclose(counts / 5000, np.array([0, 0, 1, 2]) / 3, atol=0.02)


def probabilities() -> list[np.ndarray]:
    found = np.zeros((3, 6, 6, 6), np.float32)
    found[0, 1:4, 1:4, 1:4] = 0.9
    found[1, 3:5, 3:5, 3:5] = 0.95
    found[0, 5, 5, 5] = found[2, 0, 0, 0] = 0.5
    return [*found]


def test_organs_that_overlap_have_their_own_thresholds_and_are_one_piece() -> None:
    brainstem, parotid, lens = probabilities()
    found = TASKS[0].organs_in(iter(probabilities()))
    assert [*found] == [*ORGANS]
    assert np.array_equal(found["Brainstem"], brainstem > 0.8)  # without the voxel that lies apart
    assert np.array_equal(found["Parotid_L"], parotid > 0.9)
    assert np.array_equal(found["Lens_L"], lens >= 0.5)
    whole = replace(TASKS[0], largest_part=False).organs_in(iter(probabilities()))
    assert np.array_equal(whole["Brainstem"], brainstem >= 0.5)


def test_a_voxel_of_one_class_is_of_the_most_probable_one() -> None:
    brainstem, parotid, _ = probabilities()
    found: dict[str, Any] = TASKS[1].organs_in(iter(probabilities()))
    assert np.array_equal(found["Parotid_L"], parotid > 0.9)
    assert np.array_equal(found["Brainstem"], (brainstem > 0.8) & ~(parotid > 0.9))
    assert not (found["Brainstem"] & found["Parotid_L"]).any()
    sure = replace(TASKS[1], threshold=0.92).organs_in(iter(probabilities()))
    assert not sure["Brainstem"].any()
    assert sure["Parotid_L"].sum() == 8
