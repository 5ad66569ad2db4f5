"""Images per second of the engine's step on ready batches, beside a bare timm loop of the same network and batch."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch

from medray.engine.train.device import autocast_dtype, to_device
from medray.engine.train.layout import Layout, laid_out
from medray.engine.train.step import Trainer
from on_gpu.material import device_of, noise, slice_task

MODELS = (("resnext101_32x8d", 224), ("resnext101_32x8d", 480), ("seresnext50_32x4d", 224), ("efficientnet_b3", 300))
BATCHES = (64, 16)
WARM_UP, TIMED = 4, 12
AFTER_S = 230.0
"""For the steps after the table: compilation, the stream, rates."""


def measure(dry: bool, step: Callable[[int], Any], images: int) -> float:
    """Images per second."""
    warm_up, timed = (1, 2) if dry else (WARM_UP, TIMED)
    started = 0.0
    for number in range(warm_up + timed):
        if number == warm_up:
            wait(dry)
            started = time.perf_counter()
        step(number)
    wait(dry)
    return timed * images / (time.perf_counter() - started)


def wait(dry: bool) -> None:
    if not dry:
        torch.cuda.synchronize()


def engine(
    dry: bool, task: Any, layout: Layout = "channels-last", fused: bool = True, compiled: bool = False
) -> dict[str, Any]:
    device = device_of(dry)
    with mock.patch.object(torch.Tensor, "is_cuda", not dry if fused else False):  # what decides on fused kernels
        trainer = Trainer(task, laid_out(task.network().to(device), layout), device, compiled=compiled)
    trainer.train()
    ready = [to_device(batch, device, task.host, layout == "channels-last") for batch in noise(task, 2)]
    if not dry:
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    trainer.step(ready[0], 0, 0, 1000)
    wait(dry)
    first = time.perf_counter() - started
    rate = measure(dry, lambda n: trainer.step(ready[n % 2], 0, n, 1000), task.batch_size)
    found = {"images_per_s": round(rate, 1), "first_step_s": round(first, 1)}
    return found if dry else found | {"peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2)}


def bare(dry: bool, task: Any) -> dict[str, Any]:
    """What a user would write: timm, fused AdamW or Adam, autocast, channels last."""
    import timm
    from torch.nn.functional import binary_cross_entropy_with_logits

    device = device_of(dry)
    network = timm.create_model(task.backbone, num_classes=6).to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=not dry)
    dtype = autocast_dtype("auto", device)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
    ready = [to_device(batch, device, task.host) for batch in noise(task, 2)]

    def step(number: int) -> None:
        batch = ready[number % 2]
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            loss = binary_cross_entropy_with_logits(network(batch["image"].float() / 255), batch["labels"])
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)

    return {"images_per_s": round(measure(dry, step, task.batch_size), 1)}


def rows(dry: bool) -> Iterator[tuple[str, Any]]:
    for batch_size in (4,) if dry else BATCHES:
        for backbone, size_px in (("test_resnet", 32),) if dry else MODELS:
            yield f"{backbone}@{size_px} batch {batch_size}", slice_task(backbone, size_px, batch_size)


def steps(dry: bool, until: float) -> dict[str, Any]:
    torch.backends.cudnn.benchmark = True
    found: dict[str, Any] = {}
    variants: dict[str, Callable[[Any], dict[str, Any]]] = {
        "engine": lambda task: engine(dry, task),
        "bare": lambda task: bare(dry, task),
        "contiguous": lambda task: engine(dry, task, "contiguous"),
        "not fused": lambda task: engine(dry, task, fused=False),
    }
    todo = dict(rows(dry))
    for (
        variant,
        function,
    ) in variants.items():  # the whole table of one before the next: what is cut is the least needed
        for name, task in todo.items():
            found.setdefault(name, {})
            if time.monotonic() > until - AFTER_S and not dry:
                found[name][variant] = {"left_out": "no time"}
                continue
            try:
                found[name][variant] = function(task)
            except torch.OutOfMemoryError:
                found[name][variant] = {"left_out": "out of memory"}
            gc.collect()
            if not dry:
                torch.cuda.empty_cache()
    for name in todo:
        rates = [found[name][v].get("images_per_s") for v in ("engine", "bare")]
        found[name]["engine / bare"] = round(rates[0] / rates[1], 3) if all(rates) else None
    return found


def compiled(dry: bool, until: float) -> dict[str, Any]:
    """One model; its first step holds the compilation."""
    backbone, size_px, batch_size = ("test_resnet", 32, 4) if dry else ("efficientnet_b3", 300, 64)
    return {
        f"{backbone}@{size_px} batch {batch_size}": engine(
            dry, slice_task(backbone, size_px, batch_size), compiled=not dry
        )
    }


PARTS = {"steps": steps, "compiled": compiled}
SECONDS = {"compiled": 180.0}
