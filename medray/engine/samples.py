"""Which rows of which shards, in which order: planned on the driver, the same for the same seed."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from medray.shards.store import Store

WINDOW_BATCHES = 8
"""Optimizer batches that are shuffled together; a resumed epoch starts at such a boundary."""
FILES_TOGETHER = 16
"""Shards whose row groups are shuffled with each other: a window opens few files, and mixes the series of all of them."""
EVALUATION_ROWS = 128
"""Rows that one task of an evaluation reads."""


@dataclass(frozen=True)
class Rows:
    """Places of rows in the shards of a store; sorted by file, row group and row."""

    store: Store
    files: tuple[str, ...]
    file: np.ndarray  # (rows,) int32 index into files
    group: np.ndarray  # (rows,) int32 row group within the file
    row: np.ndarray  # (rows,) int32 row within the row group
    together: int = 1  # this many copies of a row are examples of one reading, and stay together

    def __len__(self) -> int:
        return len(self.file)

    def take(self, places: np.ndarray) -> Rows:
        return replace(self, file=self.file[places], group=self.group[places], row=self.row[places])


def read_index(store: Store, columns: list[str], names: Sequence[str] | None = None) -> tuple[Rows, pd.DataFrame]:
    """Every row of the shards: where it is, and some of its small columns. Pixels are not read.

    Args:
        names: of the files; all in the folder where not given.
    """
    names = store.names(".parquet") if names is None else list(names)
    file, group, row, tables = [], [], [], []
    for number, name in enumerate(names):
        metadata = pq.read_metadata(store.path(name), filesystem=store.filesystem)
        for index in range(metadata.num_row_groups):
            count = metadata.row_group(index).num_rows
            file.append(np.full(count, number))
            group.append(np.full(count, index))
            row.append(np.arange(count))
        tables.append(store.read_table(name, columns=columns))
    if not tables:
        raise ValueError(f"{store.uri}: there are no shards")
    parts = [np.concatenate(part).astype(np.int32) if part else np.zeros(0, np.int32) for part in (file, group, row)]
    return Rows(store, tuple(names), parts[0], parts[1], parts[2]), pa.concat_tables(tables).to_pandas()


@dataclass(frozen=True, eq=False)
class TrainingPlan:
    """The samples of every batch of every epoch, for one of ``world`` workers.

    Files are permuted for each epoch, and the row groups of every ``FILES_TOGETHER`` of them. Of the resulting sequence,
    ``WINDOW_BATCHES`` batches form a window that is cut among the workers and shuffled: any number of workers sees the same
    samples window by window, and each reads only its part of the row groups. An epoch that is not a whole number of batches
    drops its rest, another one each time.

    With the same ``lanes``, a multiple of its workers, any number of them even sees the same batches: a window is cut into
    lanes, every batch takes as much from each, and a worker has some of the lanes.
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
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def local_batch(self) -> int:
        return self.batch_size // self.world

    @property
    def steps_per_epoch(self) -> int:
        return max(1, len(self.rows) // self.batch_size)

    def units(self) -> list[tuple[int, int]]:
        """(epoch, first step) of each window that is still to come."""
        steps = range(0, self.steps_per_epoch, WINDOW_BATCHES)
        every = [(epoch, step) for epoch in range(self.first_epoch, self.epochs) for step in steps]
        return [unit for unit in every if unit >= (self.first_epoch, self.first_step)]

    def samples(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """This worker's rows of a window, and a number for each that is unique in its epoch (a random seed)."""
        stop = min(step + WINDOW_BATCHES, self.steps_per_epoch) * self.batch_size
        position = np.arange(step * self.batch_size, stop)
        # fewer rows than a batch: they repeat
        lanes = self.lanes or self.world
        each, mine = (
            len(position) // lanes,
            range(self.rank * lanes // self.world, (self.rank + 1) * lanes // self.world),
        )
        shuffled = [
            np.random.default_rng((self.seed, epoch, step, lane, lanes)).permutation(
                position[lane * each : (lane + 1) * each]
            )
            for lane in mine
        ]
        share = np.concatenate([part.reshape(-1, self.batch_size // lanes) for part in shuffled], axis=1).ravel()
        order = self._order(epoch)
        return order[share % len(order)], share

    def _order(self, epoch: int) -> np.ndarray:
        if (self.token, epoch) not in _orders:
            while len(_orders) > 2:
                _orders.pop(next(iter(_orders)))
            rng = np.random.default_rng((self.seed, epoch))
            _orders[self.token, epoch] = _mixed(self.rows, rng)
        return _orders[self.token, epoch]


def _mixed(rows: Rows, rng: np.random.Generator) -> np.ndarray:
    """A permutation of the places of ``rows`` that keeps row groups together."""
    file, group = rows.file.astype(np.int64), rows.group.astype(np.int64)
    same = (np.diff(file, prepend=-1) == 0) & (np.diff(group, prepend=-1) == 0) & (np.diff(rows.row, prepend=-1) == 0)
    copy = np.arange(len(file)) - np.maximum.accumulate(np.where(same, 0, np.arange(len(file))))
    # a row that is repeated in an epoch goes with its row group once; its copies are drawn elsewhere in the pool
    _, unit = np.unique(np.stack([file, group, copy // rows.together]), axis=1, return_inverse=True)
    order = np.argsort(unit, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(unit[order])) + 1)
    files = rng.permutation(len(rows.files))
    block = files[[int(file[g[0]]) for g in groups]] // FILES_TOGETHER
    place = np.lexsort((rng.permutation(len(groups)), block))
    return np.concatenate([groups[i] for i in place])


_orders: dict[tuple[str, int], np.ndarray] = {}  # of this process; a plan travels to every task anew


@dataclass(frozen=True, eq=False)
class EvaluationPlan:
    """Every row once, in order, in contiguous parts for ``world`` workers. Nothing is dropped or repeated."""

    rows: Rows
    local_batch: int
    world: int = 1
    rank: int = 0

    def units(self) -> list[tuple[int, int]]:
        share = np.array_split(np.arange(len(self.rows)), self.world)[self.rank]
        size = max(1, EVALUATION_ROWS // self.local_batch) * self.local_batch
        return [(int(share[i]), int(share[min(i + size, len(share)) - 1]) + 1) for i in range(0, len(share), size)]

    def samples(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        return np.arange(start, stop), np.arange(start, stop)
