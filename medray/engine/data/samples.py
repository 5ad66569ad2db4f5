"""Which rows of which shards, in which order: planned on the driver, the same for the same seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from medray.engine.data.order import Groups, Orders, phases, seen
from medray.shards.store import Store

WINDOW_BATCHES = 8
"""Optimizer batches that are shuffled together; a resumed epoch starts at such a boundary."""
FILES_TOGETHER = 16
"""Shards whose row groups are shuffled with each other: a window opens few files, and mixes the series of all of them."""
EVALUATION_ROWS = 128
"""Rows that one task of an evaluation reads, at most."""
EVALUATION_BYTES = 512 << 20
"""About, of what it reads in them: a task has one or two volumes of hundreds of megabytes, not ``EVALUATION_ROWS`` of them."""


@dataclass(frozen=True)
class Rows:
    """Places of rows in the shards of a store; sorted by file, row group and row."""

    store: Store
    files: tuple[str, ...]
    file: np.ndarray  # (rows,) int32 index into files
    group: np.ndarray  # (rows,) int32 row group within the file
    row: np.ndarray  # (rows,) int32 row within the row group
    together: int = 1  # this many copies of a row are examples of one reading, and stay together
    share: np.ndarray | None = None  # (rows,) part of the epochs that see the row, above 0; None: every epoch sees all
    size: np.ndarray | None = (
        None  # (rows,) float32 bytes of the row as it is read; None: nothing is known, or all are small
    )

    def __len__(self) -> int:
        return len(self.file)

    @property
    def per_epoch(self) -> int:
        """Rows that every epoch has at least."""
        if self.share is None:
            return len(self)
        values, counts = np.unique(self.share[:: self.together], return_counts=True)
        return self.together * int(np.floor(values * counts + 1e-6).sum())

    def take(self, places: np.ndarray) -> Rows:
        share = None if self.share is None else self.share[places]
        size = None if self.size is None else self.size[places]
        return replace(
            self, file=self.file[places], group=self.group[places], row=self.row[places], share=share, size=size
        )


@dataclass(frozen=True)
class Shards:
    """Rows of shards, and for each of them its small columns: what a stage reads."""

    rows: Rows
    index: pd.DataFrame  # identifiers, what ``System.columns`` names, fold and, of given lists, inner

    def where(self, mask: np.ndarray | pd.Series[bool] | Callable[[pd.DataFrame], np.ndarray]) -> Shards:
        """A part of the rows, with the folds that all share: girls, one source, what one network has made.

        Args:
            mask: (rows,) bool, or a function of the index that gives it.
        """
        keep = np.flatnonzero(np.asarray(mask(self.index) if callable(mask) else mask))
        rows = self.rows.take(keep)
        # without files of which no row is left: the order of samples depends on how many files there are
        used, file = np.unique(rows.file, return_inverse=True)
        own = replace(rows, files=tuple(rows.files[i] for i in used), file=file.astype(np.int32))
        return Shards(own, self.index.iloc[keep])

    def by_fold(self, mask: Callable[..., np.ndarray], *more: Any) -> Callable[[int], Shards]:
        """Fold → its own part of the rows, by a function of the index, the fold and ``more``."""
        return lambda fold: self.where(mask(self.index, fold, *more))

    @property
    def store(self) -> Store:
        """Where the files are."""
        return self.rows.store

    @property
    def files(self) -> Sequence[str]:
        """Relative to the store."""
        return self.rows.files

    @property
    def fold_of_patient(self) -> dict[str, int]:
        patients = self.index.drop_duplicates("patient_id")
        return dict(zip(patients["patient_id"], patients["fold"].tolist(), strict=True))


def read_index(store: Store, columns: list[str], names: Sequence[str] | None = None) -> tuple[Rows, pd.DataFrame]:
    """Every row of the shards: where it is, and some of its small columns. Pixels are not read.

    Args:
        names: of the files; all in the folder where not given.
    """
    names = store.names(".parquet") if names is None else list(names)
    file, group, row, size, tables = [], [], [], [], []
    for number, name in enumerate(names):
        metadata = pq.read_metadata(store.path(name), filesystem=store.filesystem)
        for index in range(metadata.num_row_groups):
            about = metadata.row_group(index)
            count = about.num_rows
            file.append(np.full(count, number))
            group.append(np.full(count, index))
            row.append(np.arange(count))
            size.append(np.full(count, about.total_byte_size / max(1, count), np.float32))
        tables.append(store.read_table(name, columns=columns))
    if not tables:
        raise ValueError(f"{store.uri}: there are no shards")
    parts = [np.concatenate(part).astype(np.int32) if part else np.zeros(0, np.int32) for part in (file, group, row)]
    sizes = np.concatenate(size) if size else np.zeros(0, np.float32)
    return Rows(store, tuple(names), parts[0], parts[1], parts[2], size=sizes), pa.concat_tables(tables).to_pandas()


@dataclass(frozen=True, eq=False)
class TrainingPlan:
    """The samples of every batch of every epoch, for one of ``world`` workers.

    Files are permuted for each epoch, and the row groups of every ``FILES_TOGETHER`` of them. Of the resulting sequence,
    ``WINDOW_BATCHES`` batches form a window that is cut among the workers and shuffled: any number of workers sees the same
    samples window by window, and each reads only its part of the row groups. An epoch that is not a whole number of batches
    drops its rest, another one each time.

    With the same ``lanes``, a multiple of its workers, any number of them even sees the same batches: a window is cut into
    lanes, every batch takes as much from each, and a worker has some of the lanes.

    The orders of all epochs to come are computed once, with the plan, and travel with it.
    """

    rows: Rows
    batch_size: int  # over all workers
    epochs: int
    seed: int
    world: int = 1
    rank: int = 0
    first_epoch: int = 0
    first_step: int = 0
    lanes: int | None = None  # as many as workers, where not given
    orders: Orders = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "orders", self._orders())

    @property
    def local_batch(self) -> int:
        return self.batch_size // self.world

    @property
    def steps_per_epoch(self) -> int:
        return max(1, self.rows.per_epoch // self.batch_size)

    def units(self) -> list[tuple[int, int]]:
        """(epoch, first step) of each window that is still to come."""
        steps = range(0, self.steps_per_epoch, WINDOW_BATCHES)
        every = [(epoch, step) for epoch in range(self.first_epoch, self.epochs) for step in steps]
        return [unit for unit in every if unit >= (self.first_epoch, self.first_step)]

    def samples(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """This worker's rows of a window, and a number for each that is unique in its epoch (a random seed)."""
        stop = min(step + WINDOW_BATCHES, self.steps_per_epoch) * self.batch_size
        position = np.arange(step * self.batch_size, stop)
        lanes = self.lanes or self.world
        each = len(position) // lanes
        mine = range(self.rank * lanes // self.world, (self.rank + 1) * lanes // self.world)
        shuffled = [
            np.random.default_rng((self.seed, epoch, step, lane, lanes)).permutation(
                position[lane * each : (lane + 1) * each]
            )
            for lane in mine
        ]
        share = np.concatenate([part.reshape(-1, self.batch_size // lanes) for part in shuffled], axis=1).ravel()
        within = share % self.orders.count(epoch)  # fewer rows than a batch: they repeat
        return self.orders.places(epoch, within.min(), within.max() + 1)[within - within.min()], share

    def _orders(self) -> Orders:
        rows = self.rows
        groups = Groups.of(rows.file, rows.group, rows.row, rows.together)
        phase = None if rows.share is None else phases(rows.share, rows.together, self.seed)
        epochs = range(self.first_epoch, self.epochs)
        order = np.zeros((len(epochs), len(groups.file)), dtype=np.int32)
        stops = np.zeros_like(order)
        for i, epoch in enumerate(epochs):
            order[i] = self.order_of(groups, epoch)
            sizes = np.diff(groups.starts)
            if rows.share is not None and phase is not None:
                here = seen(rows.share, phase, epoch)[groups.sequence]
                sizes = np.add.reduceat(here, groups.starts[:-1], dtype=np.int64)
            stops[i] = np.cumsum(sizes[order[i]])
        return Orders(groups, self.first_epoch, order, stops, rows.share, phase)

    def order_of(self, groups: Groups, epoch: int) -> np.ndarray:
        """(groups,) row groups in the order of an epoch: files are permuted, and the groups of ``FILES_TOGETHER`` of them."""
        rng = np.random.default_rng((self.seed, epoch))
        block = rng.permutation(len(self.rows.files))[groups.file] // FILES_TOGETHER
        return np.lexsort((rng.permutation(len(groups.file)), block)).astype(np.int32)


@dataclass(frozen=True, eq=False)
class EvaluationPlan:
    """Every row once, in order, in contiguous parts for ``world`` workers. Nothing is dropped or repeated."""

    rows: Rows
    local_batch: int
    world: int = 1
    rank: int = 0

    def units(self) -> list[tuple[int, int]]:
        """(first, stop) of the rows of each task: whole batches, of ``EVALUATION_ROWS`` or ``EVALUATION_BYTES``."""
        share = np.array_split(np.arange(len(self.rows)), self.world)[self.rank].tolist()
        most = max(1, EVALUATION_ROWS // self.local_batch) * self.local_batch
        units: list[tuple[int, int]] = []
        held = 0.0
        for i in range(0, len(share), self.local_batch):
            batch = share[i : i + self.local_batch]
            size = 0.0 if self.rows.size is None else float(self.rows.size[batch].sum())
            if units and units[-1][1] - units[-1][0] < most and held + size <= EVALUATION_BYTES:
                units[-1] = (units[-1][0], batch[-1] + 1)
                held += size
            else:
                units.append((batch[0], batch[-1] + 1))
                held = size
        return units

    def samples(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        return np.arange(start, stop), np.arange(start, stop)
