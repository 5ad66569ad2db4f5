"""Look at a cluster, a storage and a tracking server before money is spent on them."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from importlib.metadata import version
from typing import Any

import ray
from ray.autoscaler.sdk import request_resources
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from medray.engine.doctor.checks import (
    Check,
    Node,
    check_address,
    check_disk,
    check_gpus,
    check_mlflow,
    check_object_store,
    check_shard_times,
    check_skew,
    check_storage,
    check_versions,
    check_weights,
    shown,
    try_storage,
)
from medray.engine.nodes.cluster import connect, what_happened
from medray.shards.store import Store

NODE_TIMEOUT_S = 120.0
GPU_NODE_TIMEOUT_S = 900.0
CLOCK_OF_A_NODE = "set the node's clock by NTP (timedatectl set-ntp true; chronyc makestep)"
CLOCK_OF_STORAGE = "set this machine's clock by NTP, or the file server's"


def examine(
    out: str,
    tracking_uri: str | None,
    backbones: Sequence[str],
    weights: str | None,
    pretrained: bool,
    min_disk_bytes: float,
    gpu: bool = False,
) -> Iterator[Check]:
    """Every check, each as soon as it is done.

    Args:
        gpu: runs will ask for GPUs: where no node has one, ask the autoscaler for a node, which costs money.
    """
    yield check_mlflow(tracking_uri)
    problem = try_storage(out)
    yield check_storage("driver", out, problem)
    if problem is None:
        marker = Store(out)
        name = f".doctor-{os.getpid()}-{time.time_ns()}"
        before = time.time()
        marker.write_bytes(name, b"driver")
        try:
            yield _storage_clock(marker, name, before)
            shard_times = check_shard_times(marker, time.time())
            if shard_times is not None:
                yield shard_times
            yield from (check_weights(backbone, weights, pretrained, marker) for backbone in backbones)
            yield from _cluster(out, name, min_disk_bytes, gpu)
        finally:
            marker.delete(name)
    else:
        yield from _cluster(out, None, min_disk_bytes, gpu)


def _storage_clock(out: Store, name: str, before: float) -> Check:
    written = out.filesystem.get_file_info(out.path(name)).mtime_ns
    after = time.time()
    if written is None:
        return Check("storage clock", "warn", f"{out.uri} gives no times")
    seconds = written / 1e9
    # a second's grace: object storage rounds its times
    skew = min(0.0, seconds - before + 1.0) + max(0.0, seconds - after)
    return check_skew("storage clock", skew, "the storage's clock", CLOCK_OF_STORAGE)


def _cluster(out: str, marker: str | None, min_disk_bytes: float, gpu: bool) -> Iterator[Check]:
    problem = check_address(os.environ.get("RAY_ADDRESS"))
    joined = problem or _join()
    yield joined
    if joined.status == "FAIL":
        return
    try:
        if gpu:
            yield from _gpu_node()
        yield from _nodes(out, marker, min_disk_bytes, gpu)
    finally:
        if gpu:
            request_resources(bundles=[])


def _nodes(out: str, marker: str | None, min_disk_bytes: float, gpu: bool) -> Iterator[Check]:
    probes = {node["NodeID"]: _start_probe(node) for node in ray.nodes() if node["Alive"]}
    nodes: list[Node] = []
    answered = []
    for node_id, probe in probes.items():
        try:
            nodes.append(_look(probe, out, marker))
            answered.append(probe)
        except Exception as error:  # a node may fail in as many ways as Ray has exceptions
            yield Check(
                f"node {node_id[:8]}", "FAIL", f"does not answer ({what_happened(error)[:160]})",
                "Ray's page lists its log; ray down and ray up, or start its ray again",
            )  # fmt: skip
    if not nodes:
        return
    yield check_versions(_versions(), nodes)
    for node in nodes:
        yield check_gpus(node, gpu and not any(each.gpus for each in nodes))
        if marker is not None or node.storage:
            yield check_storage(node.name, out, node.storage, node.sees_driver or marker is None)
        yield check_disk(node, min_disk_bytes)
        yield check_object_store(node)
        yield check_skew(f"clock {node.name}", node.skew_s, "its clock", CLOCK_OF_A_NODE)
    yield _collective("gloo", answered)
    with_gpu = [probe for probe, node in zip(answered, nodes, strict=True) if node.gpus]
    if with_gpu:
        yield _collective("nccl", with_gpu)


def _join() -> Check:
    address = os.environ.get("RAY_ADDRESS")
    try:
        connect()
    except Exception as error:  # of many types, and a refused token is only a ConnectionError
        if address is None:
            return Check(
                "Ray", "FAIL", f"does not start on this machine ({what_happened(error)[:160]})", "ray stop, then again"
            )
        return Check(
            "Ray", "FAIL", f"{shown(address)} answers, but does not let this machine in: the token is missing or another's",
            "RAY_AUTH_MODE=token, and the cluster's token in ~/.ray/auth_token or RAY_AUTH_TOKEN (ray get-auth-token there); "
            "or it is another version of Ray",
        )  # fmt: skip
    alive = [node for node in ray.nodes() if node["Alive"]]
    where = "on this machine, no cluster (RAY_ADDRESS is not set)" if address is None else f"at {shown(address)}"
    found = f"{ray.__version__} {where}, {len(alive)} node{'s' * (len(alive) != 1)}"
    if address is not None and os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return Check(
            "Ray", "warn", f"{found}; without a token: whoever reaches it runs code on it",
            "ray get-auth-token --generate, and RAY_AUTH_MODE=token on every node and here",
        )  # fmt: skip
    return Check("Ray", "ok", f"{found}{', with token' if address is not None else ''}")


def _gpu_node() -> Iterator[Check]:
    """Ask for a node with a GPU where there is none, and wait for it."""
    name = "GPU node"

    def there() -> bool:
        return any(node["Alive"] and node["Resources"].get("GPU") for node in ray.nodes())

    if there():
        yield Check(name, "ok", "there is one")
        return
    if not os.environ.get("RAY_ADDRESS"):
        yield Check(
            name, "FAIL", "this machine has no GPU, and no autoscaler", "ray up cluster.yaml, or leave out --gpu"
        )
        return
    began = time.monotonic()
    yield Check(name, "ok", f"asked for; waiting {timedelta(seconds=GPU_NODE_TIMEOUT_S)} at most")
    request_resources(bundles=[{"GPU": 1}])  # until _cluster has looked at it
    while not there() and time.monotonic() - began < GPU_NODE_TIMEOUT_S:
        time.sleep(1.0)
    if there():
        yield Check(name, "ok", f"came after {timedelta(seconds=round(time.monotonic() - began))}")
    else:
        yield Check(
            name, "FAIL", f"none came within {timedelta(seconds=GPU_NODE_TIMEOUT_S)}",
            "ray exec cluster.yaml 'tail -n 100 /tmp/ray/session_latest/logs/monitor*': a quota of 0, a zone without such "
            "instances, setup commands that fail, or a cluster without an autoscaler",
        )  # fmt: skip


# ---------------------------------------------------------------------------------------------------- on each node


def _versions() -> tuple[str, str, str]:
    return platform.python_version(), ray.__version__, version("torch")


class Probe:
    """An actor of no CPUs on one node."""

    def now(self) -> float:
        return time.time()

    def describe(self, out: str, marker: str | None) -> dict[str, Any]:
        if os.environ.get("CUDA_VISIBLE_DEVICES") == "":  # Ray hides them from whoever asked for none
            del os.environ["CUDA_VISIBLE_DEVICES"]
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        shared = "/dev/shm"
        return {
            "versions": _versions(),
            "gpus": tuple((torch.cuda.get_device_name(i), torch.cuda.get_device_capability(i)) for i in range(count)),
            "archs": tuple(torch.cuda.get_arch_list()),
            "disk_free_bytes": shutil.disk_usage(_session_folder()).free,
            "shared_memory_bytes": shutil.disk_usage(shared).total if os.path.isdir(shared) else 0,
            "storage": try_storage(out),
            "sees_driver": marker is not None and _sees(out, marker),
        }

    def port(self) -> tuple[str, int]:
        with socket.socket() as free:
            free.bind(("", 0))
            return ray.util.get_node_ip_address(), int(free.getsockname()[1])

    def join(self, backend: str, rank: int, world: int, address: tuple[str, int]) -> float:
        """Sum the ranks over all nodes."""
        import torch
        import torch.distributed as dist

        where = f"tcp://{address[0]}:{address[1]}"
        with _silence():
            dist.init_process_group(backend, where, timedelta(seconds=60), world_size=world, rank=rank)
        try:
            total = torch.tensor([float(rank)], device="cuda:0" if backend == "nccl" else "cpu")
            dist.all_reduce(total)
            return float(total)
        finally:
            dist.destroy_process_group()


@contextmanager
def _silence() -> Iterator[None]:
    """Nothing of what C++ prints: Gloo has a line for each rank, which Ray would show at the driver."""
    kept = [os.dup(stream) for stream in (1, 2)]
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        for stream in (1, 2):
            os.dup2(nothing, stream)
        yield
    finally:
        for stream, before in zip((1, 2), kept, strict=True):
            os.dup2(before, stream)
            os.close(before)
        os.close(nothing)


def _session_folder() -> str:
    """Where this node's Ray keeps logs and spilled objects."""
    node: Any = ray._private.worker._global_node
    return str(node.get_session_dir_path())


def _sees(out: str, marker: str) -> bool:
    try:
        return Store(out).read_bytes(marker) == b"driver"
    except (OSError, ValueError):
        return False


def _start_probe(node: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    return node, ray.remote(Probe).options(num_cpus=0, scheduling_strategy=here).remote()


def _look(probe: tuple[dict[str, Any], Any], out: str, marker: str | None) -> Node:
    node, actor = probe
    described = ray.get(actor.describe.remote(out, marker), timeout=NODE_TIMEOUT_S)
    clocks = []
    for _ in range(5):
        before = time.time()
        there = ray.get(actor.now.remote(), timeout=NODE_TIMEOUT_S)
        after = time.time()
        clocks.append((after - before, there - (before + after) / 2))
    resources = node["Resources"]
    return Node(
        name=node["NodeManagerAddress"],
        ray_gpus=int(resources.get("GPU", 0)),
        object_store_bytes=resources.get("object_store_memory", 0.0),
        skew_s=min(clocks)[1],  # of the quickest answer
        **described,
    )


def _collective(backend: str, probes: Sequence[tuple[dict[str, Any], Any]]) -> Check:
    """One sum over all nodes, by the library that gradients travel through."""
    actors = [actor for _, actor in probes]
    name, many = backend.upper() if backend == "nccl" else "Gloo", f"{len(actors)} node{'s' * (len(actors) != 1)}"
    try:
        address = ray.get(actors[0].port.remote(), timeout=NODE_TIMEOUT_S)
        joins = [actor.join.remote(backend, rank, len(actors), address) for rank, actor in enumerate(actors)]
        sums = ray.get(joins, timeout=NODE_TIMEOUT_S)
        if sums != [float(sum(range(len(actors))))] * len(actors):
            raise ValueError(f"the sum is {sums}")
    except Exception as error:  # Ray's around torch's
        return Check(
            name, "FAIL", f"{many} cannot sum over the network ({what_happened(error)[:160]})",
            "let the nodes reach each other on all ports (one security group); NCCL_SOCKET_IFNAME or GLOO_SOCKET_IFNAME names "
            "the interface",
        )  # fmt: skip
    return Check(name, "ok", f"a sum over {many}")
