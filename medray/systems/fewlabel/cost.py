"""What each network of the ladder costs at prediction, as organs and sources grow: measured where the report is written."""

from __future__ import annotations

import time
import weakref
from dataclasses import dataclass
from typing import Any

import pandas as pd

from medray.systems.fewlabel.chain import Chain
from medray.systems.fewlabel.task import FewLabelTask

ROUNDS = 3


@dataclass(frozen=True)
class Cost:
    """Of one network."""

    weights: int
    """Numbers."""
    weights_mb: float
    seconds: float
    """The least, of a pass of a window."""
    layers_mb: float
    """What is alive at once of the window and of the layers' outputs, at most."""


def cost_table(chain: Chain, sources: int) -> pd.DataFrame:
    """One row a rung: networks that are needed, passes of a window, millions of weights, seconds of a window on one thread of
    this machine's CPU, and MB of memory: all weights, and the layers of one pass at a time.

    Args:
        sources: that label organs; one network each, where each has its own.
    """
    base, organs = chain.base, len(chain.base.organs)
    one, told = cost_of(base, 1, organs + 1), cost_of(base, 1 + organs, 1)
    rows = []
    for rung in chain.rungs:
        networks = sources if rung == "apart" else 1
        passes = {"apart": sources, "conditional": organs}.get(rung, 1)
        cost = told if rung == "conditional" else one
        rows.append({
            "network": rung, "networks": networks, "passes of a window": passes,
            "weights, millions": round(cost.weights / 1e6 * networks, 3),
            "seconds of a window": round(cost.seconds * passes, 3),
            "memory, MB": round(cost.weights_mb * networks + cost.layers_mb, 1),
        })  # fmt: skip
    return pd.DataFrame(rows)


def cost_of(task: FewLabelTask, channels: int, outputs: int) -> Cost:
    """Of the task's architecture with this many channels and outputs, on this machine's CPU."""
    import torch

    from medray.nn.volume_network import volume_network

    network = volume_network(task.architecture, channels, outputs, task.width, task.levels).eval()
    window = torch.zeros(1, channels, *task.patch_DHW)
    seconds = []
    with torch.inference_mode():
        for _ in range(ROUNDS):
            start = time.perf_counter()
            network(window)
            seconds.append(time.perf_counter() - start)
        layers = window.nbytes + _alive(network, window)
    weights = list(network.parameters())
    return Cost(sum(w.numel() for w in weights), sum(w.nbytes for w in weights) / 1e6, min(seconds), layers / 1e6)


def _alive(network: Any, window: Any) -> int:
    """Bytes of the modules' outputs that are alive at once in a pass, at most."""
    import torch

    alive, most = dict[int, int](), 0

    def count(module: object, given: object, output: object) -> None:
        nonlocal most
        if isinstance(output, torch.Tensor) and output.data_ptr() not in alive:
            place = output.data_ptr()  # what works in place gives its input back
            alive[place] = output.nbytes
            weakref.finalize(output, alive.pop, place, None)
            most = max(most, sum(alive.values()))

    hooks = [module.register_forward_hook(count) for module in network.modules()]
    network(window)
    for hook in hooks:
        hook.remove()
    return most
