"""Derivations: what is computed from the rows of shards or from new files, by finished networks or by a plain function.

A system implements one of these; the engine runs it over a cluster, part by part, and goes on after a kill.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd
import pyarrow as pa

from medray.shards.store import Store
from medray.tasks.task import Task

if TYPE_CHECKING:
    from torch import nn

Networks = Mapping[tuple[str, int], tuple[Any, "nn.Module"]]
"""Name of the runs and fold → the task and the network of a finished run."""
OutputsOf = Callable[..., pd.DataFrame]
"""Task, network, rows and, where they are not the task's own, outputs → a table."""


class ByNetwork(Protocol):
    """New rows from the outputs of a finished network: features, masks, pseudo-labels."""

    @property
    def id_column(self) -> str:
        """Of the rows that come in: it names those that are set aside."""

    def identity(self) -> dict[str, Any]:
        """What makes the result what it is, beside the weights and the rows."""

    def outputs(self, task: Any, network: Any, batch: dict[str, Any]) -> dict[str, Any]:
        """Output columns of a batch, one entry an example. A row of which the task can make no example (ValueError) is
        set aside with the error's line."""

    def pack(self, outputs: pd.DataFrame) -> pa.Table:
        """The outputs for the rows of one part, in order → the table that is written; whole stacks may become one row.
        Raises ValueError where the network has given something that cannot be kept: that ends the job."""


class ByFunction(Protocol):
    """New rows from each row by a plain function: a registration, crops."""

    @property
    def id_column(self) -> str:
        """Of the rows that come in: it names those that are set aside."""

    @property
    def columns(self) -> Sequence[str]:
        """That ``rows`` reads."""

    @property
    def schema(self) -> pa.Schema:
        """Of the rows that come out."""

    def identity(self) -> dict[str, Any]:
        """What makes the result what it is, beside the rows; the name of the function and its version among it."""

    def rows(self, row: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """Any number of rows, none too. Raises ValueError, one line, where the row is to be set aside."""


class OfFiles(Protocol):
    """Answers of finished networks to new files: a piece of work, such as a study, becomes a table, and pictures."""

    @property
    def runs(self) -> Sequence[tuple[str, int, type[Task]]]:
        """Name, fold and kind of the finished runs that are asked."""

    def read(self, piece: Any, each: Callable[..., Any]) -> Any:
        """What ``answer`` needs of the piece's files; where one process does all, it runs ahead of the networks, in a thread of its own.

        Args:
            each: ``map``, or one that works in several threads.
        """

    def answer(self, networks: Networks, piece: Any, read: Any, outputs_of: OutputsOf, to: Store) -> pa.Table:
        """The table that is kept of the piece; pictures go to ``to``. Raises ValueError, one line, where it is to be set
        aside."""

    def refused(self, piece: Any, why: str) -> pa.Table:
        """The table that is kept of a piece that was set aside as a whole."""
