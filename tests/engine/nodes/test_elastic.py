"""The numbers of workers that a run may have; that it has them when nodes go is test_survival_elastic's."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ray.train.v2.api.config import ScalingConfig

from medray.engine.job.options import Options
from medray.engine.nodes.cluster import Resources
from medray.engine.nodes.elastic import SizesThatDivide, fitting

RANGE = Resources(workers=6, gpu=False, side_by_side=1, threads=1, cpus_per_worker=0.6, data_cpus=0.3, min_workers=2)


def test_only_sizes_that_divide_the_batch() -> None:
    assert RANGE.world_sizes(24) == (2, 3, 4, 6)
    assert RANGE.world_sizes(30) == (2, 3, 5, 6)
    assert Resources(4, True, 1, 1, 1.0, 1.0).world_sizes(8) == (4,)
    assert Resources(0, False, 1, 1, 1.0, 1.0).world_sizes(7) == (1,)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (8, "--batch-size 8: not a multiple of 6 workers; --workers may be 1, 2, 4"),
        (9, "--batch-size 9: not a multiple of 6 workers; --workers may be 1, 3"),
    ],
)
def test_a_bound_that_does_not_divide_is_refused(batch: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RANGE.world_sizes(batch)


def test_the_lower_bound_must_divide_too() -> None:
    four = Resources(4, True, 1, 1, 1.0, 1.0, min_workers=3)
    with pytest.raises(ValueError, match="--batch-size 8: not a multiple of 3 workers; --min-workers may be 1, 2, 4"):
        four.world_sizes(8)


@pytest.mark.parametrize(
    ("nodes", "workers"), [(0, 0), (1, 0), (2, 2), (3, 2), (4, 4), (5, 4), (9, 4)]
)  # with a batch of 8
def test_as_many_as_there_is_room_for(nodes: int, workers: int) -> None:
    config = ScalingConfig(num_workers=(2, 4), resources_per_worker={"CPU": 0.6})
    policy = SizesThatDivide(config, (2, 4), "run")
    assert policy._count_possible_workers({str(i): {"CPU": 0.6} for i in range(nodes)}) == workers


def test_fractions_of_a_cpu_are_counted_whole() -> None:
    assert (0.6 + 0.6 + 0.6) // 0.6 == 2  # Ray's own count
    assert fitting({"CPU": 0.6 + 0.6 + 0.6}, {"CPU": 0.6}) == 3
    assert fitting({"CPU": 4.0, "GPU": 3.0}, {"CPU": 1.0, "GPU": 1}) == 3
    assert fitting({"CPU": 4.0}, {"CPU": 1.0, "GPU": 1}) == 0


def test_the_range_of_the_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": True, "Resources": {"CPU": 1.0}}] * 3)
    flags = Options(out="out", workers=4, gpu=False, min_workers=2)
    found = flags.resources(runs=2)  # three CPUs now: it begins with fewer
    assert (found.workers, found.min_workers) == (4, 2)
    assert str(found).startswith("2 to 4 workers a run")
    assert found.for_small_runs().min_workers is None
    for workers, smallest in ((4, 5), (4, 0), (None, 1)):
        wrong = replace(flags, workers=workers, min_workers=smallest)
        with pytest.raises(
            ValueError, match=f"--min-workers {smallest}: may be 1 to --workers, which is {workers or 0}"
        ):
            wrong.resources(runs=2)
    with pytest.raises(ValueError, match="--workers 8: the cluster has 3 CPUs"):
        replace(flags, workers=8, min_workers=4).resources(runs=2)
