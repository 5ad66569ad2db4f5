"""cluster.yaml's node types under Ray's real autoscaler (version 2, as `ray up` starts it); only the instances are fake.

A fake node is a raylet on this machine, with a GPU by name: the job asks as medray's runs do, nodes come, the job runs,
nodes go. The cluster has its own ports and folder, and ends by the ids of its processes.
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
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from ray._private.services import get_node_ip_address
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID, FAKE_HEAD_NODE_TYPE
from ray.autoscaler._private.util import fillout_defaults, validate_config
from ray_processes import MARK, free_port, other_ray, processes

pytestmark = pytest.mark.on_demand
ROOT = Path(__file__).resolve().parents[2]

JOB = '''
import json, time
import ray
from medray.engine.nodes.cluster import connect, spread

connect()
began, seen = time.monotonic(), {"gpu": 0, "cpu": 0}

def nodes():
    """How many nodes of each type there are, and the most that there were."""
    count = {"gpu": 0, "cpu": 0}
    for node in ray.nodes():
        if node["Alive"] and node["Resources"].get("CPU"):
            count["gpu" if node["Resources"].get("GPU") else "cpu"] += 1
    for kind in seen:
        seen[kind] = max(seen[kind], count[kind])
    return count

def wait(reference):
    while not ray.wait([reference], timeout=0.2)[0]:
        nodes()
    return ray.get(reference)

def note(name, **more):
    print(json.dumps({"step": name, "s": round(time.monotonic() - began, 1), "now": nodes(), "most": dict(seen), **more}),
          flush=True)

note("start")

@ray.remote(num_cpus=1)
def shard(i):
    return i

wait(shard.remote(0))
note("sharded")

resources = spread(runs=5, workers=4, gpu=True)  # what `--gpu --workers 4` asks for
bundle = {"CPU": resources.cpus_per_worker, "GPU": 1}

@ray.remote(num_cpus=bundle["CPU"], num_gpus=1)
def worker(rank):
    time.sleep(1)  # all four at once, each on a GPU of its own
    return rank, ray.get_runtime_context().get_node_id(), ray.get_gpu_ids()

groups = [ray.util.placement_group([bundle] * resources.workers) for _ in range(5)]  # PACK, as Ray Train has it
while not all(group.wait(0.2) for group in groups[:4]):
    nodes()
time.sleep(3)  # a fifth node would have been asked for by now
note("placed", fifth=groups[4].wait(0))
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy as Within

def run(group):
    return [worker.options(scheduling_strategy=Within(group, placement_group_bundle_index=i)).remote(i) for i in range(4)]

ran = [[wait(reference) for reference in references] for references in [run(group) for group in groups[:4]]]
note("ran", ranks=[[r for r, _, _ in group] for group in ran], nodes=[len({n for _, n, _ in group}) for group in ran],
     gpus=[sorted(g for _, _, ids in group for g in ids) for group in ran])
for group in groups:
    ray.util.remove_placement_group(group)

from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

def train():
    import ray.train, torch
    total = torch.ones(1)
    torch.distributed.all_reduce(total)
    return int(total), ray.train.get_context().get_world_size(), len(ray.get_gpu_ids())

# as fit() starts a run; with max_calls, since an idle process keeps its run's controller, and the controller its node
@ray.remote(num_cpus=0.01, max_calls=1)
def fit_one(folder):
    scaling = ScalingConfig(num_workers=2, use_gpu=True, resources_per_worker=bundle)
    trainer = TorchTrainer(train, scaling_config=scaling, torch_config=TorchConfig(backend="gloo"),  # these GPUs are names only
                           run_config=RunConfig(storage_path=folder, name="run"))
    return trainer.fit().return_value

note("trained", returned=wait(fit_one.remote(FOLDER)))
while any(nodes().values()):
    assert time.monotonic() - began < 240, nodes()
    time.sleep(0.5)
note("gone")
'''


FAKE = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"


def fake(address: str, instances: str) -> dict[str, Any]:
    """cluster.yaml with fake instances in place of EC2's, and 6 idle seconds in place of minutes."""
    loaded = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    types = {name: each | {"node_config": {}} for name, each in loaded["available_node_types"].items()}
    types[FAKE_HEAD_NODE_TYPE] = types.pop("head") | {"max_workers": 0}
    return loaded | {
        "provider": {
            "type": "external",
            "module": instances,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "gcs_address": address,
            "launch_multiple": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "head_node_type": FAKE_HEAD_NODE_TYPE,
        "available_node_types": types,
        "idle_timeout_minutes": 0.1,
        "file_mounts": {},
    }


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """The environment of a driver; the cluster starts with a head of no CPUs and no other node. Its parameter is another
    provider of fake instances."""
    mark, port = uuid.uuid4().hex, free_port()
    folder = Path(tempfile.mkdtemp(prefix="ray-as-", dir="/tmp"))  # short: sockets lie below it
    address = f"{get_node_ip_address()}:{port}"
    loaded = fake(address, getattr(request, "param", FAKE))
    validate_config(fillout_defaults(loaded))
    (folder / "autoscaling.json").write_text(json.dumps(loaded))
    environment = other_ray() | {
        MARK: mark,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": uuid.uuid4().hex,
        "RAY_ADDRESS": address,  # also for what Ray starts itself: another cluster on this machine shall not matter
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
    }
    autoscaler = {
        "RAY_enable_autoscaler_v2": "1",  # as `ray up` exports it
        "RAY_FAKE_CLUSTER": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        "RAY_NODE_TYPE_NAME": FAKE_HEAD_NODE_TYPE,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    }
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head"),
        *(f"--port={port}", f"--dashboard-port={free_port()}", "--num-cpus=0", "--num-gpus=0", "--disable-usage-stats"),
        *("--object-store-memory=80000000", f"--temp-dir={folder / 'r'}"),
        f"--autoscaling-config={folder / 'autoscaling.json'}",
    ]
    try:
        started = subprocess.run(
            command, env=environment | autoscaler, capture_output=True, text=True, timeout=90, check=False
        )
        assert started.returncode == 0, started.stdout + started.stderr
        yield environment
    finally:
        for _ in range(3):  # a monitor may start one more while it ends
            for process in processes(mark):
                process.kill()
        psutil.wait_procs(processes(mark), timeout=10)
        shutil.rmtree(folder, ignore_errors=True)


def test_nodes_come_the_job_runs_nodes_go(cluster: dict[str, str], tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", f"FOLDER = {str(tmp_path)!r}\n{JOB}"],
        env=cluster,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr[-3000:]
    lines = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith('{"step"')]
    steps = {line["step"]: line for line in lines}
    print(*lines, sep="\n")

    assert steps["start"]["now"] == {"gpu": 0, "cpu": 0}
    assert steps["sharded"]["most"] == {"gpu": 0, "cpu": 1}  # a CPU task starts no GPU node
    assert steps["placed"]["now"]["gpu"] == 4
    assert steps["placed"]["fifth"] is False  # max_workers holds: a fifth run waits
    assert steps["ran"]["ranks"] == [[0, 1, 2, 3]] * 4
    assert steps["ran"]["nodes"] == [1] * 4  # a run's workers share a node
    assert steps["ran"]["gpus"] == [[0, 1, 2, 3]] * 4
    assert steps["trained"]["returned"] == [2, 2, 1]  # two workers of Ray Train, one GPU each
    assert steps["gone"]["now"] == {"gpu": 0, "cpu": 0}
    assert steps["gone"]["most"]["gpu"] == 4


def test_the_doctor_brings_a_gpu_node_and_looks_at_it(cluster: dict[str, str], tmp_path: Path) -> None:
    doctor = [sys.executable, "jobs/doctor.py", "--out", str(tmp_path), "--no-pretrained", "--min-disk-gb", "0.001"]
    ran = subprocess.run(
        [*doctor, "--gpu"], env=cluster, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )
    found = [line for line in ran.stdout.splitlines() if line[:4] in ("ok  ", "warn", "FAIL")]
    print(*found, sep="\n")
    assert any(line.startswith("ok    Ray") and "1 node, with token" in line for line in found), ran.stdout + ran.stderr
    assert any(line.startswith("ok    GPU node        came after") for line in found)
    failed = [line for line in found if line.startswith("FAIL")]
    assert len(failed) == 1  # the fake node's GPUs have a name in Ray and nothing behind it
    assert "Ray hands out 4 GPUs, torch 2.10.0 sees 0" in failed[0]
    assert any("Gloo            a sum over 2 nodes" in line for line in found)
    assert ran.returncode == 1


WAITING = """
import os, threading
from medray.engine.nodes import awaited
awaited.FIRST_SECONDS, awaited.LOOK_SECONDS = 15.0, 1.0
threading.Timer(60, os._exit, (3,)).start()
warn, awaited.warn = awaited.warn, lambda line: (warn(line), os._exit(0))
import ray
from medray.engine.nodes.cluster import connect, spread

connect()
resources = spread(runs=5, workers=4, gpu=True, at_once=4)
group = ray.util.placement_group([{"CPU": 1.0, "GPU": 1.0}] * resources.workers)
group.wait(300)
"""


@pytest.mark.parametrize("cluster", ["refusing_provider.NoGpus"], indirect=True)
def test_nodes_that_cannot_come_are_said(cluster: dict[str, str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", WAITING], env=cluster, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False
    )
    print(ran.stdout, ran.stderr)
    assert ran.returncode == 0, "nothing was said"
    assert "--gpu: no node has a GPU yet; runs wait for nodes with 4" in ran.stdout
    (line,) = [line for line in ran.stderr.splitlines() if line.startswith("! waiting for nodes")]
    assert "that hold 4 × (1 CPU, 1 GPU)" in line
    assert "the last launch of a gpu node failed" in line
    assert "(InsufficientInstanceCapacity: there is no g5.12xlarge at the moment)" in line
