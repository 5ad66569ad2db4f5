"""The contract suite's cases of organs at risk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from contract_case import Case
from organ_scans import ORGANS, organ_row

from medray.systems.headneck import recipes
from medray.systems.headneck.focus_task import FocusTask
from medray.systems.headneck.joint_task import JointTask, ShapeTask
from medray.systems.headneck.task import OrganTask


def scans(recipe: Callable[[], OrganTask], hidden: bool = False) -> Case:
    task = recipe()
    task = replace(
        task, organs=ORGANS, patch_DHW=(12, 12, 12), batch_size=4, epochs=2, width=8, levels=2, widths=(8, 16),
        foreground_share=1.0,
    )  # fmt: skip
    rows = [organ_row(number, hidden=(ORGANS[number % 2],) if hidden else ()) for number in range(4)]
    return Case(
        task, rows, labels=("mask", "foreground"), floor=0.75, image="voxels", keeps_shape=False,
        known=("architecture", "crops", "overlap"), unknown=f"dice_{ORGANS[-1]}",
    )  # fmt: skip


def later(kind: type[FocusTask], floor: float, hidden: bool = False, **changes: Any) -> Case:
    case = scans(recipes.small, hidden)
    assert isinstance(case.task, OrganTask)
    task = recipes.stage(
        kind, case.task, ORGANS[1:], epochs=2, gate=0.3, region_mm=(20.0, 32.0, 32.0), patch_DHW=(14, 18, 22), **changes
    )
    return replace(case, task=task, floor=floor, known=("stage", "gate", "small_width"))


CASES = {name: partial(scans, recipe) for name, recipe in recipes.RECIPES.items()} | {
    "hidden": partial(scans, recipes.small, hidden=True),
    "sol": partial(later, FocusTask, 0.15, grid_mm=(4.5, 3.9, 3.9)),
    "sos": partial(later, FocusTask, 0.8, stage="sos"),
    "sos-hidden": partial(later, FocusTask, 0.8, hidden=True, stage="sos"),
    "shapes": partial(later, ShapeTask, 0.3, code=16, coder_width=4),
    "joint": partial(later, JointTask, 3.4, code=16, coder_width=4),
    "joint-hidden": partial(later, JointTask, 3.4, hidden=True, code=16, coder_width=4),
}
