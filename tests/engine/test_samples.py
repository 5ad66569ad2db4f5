from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from medray.engine.samples import FILES_TOGETHER, WINDOW_BATCHES, EvaluationPlan, Rows, TrainingPlan
from medray.shards.store import Store


def rows(count: int, per_group: int = 8) -> Rows:
    number = np.arange(count)
    return Rows(Store("shards"), ("a.parquet",), np.zeros(count, np.int32), number // per_group, number % per_group)


def epoch_of(plan: TrainingPlan, epoch: int) -> list[int]:
    return [int(i) for e, step in plan.units() if e == epoch for i in plan.samples(e, step)[0]]


def test_an_epoch_holds_every_row_but_the_rest_of_the_last_batch_once() -> None:
    plan = TrainingPlan(rows(203), batch_size=10, epochs=3, seed=0)
    for epoch in range(3):
        seen = epoch_of(plan, epoch)
        assert len(seen) == 200 == plan.steps_per_epoch * 10
        assert len(set(seen)) == 200
    assert epoch_of(plan, 0) != epoch_of(plan, 1)


def test_the_same_seed_gives_the_same_order_and_another_one_another() -> None:
    first = epoch_of(TrainingPlan(rows(64), 8, 1, seed=1), 0)
    assert first == epoch_of(TrainingPlan(rows(64), 8, 1, seed=1), 0)
    assert first != epoch_of(TrainingPlan(rows(64), 8, 1, seed=2), 0)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_any_number_of_workers_sees_the_same_rows_window_by_window_in_equal_shares(world: int) -> None:
    plans = [TrainingPlan(rows(400), 8, 1, seed=0, world=world, rank=rank) for rank in range(world)]
    alone = TrainingPlan(rows(400), 8, 1, seed=0)
    for unit in alone.units():
        shares = [plan.samples(*unit)[0] for plan in plans]
        assert len({len(share) for share in shares}) == 1
        assert len(shares[0]) % plans[0].local_batch == 0
        assert sorted(np.concatenate(shares)) == sorted(alone.samples(*unit)[0])


@pytest.mark.parametrize("world", [1, 2, 3, 4, 6])
def test_with_the_same_lanes_any_number_of_workers_sees_the_same_batches(world: int) -> None:
    def batches(world: int, unit: tuple[int, int]) -> list[list[int]]:
        """Of each step, the rows of all workers with the numbers that seed their augmentation."""
        plans = [TrainingPlan(rows(400), 24, 1, seed=0, world=world, rank=rank, lanes=12) for rank in range(world)]
        parts = [np.stack(plan.samples(*unit), axis=1).reshape(-1, 24 // world, 2) for plan in plans]
        return [sorted(map(tuple, step)) for step in np.concatenate(parts, axis=1).tolist()]

    for unit in TrainingPlan(rows(400), 24, 1, seed=0).units():
        assert batches(world, unit) == batches(12, unit)


def test_a_worker_reads_its_part_of_the_row_groups_alone() -> None:
    plans = [TrainingPlan(rows(256), 32, 1, seed=0, world=2, rank=rank, lanes=4) for rank in range(2)]
    groups = [{int(i) // 8 for i in plan.samples(0, 0)[0]} for plan in plans]
    assert not groups[0] & groups[1]


def test_a_resumed_plan_is_the_rest_of_the_whole_one() -> None:
    whole = TrainingPlan(rows(400), 8, 2, seed=0)
    rest = TrainingPlan(rows(400), 8, 2, seed=0, first_epoch=1, first_step=WINDOW_BATCHES)
    assert rest.units() == [u for u in whole.units() if u >= (1, WINDOW_BATCHES)]
    for unit in rest.units():
        assert np.array_equal(rest.samples(*unit)[0], whole.samples(*unit)[0])


def test_fewer_rows_than_a_batch_repeat() -> None:
    plan = TrainingPlan(rows(5), batch_size=8, epochs=1, seed=0)
    assert plan.steps_per_epoch == 1
    assert sorted(set(epoch_of(plan, 0))) == [0, 1, 2, 3, 4]
    assert len(epoch_of(plan, 0)) == 8


@pytest.mark.parametrize(("count", "world", "batch"), [(1003, 4, 7), (3, 4, 8), (0, 1, 8), (1, 2, 1), (130, 1, 128)])
def test_an_evaluation_holds_every_row_exactly_once(count: int, world: int, batch: int) -> None:
    seen = []
    for rank in range(world):
        plan = EvaluationPlan(rows(count), batch, world, rank)
        seen += [int(i) for unit in plan.units() for i in plan.samples(*unit)[0]]
    assert seen == list(range(count))


def test_where_rows_come_from(tmp_path: Path) -> None:
    taken = rows(20).take(np.array([3, 17]))
    assert taken.group.tolist() == [0, 2]
    assert taken.row.tolist() == [3, 1]


def files_of(count: int, groups: int = 4, per_group: int = 32) -> Rows:
    """As many files with as many row groups each."""
    file, group, row = (axis.ravel() for axis in np.indices((count, groups, per_group), dtype=np.int32))
    return Rows(Store("shards"), tuple(f"{i:04d}.parquet" for i in range(count)), file, group, row)


def repeated(rows: Rows, times: np.ndarray) -> Rows:
    return rows.take(np.repeat(np.arange(len(rows)), times))


def spots(rows: Rows, places: np.ndarray) -> list[tuple[int, int, int]]:
    return list(zip(rows.file[places].tolist(), rows.group[places].tolist(), rows.row[places].tolist(), strict=True))


@pytest.mark.parametrize("world", [1, 2])
def test_a_row_appears_in_an_epoch_as_often_as_it_is_repeated(world: int) -> None:
    base = files_of(3)
    times = np.random.default_rng(0).choice([1, 2, 5], size=len(base), p=[0.9, 0.05, 0.05])
    times[0] += -times.sum() % 8  # a whole number of batches
    taken = repeated(base, times)
    wanted = dict(zip(spots(base, np.arange(len(base))), times.tolist(), strict=True))
    plans = [TrainingPlan(taken, 8, 2, seed=0, world=world, rank=rank) for rank in range(world)]
    for epoch in range(2):
        places = [place for plan in plans for place in epoch_of(plan, epoch)]
        assert sorted(places) == list(range(len(taken)))
        seen = Counter(spots(taken, np.array(places)))
        assert seen == wanted


@pytest.mark.parametrize("rare", [0.01, 0.05])
def test_two_copies_of_a_row_are_rarely_in_one_window(rare: float) -> None:
    """Were they drawn anywhere in the block, two copies would meet in one of its windows by a chance of 1 / windows."""
    base = files_of(FILES_TOGETHER)
    times = np.where(np.random.default_rng(0).uniform(size=len(base)) < rare, 3, 1)
    taken = repeated(base, times)
    plan = TrainingPlan(taken, batch_size=8, epochs=10, seed=0)
    windows = len(plan.units()) / plan.epochs
    together = pairs = 0
    for unit in plan.units():
        copies = Counter(spots(taken, plan.samples(*unit)[0]))
        together += sum(n * (n - 1) // 2 for n in copies.values())
    pairs = int((times == 3).sum()) * 3 * plan.epochs
    assert windows > 30
    assert together / pairs < 2 / windows


def test_copies_of_a_row_come_in_another_place_each_epoch() -> None:
    taken = repeated(files_of(4), np.where(np.arange(4 * 128) == 77, 8, 1))
    plan = TrainingPlan(taken, 8, 3, seed=0)
    its = np.flatnonzero((taken.file == 0) & (taken.group == 77 // 32) & (taken.row == 77 % 32))
    assert len(its) == 8
    found = [tuple(np.flatnonzero(np.isin(epoch_of(plan, epoch), its)).tolist()) for epoch in range(3)]
    assert len(set(found)) == 3


def stretches(rows: Rows, order: np.ndarray) -> list[set[int]]:
    """The shortest parts of an epoch that share no file with each other: the files of each."""
    file = rows.file[order]
    last = {int(f): i for i, f in enumerate(file)}
    parts, open_until = [], -1
    for i, f in enumerate(file.tolist()):
        if i > open_until:
            parts.append(set())
        parts[-1].add(f)
        open_until = max(open_until, last[f])
    return parts


@pytest.mark.parametrize("count", [2 * FILES_TOGETHER, 3 * FILES_TOGETHER + 5])
@pytest.mark.parametrize("times", [1, 3])
def test_files_are_mixed_with_those_of_their_block_alone(count: int, times: int) -> None:
    base = files_of(count)
    taken = repeated(base, np.where(np.arange(len(base)) % 50 == 0, times, 1))
    plan = TrainingPlan(taken, batch_size=8, epochs=3, seed=0)
    blocks = []
    for epoch in range(3):
        parts = stretches(taken, plan._order(epoch))
        assert sorted(f for part in parts for f in part) == list(range(count))
        sizes = [FILES_TOGETHER] * (count // FILES_TOGETHER) + [count % FILES_TOGETHER] * (count % FILES_TOGETHER > 0)
        assert [len(part) for part in parts] == sizes
        blocks.append({frozenset(part) for part in parts})
    assert not blocks[0] & blocks[1]  # other files together in another epoch
    assert not blocks[1] & blocks[2]


def test_row_groups_stay_whole_and_are_mixed_within_a_block() -> None:
    rows = files_of(FILES_TOGETHER)
    order = TrainingPlan(rows, 8, 1, seed=0)._order(0)
    unit = rows.file[order] * 4 + rows.group[order]
    whole = unit.reshape(-1, 32)
    assert (whole == whole[:, :1]).all()
    assert len(set(whole[:, 0].tolist())) == FILES_TOGETHER * 4
    neighbours = np.mean(np.diff(rows.file[order].reshape(-1, 32)[:, 0]) == 0)
    assert neighbours < 0.25  # groups of a file do not stand next to each other but by chance


@pytest.mark.parametrize("per_group", [1, 8, 32])
def test_a_window_opens_few_files(per_group: int) -> None:
    rows = files_of(10 * FILES_TOGETHER + 3, groups=4, per_group=per_group)
    batch = FILES_TOGETHER * 4 * per_group // WINDOW_BATCHES  # a window is as large as a block
    plan = TrainingPlan(rows, batch, epochs=2, seed=0)
    opened = [len(np.unique(rows.file[plan.samples(*unit)[0]])) for unit in plan.units()]
    assert len(opened) > 10
    assert max(opened) <= 2 * FILES_TOGETHER
    small = TrainingPlan(rows, 1, epochs=1, seed=0)
    assert max(len(np.unique(rows.file[small.samples(*unit)[0]])) for unit in small.units()) <= 8
