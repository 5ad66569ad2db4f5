"""Run: one training run, a task on some rows of the shards, and what it leaves in its folder."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd
import pyarrow.parquet as pq

from medray.engine.data.samples import Rows
from medray.engine.nodes.cluster import Resources
from medray.engine.train.layout import Layout
from medray.shards.folders import DONE, fold_folder
from medray.shards.store import Store
from medray.tasks.task import Task

ORIGIN = "origin.json"  # what a run was made from
Monitor = Literal["held-out", "inner", "none"]


@dataclass(frozen=True)
class Start:
    """Weights of a finished run that another one starts from."""

    store: Store  # the finished run's folder
    digest: str  # of its weights
    prefixes: Mapping[str, str] = field(default_factory=lambda: {"": ""})
    """Beginning of the names of weights there → what they begin with here, such as {"backbone.": "encoder."}. Names that
    begin with none of them are left out; of several the longest counts."""


@dataclass(frozen=True)
class Run:
    """A task, the rows that it learns from, and the held-out rows that it then predicts.

    The rows of ``inner`` are patients of the other folds that it does not learn from: a checkpoint is chosen on them,
    or probabilities are recalibrated.
    ``monitor`` says which rows are scored after each epoch. "held-out" only draws a curve: the predictions come from
    the last epoch. "inner" scores a patient-grouped part of the training rows and keeps the best epoch's weights.
    """

    model: str  # its folder below "runs"
    fold: int  # which is held out
    store: Store
    task: Task
    train: Rows
    held_out: Rows
    held_out_ids: tuple[str, ...]
    inner: Rows | None
    monitor: Monitor
    resources: Resources
    initial: Store | None = None  # where initial.pt is: the weights that training starts from, else random ones
    starts: tuple[Start, ...] = ()  # in place of these: of finished runs, the last one counts
    origin: tuple[str, ...] = ()
    """Digests of the weights that it depends on: of ``starts``, and of the networks that its rows were derived by. With
    others it is another run."""
    monitor_every: int = 1
    checkpoint_minutes: float = 10.0
    deterministic: bool = True
    layout: Layout | None = None  # of 2D kernels in memory; the quicker one of this GPU where not given
    compiled: bool = False  # let torch compile the forward pass, where the GPU gains by it
    stop_after: int | None = None
    """Predict and stop after this epoch of a longer schedule; a run with a later one goes on from there."""

    @property
    def name(self) -> str:
        """<model>/fold<k>"""
        return f"{self.model}/{fold_folder(self.fold)}"

    def identity(self) -> dict[str, Any]:
        """What makes it this run: its task, and the weights that it depends on."""
        return self.task.identity() | ({"origin": list(self.origin)} if self.origin else {})

    @property
    def last_epoch(self) -> int:
        return self.task.epochs if self.stop_after is None else min(self.stop_after, self.task.epochs)

    @property
    def results(self) -> Store:
        """Where predictions and done.json are: beside the history, or in after-<epoch>/ for a run that stops early."""
        return self.store if self.last_epoch == self.task.epochs else self.store.sub(f"after-{self.last_epoch}")

    @property
    def finished(self) -> bool:
        return self.results.exists(DONE)

    @property
    def monitored(self) -> Rows | None:
        return {"held-out": self.held_out, "inner": self.inner, "none": None}[self.monitor]

    def history(self) -> list[dict[str, Any]]:
        """One entry an epoch, from the folder; empty before the first epoch has ended."""
        return list(self.store.read_json("history.json", []))

    @property
    def begun(self) -> bool:
        """Whether something lies in its folder but what it was made from."""
        return bool(self.store.folders() or {*self.store.names()} - {ORIGIN})

    def predictions(self) -> pd.DataFrame:
        """Of the held-out rows. Raises ValueError where they are not those that the run wrote."""
        return self._written("predictions.parquet")

    def inner_predictions(self) -> pd.DataFrame | None:
        """Of the inner rows, None where there are none."""
        name = "inner.parquet"
        return self._written(name) if self.results.exists(name) else None

    def _written(self, name: str) -> pd.DataFrame:
        content = self.results.read_bytes(name)
        noted = self.results.read_json(DONE, {}).get("tables", {})  # an earlier version noted nothing
        if noted.get(name, digest := hashlib.sha256(content).hexdigest()) != digest:
            raise ValueError(
                f"{self.results.uri}/{name}: is not what its run wrote ({DONE} has another SHA-256); put it back, or delete the "
                "folder, and the run is made anew"
            )
        return pq.read_table(io.BytesIO(content)).to_pandas()

    def weights_digest(self) -> str:
        """Of the finished run's network, the beginning of its SHA-256: what is computed with it is only good as long as this is the
        same."""
        return str(self.store.read_json(DONE)["weights"])[:16]
