"""Learn lesions of one real patient, score on another, both ways: whether training learns at all, on two CPU cores.

    python tests/benchmarks/lesion_two_patients.py --data shared/data/ms_mri
    python tests/benchmarks/lesion_two_patients.py --data shared/data/ms_mri --seconds 180 --directions 26-07

Two patients: no claim of quality. Data: 3D_MR_MS (CC-BY), Lesjak et al., Neuroinformatics 2018.
A plain loop round the task's own crops, losses and sliding window, with the engine's optimizer step and without a cluster.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from scipy import ndimage

from medray.engine.train.device import to_device
from medray.engine.train.step import Trainer
from medray.shards.files import Files
from medray.systems.lesion.recipes import phantom
from medray.systems.lesion.source import BrainMR
from medray.systems.lesion.task import LesionTask
from medray.tasks.volume_rows import mask_of

FILES = {"flair": "FLAIR", "t1": "T1", "t1post": "T1POST", "t2": "T2", "mask": "GOLD_STANDARD"}
BAR = 0.30
"""Dice on patient 07, trained on patient 26 for as long as ``Options.seconds`` says."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Options:
    data: Path
    seconds: float = 160.0
    """Of training."""
    directions: tuple[str, ...] = ("26-07", "07-26")
    threads: int = 2
    seed: int = 0


def patient_row(folder: Path) -> dict[str, Any]:
    """As in the shards."""
    files = Files({channel: [(folder / f"{name}.nii.gz").read_bytes()] for channel, name in FILES.items()})
    (encoded,) = BrainMR(channels=tuple(FILES)[:-1]).encode(files, [{}])
    assert encoded.columns is not None
    return encoded.columns | {"scan_id": folder.name, "patient_id": folder.name, "visit": "1"}


def small(seed: int) -> LesionTask:
    """Three levels of 12, 24 and 48 channels."""
    return replace(
        phantom(), width=12, levels=3, patch_DHW=(48, 48, 48), crops=2, batch_size=2, schedule="constant", steps_per_epoch=None,
        epochs=1, learning_rate=2e-3, foreground_share=0.5, mean_shift=0.1, deviation_shift=0.1, seed=seed, ema_decay=0.99,
        test_flips=True, keep="uint8",
    )  # fmt: skip


def trained(task: LesionTask, rows: Sequence[dict[str, Any]], seconds: float) -> tuple[torch.nn.Module, int]:
    """The network, and how many steps it has taken; each of the rows in turn."""
    torch.manual_seed(task.seed)
    trainer = Trainer(task, task.network(), CPU)
    start, step = time.perf_counter(), 0
    trainer.train()
    peak = task.learning_rate
    while (part := (time.perf_counter() - start) / seconds) < 1:
        for optimizer in trainer.optimizers.values():  # a cosine over the time that there is
            for group in optimizer.param_groups:
                group["peak_lr"] = peak * 0.5 * (1 + np.cos(np.pi * part))
        rngs = [np.random.default_rng((task.seed, 0, step * task.crops + i)) for i in range(task.crops)]
        batch = task.collate(task.train_examples(rows[step % len(rows)], rngs))
        trainer.step(to_device(batch, CPU, task.host), 0, step, 1_000_000)
        step += 1
    return trainer.scored.eval(), step


def lesions(mask: np.ndarray, other: np.ndarray) -> tuple[int, int]:
    """18-connected components of a mask, and how many of them the other one touches."""
    found, count = ndimage.label(mask == 1, ndimage.generate_binary_structure(3, 2))
    return count, len(np.unique(found[(other == 1) & (found > 0)]))


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    print("Two patients: no claim of quality. n = 1 training patient, 1 scored.")
    rows = {number: patient_row(options.data / f"patient{number}") for number in ("07", "26")}
    passed = True
    for direction in options.directions:
        learned, scored = direction.split("-")
        task = small(options.seed)
        network, steps = trained(task, [rows[learned]], options.seconds)
        start = time.perf_counter()
        with torch.inference_mode():
            found = task.outputs(network, to_device(task.collate([task.example(rows[scored])]), CPU, task.host))
        row = {name: values[0] for name, values in found.items()}
        truth = mask_of(rows[scored])
        mask = mask_of(row)
        total, hit = lesions(truth, mask)
        findings, true = lesions(mask, truth)
        print(
            f"{learned} → {scored}: Dice {row['dice_lesion']:.3f}, PPV {row['ppv_lesion']:.3f}, sensitivity "
            f"{row['sensitivity_lesion']:.3f}; {row['ml_lesion']:.1f} mL found, {row['true_ml_lesion']:.1f} mL drawn; {hit} of "
            f"{total} lesions found, {findings - true} of {findings} findings false; {steps} steps in {options.seconds:.0f} s on "
            f"{options.threads} threads, scored in {time.perf_counter() - start:.0f} s"
        )
        if direction == "26-07":
            passed = row["dice_lesion"] >= BAR
            print(f"bar: Dice {BAR} or more from 26 to 07: {'met' if passed else 'missed'}")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main(tyro.cli(Options))
