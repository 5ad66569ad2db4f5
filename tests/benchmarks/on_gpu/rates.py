"""Inference, features, and the sequence stage."""

from __future__ import annotations

import functools
import itertools
import time
from typing import Any

import torch

from medray.engine.train.device import autocast_dtype, on_device
from medray.engine.train.layout import laid_out
from medray.engine.train.outputs import evaluate
from medray.engine.train.step import Trainer
from on_gpu.material import batches_of, device_of, noise, sequence_task, slice_task, stacks
from on_gpu.table import measure, wait


def inference(dry: bool, until: float) -> dict[str, Any]:
    """Images per second of outputs, and of features by two views, from batches in the host's memory."""
    from medray.systems.ich.views import Views

    torch.backends.cudnn.benchmark = True  # as the embedding actors have it
    device, found = device_of(dry), {}
    models = (("test_resnet", 32, 4),) if dry else (("resnext101_32x8d", 480, 64), ("efficientnet_b3", 300, 64))
    for backbone, size_px, batch_size in models:
        task = slice_task(backbone, size_px, batch_size)
        network = laid_out(task.network().to(device), "channels-last").eval()
        ids = {
            name: noise(task, 1)[0]["slice_id"]
            for name in ("patient_id", "study_id", "stack_id", "index", "position_mm")
        }
        ready = [batch | ids for batch in noise(task, 2)]
        for name, derive in (("outputs", None), ("features, 2 views", functools.partial(Views().outputs, task))):
            for count in (2, 2) if dry else (4, 20):  # the first time warms up
                wait(dry)
                started = time.perf_counter()
                batches = itertools.islice(itertools.cycle(ready), count)
                dtype = autocast_dtype("auto", device)
                evaluate(task, network, batches, device, dtype, derive)
                rate = count * batch_size / (time.perf_counter() - started)
            found[f"{backbone}@{size_px} {name}"] = round(rate, 1)
    return found


def sequence(dry: bool, until: float) -> dict[str, Any]:
    """Stacks per second of training, 2,048 features and two layers of 2,048 units, batches of 8."""
    device = device_of(dry)
    features, hidden = (6, 8) if dry else (2048, 2048)
    task = sequence_task(features, hidden, 8)
    if not dry:
        torch.cuda.reset_peak_memory_stats()
    trainer = Trainer(task, task.network().to(device), device)
    trainer.train()
    batches = on_device(itertools.cycle(batches_of(task, stacks(32, features), True)), device, task.host)
    rate = measure(dry, lambda n: trainer.step(next(batches), 0, n, 1000), task.batch_size)
    batches.close()
    trainer.check()
    parameters = sum(p.numel() for p in trainer.network.parameters())
    return {"stacks_per_s": round(rate, 1), "parameters": parameters} | (
        {} if dry else {"peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2)}
    )


PARTS = {"inference": inference, "sequence": sequence}
SECONDS: dict[str, float] = {}
