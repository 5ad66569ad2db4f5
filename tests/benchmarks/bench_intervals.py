"""How often 95% intervals hold the truth, by kind of score and number of positive patients, against plain percentiles.

    python tests/benchmarks/bench_intervals.py                          # 200 simulations a line: 3 minutes of one core
    python tests/benchmarks/bench_intervals.py --simulations 2000       # as one reads it: ±1% at two standard errors

160 patients of 8 rows; a patient's rows share a random effect, and 20% to 80% of a positive patient's rows are positive.
What does not depend on how many are positive (AUC, specificity) is simulated with exactly so many positive patients; what
does (average precision, log loss, the paired difference of two log losses), with each patient positive at that rate. Every
line also counts intervals of fewer patients than reports show, which is why they do not show them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import tyro
from scipy.special import expit

from medray.metrics import intervals as kinds
from medray.metrics.binary import log_losses
from medray.metrics.intervals import Score, intervals

PATIENTS, ROWS, TRUTH = 160, 8, 1000  # the truth is of TRUTH times as many patients
FIXED, DRAWN = (
    ("AUC", "mean of 2 AUCs", "specificity at 95% sensitivity"),
    ("average precision", "log loss", "difference"),
)


@dataclass
class Flags:
    simulations: int = 200
    samples: int = 200
    """Draws of patients of an interval."""
    positive: tuple[int, ...] = (2, 3, 5, 10, 20, 60, 100)
    seed: int = 0


def draw(rng: np.random.Generator, positive: int, exactly: bool, times: int = 1) -> tuple[dict[str, Score], np.ndarray]:
    """Scores of a data set, and the patient of each row."""
    patients = PATIENTS * times
    ill = np.arange(patients) < positive * times if exactly else rng.random(patients) < positive / PATIENTS
    labels = (rng.random((patients, ROWS)) < rng.uniform(0.2, 0.8, (patients, 1))) & ill[:, None]
    labels[:, 0] |= ill & ~labels.any(axis=1)
    common = 1.8 * labels + rng.normal(0, 0.8, (patients, 1)) + rng.normal(0, 0.8, labels.shape)
    first, second = (
        (common + rng.normal(0, 0.3, (patients, 1)) + rng.normal(0, 0.4, labels.shape)).ravel() for _ in range(2)
    )
    truth = labels.ravel().astype(np.float64)
    if exactly:
        of = [kinds.auc(ranks, truth) for ranks in (first, second)]
        every = (of[0], kinds.mean_auc({"first": of[0], "second": of[1]}), kinds.specificity_at(0.95, first, truth))
        return dict(zip(FIXED, every, strict=True)), np.repeat(np.arange(patients), ROWS)
    losses = [
        log_losses(expit(1.5 * ranks + np.log(positive / PATIENTS / 2) - 1.2), truth) for ranks in (first, second)
    ]
    every = (
        kinds.average_precision(first, truth), kinds.mean(losses[0], truth), kinds.mean(losses[1] - losses[0], truth)
    )  # fmt: skip
    return dict(zip(DRAWN, every, strict=True)), np.repeat(np.arange(patients), ROWS)


def unlimited(score: Score) -> Score:
    """The same however few patients it rests on, as far as two."""
    return replace(score, least=2, parts={name: unlimited(part) for name, part in score.parts.items()})


def percentiles(scores: dict[str, Score], of: np.ndarray, samples: int, seed: int) -> dict[str, tuple[float, float]]:
    """Plain percentile intervals of a bootstrap over patients."""
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(samples):
        weights = np.bincount(rng.integers(0, PATIENTS, PATIENTS), minlength=PATIENTS)[of].astype(np.float64)
        drawn.append([score.value(weights) for score in scores.values()])
    if not scores:
        return {}
    low, high = np.nanquantile(drawn, [0.025, 0.975], axis=0)
    return {name: (low[i], high[i]) for i, name in enumerate(scores)}


def main(flags: Flags) -> None:
    rows = []
    for positive in flags.positive:
        held: dict[str, list[bool]] = {name: [] for name in (*FIXED, *DRAWN)}
        plain: dict[str, list[bool]] = {name: [] for name in held}
        for exactly in (True, False):
            large, _ = draw(np.random.default_rng(flags.seed), positive, exactly, TRUTH)
            truth = {name: score.value(np.ones(len(score.labels))) for name, score in large.items()}
            for simulation in range(flags.simulations):
                rng = np.random.default_rng((flags.seed, positive, simulation))
                scores, of = draw(rng, positive, exactly)
                found = intervals({name: unlimited(score) for name, score in scores.items()}, of, flags.samples)
                scores = {name: score for name, score in scores.items() if found[name]["low"] is not None}
                for name, (low, high) in percentiles(scores, of, flags.samples, simulation).items():
                    held[name].append(found[name]["low"] <= truth[name] <= found[name]["high"])
                    plain[name].append(low <= truth[name] <= high)
        rows.append(
            {"positive patients": positive}
            | {name: f"{np.mean(held[name]):.3f} ({np.mean(plain[name]):.3f})" for name in held if held[name]}
        )
        print(rows[-1], flush=True)
    print("coverage of 95% intervals, in brackets of plain percentiles")
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main(tyro.cli(Flags))
