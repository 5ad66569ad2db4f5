"""What a search is judged by: figures of the scans that its folds hold out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from medray.systems.fewlabel.task import FewLabelTask
from medray.tasks.system import Direction, Outputs

OBJECTIVES: Mapping[str, Direction] = {"dice": "max"}


def score_folds(task: FewLabelTask, outputs: Sequence[Outputs]) -> dict[str, float]:
    """Mean over organs of each one's mean Dice over the scans that tell of it; of two running means, over both."""
    held_out = pd.concat([predictions for predictions, _ in outputs], ignore_index=True)
    each = [f"{mean}dice_{organ}" for organ in task.organs for mean in ("", "second_")]
    return {"dice": float(held_out[[name for name in each if name in held_out]].astype(float).mean().mean())}
