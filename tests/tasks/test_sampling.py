from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medray.engine.data.samples import Rows, TrainingPlan
from medray.engine.train.sweep import _copies
from medray.shards.store import Store
from medray.tasks.sampling import balanced, number_of

STRATA = ["lesion"] * 7 + ["none"] * 90 + ["other scanner"] * 23


def plan(times: np.ndarray, tmp_path: Path, crops: int = 1, world: int = 1, rank: int = 0) -> TrainingPlan:
    count = np.arange(len(times), dtype=np.int32)
    rows = Rows(Store(tmp_path), ("a.parquet",), np.zeros_like(count), count // 16, count % 16)
    learned, share = _copies(times, crops)
    return TrainingPlan(replace(rows.take(learned), together=crops, share=share), 12, 16, 0, world, rank)


def seen(of: TrainingPlan, times: np.ndarray, crops: int, epoch: int) -> np.ndarray:
    """Examples of each row in an epoch."""
    learned, _ = _copies(times, crops)
    places = np.concatenate([of.samples(*unit)[0] for unit in of.units() if unit[0] == epoch])
    return np.bincount(learned[places], minlength=len(times))


@pytest.mark.parametrize("crops", [1, 4])
@pytest.mark.parametrize("parts", [None, {"lesion": 2, "none": 1, "other scanner": 1}])
def test_an_epoch_has_so_many_steps_and_its_parts(crops: int, parts: dict[str, float] | None, tmp_path: Path) -> None:
    steps = 10
    times = balanced(STRATA, steps * 12 // crops, parts)
    of = plan(times, tmp_path, crops)
    assert of.steps_per_epoch == steps
    strata, every = np.array(STRATA), np.zeros(len(STRATA))
    for epoch in range(of.epochs):
        found = seen(of, times, crops, epoch)
        every += found
        for name in set(STRATA):
            part = (parts or {}).get(name, 1) / sum((parts or dict.fromkeys(STRATA, 1)).values())
            assert found[strata == name].sum() == pytest.approx(part * 120, abs=crops * 1.01)
    for name in set(STRATA):  # within a stratum no row is preferred
        assert np.ptp(every[strata == name]) <= crops * np.ceil(times[strata == name][0])
        assert every[strata == name].min() > 0


def test_any_number_of_workers_sees_the_same_rows(tmp_path: Path) -> None:
    times = balanced(STRATA, 120)
    whole = seen(plan(times, tmp_path), times, 1, 2)
    assert np.array_equal(whole, sum(seen(plan(times, tmp_path, 1, 2, rank), times, 1, 2) for rank in (0, 1)))


def test_readings_that_cannot_be_divided_are_given_out(tmp_path: Path) -> None:
    times = balanced(STRATA, 100, {"lesion": 1, "none": 1, "other scanner": 1})
    assert times.sum() == pytest.approx(100)
    assert sorted(round(times[np.array(STRATA) == name].sum()) for name in set(STRATA)) == [33, 33, 34]


@pytest.mark.parametrize(
    ("strata", "readings", "parts", "said"),
    [
        (["a", "b"], 1, None, "1 readings an epoch are too few for 2 strata"),
        (["a", "b"], 9, {"a": 1.0}, "no part of an epoch is given for the stratum b"),
        (["a", None], 9, None, "a row without a stratum"),
    ],
)
def test_what_cannot_be_balanced(strata: list[str], readings: int, parts: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        balanced(strata, readings, parts)


def test_a_generator_tells_the_number_of_its_example() -> None:
    assert [number_of(np.random.default_rng(seed)) for seed in (7, (3, 1, 12))] == [7, 12]
    with pytest.raises(ValueError, match="a generator of unknown seed has no number"):
        number_of(np.random.Generator(np.random.RandomState(3)._bit_generator))
