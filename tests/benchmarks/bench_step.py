"""The engine's training step against a bare PyTorch loop of the same network, batch and precision, 1 worker and 2.

    python tests/benchmarks/bench_step.py                                                             # two CPU cores
    python tests/benchmarks/bench_step.py --gpu --backbone resnext101_32x8d --size-px 224 --batch-size 64

Both get the same ready batches: what is compared is the step, with the engine's seeds, checks, sums and schedule. Rounds of
the two alternate in one process; the table has the median of the rounds' ratios and, in brackets, their quartiles.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import tempfile
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import tyro
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from medray.engine.train.device import autocast_dtype, to_device
from medray.engine.train.layout import laid_out
from medray.engine.train.step import Trainer
from medray.shards.store import Store
from medray.systems.ich.classes import CLASSES
from medray.systems.ich.task import SliceTask
from medray.tasks.task import At


@dataclass
class Flags:
    backbone: str = "resnet18"
    size_px: int = 96
    batch_size: int = 32
    """Of a worker."""
    steps: int = 4
    """Of a round: short ones, so that what else the machine does falls on both."""
    rounds: int = 30
    workers: tuple[int, ...] = (1, 2)
    gpu: bool = False


def batches(task: SliceTask) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    shape = (task.batch_size, 3, task.size_px, task.size_px)
    return [
        {
            "image": rng.integers(0, 255, shape, dtype=np.uint8),
            "labels": rng.integers(0, 2, (task.batch_size, len(CLASSES))).astype(np.float32),
            "slice_id": np.array([f"{i}" for i in range(task.batch_size)], dtype=object),
        }
        for _ in range(4)
    ]


def task_of(backbone: str, size_px: int, batch_size: int) -> SliceTask:
    return SliceTask(
        backbone=backbone, pretrained=False, size_px=size_px, batch_size=batch_size, optimizer="adam", schedule="constant",
        learning_rate=1e-4,
    )  # fmt: skip


def worker(rank: int, world: int, port: int, flags: Flags, folder: str) -> None:
    if world > 1:
        address = f"tcp://127.0.0.1:{port}"
        dist.init_process_group("nccl" if flags.gpu else "gloo", init_method=address, rank=rank, world_size=world)
    if flags.gpu:
        torch.cuda.set_device(rank)
    task = task_of(flags.backbone, flags.size_px, flags.batch_size)
    device = torch.device("cuda", rank) if flags.gpu else torch.device("cpu")
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // world))
    torch.backends.cudnn.benchmark = flags.gpu
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # as Worker does
    engine = Trainer(task, laid_out(task.network().to(device), "channels-last", world > 1), device, world, rank)
    engine.train()
    bare = task.network().to(device, memory_format=torch.channels_last)
    bare.train()
    model: nn.Module = bare
    if world > 1:
        model = DistributedDataParallel(bare, [device] if flags.gpu else None)
    optimizer = task.make_optimizer(bare.parameters())
    amp = autocast_dtype(task.precision, device)
    ready = batches(task)

    def bare_round() -> None:
        torch.use_deterministic_algorithms(False)  # few who write their own loop ask for it
        for batch in itertools.islice(itertools.cycle(ready), flags.steps):
            there = to_device(batch, device)
            with torch.autocast(device.type, amp, enabled=amp is not None):
                loss = task.losses(model, there, At())["loss"]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def engine_round() -> None:
        torch.use_deterministic_algorithms(not flags.gpu, warn_only=True)  # as Worker does
        engine.sums = {}
        for number, batch in enumerate(itertools.islice(itertools.cycle(ready), flags.steps)):
            engine.step(to_device(batch, device, task.host), 0, number, flags.steps)
        engine.check()

    rates = {"engine": [], "bare": []}  # type: dict[str, list[float]]
    for number in range(flags.rounds + 1):
        for name, of_round in (("bare", bare_round), ("engine", engine_round)):
            if flags.gpu:
                torch.cuda.synchronize()
            started = time.perf_counter()
            of_round()
            if flags.gpu:
                torch.cuda.synchronize()
            if number:  # the first round warms up
                rates[name].append(flags.steps * flags.batch_size * world / (time.perf_counter() - started))
    if rank == 0:
        Store(folder).write_json("rates.json", rates)
    if world > 1:
        dist.destroy_process_group()


def main(flags: Flags) -> None:
    device = torch.cuda.get_device_name() if flags.gpu else f"{os.cpu_count()} CPU cores"
    print(f"{flags.backbone}, {flags.size_px} px, batch {flags.batch_size} a worker, {device}\n")
    print("| workers | engine, images/s | bare loop, images/s | engine / bare |\n|---|---|---|---|")
    for world in flags.workers:
        with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
            free.close()
            mp.spawn(worker, (world, port, flags, folder), nprocs=world)
            with open(f"{folder}/rates.json") as stream:
                rates = json.load(stream)
        low, middle, high = np.quantile(np.divide(rates["engine"], rates["bare"]), (0.25, 0.5, 0.75))
        print(
            f"| {world} | {np.median(rates['engine']):.1f} | {np.median(rates['bare']):.1f} | "
            f"{middle:.3f} ({low:.3f}–{high:.3f}) |",
            flush=True,
        )


if __name__ == "__main__":
    main(tyro.cli(Flags))
