from __future__ import annotations

import itertools

import numpy as np
import pytest

from medray.engine.data.order import Groups, Orders, phases, seen

FILE = np.array([0, 0, 0, 0, 1, 1, 1, 1], np.int32)
GROUP = np.array([0, 0, 1, 1, 0, 0, 0, 1], np.int32)
ROW = np.array([0, 1, 0, 0, 0, 1, 1, 0], np.int32)  # of two rows there are two copies


def contents(groups: Groups) -> list[list[int]]:
    bounds = groups.starts.tolist()
    return [groups.sequence[a:b].tolist() for a, b in itertools.pairwise(bounds)]


def test_copies_of_a_row_are_in_groups_of_their_own() -> None:
    groups = Groups.of(FILE, GROUP, ROW, together=1)
    assert contents(groups) == [[0, 1], [2], [3], [4, 5], [6], [7]]
    assert groups.file.tolist() == [0, 0, 0, 1, 1, 1]


def test_copies_of_one_reading_stay_together() -> None:
    file, group, row = (np.repeat(part, 2) for part in (FILE, GROUP, ROW))
    groups = Groups.of(file, group, row, together=2)
    assert contents(groups) == [[0, 1, 2, 3], [4, 5], [6, 7], [8, 9, 10, 11], [12, 13], [14, 15]]


@pytest.mark.parametrize("fractions", [False, True])
def test_any_part_of_an_epoch_is_that_part_of_the_whole(fractions: bool) -> None:
    groups = Groups.of(FILE, GROUP, ROW, together=1)
    order = np.array([[3, 0, 5, 1, 2, 4], [4, 2, 1, 0, 3, 5]], np.int32)
    share = np.where(np.arange(8) % 2, 0.5, 1.0) if fractions else None
    phase = None if share is None else phases(share, 1, seed=3)
    epochs = []
    for row in order:
        places = [place for group in row for place in contents(groups)[group]]
        if share is not None and phase is not None:
            places = [p for p in places if seen(share[p], phase[p], 4 + len(epochs))]
        epochs.append(places)
    counts = [
        [sum(p in contents(groups)[g] for p in places) for g in row] for row, places in zip(order, epochs, strict=True)
    ]
    orders = Orders(groups, 4, order, np.cumsum(counts, axis=1).astype(np.int32), share, phase)
    assert 0 in np.ravel(counts) or not fractions  # a group that an epoch leaves out as a whole
    for number, places in enumerate(epochs):
        assert orders.count(4 + number) == len(places)
        for start in range(len(places)):
            for stop in range(start + 1, len(places) + 1):
                assert orders.places(4 + number, start, stop).tolist() == places[start:stop]


@pytest.mark.parametrize("share", [0.5, 0.25, 0.3, 0.9])
@pytest.mark.parametrize("rows", [1, 7, 100])
def test_every_epoch_sees_as_many_rows_of_a_share_to_within_one(share: float, rows: int) -> None:
    shares = np.array([share] * rows + [1.0] * 5)
    phase = phases(shares, 1, seed=0)
    counts = [int(seen(shares, phase, epoch).sum()) - 5 for epoch in range(50)]
    assert set(counts) <= {int(np.floor(rows * share + 1e-9)), int(np.ceil(rows * share - 1e-9))}


def test_the_examples_of_one_reading_are_seen_in_the_same_epochs() -> None:
    shares = np.repeat([0.5, 0.25, 1.0, 0.5], 3)
    phase = phases(shares, 3, seed=0)
    for epoch in range(8):
        found = seen(shares, phase, epoch).reshape(-1, 3)
        assert (found == found[:, :1]).all()
