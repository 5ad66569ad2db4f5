"""The weights that training starts from: fetched once by the driver, read by every worker of every fold.

A hub that is down at night, or a node that cannot reach it, then costs nothing, and all folds start alike.
"""

from __future__ import annotations

import torch

from medray.engine import checkpoint
from medray.shards.store import Store
from medray.task import Task

NAME = "initial.pt"


def write_initial(task: Task, to: Store) -> Store | None:
    """Write initial.pt into ``to`` unless it is there; gives ``to``, or None for a task that starts from random weights.

    Raises:
        ValueError: the weights cannot be had.
    """
    if not task.starts_from_weights:
        return None
    if not to.exists(NAME):
        torch.manual_seed(task.seed)
        checkpoint.write_weights(to, NAME, task.network().state_dict())
    return to
