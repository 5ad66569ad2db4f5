"""Lesions of phantoms: does a network beat every threshold, do four channels beat one, do chosen crops beat any?

    python tests/benchmarks/bench_lesion.py                 # three seeds, both folds of two: up to twenty minutes on two cores
    python tests/benchmarks/bench_lesion.py --seeds 0 --seconds 20

Phantom scores say that the machinery learns, nothing about patients. The task's own crops, losses and windows, without a cluster.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import tyro

sys.path.insert(0, str(Path(__file__).parent))
from lesion_two_patients import CPU, trained

from medray.engine.train.outputs import evaluate
from medray.metrics.intervals import intervals, mean
from medray.report.figures import line
from medray.shards.case_table import files_of
from medray.shards.files import paths_of, read_files
from medray.shards.reading import scan_file
from medray.shards.store import Store
from medray.systems.lesion.cases import read_cases
from medray.systems.lesion.inventory import assemble
from medray.systems.lesion.phantoms import PhantomPatients, PhantomSpec
from medray.systems.lesion.recipes import phantom
from medray.systems.lesion.source import BrainMR
from medray.systems.lesion.task import LesionTask
from medray.tasks.volume_rows import whole

WAYS: dict[str, dict[str, Any]] = {
    "four channels, half of the crops with lesion": {},
    "FLAIR alone": {"channels": ("flair",)},
    "crops from anywhere": {"foreground_share": 0.0, "elsewhere": "anywhere"},
}


@dataclass(frozen=True)
class Options:
    seeds: tuple[int, ...] = (0, 1, 2)
    patients: int = 12
    seconds: float = 40.0
    """Of training, each network."""
    threads: int = 2


def scans(seed: int, patients: int, folder: Path) -> list[dict[str, Any]]:
    """Rows of shards of a set of phantoms."""
    made = PhantomPatients(PhantomSpec(patients=patients, seed=seed))
    table, _ = made.finish(folder, [made.write(folder, piece) for piece in made.pieces(folder)])
    cases, store = read_cases(table), Store(files_of(table))
    source = BrainMR(channels=cases.channels)
    headers = [row for file in store.files() for row in scan_file(source, store, file)]
    names = ["path", "size_bytes", "status", "reason", *source.scan_schema.names]
    rows = assemble(pd.DataFrame(headers, columns=names), cases).rows.to_dict("records")
    found = []
    for row in rows:
        (encoded,) = source.encode(read_files(store, paths_of(row)), [row])
        assert encoded.columns is not None
        found.append(row | encoded.columns)
    return found


def best_threshold(rows: list[dict[str, Any]]) -> np.ndarray:
    """Dice of each scan by the FLAIR threshold that is best for all of them, chosen on their own truth: a generous floor."""
    values = np.linspace(0, 6, 61)
    dice = []
    for row in rows:
        flair = whole(row)[0].ravel()
        truth = np.frombuffer(row["mask"], np.uint8) == 1
        dice.append([2 * (truth & (flair > v)).sum() / max(1, truth.sum() + (flair > v).sum()) for v in values])
    table = np.array(dice)
    return table[:, int(table.mean(0).argmax())]


def dice_of(
    task: LesionTask, learned: list[dict[str, Any]], held_out: list[dict[str, Any]], seconds: float
) -> np.ndarray:
    network, _ = trained(task, learned, seconds)
    batches = (task.collate([task.example(row)]) for row in held_out)
    return evaluate(task, network, batches, CPU)["dice_lesion"].to_numpy(dtype=float)


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    found: dict[str, list[float]] = {"FLAIR, best threshold": []} | {way: [] for way in WAYS}
    who: list[str] = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            rows = scans(seed, options.patients, Path(folder) / "phantoms")
        patients = sorted({row["patient_id"] for row in rows})
        for fold in range(2):
            own = set(patients[fold::2])
            held_out = [row for row in rows if row["patient_id"] in own]
            learned = [row for row in rows if row["patient_id"] not in own]
            who += [f"{seed} {row['patient_id']}" for row in held_out]
            found["FLAIR, best threshold"] += best_threshold(held_out).tolist()
            for way, changes in WAYS.items():
                task = replace(phantom(), schedule="constant", seed=seed, **changes)
                found[way] += dice_of(task, learned, held_out, options.seconds).tolist()
                print(
                    f"seed {seed} fold {fold}  {way}: Dice {np.nanmean(found[way][-len(held_out) :]):.3f}", flush=True
                )
    first = np.array(found[next(iter(WAYS))])
    scores = {name: mean(np.array(values)) for name, values in found.items()}
    scores |= {f"first − {name}": mean(first - np.array(values)) for name, values in found.items() if name != next(iter(WAYS))}  # fmt: skip
    print(
        f"\n{len(who)} held-out scans of {len(set(who))} phantom patients, {len(options.seeds)} seeds; 95% over patients"
    )
    for name, figure in intervals(scores, np.array(who)).items():
        print(f"{name:<48}{line(figure, 3)}")


if __name__ == "__main__":
    main(tyro.cli(Options))
