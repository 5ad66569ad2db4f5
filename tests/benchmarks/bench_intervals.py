"""How often 95% intervals hold the truth: every kind that a report shows, by how many patients it rests on.

    python tests/benchmarks/bench_intervals.py                          # 200 simulations a line: minutes of two cores
    python tests/benchmarks/bench_intervals.py --simulations 2000       # as one reads it: ±1% at two standard errors

Of labels: 160 patients of 8 rows; a patient's rows share a random effect, and 20% to 80% of a positive patient's rows are positive.
What does not depend on how many are positive (AUC, sensitivity, specificity) is simulated with exactly so many positive patients;
what does (average precision, losses, predictive values, F1, kappa, calibration), with each patient positive at that rate, and
counted under the number that there were. Of means: so many patients of 1 to 3 scans. Every line also counts intervals of fewer
patients than reports show, which is why they do not show them.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import tyro
from scipy.special import expit

from medray.metrics import calibration
from medray.metrics import intervals as kinds
from medray.metrics.binary import log_losses
from medray.metrics.intervals import Figure, Score, intervals

PATIENTS, ROWS, TRUTH = 160, 8, 1000  # the truth is of TRUTH times as many patients
Data = tuple[dict[str, Score], np.ndarray, tuple[np.ndarray, np.ndarray] | None]
"""Scores; the patient of each row; probabilities and labels, where calibration is asked."""


@dataclass
class Flags:
    simulations: int = 200
    samples: int = 200
    """Draws of patients of an interval."""
    positive: tuple[int, ...] = (2, 3, 5, 8, 10, 20, 60)
    patients: tuple[int, ...] = (3, 5, 8, 12, 20, 50)
    """Of means."""
    processes: int = 2
    seed: int = 0


def of_classes(rng: np.random.Generator, positive: int, times: int, exactly: bool) -> Data:
    """Labels, and what two models say of them."""
    patients = PATIENTS * times
    ill = np.arange(patients) < positive * times if exactly else rng.random(patients) < positive / PATIENTS
    labels = (rng.random((patients, ROWS)) < rng.uniform(0.2, 0.8, (patients, 1))) & ill[:, None]
    labels[:, 0] |= ill & ~labels.any(axis=1)
    common = 1.8 * labels + rng.normal(0, 0.8, (patients, 1)) + rng.normal(0, 0.8, labels.shape)
    first, second = (
        (common + rng.normal(0, 0.3, (patients, 1)) + rng.normal(0, 0.4, labels.shape)).ravel() for _ in range(2)
    )
    truth, of = labels.ravel().astype(np.float64), np.repeat(np.arange(patients), ROWS)
    said, other = ((ranks > 1.2).astype(np.float64) for ranks in (first, second))
    if exactly:
        aucs = [kinds.auc(ranks, truth) for ranks in (first, second)]
        every = {
            "AUC": aucs[0],
            "mean of 2 AUCs": kinds.mean_auc({"first": aucs[0], "second": aucs[1]}),
            "sensitivity": kinds.rate(np.where(truth == 1, said, np.nan)),
            "specificity": kinds.rate(np.where(truth == 0, 1 - said, np.nan)),
            "specificity at 95% sensitivity": kinds.specificity_at(0.95, first, truth),
        }
        return every, of, None
    chances = [expit(1.5 * ranks + np.log(positive / PATIENTS / 2) - 1.2) for ranks in (first, second)]
    losses = [log_losses(one, truth) for one in chances]
    every = {
        "average precision": kinds.average_precision(first, truth),
        "log loss": kinds.log_loss(chances[0], truth),
        "Brier": kinds.brier(chances[0], truth),
        "paired difference": kinds.mean(losses[1] - losses[0], truth),
        "PPV": kinds.rate(np.where(said == 1, truth, np.nan), truth),
        "NPV": kinds.rate(np.where(said == 0, 1 - truth, np.nan), truth),
        "F1": kinds.f1(said, truth),
        "kappa": kinds.kappa(said, other),
    }
    return every, of, (chances[0], truth)


def of_means(rng: np.random.Generator, patients: int, times: int) -> Data:
    """Scores of scans, of which a patient has one to three."""
    count = patients * times
    of = np.repeat(np.arange(count), rng.integers(1, 4, count))

    def shared(of_patients: float, of_scans: float) -> np.ndarray:
        return rng.normal(0, of_patients, count)[of] + rng.normal(0, of_scans, len(of))

    dice = expit(1.2 + shared(0.8, 0.4))
    better = dice + 0.02 + rng.standard_t(5, count)[of] * 0.03 + rng.normal(0, 0.01, len(of))
    found = rng.binomial(12, expit(0.8 + shared(0.8, 0.3))) / 12
    every = {
        "Dice": kinds.mean(dice),
        "Dice, 1 in 20 lost": kinds.mean(np.where(rng.random(len(of)) < 0.05, 0.0, dice)),
        "paired Dice": kinds.mean(better - dice),
        "rate of lesions": kinds.mean(found),
        "MAE": kinds.mean(np.abs(shared(6.0, 5.0))),
        "within an interval": kinds.rate((np.abs(shared(6.0, 5.0)) < 12).astype(np.float64)),
    }
    return every, of, None


def unlimited(score: Score) -> Score:
    """The same however few patients it rests on, as far as two."""
    return replace(score, least=2, parts={name: unlimited(part) for name, part in score.parts.items()})


def values(data: Data) -> dict[str, float]:
    scores, of, chances = data
    found = {name: score.value(np.ones(len(of))) for name, score in scores.items()}
    line = {} if chances is None else calibration.calibration_line(*chances, of)
    return found | {f"calibration {name}": figure["value"] for name, figure in line.items()}


def figures(data: Data, samples: int) -> dict[str, Figure]:
    scores, of, chances = data
    found = intervals({name: unlimited(score) for name, score in scores.items()}, of, samples)
    line = {} if chances is None else calibration.calibration_line(*chances, of)
    return found | {f"calibration {name}": figure for name, figure in line.items()}


def tried(
    draw: Callable[..., Data], count: int, samples: int, truth: dict[str, float], seeds: list[tuple[int, ...]]
) -> list[dict[str, bool]]:
    """Of each seed: name → whether its interval holds the truth; without those that have none."""
    calibration.LEAST_CALIBRATION = 2
    rows = []
    for seed in seeds:
        found = figures(draw(np.random.default_rng(seed), count, 1), samples)
        rows.append({n: f["low"] <= truth[n] <= f["high"] for n, f in found.items() if f["low"] is not None})
    return rows


def line(draw: Callable[..., Data], count: int, flags: Flags, pool: ProcessPoolExecutor) -> dict[str, str]:
    """Name → part of the intervals that hold the truth, and of how many where they are not all."""
    truth = values(draw(np.random.default_rng(flags.seed), count, TRUTH))
    seeds = [(flags.seed, count, simulation) for simulation in range(flags.simulations)]
    parts = [seeds[i :: flags.processes] for i in range(flags.processes)]
    rows = [row for part in pool.map(partial(tried, draw, count, flags.samples, truth), parts) for row in part]
    out = {}
    for name in truth:
        held = [row[name] for row in rows if name in row]
        few = f" (of {len(held)})" if len(held) < 0.99 * len(rows) else ""
        out[name] = f"{np.mean(held):.3f}{few}" if held else "none"
    return out


def main(flags: Flags) -> None:
    tables: dict[str, list[dict[str, str]]] = {"positive patients": [], "patients": []}
    with ProcessPoolExecutor(flags.processes) as pool:
        for count in flags.positive:
            of = [line(partial(of_classes, exactly=exactly), count, flags, pool) for exactly in (True, False)]
            tables["positive patients"].append({"": str(count)} | of[0] | of[1])
            print(tables["positive patients"][-1], flush=True)
        for count in flags.patients:
            tables["patients"].append({"": str(count)} | line(of_means, count, flags, pool))
            print(tables["patients"][-1], flush=True)
    for name, rows in tables.items():
        print(f"\ncoverage of 95% intervals by the number of {name}")
        print(pd.DataFrame(rows).set_index("").T.to_csv(sep="|") if rows else "")


if __name__ == "__main__":
    main(tyro.cli(Flags))
