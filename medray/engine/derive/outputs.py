"""Outputs of a network for rows that are in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from torch import nn

from medray.engine.data.rows import in_stack
from medray.engine.train.outputs import Outputs, evaluate
from medray.tasks.task import Task


def outputs_of(
    task: Task, network: nn.Module, rows: Sequence[dict[str, Any]], outputs: Outputs | None = None
) -> pd.DataFrame:
    """What ``evaluate`` gives for rows that are in memory, whole stacks in order."""
    device = next(network.parameters()).device
    if task.context:
        rows = [
            row | {"context": in_stack(list(rows), i, task.context, task.stack_column)} for i, row in enumerate(rows)
        ]
    examples = [task.example(row) for row in rows]
    size = task.evaluation_batch
    batches = [task.collate(examples[i : i + size]) for i in range(0, len(examples), size)]
    return evaluate(task, network, batches, device, outputs=outputs)
