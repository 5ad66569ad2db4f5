"""Outputs of a network for a stream of batches. Plain torch, without Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd
import torch
from torch import nn

from medray.engine.train.device import on_device
from medray.engine.train.layout import layout_of
from medray.tasks.task import Task

Outputs = Callable[[nn.Module, dict[str, Any]], dict[str, Any]]


def evaluate(
    task: Task,
    network: nn.Module,
    batches: Iterable[dict[str, Any]],
    device: torch.device,
    amp_dtype: torch.dtype | None = None,
    outputs: Outputs | None = None,
) -> pd.DataFrame:
    """The outputs of every example, in the order in which they came; the task's where no others are asked for."""
    outputs = outputs or task.outputs
    network.eval()
    parts: list[pd.DataFrame] = []
    there = on_device(batches, device, task.host, layout_of(network) == "channels-last")
    with torch.inference_mode(), torch.autocast(device.type, amp_dtype, enabled=amp_dtype is not None):
        for batch in there:
            parts.append(pd.DataFrame(outputs(network, batch)))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({task.id_column: []})
