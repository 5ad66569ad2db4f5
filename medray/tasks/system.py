"""System: what the engine's jobs need to know of a system, beside its tasks; and what a search of it looks like."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from medray.imaging.phantom import PhantomSpec
from medray.shards.inventory import Inventory
from medray.shards.source import Source
from medray.tasks.task import Task

Direction = Literal["min", "max"]
Outputs = tuple[pd.DataFrame, pd.DataFrame | None]
"""Of one fold: predictions of its held-out rows, and of its inner rows where there are any."""
Score = Callable[[Any, Sequence[Outputs]], dict[str, float]]
"""A task and the outputs of its folds → figures. A function of a module: it travels."""


@dataclass(frozen=True)
class System:
    """How a system reads its files and labels."""

    classes: Sequence[str]  # label columns of the shards
    source: Source
    read_labels: Callable[[str], Any]
    assemble: Callable[[pd.DataFrame, Any], Inventory]
    flags: tuple[str, str]  # the command line's names for the files and for the labels
    about_flags: tuple[str, str]


@dataclass(frozen=True)
class Searched:
    """What a search tries: one for data that is given, perhaps another one for phantoms."""

    job: tuple[str, ...]  # the cross-validation that trains the best values: its script and flags
    job_flags: tuple[str, str]  # its flags for the recipe, and for the name of what stands beside other results
    recipe: Callable[[str], Task]  # name of a backbone → the task that the search starts from
    reference: Callable[[str], Task]  # → the task that ``job`` trains where no flag says otherwise
    backbones: tuple[str, ...]  # names for ``recipe``
    space: tuple[str, ...]
    objectives: Mapping[str, Direction]  # figures of ``score``
    score: Score
    options: Mapping[str, Any]  # of engine.options.Options, where they differ from its own
    trials: int = 50
    phantoms: PhantomSpec | None = None
