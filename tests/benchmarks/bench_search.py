"""TPE with pruning against random search without, at an equal budget of training epochs, on phantoms.

python tests/benchmarks/bench_search.py --seeds 0 1

Both search the same space over the same shards; the budget is what the pruned search comes to. The table says what each
had found by the end, and how many epochs the pruned one took to the loss that random search ends with.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

ROOT = Path(__file__).resolve().parents[2]
FIGURE = "weighted_log_loss"


@dataclass
class Flags:
    out: Path = Path("out/bench-search")
    """Phantoms, shards and both searches; given again, finished searches are only read."""
    seeds: tuple[int, ...] = (0, 1)
    """Of the samplers."""
    trials: int = 20
    """Of the pruned search."""
    epochs: int = 9
    """Of a trial that is not stopped."""


def search(flags: Flags, name: str, *more: object) -> list[dict]:
    """The trials of a search, in the order in which they began."""
    words = [sys.executable, str(ROOT / "jobs" / "ich_tune.py"), "--out", flags.out, "--name", name, *more]
    done = subprocess.run([*map(str, words), "--epochs", str(flags.epochs)], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    trials = []
    for folder in (flags.out / "searches" / name / "trials").iterdir():
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
