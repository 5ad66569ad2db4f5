"""The weights that training starts from: fetched once by the driver, read by every worker of every fold.

A hub that is down at night, or a node that cannot reach it, then costs nothing, and all folds start alike.
"""

from __future__ import annotations

import warnings

import torch

from medray.engine.job.progress import warn
from medray.engine.train import checkpoint
from medray.shards.store import Store
from medray.tasks.task import Task

NAME = "initial.pt"


def write_initial(task: Task, to: Store) -> Store | None:
    """Write initial.pt into ``to`` unless it is there; gives ``to``, or None for a task that starts from random weights.

    Raises:
        ValueError: the weights cannot be had.
    """
    if not task.starts_from_weights:
        return None
    if not to.exists(NAME):
        from medray.nn.weights import WeightsWarning  # timm, which only such a task needs

        torch.manual_seed(task.seed)
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always", WeightsWarning)
            state = task.network().state_dict()
        for note in notes:
            if issubclass(note.category, WeightsWarning):
                warn(str(note.message))
        checkpoint.write_weights(to, NAME, state)
    return to
