"""Tell Ray that this instance will be taken: `python -m medray.engine.nodes.notice` on every worker node.

EC2 and GCP say so two minutes and half a minute before, at an address that only the instance reaches; Ray 2.60 asks neither.
A node that drains with a deadline gets no new work, and runs that are on it leave a checkpoint.
"""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
from datetime import datetime

import ray
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.core.generated import autoscaler_pb2

ASK_SECONDS = 5.0
MARGIN_SECONDS = 5.0
"""Ray is told an earlier moment: its runs then leave by themselves. Cut off, they would count it as a failure of theirs."""
GCP_SECONDS = 30.0
EC2, GCP = "http://169.254.169.254/latest", "http://metadata.google.internal/computeMetadata/v1"


def deadline() -> float | None:
    """When this instance will be taken, in seconds since 1970; None while nobody says so, or elsewhere."""
    token = _ask(f"{EC2}/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, "PUT")
    if token is not None:
        found = _ask(f"{EC2}/meta-data/spot/termination-time", {"X-aws-ec2-metadata-token": token})
        return None if found is None else datetime.fromisoformat(found.strip()).timestamp()
    taken = _ask(f"{GCP}/instance/preempted", {"Metadata-Flavor": "Google"})
    return time.time() + GCP_SECONDS if taken is not None and taken.strip() == "TRUE" else None


def _ask(url: str, headers: dict[str, str], method: str = "GET") -> str | None:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers, method=method), timeout=2) as answer:
            return str(answer.read().decode())
    except (urllib.error.URLError, TimeoutError):  # 404: no notice; no such address: neither EC2 nor GCP
        return None


def drain(address: str, node_id: str, until: float) -> None:
    """No new work for a node that will be gone at ``until``. Raises ConnectionError if Ray refuses."""
    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")  # type: ignore[attr-defined]
    gcs = GcsClient(address=address)
    accepted, why = gcs.drain_node(node_id, reason, "the provider takes the instance", int(until * 1000))
    if not accepted:
        raise ConnectionError(why)


def node_here(address: str, ip: str) -> str:
    """The id of the one Ray node of this instance."""
    nodes = GcsClient(address=address).get_all_node_info().values()
    return next(n.node_id.hex() for n in nodes if n.state == n.ALIVE and n.node_manager_address == ip)


def watch(address: str, node_id: str) -> None:
    """Wait for the notice, pass it on, and end."""
    while (until := deadline()) is None:
        time.sleep(ASK_SECONDS)
    print(f"node {node_id} will be taken in {until - time.time():.0f} s", flush=True)
    drain(address, node_id, until - MARGIN_SECONDS)


if __name__ == "__main__":
    head = f"{os.environ['RAY_HEAD_IP']}:6379"
    watch(head, node_here(head, ray.util.get_node_ip_address()))
