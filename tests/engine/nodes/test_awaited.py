"""What a job says of nodes that do not come, from the states that Ray's autoscaler reports."""

from __future__ import annotations

import threading
from datetime import datetime
from typing import Any

import pytest
from ray.core.generated import autoscaler_pb2 as pb

from medray.engine.nodes import awaited as module
from medray.engine.nodes.awaited import awaited, last_failure

NOW = 1_800_000_000.0
CPU_NODE, GPU_NODE = {"CPU": 32.0}, {"CPU": 48.0, "GPU": 4.0}
WORKER = {"CPU": 1.0, "GPU": 1.0, "bundle_group_ab12": 0.001}
LOG = """\
2026-11-27 02:20:01,101 INFO node_provider.py:480 -- Launching 1 nodes of type gpu.
2026-11-27 02:20:02,207 INFO node_provider.py:492 -- Failed to launch 1 nodes of type cpu: timed out
2026-11-27 02:20:03,310 INFO node_provider.py:492 -- Failed to launch 2 nodes of type gpu: Node Launch Exception \
(VcpuLimitExceeded): You have requested more vCPU capacity than your current vCPU limit of 0 allows.
2026-11-27 02:20:04,101 INFO node_provider.py:480 -- Launching 1 nodes of type gpu.
"""


def request(bundle: dict[str, float], count: int = 1) -> Any:
    return pb.ResourceRequestByCount(request=pb.ResourceRequest(resources_bundle=bundle), count=count)


def gang(bundle: dict[str, float], count: int) -> Any:
    return pb.GangResourceRequest(requests=[pb.ResourceRequest(resources_bundle=bundle)] * count)


def reply(
    nodes: tuple[dict[str, float], ...] = (), tasks: tuple[Any, ...] = (), gangs: tuple[Any, ...] = (), **scaler: Any
) -> Any:
    states = [pb.NodeState(total_resources=node, status=pb.NodeStatus.RUNNING) for node in nodes]
    return pb.GetClusterStatusReply(
        cluster_resource_state=pb.ClusterResourceState(
            node_states=[pb.NodeState(total_resources={}, status=pb.NodeStatus.RUNNING), *states],
            pending_resource_requests=tasks,
            pending_gang_resource_requests=gangs,
        ),
        autoscaling_state=pb.AutoscalingState(**scaler),
    )


def test_nothing_waits() -> None:
    assert awaited(reply((CPU_NODE,)), None, NOW) is None


def test_work_that_waits_for_busy_nodes_is_no_news() -> None:
    tasks = (request({"CPU": 1.0}, 500),)
    assert awaited(reply((CPU_NODE, GPU_NODE), tasks, (gang(WORKER, 4),)), (NOW - 5, "gpu", "old"), NOW) is None


def test_a_launch_that_fails() -> None:
    asked = [pb.PendingInstanceRequest(ray_node_type_name="gpu", count=1)]
    line = awaited(
        reply((CPU_NODE,), (), (gang(WORKER, 4),), pending_instance_requests=asked),
        (NOW - 12, "gpu", "InsufficientInstanceCapacity: We do not have sufficient g5.12xlarge capacity"),
        NOW,
    )
    assert line == (
        "waiting for nodes that hold 4 × (1 CPU, 1 GPU); asked for 1 × gpu; the last launch of a gpu node failed 12 s ago "
        "(InsufficientInstanceCapacity: We do not have sufficient g5.12xlarge capacity)"
    )


def test_a_node_that_is_on_its_way() -> None:
    """Also where the nodes that are there could hold the work: they are busy, and one more comes."""
    coming = [pb.PendingInstance(ray_node_type_name="gpu")] * 2
    line = awaited(reply((GPU_NODE,), (), (gang(WORKER, 4),), pending_instances=coming), None, NOW)
    assert line == "waiting for nodes that hold 4 × (1 CPU, 1 GPU); asked for 2 × gpu"
    old = (NOW - 3600, "gpu", "of another job's")
    assert awaited(reply((GPU_NODE,), (), (gang(WORKER, 4),), pending_instances=coming), old, NOW) == line


def test_work_that_no_node_type_can_hold() -> None:
    sixteen = {"CPU": 1.0, "GPU": 16.0}
    line = awaited(
        reply((GPU_NODE,), (request(sixteen),), infeasible_resource_requests=[request(sixteen).request]), None, NOW
    )
    assert line is not None
    assert line.startswith("waiting for nodes that hold 1 × (1 CPU, 16 GPU); no node type of this cluster can")


def test_no_autoscaler() -> None:
    line = awaited(reply((CPU_NODE,), (), (gang(WORKER, 2),)), None, NOW)
    assert line is not None
    assert "no node has been asked for" in line


def test_away_from_the_heads_log_it_names_the_command() -> None:
    failed = [pb.FailedInstanceRequest(ray_node_type_name="gpu", reason="Failed to launch 1 nodes", count=1)]
    line = awaited(reply((CPU_NODE,), (), (gang(WORKER, 4),), failed_instance_requests=failed), None, NOW)
    assert line is not None
    assert "a gpu node could not be launched; ray exec cluster.yaml" in line


def test_the_last_failure_of_the_log() -> None:
    found = last_failure(LOG)
    assert found is not None
    at, kind, reason = found
    assert datetime.fromtimestamp(at) == datetime(2026, 11, 27, 2, 20, 3)
    assert kind == "gpu"
    assert (
        reason == "VcpuLimitExceeded: You have requested more vCPU capacity than your current vCPU limit of 0 allows."
    )
    assert last_failure("") is None


def test_said_after_a_minute_and_every_five(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock, states = [0.0], []  # type: tuple[list[float], list[Any]]
    waits = reply((CPU_NODE,), (), (gang(WORKER, 4),))

    class Ended(BaseException):
        pass

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        if clock[0] > 800:
            raise Ended

    def status() -> Any:
        if 20 <= clock[0] < 30:
            raise ConnectionError("the head is busy")
        states.append(clock[0])
        return reply((CPU_NODE, GPU_NODE)) if 400 <= clock[0] < 410 else waits

    monkeypatch.setattr(module.time, "sleep", sleep)
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(module.time, "time", lambda: datetime(2026, 11, 27, 2, 20, 10).timestamp())
    monkeypatch.setattr(module, "status", status)
    monkeypatch.setattr(module, "autoscaler_log", lambda: LOG)
    monkeypatch.setattr(module.ray, "is_initialized", lambda: True)
    said = []
    monkeypatch.setattr(module, "warn", lambda line: said.append((clock[0], line)))
    with pytest.raises(Ended):
        module._watch()
    assert [at for at, _ in said] == [65, 365, 470, 770]  # at 400 the work was placed, at 410 other work waits
    assert all("VcpuLimitExceeded" in line for _, line in said)


def test_the_thread_ends_with_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.ray, "is_initialized", lambda: False)
    thread = threading.Thread(target=module._watch, daemon=True)
    thread.start()
    thread.join(timeout=10)
    assert not thread.is_alive()
