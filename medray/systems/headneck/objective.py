"""What a search of S-Net is judged by: figures of the scans that its folds hold out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from medray.systems.headneck.names import small_ones
from medray.systems.headneck.task import OrganTask
from medray.tasks.system import Direction, Outputs

OBJECTIVES: Mapping[str, Direction] = {"dice": "max", "dice_small": "max"}


def score_folds(task: OrganTask, outputs: Sequence[Outputs]) -> dict[str, float]:
    """Means over organs of each one's mean Dice over the scans in which it is drawn: of all, and of those that are small in
    everyone (NaN where a run has none)."""
    held_out = pd.concat([predictions for predictions, _ in outputs], ignore_index=True)
    each = held_out[[f"dice_{organ}" for organ in task.organs]].astype(float).mean()
    small = each[[f"dice_{organ}" for organ in small_ones(task.organs)]]
    return {"dice": float(each.mean()), "dice_small": float(small.mean())}
