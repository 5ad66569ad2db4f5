"""Does a step wait for the GPU, and the GPU for a step?"""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from typing import Any

import torch

from medray.engine.train.device import on_device
from medray.engine.train.layout import laid_out
from medray.engine.train.step import Trainer
from on_gpu.material import batches_of, device_of, kinds, noise, slice_task


def synchronisations(dry: bool, until: float) -> dict[str, Any]:
    """Steps of each kind of task with everything on; any synchronisation raises, and names its place."""
    device, found = device_of(dry), {}
    tried: dict[str, Any] = {kind: (replace(task, precision="auto"), rows) for kind, (task, rows) in kinds(dry).items()}
    task, rows = tried["slice"]
    tried["slice in fp16, sgd, 2 batches a step"] = replace(task, precision="fp16", optimizer="sgd", accumulate=2), rows
    tried["slice, smoothed labels"] = replace(task, label_smoothing=0.1), rows
    for kind, (task, rows) in tried.items():
        task = replace(task, clip_norm=1.0, ema_decay=0.99)
        trainer = Trainer(task, laid_out(task.network().to(device), "channels-last"), device)
        trainer.train()
        ready = itertools.cycle(batches_of(task, rows, True)[:1])
        batches = on_device(ready, device, task.host)
        for step in range(4):  # constants are copied, kernels chosen, memory asked for
            trainer.step(next(batches), 0, step, 100)
        if not dry:
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error")
        try:
            for step in range(4, 12):
                trainer.step(next(batches), 0, step, 100)
        finally:
            if not dry:
                torch.cuda.set_sync_debug_mode("default")
            batches.close()
        trainer.check()
        found[kind] = "none"
    return found


def idle_share(dry: bool, until: float) -> dict[str, Any]:
    """Of 20 steps, the part of the time in which no kernel runs."""
    device, found = device_of(dry), {}
    models = (("test_resnet", 32, 4),) if dry else (("resnext101_32x8d", 224, 64), ("efficientnet_b3", 300, 16))
    for backbone, size_px, batch_size in models:
        task = slice_task(backbone, size_px, batch_size)
        trainer = Trainer(task, laid_out(task.network().to(device), "channels-last"), device)
        trainer.train()
        torch.backends.cudnn.benchmark = True
        batches = on_device(itertools.cycle(noise(task)), device, task.host)
        for step in range(8):
            trainer.step(next(batches), 0, step, 1000)
        activity = torch.profiler.ProfilerActivity.CPU if dry else torch.profiler.ProfilerActivity.CUDA
        if not dry:
            torch.cuda.synchronize()
        with torch.profiler.profile(activities=[activity], acc_events=True) as profile:
            for step in range(8, 28):
                trainer.step(next(batches), 0, step, 1000)
            if not dry:
                torch.cuda.synchronize()
        batches.close()
        spans = sorted(
            (e.time_range.start, e.time_range.end)
            for e in profile.events()
            if dry or (e.device_type == torch.autograd.DeviceType.CUDA and "Memcpy" not in e.name)
        )
        busy, end = 0.0, spans[0][0]
        for start, stop in spans:
            busy += max(0.0, stop - max(start, end))
            end = max(end, stop)
        found[f"{backbone}@{size_px} batch {batch_size}"] = round(1 - busy / (end - spans[0][0]), 4)
        del trainer
        if time.monotonic() > until:
            break
    return found


PARTS = {"synchronisations": synchronisations, "idle share": idle_share}
SECONDS: dict[str, float] = {"idle share": 20}
