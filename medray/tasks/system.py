"""System: what the engine's jobs need to know of a system, beside its tasks; and what a search of it looks like."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import pandas as pd

from medray.shards.inventory import Inventory
from medray.shards.source import Source
from medray.tasks.task import Task

Direction = Literal["min", "max"]
Outputs = tuple[pd.DataFrame, pd.DataFrame | None]
"""Of one fold: predictions of its held-out rows, and of its inner rows where there are any."""
Score = Callable[[Any, Sequence[Outputs]], dict[str, float]]
"""A task and the outputs of its folds → figures. A function of a module: it travels."""


class Phantoms(Protocol):
    """Files that a job makes, and works on, where it is given none; ``imaging.phantom.writer.MARK`` lies among them. Every piece is written by whichever core is free."""

    unit: ClassVar[str]
    """What is drawn, in the plural."""

    def count(self, piece: Any) -> int:
        """How many of them are in a piece."""

    def pieces(self, folder: Path) -> list[Any]:
        """What is to be written into ``folder``; nothing where all is there. Raises ValueError where it holds others."""

    def write(self, folder: Path, piece: Any) -> Any:
        """Write one piece, such as a study."""

    def finish(self, folder: Path, written: list[Any]) -> tuple[str, str]:
        """Write what follows from all pieces (``write``'s results, in order; none where all was there), and give what a
        user would have named on the command line: the files and the labels."""


def _nothing(_: Any) -> Sequence[str]:
    return ()


def _as_it_is(source: Any, task: Any, labels: str | None) -> Any:
    return source


def _as_they_are(labels: Any, source: Source) -> Any:
    return labels


@dataclass(frozen=True, kw_only=True)
class System:
    """How a system reads its files and labels, and what its folds are balanced on."""

    source: Source
    read_labels: Callable[[str], Any]
    """Path or URI → labels, for ``assemble``. Where they come with lists, "split" says whose, and is a column of their
    "table"."""
    assemble: Callable[[pd.DataFrame, Any], Inventory]
    columns: tuple[str, ...]
    """Small columns of the shards that ``strata`` and the tasks' ``labelled`` look at: an index has these, and the
    identifiers."""
    strata: Callable[[pd.DataFrame], np.ndarray]
    """Index → (rows,) numbers: folds have about as many rows of each. A function of a module: it travels."""
    flags: tuple[str, ...]
    """The command line's names for the files and for the labels; one name where labels say which files there are."""
    about_flags: tuple[str, ...]
    title: str = ""
    """What it looks at, as the head of a page."""
    purpose: str = ""
    """A sentence for the model card: what goes in, and what comes out."""
    files_of: Callable[[str], str] | None = None
    """Where there is one flag: what it names → where the files are."""
    source_for: Callable[[Any, Any, str | None], Any] = _as_it_is
    """Source, task and path or URI of the labels (None for phantoms) → the source with what only these tell, such as names of
    channels. Raises ValueError where the task asks for what the labels have not."""
    labels_for: Callable[[Any, Source], Any] = _as_they_are
    """Labels and the source that will read the files → what of them it needs: what is not asked for can spoil nothing."""
    label_notes: Callable[[Any], Sequence[str]] = _nothing
    """Labels → what is odd about them, a line each, said before anything is spent."""
    fold_notes: Callable[[pd.DataFrame], Sequence[str]] = _nothing
    """Index with "fold" → what a fold has none of, a line each."""
    rows_per_shard: int = 1024
    """At most, where the user does not say. A shard is what one core writes, and one network derives from, at a time."""


@dataclass(frozen=True)
class SearchSetup:
    """What a search tries: one for data that is given, perhaps another one for phantoms."""

    job: tuple[str, ...]  # the cross-validation that trains the best values: its script and flags
    job_flags: tuple[str, str]  # its flags for the recipe, and for the name of what stands beside other results
    recipe: Callable[[str], Task]  # name of a backbone → the task that the search starts from
    reference: Callable[[str], Task]  # → the task that ``job`` trains where no flag says otherwise
    backbones: tuple[str, ...]  # names for ``recipe``
    space: tuple[str, ...]
    objectives: Mapping[str, Direction]  # figures of ``score``
    score: Score
    options: Mapping[str, Any]  # of the engine's Options, where they differ from its own
    trials: int = 50
    phantoms: Phantoms | None = None
