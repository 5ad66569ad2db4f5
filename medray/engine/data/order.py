"""The order of the rows in each epoch, small enough to travel: the order of their row groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Groups:
    """Rows by the row group that they are read from. A row that is there several times has each copy in another group:
    its copies are drawn in different places of the epoch. Copies that are made from one reading stay together.
    """

    sequence: np.ndarray  # (rows,) int32 places of the rows, group after group
    starts: np.ndarray  # (groups + 1,) int32 where each group begins in it, and the end of the last
    file: np.ndarray  # (groups,) int32 file of each

    @classmethod
    def of(cls, file: np.ndarray, group: np.ndarray, row: np.ndarray, together: int) -> Groups:
        """
        Args:
            file, group, row: (rows,) int32 where each row is; the copies of a row stand next to each other.
            together: copies of a row that are made from one reading.
        """
        same = (np.diff(file, prepend=-1) == 0) & (np.diff(group, prepend=-1) == 0) & (np.diff(row, prepend=-1) == 0)
        place = np.arange(len(file))
        copy = (place - np.maximum.accumulate(np.where(same, 0, place))) // together
        order = np.lexsort((copy, group, file))
        keys = np.stack([file, group, copy])[:, order]
        first = np.flatnonzero((np.diff(keys, axis=1, prepend=-1) != 0).any(axis=0))
        starts = np.append(first, len(order))
        return cls(order.astype(np.int32), starts.astype(np.int32), file[order[first]].astype(np.int32))


@dataclass(frozen=True, eq=False)
class Orders:
    """The order of the rows in each of some epochs: 8 bytes a row group and epoch, none a row.

    Whoever computes it sends it along; a few rows of an epoch are then found without computing it again.
    """

    groups: Groups
    first_epoch: int
    order: np.ndarray  # (epochs, groups) int32 row groups in the order of each epoch
    stops: np.ndarray  # (epochs, groups) int32 rows of the epoch up to the end of each of these
    share: np.ndarray | None  # (rows,) part of the epochs that see the row; None: every epoch sees all
    phase: np.ndarray | None  # (rows,) from 0 to below 1, which of the epochs these are

    def count(self, epoch: int) -> int:
        """Rows of an epoch."""
        stops = self.stops[epoch - self.first_epoch]
        return int(stops[-1]) if len(stops) else 0

    def places(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """Places of the rows ``start`` to below ``stop`` of an epoch, of those that it has."""
        stops = self.stops[epoch - self.first_epoch]
        first, last = np.searchsorted(stops, start, side="right"), np.searchsorted(stops, stop, side="left")
        bounds = self.groups.starts
        parts = [
            self.groups.sequence[bounds[group] : bounds[group + 1]]
            for group in self.order[epoch - self.first_epoch, first : last + 1]
        ]
        found = np.concatenate(parts) if parts else self.groups.sequence[:0]
        if self.share is not None and self.phase is not None:
            found = found[seen(self.share[found], self.phase[found], epoch)]
        skipped = int(stops[first - 1]) if first else 0
        return found[start - skipped : stop - skipped]


def seen(share: np.ndarray, phase: np.ndarray, epoch: int) -> np.ndarray:
    """Whether an epoch sees each row: with a share of 1/2 every other epoch, with 1/3 every third one.

    Any n epochs see a row n · share times, rounded up or down.
    """
    return np.floor((epoch + 1) * share + phase) > np.floor(epoch * share + phase)


def phases(share: np.ndarray, together: int, seed: int) -> np.ndarray:
    """(rows,) drawn so that every epoch sees as many rows of a share as another, to within one."""
    readings = share[::together]
    found = np.zeros(len(readings))
    rng = np.random.default_rng((seed, 0, 0, 0, 0, 1))  # a stream of its own beside those of epochs and windows
    for value in np.unique(readings):
        own = np.flatnonzero(readings == value)
        found[own] = (rng.permutation(len(own)) + 0.5) / len(own)
    return np.repeat(found, together)
