"""Placement groups of a run whose controller was lost: Ray keeps them to the end of the job, and nobody else gets their CPUs.

Ray 2.60 gives a run's group to a watching actor only once all workers have started, which takes half a minute. A node with the
controller that is lost before leaves a group without an owner; the run, started again, then waits for its own CPUs for ever.
"""

from __future__ import annotations

import contextlib
import functools
import uuid
from collections.abc import Iterator

from ray import PlacementGroupID
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2._internal.execution.worker_group import worker_group
from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group


class NamedGroups(WorkerGroupCallback):
    """Names the groups that a controller creates, so that they are found again: ``run/<random>``."""

    def __init__(self, run: str) -> None:
        self.run = run

    @contextlib.contextmanager
    def on_worker_group_start(self) -> Iterator[None]:
        create = worker_group.placement_group
        worker_group.placement_group = functools.partial(create, name=f"{self.run}/{uuid.uuid4().hex}")
        try:
            yield
        finally:
            worker_group.placement_group = create


def remove_groups(run: str) -> None:
    """Free what earlier attempts of the run have left reserved. To be called while none of it is trained."""
    for group, found in placement_group_table().items():
        if found["name"].startswith(f"{run}/") and found["state"] != "REMOVED":
            remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group))))
