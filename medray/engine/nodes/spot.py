"""Spot instances first, on-demand ones where EC2 has no spot instance to give: a node provider for ``ray up``.

Ray 2.60 has no fallback of its own. Its autoscaler asks for the node type of highest priority again and again: a launch
that EC2 refuses lowers no type's priority, only an instance that was launched and never joined does, after an hour.
So one node type stays one node type in cluster.yaml (its max_workers then holds for spot and on-demand together), and
this provider starts an on-demand instance of it where a spot instance is refused. A spot instance that is taken away
later is a lost node: Ray asks for a new one, which comes here again.
"""

from __future__ import annotations

import logging
from typing import Any

from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler.node_launch_exception import NodeLaunchException

logger = logging.getLogger(__name__)

# what RunInstances answers when there is no spot instance, while the same request without spot may well be met
REFUSED = {
    "InsufficientCapacity",
    "InsufficientInstanceCapacity",
    "MaxSpotInstanceCountExceeded",
    "SpotMaxPriceTooLow",
    "UnfulfillableCapacity",
    "Unsupported",  # as spot, or in none of the zones: the request without spot says which
}


class SpotFirst(AWSNodeProvider):
    """Ray's AWS provider, whose spot requests fall back to on-demand ones."""

    def _create_node(self, node_config: dict[str, Any], tags: dict[str, str], count: int) -> dict[str, Any]:
        created: dict[str, Any] = {}
        why = "fewer than asked for"
        try:
            created = super()._create_node(node_config, tags, count)
        except Exception as error:  # Ray wraps what EC2 answers; anything but a refusal goes on as it is
            why = refusal(error) or ""
            if "InstanceMarketOptions" not in node_config or why not in REFUSED:
                raise
        missing = count - len(created)
        if missing and "InstanceMarketOptions" in node_config:
            logger.warning("%d of %d spot instances: %s; the rest on demand", len(created), count, why)
            on_demand = {key: value for key, value in node_config.items() if key != "InstanceMarketOptions"}
            created = created | super()._create_node(on_demand, tags, missing)
        return created


def refusal(error: BaseException) -> str | None:
    """EC2's error code, from boto's exception or from Ray's around it."""
    if isinstance(error, NodeLaunchException):
        return str(error.category)
    response = getattr(error, "response", None)
    return response["Error"]["Code"] if isinstance(response, dict) else None
