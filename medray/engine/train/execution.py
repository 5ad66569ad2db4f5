"""How a run is executed: chosen once, by its first process, and kept when it goes on elsewhere."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from medray.engine.job.progress import warn
from medray.engine.train.device import autocast_dtype
from medray.engine.train.layout import Layout, fastest_layout
from medray.engine.train.run import Run
from medray.shards.store import Store

NAME = "execution.json"


@dataclass(frozen=True)
class Execution:
    """What changes the speed of a run, and of its results the last digits."""

    layout: Layout = "channels-last"
    compiled: bool = False


def execution(run: Run, network: nn.Module, device: torch.device, world: int, rank: int) -> Execution:
    """The run's own, as its first process left it; else it is chosen here, and written down.

    Args:
        network: on its device.
        world, rank: of torch's process group. The first worker chooses for all.
    """
    found: list[Any] = [stored(run.store) if rank == 0 else None]
    if rank == 0 and found[0] is None:
        layout, seconds = run.layout, dict[str, float]()
        if layout is None:
            layout, seconds = fastest_layout(run.task, network, device, run.task.batch_size // world)
        found = [Execution(layout, run.compiled and _gains(device))]
        about = {"device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu", "seconds": seconds}
        about["precision"] = str(autocast_dtype(run.task.precision, device) or torch.float32).removeprefix("torch.")
        run.store.write_json(NAME, asdict(found[0]) | about)
    elif rank == 0 and run.layout not in (None, found[0].layout):
        warn(f"run {run.name}: goes on with the layout {found[0].layout}, as it began; --layout counts for new runs")
    if world > 1:
        dist.broadcast_object_list(found, 0)
    chosen = found[0]
    assert isinstance(chosen, Execution)
    return chosen


def stored(store: Store) -> Execution | None:
    """As a run's folder holds it."""
    about = store.read_json(NAME)
    return None if about is None else Execution(about["layout"], about["compiled"])


def _gains(device: torch.device) -> bool:
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
        return True
    warn("--compile: only GPUs of Ampere and later gain by it; not compiled")
    return False
