"""How a job spreads over clusters that are lists of nodes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from medray.engine.job.options import Options
from medray.engine.nodes.cluster import Resources, spread
from medray.systems.ich import recipes
from medray.systems.ich.sequence import SequenceTask


def cluster(monkeypatch: pytest.MonkeyPatch, *nodes: dict[str, float]) -> None:
    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": True, "Resources": node} for node in nodes])


def gpu_node(gpus: int, kind: str = "V100", cpus: int = 32) -> dict[str, Any]:
    return {"CPU": cpus, "GPU": gpus, f"accelerator_type:{kind}": 1.0}


HEAD: dict[str, float] = {"CPU": 0}
FLAGS = Options(out="out")


def test_a_small_network_takes_one_gpu_where_there_are_runs_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster(monkeypatch, HEAD, gpu_node(4))
    found = FLAGS.resources(5, [recipes.seresnext50_32x4d()])
    assert (found.workers, found.side_by_side) == (1, 4)
    assert found.why.startswith("one GPU: a batch takes about 7 GB, a GPU has 16, and 5 runs keep 4 GPUs busy")
    assert "--workers 4" in found.why


def test_fewer_runs_than_gpus_take_all_of_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster(monkeypatch, gpu_node(4), gpu_node(4))
    found = FLAGS.resources(5, [recipes.seresnext50_32x4d()])
    assert (found.workers, found.side_by_side) == (4, 2)
    assert found.why == "all 4 GPUs of a node: 5 runs would leave some of 8 GPUs idle"


def test_a_batch_that_does_not_fit_takes_all_of_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster(monkeypatch, gpu_node(4))
    found = FLAGS.resources(5, [recipes.seresnext50_32x4d(), recipes.second_place()])  # the largest decides
    assert (found.workers, found.side_by_side) == (4, 1)
    assert found.why == "all 4 GPUs of a node: a batch takes about 73 GB, a GPU has 16"
    cluster(monkeypatch, gpu_node(4, "H100"))
    assert FLAGS.resources(5, [recipes.second_place()]).workers == 1


def test_a_task_that_cannot_say_takes_all_of_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster(monkeypatch, gpu_node(4))
    found = FLAGS.resources(5, [SequenceTask()])
    assert (found.workers, found.why) == (4, "all 4 GPUs of a node: how much memory a batch takes is not known")


def test_what_a_flag_says_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster(monkeypatch, gpu_node(4))
    tasks = [recipes.seresnext50_32x4d()]
    two = replace(FLAGS, workers=2).resources(5, tasks)
    assert (two.workers, two.why) == (2, "")
    assert replace(FLAGS, at_once=4).resources(5, tasks).workers == 4  # a cluster that will grow


def test_no_reason_is_needed_where_there_is_no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    for nodes in ([gpu_node(1)], [{"CPU": 8}]):
        cluster(monkeypatch, *nodes)
        assert FLAGS.resources(5, [recipes.seresnext50_32x4d()]).why == ""


def test_workers_that_fit_one_node_stay_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster(monkeypatch, HEAD, gpu_node(4), gpu_node(4))
    four = spread(2, 4, True)
    assert four.placement() == "STRICT_PACK"
    assert replace(four, workers=8).placement() == "PACK"  # more than any node has
    assert replace(four, min_workers=2).placement() == "PACK"  # goes on with what is left, wherever
    assert replace(four, gpu=False).placement() == "PACK"
    cluster(monkeypatch, HEAD)
    assert four.placement() == "PACK"  # nobody knows what nodes will come


def test_readers_of_both_streams_fit_beside_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    from medray.engine.data.share import Share

    def readers(resources: Resources, cpus: float) -> float:
        monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": cpus, "object_store_memory": 1e9})
        return Share(resources).get_total_resources().cpu / resources.data_cpus

    cluster(monkeypatch, gpu_node(4, cpus=48))
    four = spread(1, 4, True)
    assert readers(four, 48) == 11  # each worker's, when it trains and when it evaluates
    assert 2 * 4 * 11 * four.data_cpus + 4 * four.cpus_per_worker <= 48
    for cpus, runs in ((2, 1), (2, 2), (8, 1), (8, 5), (1, 1)):
        cluster(monkeypatch, {"CPU": cpus})
        found = spread(runs, None, False)
        each = readers(found, cpus)
        assert each * found.side_by_side == pytest.approx(cpus)  # one a core
        assert found.side_by_side * (2 * each * found.data_cpus + found.cpus_per_worker) <= cpus + 1e-9


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_that_torch_cannot_have_are_refused_before_anything_starts(threads: int) -> None:
    with pytest.raises(ValueError, match=f"^--threads {threads}: at least 1; leave it out"):
        replace(FLAGS, threads=threads).resources(1)
