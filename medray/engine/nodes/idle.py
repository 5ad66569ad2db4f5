"""What Ray leaves behind on a node keeps the autoscaler from taking the node down."""

from __future__ import annotations

from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import get_or_create_autoscaling_coordinator


def keep_nodes_free() -> None:
    """Start Ray Data's coordinator here, on the driver's node. Called once, before the first run.

    It is a detached actor that Ray starts on the node of whoever needs it first. Where that is a GPU node (of the first
    run's controller), the node is never idle again and is paid for until ``ray down``. Seen with Ray 2.60.
    """
    get_or_create_autoscaling_coordinator()
