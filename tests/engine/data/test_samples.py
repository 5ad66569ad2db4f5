from __future__ import annotations

import hashlib
import itertools
import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medray.engine.data.rows import read_rows
from medray.engine.data.samples import (
    EVALUATION_ROWS,
    FILES_TOGETHER,
    WINDOW_BATCHES,
    EvaluationPlan,
    Rows,
    Shards,
    TrainingPlan,
    read_index,
)
from medray.shards.store import Store


def rows(count: int, per_group: int = 8) -> Rows:
    number = np.arange(count)
    return Rows(Store("shards"), ("a.parquet",), np.zeros(count, np.int32), number // per_group, number % per_group)


def epoch_of(plan: TrainingPlan, epoch: int) -> list[int]:
    return [int(i) for e, step in plan.units() if e == epoch for i in plan.samples(e, step)[0]]


def order_of(plan: TrainingPlan, epoch: int) -> np.ndarray:
    """All places of an epoch, in its order."""
    return plan.orders.places(epoch, 0, plan.orders.count(epoch))


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


@pytest.mark.parametrize(
    ("count", "world", "batch"), [(1003, 4, 7), (3, 4, 8), (0, 1, 8), (1000, 3, 32), (300, 1, 200)]
)
def test_the_units_of_small_rows_are_by_their_number_alone(count: int, world: int, batch: int) -> None:
    """As they were before rows had sizes."""
    for size in (None, np.full(count, 3e6, np.float32)):
        for rank in range(world):
            share = np.array_split(np.arange(count), world)[rank]
            most = max(1, EVALUATION_ROWS // batch) * batch
            wanted = [(int(share[i]), int(share[i : i + most][-1]) + 1) for i in range(0, len(share), most)]
            assert EvaluationPlan(replace(rows(count), size=size), batch, world, rank).units() == wanted


def test_a_unit_of_large_rows_has_as_many_bytes_as_it_may() -> None:
    volumes = replace(rows(5), size=np.array([4e8, 1e8, 1e8, 6e8, 1.0], np.float32))
    assert EvaluationPlan(volumes, 1).units() == [(0, 2), (2, 3), (3, 4), (4, 5)]
    assert EvaluationPlan(volumes, 2).units() == [(0, 2), (2, 4), (4, 5)]  # batches stay whole
    assert EvaluationPlan(volumes.take(np.array([1, 2, 4])), 1).units() == [(0, 3)]


def test_the_size_of_a_row_is_read_from_the_footers(tmp_path: Path) -> None:
    table = pa.table({"id": ["a", "b", "c"], "voxels": [bytes(10_000), bytes(50_000), bytes(1_000_000)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2, use_dictionary=False, write_statistics=False)
    found, _ = read_index(Store(tmp_path), ["id"])
    assert found.size is not None
    assert found.size == pytest.approx([30_000, 30_000, 1_000_000], rel=0.1)


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
        parts = stretches(taken, order_of(plan, epoch))
        assert sorted(f for part in parts for f in part) == list(range(count))
        sizes = [FILES_TOGETHER] * (count // FILES_TOGETHER) + [count % FILES_TOGETHER] * (count % FILES_TOGETHER > 0)
        assert [len(part) for part in parts] == sizes
        blocks.append({frozenset(part) for part in parts})
    assert not blocks[0] & blocks[1]  # other files together in another epoch
    assert not blocks[1] & blocks[2]


def test_row_groups_stay_whole_and_are_mixed_within_a_block() -> None:
    rows = files_of(FILES_TOGETHER)
    order = order_of(TrainingPlan(rows, 8, 1, seed=0), 0)
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


def test_the_samples_of_a_seed_stay_what_they_were() -> None:
    """The figures of every run rest on them. The digest is of the release that first had windows and lanes."""
    taken = repeated(files_of(20), np.where(np.arange(20 * 128) % 50 == 0, 3, 1))
    text = hashlib.blake2b(digest_size=8)
    for rank in range(2):
        plan = TrainingPlan(taken, 24, 3, seed=5, world=2, rank=rank, first_epoch=1, first_step=8, lanes=4)
        for unit in plan.units():
            for numbers in plan.samples(*unit):
                text.update(numbers.astype("<i8").tobytes())
    assert text.hexdigest() == "3cb5da6bca81ba2d"


def test_a_plan_that_travels_brings_its_orders_along() -> None:
    plan = TrainingPlan(files_of(20), 24, 3, seed=5)

    class Sent(TrainingPlan):
        def order_of(self, *unused: object) -> np.ndarray:
            raise AssertionError("computed again")

    sent = pickle.loads(pickle.dumps(plan))
    object.__setattr__(sent, "__class__", Sent)
    for unit in plan.units():
        assert np.array_equal(sent.samples(*unit), plan.samples(*unit))
    assert plan.orders.order.nbytes + plan.orders.stops.nbytes == 3 * 20 * 4 * 8  # epochs, files, groups of a file


# ---- rows that not every epoch sees --------------------------------------------------------------------------------


def shared(rows: Rows, shares: list[float], together: int = 1) -> Rows:
    """Rows with these shares, drawn at random."""
    share = np.random.default_rng(0).choice(shares, len(rows))
    taken = rows.take(np.repeat(np.arange(len(rows)), together))
    return replace(taken, share=np.repeat(share, together), together=together)


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("together", [1, 4])
def test_half_of_some_rows_is_seen_in_an_epoch_and_all_in_two(world: int, together: int) -> None:
    taken = shared(files_of(3), [0.5, 1.0], together)
    plans = [TrainingPlan(taken, 8, 6, seed=1, world=world, rank=rank) for rank in range(world)]
    assert plans[0].steps_per_epoch == taken.per_epoch // 8 < len(taken) * 0.8 // 8
    half, whole = taken.share == 0.5, taken.share == 1
    epochs = [set(order_of(plans[0], epoch).tolist()) for epoch in range(6)]
    for first, second in itertools.pairwise(epochs):
        assert set(np.flatnonzero(whole)) <= first & second
        assert not set(np.flatnonzero(half)) & first & second
        assert len(first | second) == len(taken)
        assert abs(len(first) - len(second)) <= together
    assert epochs[0] == epochs[2] == epochs[4]
    for epoch, wanted in enumerate(epochs):
        places = [place for plan in plans for place in epoch_of(plan, epoch)]
        assert len(places) == len(set(places)) == plans[0].steps_per_epoch * 8
        assert set(places) <= wanted


@pytest.mark.parametrize("share", [0.9, 0.5, 0.34, 1 / 3, 0.1, 0.01])
def test_every_row_is_seen_as_often_as_its_share_says(share: float) -> None:
    taken = shared(files_of(3), [share, 1.0])
    plan = TrainingPlan(taken, 8, 100, seed=1)
    counts = np.zeros(len(taken))
    for epoch in range(100):
        order = order_of(plan, epoch)
        assert len(order) == plan.orders.count(epoch)
        assert plan.steps_per_epoch * 8 <= len(order) + 1
        counts[order] += 1
    assert (counts[taken.share == 1] == 100).all()
    assert np.abs(counts[taken.share != 1] - 100 * share).max() < 1


def test_another_seed_leaves_out_others() -> None:
    taken = shared(files_of(3), [0.5])
    first, second = (set(order_of(TrainingPlan(taken, 8, 1, seed=seed), 0).tolist()) for seed in (0, 1))
    assert 0.3 < len(first & second) / len(first) < 0.7


@pytest.mark.parametrize("world", [1, 2, 4])
def test_with_shares_any_number_of_workers_sees_the_same_batches_and_a_resumed_plan_the_rest(world: int) -> None:
    taken = shared(files_of(3), [0.5, 1.0])
    alone = TrainingPlan(taken, 8, 3, seed=0, lanes=4)
    plans = [TrainingPlan(taken, 8, 3, 0, world, rank, 1, WINDOW_BATCHES, lanes=4) for rank in range(world)]
    assert plans[0].units() == [unit for unit in alone.units() if unit >= (1, WINDOW_BATCHES)]
    for unit in plans[0].units():
        parts = [np.stack(plan.samples(*unit), axis=1).reshape(-1, 8 // world, 2) for plan in plans]
        wanted = np.stack(alone.samples(*unit), axis=1).reshape(-1, 8, 2)
        for ours, theirs in zip(np.concatenate(parts, axis=1).tolist(), wanted.tolist(), strict=True):
            assert sorted(ours) == sorted(theirs)


def test_a_share_of_one_changes_nothing() -> None:
    taken = files_of(3)
    plans = [TrainingPlan(rows, 8, 2, seed=0) for rows in (taken, replace(taken, share=np.ones(len(taken))))]
    for unit in plans[0].units():
        assert np.array_equal(plans[0].samples(*unit), plans[1].samples(*unit))


def test_more_epochs_than_readings_of_a_small_table() -> None:
    plan = TrainingPlan(shared(rows(5), [0.5]), 8, 4, seed=0)
    assert plan.steps_per_epoch == 1
    assert all(len(plan.samples(*unit)[0]) == 8 for unit in plan.units())


def test_a_part_of_the_rows_is_named_by_a_mask_or_by_a_function_of_the_index() -> None:
    every = files_of(3)
    index = pd.DataFrame({"sex": np.where(every.file == 1, "M", "F"), "place": np.arange(len(every))})
    girls = Shards(every, index).where(lambda table: table["sex"].to_numpy() == "F")
    by_mask = Shards(every, index).where(index["sex"] == "F")
    for part in (girls, by_mask):
        assert part.files == ("0000.parquet", "0002.parquet")  # none of which no row is left
        assert part.index["place"].tolist() == np.flatnonzero(every.file != 1).tolist()
        wanted = every.take(part.index["place"].to_numpy())
        assert [part.files[i] for i in part.rows.file] == [every.files[i] for i in wanted.file]
        assert np.array_equal(part.rows.group, wanted.group)
        assert np.array_equal(part.rows.row, wanted.row)
    assert len(Shards(every, index).where(lambda table: np.ones(len(table), bool)).rows) == len(every)


def test_the_bytes_of_a_volume_are_not_copied(tmp_path: Path) -> None:
    """large_binary comes as a view of what was read, and null as None."""
    table = pa.table({"voxels": pa.array([b"abcd", None], pa.large_binary())})
    pq.write_table(table, tmp_path / "a.parquet")
    zeros = np.zeros(2, np.int32)
    rows = Rows(Store(str(tmp_path)), ("a.parquet",), zeros, zeros, np.arange(2, dtype=np.int32))
    first, second = read_rows(rows, np.arange(2), ["voxels"])
    assert isinstance(first["voxels"], pa.Buffer)
    assert np.frombuffer(first["voxels"], np.uint8).tobytes() == b"abcd"
    assert second["voxels"] is None
