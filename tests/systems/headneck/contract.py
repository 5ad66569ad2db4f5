"""The contract suite's cases of organs at risk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal

from contract_case import Case
from organ_scans import ORGANS, organ_row

from medray.systems.headneck import recipes
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


def focus(stage: Literal["sol", "sos"], hidden: bool = False) -> Case:
    case = scans(recipes.small, hidden)
    task = replace(recipes.focus(case.task, stage, ORGANS[1:]), gate=0.3, region_mm=(20.0, 32.0, 32.0))
    return replace(case, task=task, floor={"sol": 0.15, "sos": 1.0}[stage], known=("stage", "gate", "small_width"))


CASES = {name: partial(scans, recipe) for name, recipe in recipes.RECIPES.items()} | {
    "hidden": partial(scans, recipes.small, hidden=True),
    "sol": partial(focus, "sol"),
    "sos": partial(focus, "sos"),
    "sos-hidden": partial(focus, "sos", hidden=True),
}
