"""Organs of real planning CTs, 50 to learn from and 10 scored, on two CPU cores: S-Net, then the stages for small organs.

    python tests/benchmarks/headneck_real.py --data shared/data/head_neck_ct
    python tests/benchmarks/headneck_real.py --data shared/data/head_neck_ct --only-snet

Ten scans: no claim of quality. Data: OpenKBP (MIT licence), Babier et al., Medical Physics 2021.
A plain loop round the tasks' own crops, losses and sliding window, with the engine's optimizer step and without a cluster.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import tyro

from medray.engine.train.checkpoint import renamed
from medray.engine.train.device import to_device
from medray.engine.train.step import Trainer
from medray.shards.files import Files
from medray.systems.headneck.chain import Chain, SmallOrgans
from medray.systems.headneck.names import organ_of
from medray.systems.headneck.recipes import small
from medray.systems.headneck.source import CT, PlanningCT
from medray.systems.headneck.task import OrganTask

ORGANS = ("Brainstem", "SpinalCord", "Parotid_L", "Parotid_R", "Bone_Mandible")
SMALL = ("Brainstem", "Parotid_L", "Parotid_R")  # the cord reaches the edge, and has no middle
BAR, WORST = 0.73, 0.62
"""Mean Dice of S-Net over the organs, and the least of any."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Options:
    data: Path
    steps: int = 640
    """Of S-Net."""
    peaks: int = 160
    outlines: int = 220
    shapes: int = 200
    joint: int = 40
    only_snet: bool = False
    threads: int = 2
    seed: int = 0


def patient_row(folder: Path) -> dict[str, Any]:
    """As in the shards."""
    files = {CT: [(folder / "ct.nii.gz").read_bytes()]}
    for path in sorted((folder / "organs").glob("*.nii.gz")):
        organ = organ_of(path.name.removesuffix(".nii.gz"))
        if organ in ORGANS:
            files[organ] = [path.read_bytes()]
    (encoded,) = PlanningCT(organs=ORGANS).encode(Files(files), [{}])
    assert encoded.columns is not None
    return encoded.columns | {"scan_id": folder.name, "patient_id": folder.name, "visit": "1"}


def train(task: OrganTask, network: torch.nn.Module, rows: Sequence[dict[str, Any]], steps: int) -> float:
    """Seconds that it took. Every scan once, then again, each time in another order."""
    task = replace(task, epochs=1)
    trainer = Trainer(task, network, CPU)
    trainer.train()
    orders, begin, reading, waiting = np.random.default_rng(task.seed), time.perf_counter(), 0, list[Any]()
    for step in range(steps):
        while len(waiting) < task.batch_size:
            if reading % len(rows) == 0:
                order = orders.permutation(len(rows))
            rngs = [np.random.default_rng([task.seed, reading * task.crops + i]) for i in range(task.crops)]
            waiting += task.train_examples(rows[order[reading % len(rows)]], rngs)
            reading += 1
        batch, waiting = task.collate(waiting[: task.batch_size]), waiting[task.batch_size :]
        trainer.step(to_device(batch, CPU, task.host), 0, step, steps)
    return time.perf_counter() - begin


def score(task: OrganTask, network: torch.nn.Module, rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    network.eval()
    tables = []
    with torch.inference_mode():
        for row in rows:
            found = task.outputs(network, to_device(task.collate([task.example(row)]), CPU, task.host))
            tables.append({name: values[0] for name, values in found.items()})
    return task.metrics(pd.DataFrame(tables))


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    learned, scored = (
        [patient_row(folder) for folder in sorted((options.data / part).iterdir())] for part in ("train", "validation")
    )
    print(f"{len(learned)} scans to learn from, n = {len(scored)} scored: no claim of quality")
    fields = SmallOrgans(
        small=() if options.only_snet else SMALL, peaks_rate=3e-3, small_width=8, code=64, coder_width=4, joint_rate=2e-4,
        together=0.5,
    )  # fmt: skip
    chain = Chain("real", replace(small(), organs=ORGANS, seed=options.seed), fields)
    steps = {
        "snet": options.steps,
        **{name: getattr(options, name) for name in ("peaks", "outlines", "shapes", "joint")},
    }
    weights: dict[str, dict[str, torch.Tensor]] = {}
    passed = True
    for own in chain.tasks().values():
        for rung, task in own.items():
            torch.manual_seed(options.seed)
            network = task.network()
            state = network.state_dict()
            for before, prefixes in chain.starts(rung):
                state |= renamed(weights[before], prefixes, state)
            network.load_state_dict(state)
            seconds = train(task, network, learned, steps[rung])
            weights[rung] = network.state_dict()
            found = score(task, network, scored)
            print(
                f"{rung}: {steps[rung]} steps in {seconds:.0f} s; "
                + ", ".join(f"{k} {v:.3f}" for k, v in found.items())
            )
            if rung == "snet":
                passed = found["dice"] >= BAR and min(found[f"dice_{organ}"] for organ in ORGANS) >= WORST
                print(f"bar: mean {BAR} or more and none below {WORST}: {'met' if passed else 'missed'}")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main(tyro.cli(Options))
