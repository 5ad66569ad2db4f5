"""Run: one training run, a task on some rows of the shards, and what it leaves in its folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from medray.engine.cluster import Resources
from medray.engine.samples import Rows
from medray.shards.store import Store
from medray.task import Task

Monitor = Literal["held-out", "inner", "none"]


@dataclass(frozen=True)
class Run:
    """A task, the rows that it learns from, and the held-out rows that it then predicts.

    ``monitor`` says which rows are scored after each epoch. "held-out" only draws a curve: the predictions come from
    the last epoch. "inner" scores a patient-grouped part of the training rows and keeps the best epoch's weights.
    """

    name: str  # its folder below "runs": <backbone>/fold<k>
    store: Store
    task: Task
    train: Rows
    held_out: Rows
    held_out_ids: tuple[str, ...]
    inner: Rows | None
    monitor: Monitor
    resources: Resources
    monitor_every: int = 1
    checkpoint_minutes: float = 10.0
    deterministic: bool = True

    @property
    def finished(self) -> bool:
        return self.store.exists("done.json")

    @property
    def monitored(self) -> Rows | None:
        return {"held-out": self.held_out, "inner": self.inner, "none": None}[self.monitor]

    def history(self) -> list[dict[str, Any]]:
        """One entry an epoch, from the folder; empty before the first epoch has ended."""
        return list(self.store.read_json("history.json", []))

    def predictions(self) -> pd.DataFrame:
        return self.store.read_table("predictions.parquet").to_pandas()


class StopRun(ValueError):
    """A run that cannot go on and would fail again in the same way. The text is one line."""
