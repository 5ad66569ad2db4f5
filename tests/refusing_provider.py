"""Ray's fake instances, of which there is none with a GPU: as where a provider has no capacity left, or the quota is 0."""

from __future__ import annotations

from typing import Any

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider
from ray.autoscaler.node_launch_exception import NodeLaunchException


class NoGpus(FakeMultiNodeProvider):
    def create_node_with_resources_and_labels(
        self, node_config: dict[str, Any], tags: dict[str, str], count: int, resources: dict[str, float], labels: Any
    ) -> Any:
        if resources.get("GPU"):
            raise NodeLaunchException("InsufficientInstanceCapacity", "there is no g5.12xlarge at the moment", None)
        return super().create_node_with_resources_and_labels(node_config, tags, count, resources, labels)
