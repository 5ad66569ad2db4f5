"""How many workers a run has while nodes come and go: as many as there is room for, of the numbers that divide its batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2._internal.execution.scaling_policy import ElasticScalingPolicy
from ray.train.v2.api.config import ScalingConfig
from ray.train.v2.torch.torch_trainer import TorchTrainer

RESIZE_SECONDS = 10.0
"""A run with fewer workers looks this often for room. Growing starts its workers anew, from the last checkpoint."""


class ElasticTrainer(TorchTrainer):
    """Ray's trainer, with a policy of our own where the number of workers is a range.

    Args:
        sizes: numbers of workers that the run may have.
        requester: under this name the run's resources are reserved; the same when the run is started again.
    """

    def __init__(
        self,
        train_loop: Callable[[dict[str, Any]], None],
        sizes: tuple[int, ...],
        requester: str,
        scaling_config: ScalingConfig,
        **options: Any,
    ) -> None:
        super().__init__(train_loop, scaling_config=scaling_config, **options)
        self.scaling, self.sizes, self.requester = scaling_config, sizes, requester

    def _initialize_and_run_controller(self, **given: Any) -> Any:
        if self.scaling.elasticity_enabled:
            given["scaling_policy"] = SizesThatDivide(self.scaling, self.sizes, self.requester)
        return super()._initialize_and_run_controller(**given)


class SizesThatDivide(ElasticScalingPolicy):
    """Ray 2.60's policy for a range of workers, with what kept it from going on within a minute set right.

    It takes any number within the range: the batch is then not a whole number of samples a worker. It counts nodes as
    they were up to 20 s ago, and those that are about to be taken: each wrong count costs a start that times out. And it
    reserves under a new name each time: a run whose controller was lost waits three minutes for its own reservation.
    """

    def __init__(self, scaling_config: ScalingConfig, sizes: tuple[int, ...], requester: str) -> None:
        super().__init__(scaling_config)
        self.sizes, self.requester = sizes, requester

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:
        super().after_controller_start(train_run_context)
        self._cancel_resource_request()  # of the random name
        self._requester_id = self._coordinator_client._requester_id = self.requester  # type: ignore[union-attr]
        self._send_resource_request()

    def _get_reserved_resources(self) -> dict[str, dict[str, float]] | None:
        going = ray._private.state.state.get_draining_nodes()
        try:
            reserved = ray.get(
                self._autoscaling_coordinator.get_reserved_resources.remote(self._requester_id, recompute=True),
                timeout=5,
            )
        except Exception:  # as Ray has it: no answer is no reason to resize, and it is asked again
            return None
        return {node: resources for node, resources in reserved.items() if node not in going}

    def _count_possible_workers(self, reserved_resources: dict[str, dict[str, float]]) -> int:
        """The largest of the sizes that there is room for, 0 for none."""
        room = sum(
            fitting(found, self.scaling_config._resources_per_worker_not_none) for found in reserved_resources.values()
        )
        return max((size for size in self.sizes if size <= room), default=0)


def fitting(found: dict[str, float], each: dict[str, float]) -> int:
    """How many times ``each`` is in ``found``; 1.8 holds 0.6 three times, whatever its last bit."""
    return min(int(found.get(name, 0.0) / need + 1e-6) for name, need in each.items() if need)
