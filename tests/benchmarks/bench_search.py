"""TPE with pruning against random search without, at an equal budget of training epochs, on phantoms.

python tests/benchmarks/bench_search.py --seeds 0 1

Both search the same space over the same shards; the budget is what the pruned search comes to. The table says what each
had found by the end, and how many epochs the pruned one took to the loss that random search ends with. The phantoms bleed
often and have little noise, so that a good learning rate shows; the space is as wide as one that knows nothing would have it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from medray.imaging.phantom import PhantomSpec, write_phantoms

ROOT = Path(__file__).resolve().parents[2]
FIGURE = "weighted_log_loss"
PHANTOMS = PhantomSpec(
    patients=80, seed=7, matrix_px=64, slices=(12, 14), positive_rate=0.6, several_rate=0.0, noise_hu=(2.0, 4.0)
)
SPACE = ("learning-rate=1e-6..1:log", "weight-decay=1e-4..1:log", "augmentation=0..2", "label-smoothing=0..0.2")
TASK = (
    "--public-ids", "--folds", 4, "--train-folds", 0, "--rows-per-shard", 256, "--monitor", "none", "--backbones",
    "test_efficientnet", "--no-pretrained", "--size-px", 48, "--crop", 0.86, "--batch-size", 16, "--optimizer", "adamw",
    "--clip-norm", 1, "--repeat-epidural", 1, "--epidural-weight", 1,
)  # fmt: skip


@dataclass
class Flags:
    out: Path = Path("out/bench-search")
    """Phantoms, shards and both searches; given again, finished searches are only read."""
    seeds: tuple[int, ...] = (0, 1)
    """Of the samplers."""
    trials: int = 20
    """Of the pruned search."""
    epochs: int = 9
    """Of a trial that is not stopped; the rungs are 1, 3 and 9."""
    schedule: str = "cosine"
    """Of the learning rate. With one-cycle the first rungs lie where it still rises, and say little about the end."""


def search(flags: Flags, name: str, *more: object) -> list[dict]:
    """The trials of a search, in the order in which they began."""
    phantoms = flags.out / "phantoms"
    if not (phantoms / "labels.csv").exists():
        write_phantoms(phantoms, PHANTOMS)
    words = [
        sys.executable,
        ROOT / "jobs" / "ich_tune.py",
        "--dicom",
        phantoms / "dicom",
        "--labels",
        phantoms / "labels.csv",
    ]
    words += [
        "--out",
        flags.out / "out",
        "--name",
        name,
        "--epochs",
        flags.epochs,
        "--schedule",
        flags.schedule,
        *TASK,
        *more,
        "--search",
        *SPACE,
    ]
    done = subprocess.run(list(map(str, words)), cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    trials = []
    for folder in (flags.out / "out" / "searches" / name / "trials").iterdir():
        rungs = json.loads((folder / "rungs.json").read_text()) if (folder / "rungs.json").exists() else []
        trials.append(json.loads((folder / "trial.json").read_text()) | {"rungs": rungs})
    return sorted(trials, key=lambda trial: trial["began"])


def curve(trials: list[dict], epochs: int) -> list[tuple[int, float]]:
    """(epochs trained so far, best loss of a whole run so far), a point for each trial."""
    spent, best, points = 0, float("inf"), []
    for trial in trials:
        spent += trial["rungs"][-1]["epoch"] if trial["rungs"] else 0
        if trial["rungs"] and trial["rungs"][-1]["epoch"] == epochs:
            best = min(best, trial["rungs"][-1]["scores"][FIGURE])
        points.append((spent, best))
    return points


def main(flags: Flags) -> None:
    print("| seed | search | trials | epochs | best loss | epochs to random's best |\n|---|---|---|---|---|---|")
    for seed in flags.seeds:
        pruned = curve(search(flags, f"tpe-{seed}", "--trials", flags.trials, "--search-seed", seed), flags.epochs)
        budget = pruned[-1][0]
        whole = max(1, round(budget / flags.epochs))
        settings = ("--trials", whole, "--search-seed", seed, "--sampler", "random", "--no-prune")
        random = curve(search(flags, f"random-{seed}", *settings), flags.epochs)
        target = random[-1][1]
        reached = next((spent for spent, best in pruned if best <= target), None)
        first = next(spent for spent, best in random if best <= target)
        print(f"| {seed} | TPE, pruned | {len(pruned)} | {budget} | {pruned[-1][1]:.4f} | {reached or 'not reached'} |")
        print(f"| {seed} | random | {len(random)} | {random[-1][0]} | {target:.4f} | {first} |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Flags))
