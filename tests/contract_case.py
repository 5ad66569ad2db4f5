"""What a system gives the contract suite: a ``CASES`` in its tests' contract.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from medray.tasks.task import Task

Row = dict[str, object]


@dataclass(frozen=True)
class Case:
    """A recipe's task with random weights, small enough for a test; the other fields are its own."""

    task: Task
    rows: list[Row]  # four of the shards
    labels: tuple[str, ...] = ()  # label columns of a row, masks too, where a missing one is masked out
    names: tuple[str, ...] = ()  # label columns of the outputs; p_<name> are the probabilities
    expected: Callable[[Row], list[float]] = lambda row: []  # a row's labels in the outputs
    floor: float = 0.1  # below it, its loss on four examples says that they have been learned by heart
    image: str = "image"  # of an example: what is augmented
    keeps_shape: bool = True  # training examples are as large as those for inference
    unaugmented: tuple[Task, ...] = ()  # all augmentation off: on these rows one enlarges, the other shrinks
    known: tuple[str, ...] = ("backbone",)  # fields that its identity must tell
    derived: tuple[Callable[..., dict[str, Any]], ...] = ()
    """(task, network, batch) → columns: what else is computed from finished networks, such as pooled features."""
    unknown: str = ""
    """Column of the outputs that is NaN where the labels are missing; where not given, the last of ``names``."""
