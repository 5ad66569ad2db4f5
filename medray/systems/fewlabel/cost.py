"""What each network of the ladder costs at prediction, as organs and sources grow: measured where the report is written."""

from __future__ import annotations

import time

import pandas as pd

from medray.systems.fewlabel.chain import Chain
from medray.systems.fewlabel.task import FewLabelTask

ROUNDS = 3


def cost_table(chain: Chain, sources: int) -> pd.DataFrame:
    """One row a rung: networks that are needed, passes of a window, millions of weights, seconds of a window on one thread of
    this machine's CPU.

    Args:
        sources: that label organs; one network each, where each has its own.
    """
    base, organs = chain.base, len(chain.base.organs)
    one, told = _measured(base, 1, organs + 1), _measured(base, 1 + organs, 1)
    rows = []
    for rung in chain.rungs:
        networks = sources if rung == "apart" else 1
        passes = {"apart": sources, "conditional": organs}.get(rung, 1)
        weights, seconds = told if rung == "conditional" else one
        rows.append({
            "network": rung, "networks": networks, "passes of a window": passes,
            "weights, millions": round(weights * networks, 3), "seconds of a window": round(seconds * passes, 3),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _measured(task: FewLabelTask, channels: int, outputs: int) -> tuple[float, float]:
    """Millions of weights, and the least seconds of a pass of a window."""
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
    return sum(value.numel() for value in network.parameters()) / 1e6, min(seconds)
