"""How 2D convolutions lie in memory: chosen once a run, and kept when it goes on.

Channels last is what tensor cores read; but grouped convolutions in fp16 were 35 times slower in it on a V100 (pytorch
issue 34977). So a GPU is asked: the network's own forward and backward pass, on a batch of its own size, in both.
"""

from __future__ import annotations

import copy
import math
import time
from typing import Any, Literal

import torch
from torch import nn

from medray.engine.train.device import autocast_dtype, to_device
from medray.tasks.task import Task

Layout = Literal["channels-last", "contiguous"]
_FORMATS = {"channels-last": torch.channels_last, "contiguous": torch.contiguous_format}
_WARM_UP, _TIMED = 3, 5
_HOPELESS = 3.0
_MEASURED_ON = ("cuda",)


def laid_out(network: nn.Module, layout: Layout, parallel: bool = False) -> nn.Module:
    """The network with its 2D kernels in that layout; 3D ones have no such choice.

    Args:
        parallel: it will be one of several workers'. Kernels of one place, or of one channel, are the same memory in
            either layout; with the strides that their gradients have, DistributedDataParallel has nothing to copy.
    """
    for parameter in network.parameters():
        if parameter.ndim == 4:
            data = parameter.data.contiguous(memory_format=_FORMATS[layout])
            if parallel and layout == "channels-last":
                _, channels, rows, columns = data.shape
                data = data.as_strided(data.shape, (channels * rows * columns, 1, columns * channels, channels))
            parameter.data = data
    return network


def layout_of(network: nn.Module) -> Layout:
    """That of its 2D kernels; images come to it in the same one. Channels last where it has none."""
    for parameter in network.parameters():
        if parameter.ndim == 4 and parameter.is_contiguous() != parameter.is_contiguous(
            memory_format=torch.channels_last
        ):
            return "contiguous" if parameter.is_contiguous() else "channels-last"
    return "channels-last"


def fastest_layout(
    task: Task, network: nn.Module, device: torch.device, batch_size: int
) -> tuple[Layout, dict[str, float]]:
    """The quicker layout on this device, and the seconds that a pass took in each; nothing is measured on a CPU, for a
    network without 2D kernels, or a task without an example of its input.

    Args:
        batch_size: of one worker.
    """
    if device.type not in _MEASURED_ON or not task.has_example_input or all(p.ndim != 4 for p in network.parameters()):
        return "channels-last", {}
    seconds: dict[str, float] = {}
    with torch.random.fork_rng(
        [device] if device.type == "cuda" else []
    ):  # what is drawn here is not missing in the run
        for layout in _FORMATS:
            best = min(seconds.values(), default=math.inf)
            try:
                seconds[layout] = _seconds(task, network, layout, device, batch_size, best)  # type: ignore[arg-type]
            except torch.OutOfMemoryError:  # beside the network itself; without a figure, the first one is taken
                continue
            finally:
                torch.cuda.empty_cache()
    contiguous = seconds.get("contiguous", math.inf) < seconds.get("channels-last", 0.0)
    return ("contiguous" if contiguous else "channels-last"), seconds


def _seconds(
    task: Task, network: nn.Module, layout: Layout, device: torch.device, batch_size: int, best: float
) -> float:
    """Of a pass; one that is far behind ``best`` is not measured to the end."""
    own = laid_out(copy.deepcopy(network), layout).train()
    example = task.example_input()
    batch = {"input": example.repeat(-(-batch_size // len(example)), axis=0)[:batch_size]}
    images: Any = to_device(batch, device, channels_last=layout == "channels-last")["input"]
    dtype = autocast_dtype(task.precision, device)
    took = []
    for _ in range(_WARM_UP + _TIMED):
        started = time.perf_counter()
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            found = own(images)
        found.float().mean().backward()
        own.zero_grad(set_to_none=True)
        torch.cuda.synchronize(device)
        took.append(time.perf_counter() - started)
        if len(took) > 1 and took[-1] > _HOPELESS * best:
            return took[-1]
    return sum(took[_WARM_UP:]) / _TIMED
