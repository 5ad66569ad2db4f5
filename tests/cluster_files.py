"""Files for `ray up`, with the lines of a variant applied, and what Ray's autoscaler would start of them."""

from __future__ import annotations

import copy
import re
from typing import Any

import yaml
from ray.autoscaler._private.util import prepare_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingReply, SchedulingRequest
from ray.autoscaler.v2.schema import AutoscalerInstance
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.autoscaler_pb2 import GangResourceRequest, NodeState, NodeStatus
from ray.core.generated.instance_manager_pb2 import Instance, NodeKind


def loaded_with(text: str, variant: str) -> dict[str, Any]:
    """The file, with the comment lines of a variant put where they say."""
    loaded = yaml.safe_load(text)
    for where, value in changes(text, variant):
        target = loaded["available_node_types"]
        *path, last = where.split(".")
        for key in path:
            target = target[key]
        assert last in target, f"{where}: there is nothing to change"
        target[last] = value
    return copy.deepcopy(loaded)  # without the anchors' shared objects


def changes(text: str, variant: str) -> list[tuple[str, Any]]:
    found = re.findall(rf"^ *# {variant} ([\w.]+): (.*)$", text, re.MULTILINE)
    return [(where, yaml.safe_load(value)) for where, value in found]


def scheduled(
    config: dict[str, Any], gangs: list[list[dict[str, float]]], tasks: list[tuple[dict[str, float], int]]
) -> SchedulingReply:
    """What the autoscaler would start on the empty cluster for placement groups and for tasks."""
    read = AutoscalingConfig(prepare_config(config), skip_content_hash=True)
    head = AutoscalerInstance(
        im_instance=Instance(
            instance_id="head", instance_type="head", status=Instance.RAY_RUNNING, node_kind=NodeKind.HEAD, node_id="00"
        ),
        ray_node=NodeState(node_id=b"\0", ray_node_type_name="head", status=NodeStatus.RUNNING),
        cloud_instance_id="head",
    )
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=read.get_node_type_configs(),
        max_num_nodes=read.get_max_num_nodes(),
        resource_requests=ResourceRequestUtil.group_by_count(
            [ResourceRequestUtil.make(resources) for resources, count in tasks for _ in range(count)]
        ),
        gang_resource_requests=[GangResourceRequest(requests=[ResourceRequestUtil.make(r) for r in g]) for g in gangs],
        current_instances=[head],
    )
    return ResourceDemandScheduler(None).schedule(request)


def launched(reply: SchedulingReply) -> dict[str, int]:
    return {request.instance_type: request.count for request in reply.to_launch}
