"""A node is lost in mid-training, with all that ran on it: what comes out is what would have come out.

The cluster is Ray's own for tests: a head without CPUs, as cluster.yaml has it, and three nodes of one CPU, so that the two
workers of a run are on two nodes and one is spare. A node's processes are killed at once, as when a spot instance goes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from ray._private.services import get_node_ip_address
from ray_processes import MARK, free_port, processes

from medray.imaging.phantom import PhantomSet

pytestmark = pytest.mark.on_demand
ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 4

# of a cluster whose nodes are added, which only the main thread of a process may do: so it is a process of its own
DRIVER = '''
import json, os, sys, threading, time
from pathlib import Path
import psutil
from medray.engine.cluster import Resources, connect
import ray
from ray.cluster_utils import Cluster
from ray.util import placement_group_table
from medray.engine.fit import fit
from medray.engine.options import Options
from medray.engine.prepare import prepare
from medray.engine.sweep import cross_validation
from medray.ich.classes import CLASSES
from medray.ich.inventory import assemble
from medray.ich.labels import read_labels
from medray.ich.source import HeadCT
from medray.ich.task import SliceTask
from medray.shards.pseudonym import Pseudonyms
from medray.shards.store import Store

dicom, labels, folder, epochs = Store(sys.argv[1]), read_labels(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
small = {"object_store_memory": 80_000_000}
began = time.monotonic()

def note(name, **more):
    print(json.dumps({"run": name, "at": round(time.monotonic() - began, 1), **more}), flush=True)

cluster = Cluster(initialize_head=True, head_node_args={
    "num_cpus": 0, "include_dashboard": True, "gcs_server_port": int(os.environ["RAY_ADDRESS"].rsplit(":", 1)[1]), **small})
assert cluster.address == os.environ["RAY_ADDRESS"]
connect()  # while there is the head only: of several nodes with one address a driver may join any, and dies with it
nodes = [cluster.add_node(num_cpus=1, **small) for _ in range(3)]
note("cluster")
prepared = prepare(
    HeadCT(), lambda scan: assemble(scan, labels), list(CLASSES), dicom, dicom.files(), Store(folder), Store(folder).sub("shards"),
    Pseudonyms(b"k" * 32), folder / "private", folds=3, rows_per_shard=32, seed=0)
note("prepared")
# two workers do not fit on one node, a reading task still fits beside a worker
two = Resources(workers=2, gpu=False, side_by_side=1, threads=1, cpus_per_worker=0.6, data_cpus=0.3)
task = SliceTask(backbone="test_resnet", pretrained=False, size_px=32, epochs=epochs, batch_size=8, learning_rate=3e-3, dropout=0.2)

def free():
    """Once nothing moves any more: what runs could have."""
    wanted, deadline = ray.cluster_resources().get("CPU"), time.monotonic() + 30
    while ray.available_resources().get("CPU") != wanted and time.monotonic() < deadline:
        time.sleep(0.2)
    groups = [g for g in placement_group_table().values() if g["state"] != "REMOVED"]
    return {"CPU": ray.available_resources().get("CPU"), "groups": len(groups)}

def processes(node):
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return [raylet, *raylet.children(recursive=True)]

def titles(node):
    found = set()
    for process in processes(node):
        try:
            found.add(" ".join(process.cmdline()))
        except psutil.NoSuchProcess:
            pass
    return {kind for kind in ("RayTrainWorker", "TrainController") if any(kind in title for title in found)}

def kill(run, wanted, killed):
    while not run.history():
        time.sleep(0.02)
    on = [titles(node) for node in nodes]
    node = nodes[next(i for i, kinds in enumerate(on) if wanted(kinds))]
    nodes.remove(node)
    family = processes(node)
    for process in family:
        process.kill()
    killed.append({"nodes": sorted(map(sorted, on)), "after": len(run.history()), "processes": len(family)})

kills = {
    "undisturbed": None,
    "worker": lambda kinds: kinds == {"RayTrainWorker"},
    "controller": lambda kinds: "TrainController" in kinds,
}
for name, wanted in kills.items():
    options = Options(out=str(folder / name), folds=3)
    (run,) = cross_validation("model", task, prepared.rows, prepared.index, CLASSES, (0,), Store(folder / name), two, options)
    before, started, killed = free(), time.monotonic(), []
    if wanted:
        killer = threading.Thread(target=kill, args=(run, wanted, killed), daemon=True)
        killer.start()
    error = None
    try:
        fit([run])
    except Exception as failure:
        error = str(failure)
    seconds = time.monotonic() - started
    while len(nodes) < 3:
        nodes.append(cluster.add_node(num_cpus=1, **small))
    note(name, seconds=round(seconds, 1), error=error, killed=killed, before=before, after=free(),
         ids=sorted(run.held_out_ids))
ray.shutdown()
os._exit(0)  # the nodes end by the ids of their processes
'''


@dataclass(frozen=True)
class Survived:
    folder: Path
    notes: dict[str, dict[str, Any]]

    def predictions(self, name: str) -> pd.DataFrame:
        return pd.read_parquet(self.run(name) / "predictions.parquet")

    def history(self, name: str) -> list[dict[str, Any]]:
        return list(json.loads((self.run(name) / "history.json").read_text()))

    def run(self, name: str) -> Path:
        return self.folder / name / "runs" / "model" / "fold0"


@pytest.fixture(scope="module")
def survived(phantoms: PhantomSet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Survived]:
    folder, mark = tmp_path_factory.mktemp("survival"), uuid.uuid4().hex
    sessions = Path(tempfile.mkdtemp(prefix="ray-sv-", dir="/tmp"))  # short: sockets lie below it
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {
        MARK: mark,
        "PYTHONPATH": str(ROOT),
        "RAY_ADDRESS": f"{get_node_ip_address()}:{free_port()}",  # also for what Ray's own actors ask, head included
        "RAY_TMPDIR": str(sessions),  # no other `ray.init()` on this machine shall find this cluster
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": uuid.uuid4().hex,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_health_check_initial_delay_ms": "1000",
        "RAY_health_check_period_ms": "500",
        "RAY_health_check_timeout_ms": "2000",
        "RAY_health_check_failure_threshold": "5",
    }
    words = [sys.executable, "-c", DRIVER, phantoms.dicom, phantoms.folder / "labels.csv", folder, EPOCHS]
    try:
        done = subprocess.run(
            list(map(str, words)), env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=420, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-9000:]
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"run"')]
        print(*({k: v for k, v in line.items() if k != "ids"} for line in lines), sep="\n")
        yield Survived(folder, {line["run"]: line for line in lines})
    finally:
        for _ in range(3):
            for process in processes(mark):
                process.kill()
        psutil.wait_procs(processes(mark), timeout=10)
        shutil.rmtree(sessions, ignore_errors=True)


def test_two_workers_on_two_nodes(survived: Survived) -> None:
    note = survived.notes["undisturbed"]
    assert note["error"] is None
    assert sorted(survived.predictions("undisturbed")["slice_id"]) == note["ids"]
    assert [e["epoch"] for e in survived.history("undisturbed")] == list(range(1, EPOCHS + 1))


@pytest.mark.parametrize("lost", ["worker", "controller"])
def test_a_lost_node_changes_nothing(survived: Survived, lost: str) -> None:
    note = survived.notes[lost]
    assert note["error"] is None
    (killed,) = note["killed"]
    assert sum("RayTrainWorker" in kinds for kinds in killed["nodes"]) == 2
    assert 1 <= killed["after"] < EPOCHS
    pd.testing.assert_frame_equal(survived.predictions(lost), survived.predictions("undisturbed"), check_exact=True)
    once, again = survived.history("undisturbed"), survived.history(lost)
    assert [e["epoch"] for e in again] == list(range(1, EPOCHS + 1))
    assert [e["metrics"] for e in again] == [e["metrics"] for e in once]
    assert not [p for p in (survived.folder / lost).rglob(".*") if p.is_file() and "train" not in p.parts]
    assert note["after"] == note["before"] == {"CPU": 3.0, "groups": 0}
