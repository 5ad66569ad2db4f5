from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medray.engine.samples import WINDOW_BATCHES, EvaluationPlan, Rows, TrainingPlan
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
