"""Embedding on a cluster of two nodes of four GPUs and a node of CPUs; the GPUs are names only."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from lost_nodes import measured_by

from medray.engine.derive.network import THREADS_UNSEEN, reader_threads

DRIVER = """
import json, os, sys, time
from dataclasses import dataclass
from pathlib import Path
import pandas as pd, pyarrow as pa, ray, torch
from ray.cluster_utils import Cluster
from miniature.sleepers import GPUNotes, Sleeper, write_items

folder = Path(sys.argv[1])
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
for _ in range(2):
    cluster.add_node(num_cpus=16, num_gpus=4)
cluster.add_node(num_cpus=32)
ray.init(address=cluster.address, logging_level="ERROR")
from medray.engine.train import checkpoint
from medray.engine.nodes.cluster import Resources
from medray.engine.derive.derive import derive
from medray.engine.derive.network import reader_threads
from medray.engine.train.run import Run
from medray.engine.data.samples import read_index
from medray.shards.store import Store

(folder / "notes").mkdir(); (folder / "shards").mkdir(); (folder / "collate").mkdir()
for i in range(16):
    write_items(folder / "shards", 64, f"part-{i:02d}")
rows, _ = read_index(Store(folder / "shards"), ["item_id"])
resources = Resources(workers=4, gpu=True, side_by_side=2, threads=1, cpus_per_worker=1.0, data_cpus=0.5)
task = Sleeper(notes=str(folder / "collate"), size_px=8, seconds=0.01, batch_size=16)
runs = []
for fold in range(3):
    store = Store(folder / f"fold{fold}")
    digest = checkpoint.write_weights(store, "model.pt", {"weights": task.network().state_dict()})
    store.write_json("done.json", {"weights": digest})
    runs.append(Run("net", fold, store, task, rows, rows, (), None, "none", resources))
names = derive(GPUNotes(str(folder / "notes")), rows, Store(folder / "features"), runs, gpu_device="cpu").names
found = [json.loads(line) for path in (folder / "notes").iterdir() for line in path.read_text().splitlines()]
ids = [i for of_fold in names.values() for n in of_fold for i in Store(folder / "features").read_table(n)["item_id"].to_pylist()]
print(json.dumps({"notes": found, "threads": reader_threads(), "rows": len(ids), "left": ray.available_resources().get("GPU")}), flush=True)
ray.shutdown()
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return measured_by(DRIVER, tmp_path_factory.mktemp("pool"))


@pytest.mark.slow
def test_all_gpus_work_at_once_beside_a_node_of_cpus(found: dict[str, Any]) -> None:
    notes = found["notes"]
    assert found["threads"] == 3  # of the GPU nodes: 16 CPUs for 4 GPUs, one less; the cluster's 64 for 8 would be 7
    assert len({(note["node"], note["gpu"]) for note in notes}) == 8
    events = sorted([(note["began"], 1) for note in notes] + [(note["ended"], -1) for note in notes])
    at_once, most = 0, 0
    for _, change in events:
        at_once += change
        most = max(most, at_once)
    assert most == 8
    assert found["rows"] == 3 * 16 * 64


@pytest.mark.slow
def test_a_process_never_meets_a_second_gpu_and_keeps_its_network(found: dict[str, Any]) -> None:
    for process in {note["pid"] for note in found["notes"]}:
        own = sorted((note for note in found["notes"] if note["pid"] == process), key=lambda note: note["began"])
        assert len({(note["node"], note["gpu"], note["visible"]) for note in own}) == 1
        networks = [note["network"] for note in own]
        assert sum(a != b for a, b in itertools.pairwise(networks)) <= 2  # of three


def nodes(*found: dict[str, float]) -> list[dict[str, Any]]:
    return [{"Alive": True, "Resources": node} for node in found]


def test_threads_that_read_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def threads(*found: dict[str, float]) -> int:
        monkeypatch.setattr("ray.nodes", lambda: nodes(*found))
        return reader_threads()

    assert threads({"CPU": 16, "GPU": 4}, {"CPU": 16, "GPU": 4}, {"CPU": 32}) == 3
    assert threads({"CPU": 48, "GPU": 4}, {"CPU": 16, "GPU": 4}) == 3  # each task has to fit the smaller node, too
    assert threads({"CPU": 4, "GPU": 4}) == threads({"CPU": 2, "GPU": 4}) == 1
    assert threads({"CPU": 64}) == threads() == THREADS_UNSEEN
