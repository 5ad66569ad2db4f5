"""The contract suite's cases of the miniature systems."""

from __future__ import annotations

import numpy as np
from contract_case import Case, Row

from miniature.adversary import AdversaryTask
from miniature.patches import CHANNELS, PatchTask
from miniature.refine import RefinerTask


def volume_row(number: int) -> Row:
    shape = (10, 12 + number, 11)
    rng = np.random.default_rng(number)
    mask = np.zeros(shape, np.uint8)
    mask[2:8, 3:9, 2:8] = 1
    voxels = (mask + rng.normal(0, 0.2, (CHANNELS, *shape))).astype(np.float32)
    ids: Row = {"volume_id": f"volume{number}", "patient_id": f"patient{number}"}
    spacing_mm = [1.0, 1.0, 1.0 + number % 2]
    return ids | {
        "shape_DHW": list(shape),
        "spacing_mm": spacing_mm,
        "voxels": voxels.tobytes(),
        "mask": mask.tobytes(),
    }


def volumes(task: PatchTask, floor: float) -> Case:
    rows = [volume_row(number) for number in range(4)]
    return Case(
        task,
        rows,
        floor=floor,
        image="voxels",
        keeps_shape=False,
        known=("crops", "hidden"),
        labels=("mask",),
        unknown="dice",
    )


CASES = {
    "patches": lambda: volumes(PatchTask(batch_size=4), 0.3),
    "refiner": lambda: volumes(RefinerTask(batch_size=4, frozen=False), 0.5),
    "adversary": lambda: volumes(AdversaryTask(batch_size=4), 0.4),
}
