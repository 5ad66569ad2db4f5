"""Outputs of a network for a stream of examples: the same for monitoring, held-out rows and new studies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from medray.task import Task


def evaluate(
    task: Task,
    network: nn.Module,
    batches: Iterable[dict[str, Any]],
    device: torch.device,
    amp_dtype: torch.dtype | None = None,
) -> pd.DataFrame:
    """The task's outputs of every example, in the order in which they came."""
    network.eval()
    parts: list[pd.DataFrame] = []
    with torch.inference_mode(), torch.autocast(device.type, amp_dtype, enabled=amp_dtype is not None):
        for batch in batches:
            parts.append(pd.DataFrame(task.outputs(network, to_device(batch, device))))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({task.id_column: []})


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Numbers become tensors on the device, text stays as it is."""
    out: dict[str, Any] = {}
    for name, values in batch.items():
        if not isinstance(values, np.ndarray) or values.dtype.kind in "OUS":
            out[name] = values
            continue
        tensor = torch.from_numpy(values if values.flags.writeable else values.copy())
        if device.type == "cuda":
            tensor = tensor.pin_memory().to(device, non_blocking=True)
        out[name] = tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
    return out
