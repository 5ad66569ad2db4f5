"""A job that waits for nodes says so, with what the autoscaler says of them: a run alone would wait in silence, for ever.

Ray 2.60's autoscaler tells the cluster's status what it has asked for and what no node type can hold. Why a launch failed
stands in its log only, on the head: where a submitted job's driver runs.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import ray
from ray.core.generated import autoscaler_pb2

from medray.engine.job.progress import warn

LOOK_SECONDS = 5.0
FIRST_SECONDS, AGAIN_SECONDS = 60.0, 300.0
"""A node that is there within a minute is not worth a line."""
RECENT_SECONDS = 600.0
_FAILED = re.compile(
    r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d).*Failed to launch (\d+) nodes of type (\S+): (.*)", re.MULTILINE
)
_LOG_BYTES = 1_000_000
_HEADS_LOG = "ray exec cluster.yaml 'tail -n 100 /tmp/ray/session_latest/logs/monitor*' has the reason"


def grows() -> bool:
    """Whether an autoscaler starts this cluster's nodes: those that it starts, the head too, know their node type."""
    return any(node["Alive"] and "ray.io/node-group" in node["Labels"] for node in ray.nodes())


def say_what_is_awaited() -> None:
    """Watch the cluster from now on, in a thread: a line where work has waited for nodes for a minute, and every five."""
    threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    began: float | None = None  # since when there is work that waits
    last_line = 0.0
    while ray.is_initialized():
        time.sleep(LOOK_SECONDS)
        try:
            line = awaited(status(), last_failure(autoscaler_log()), time.time())
        except Exception:  # the head is busy, or gone: that is not what this thread is to say
            continue
        now = time.monotonic()
        if line is None:
            began = None
            continue
        if began is None:
            began, last_line = now, now - AGAIN_SECONDS
        if now - began >= FIRST_SECONDS and now - last_line >= AGAIN_SECONDS:
            last_line = now
            warn(line)


def status() -> Any:
    """What is there, what waits and what has been asked for: GetClusterStatusReply. Raises where the head does not answer."""
    reply = autoscaler_pb2.GetClusterStatusReply()  # type: ignore[attr-defined]
    worker: Any = ray._private.worker.global_worker
    reply.ParseFromString(worker.gcs_client.get_cluster_status(timeout_s=LOOK_SECONDS))
    return reply


def autoscaler_log() -> str:
    """The end of the autoscaler's log; "" on other nodes than the head."""
    node: Any = ray._private.worker._global_node
    path = Path(node.get_logs_dir_path()) / "monitor.log"
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LOG_BYTES))
        return file.read().decode("utf-8", "replace")


def last_failure(log: str) -> tuple[float, str, str] | None:
    """When (seconds since 1970) the last launch failed, of which node type, and the provider's reason."""
    found = _FAILED.findall(log)
    if not found:
        return None
    at, _, kind, reason = found[-1]
    reason = re.sub(r"^Node Launch Exception \((\w+)\): ", r"\1: ", reason.strip())
    return datetime.strptime(at, "%Y-%m-%d %H:%M:%S").timestamp(), kind, reason


def awaited(reply: Any, failure: tuple[float, str, str] | None, now: float) -> str | None:
    """One line where work waits for nodes; None where there is none, or where it only waits for nodes that are busy.

    Args:
        reply: a GetClusterStatusReply.
        failure: of the last launch, as ``last_failure`` has it.
        now: seconds since 1970.
    """
    there, scaler = reply.cluster_resource_state, reply.autoscaling_state
    dead = autoscaler_pb2.NodeStatus.Value("DEAD")  # type: ignore[attr-defined]
    nodes = [node.total_resources for node in there.node_states if node.status != dead]
    wanted: dict[str, bool] = {}  # in words → whether nodes that are there could hold it, were they idle
    for request in there.pending_resource_requests:
        bundle = request.request.resources_bundle
        wanted[_words(bundle, request.count)] = _held(bundle, nodes)
    for gang in there.pending_gang_resource_requests:
        bundles = [request.resources_bundle for request in gang.requests]
        wanted[_words(bundles[0], len(bundles))] = all(_held(bundle, nodes) for bundle in bundles)
    asked: dict[str, int] = {}
    for launch in scaler.pending_instance_requests:
        asked[launch.ray_node_type_name] = asked.get(launch.ray_node_type_name, 0) + launch.count
    for instance in scaler.pending_instances:
        asked[instance.ray_node_type_name] = asked.get(instance.ray_node_type_name, 0) + 1
    failed = [f"a {each.ray_node_type_name} node" for each in scaler.failed_instance_requests]
    missing = [words for words, held in wanted.items() if not held]
    if not wanted or not (missing or asked or failed):
        return None
    parts = [f"waiting for nodes that hold {', '.join(missing or wanted)}"]
    if _infeasible(scaler):
        parts.append("no node type of this cluster can: other --workers, or another node type in cluster.yaml")
    if asked:
        parts.append(f"asked for {', '.join(f'{n} × {kind}' for kind, n in sorted(asked.items()))}")
    if failure is not None and now - failure[0] < RECENT_SECONDS:
        at, kind, reason = failure
        parts.append(f"the last launch of a {kind} node failed {max(0, now - at):.0f} s ago ({reason})")
    elif failed:
        parts.append(f"{failed[-1]} could not be launched; {_HEADS_LOG}")
    if len(parts) == 1:
        parts.append("no node has been asked for: all that may be there are, or nothing starts nodes here")
    return "; ".join(parts)


def _infeasible(scaler: Any) -> bool:
    return bool(scaler.infeasible_resource_requests or scaler.infeasible_gang_resource_requests)


def _held(bundle: Mapping[str, float], nodes: list[Mapping[str, float]]) -> bool:
    needs = _plain(bundle)
    return any(all(node.get(name, 0.0) >= need for name, need in needs.items()) for node in nodes)


def _plain(bundle: Mapping[str, float]) -> dict[str, float]:
    """Without the resources that Ray adds to what is placed within a group."""
    return {name: need for name, need in sorted(bundle.items()) if "_group_" not in name}


def _words(bundle: Mapping[str, float], count: int) -> str:
    """``4 × (1 CPU, 1 GPU)``"""
    return f"{count} × ({', '.join(f'{need:g} {name}' for name, need in _plain(bundle).items())})"
