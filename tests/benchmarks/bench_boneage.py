"""Drawn hands, out of fold: does registration help, does the ensemble beat its best member, does knowing the sex help?

    python tests/benchmarks/bench_boneage.py                 # three seeds, both folds of two: up to twenty minutes on two cores
    python tests/benchmarks/bench_boneage.py --seeds 0 --seconds 5

The task's own examples, losses and stages, without a cluster: as in the job, hands, points and ages are found by networks that have
not seen the child. Settings were chosen on other drawings (seeds 100 to 104).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
import tyro

sys.path.insert(0, str(Path(__file__).parent))
from boneage_loop import CPU, Row, answers

from medray.engine.train.device import to_device
from medray.engine.train.outputs import evaluate
from medray.engine.train.step import Trainer
from medray.metrics.intervals import Figure
from medray.report.figures import line, texts
from medray.shards.folds import assign_folds
from medray.systems.boneage.ages import joined_ages
from medray.systems.boneage.phantoms.films import PhantomSpec, film, film_plan
from medray.systems.boneage.recipes import model_task, phantom
from medray.systems.boneage.scores.comparisons import best_member
from medray.systems.boneage.scores.ensemble import ABOUT
from medray.systems.boneage.scores.ensemble_fit import fit
from medray.systems.boneage.scores.means import means
from medray.systems.boneage.stages.between import Hands, How, Masks, Points, Region
from medray.systems.boneage.system import strata
from medray.tasks.task import Task

ONLY = "drawn hands: the machinery learns; nothing about patients"
FOLDS = (0, 1)
BOTH, GIRLS = "A-regression-both", "A-regression-girls"
MEMBERS = (BOTH, "B-regression-both", "C-regression-both", "A-classification-both")
WHOLE_FILM, TOLD_SEX = "A-regression-both, whole film", "A-regression-both, told the sex"
ENSEMBLE, CARRIED = "ensemble", "ensemble by the other fold's weights"
MEAN, BEST, CONSTANT = "plain mean of its members", "its best member", "median age"
AGES = replace(phantom().age, scale=0.04, channels=(8, 16, 32, 64), clip_norm=1.0)
WARM_UP = 0.15
"""Of the time: without it, and the clipping, 2 of 30 networks of the other drawings ended as a constant."""


@dataclass(frozen=True)
class Options:
    seeds: tuple[int, ...] = (0, 1, 2)
    films: int = 400
    """Drawn for each seed."""
    seconds: float = 15.0
    """Of training, each age network; those that look for hands and for points take twice as long."""
    threads: int = 2


@dataclass(frozen=True)
class Way:
    """An age network that is compared."""

    model: str
    how: How = "points"
    changes: dict[str, Any] = field(default_factory=dict)


WAYS = {name: Way(name) for name in (*MEMBERS, GIRLS)} | {
    WHOLE_FILM: Way(BOTH, how="film"),
    TOLD_SEX: Way(BOTH, changes={"inputs": ("sex",)}),
}


def drawn(seed: int, films: int) -> list[Row]:
    """Rows as shards have them, with the fold: masks and points of three quarters, as the job's phantoms have."""
    spec, rows = PhantomSpec(films=films, seed=seed), []
    for number in range(1, films + 1):
        plan = film_plan(spec, number)
        hand = film(spec, plan)
        rows.append(
            {
                "film_id": plan.film_id, "patient_id": f"child-{plan.child:03d}", "sex": plan.sex, "age_months": float(plan.age_months),
                "calendar_months": plan.calendar_months, "rows": hand.image.shape[0], "columns": hand.image.shape[1],
                "image": hand.image.tobytes(), "mask": hand.mask.tobytes() if plan.has_mask else None,
                "points": hand.points.ravel().tolist() if plan.has_points else None, "has_points": int(plan.has_points),
            }
        )  # fmt: skip
    about = pd.DataFrame([{name: row[name] for name in ("patient_id", "age_months", "sex")} for row in rows])
    fold_of = assign_folds(about["patient_id"].to_numpy(), strata(about), len(FOLDS), seed=0)
    return [row | {"fold": int(fold_of[row["patient_id"]])} for row in rows]


def trained(tasks: Sequence[tuple[Task, Sequence[Row]]], seconds: float) -> tuple[list[torch.nn.Module], int]:
    """Networks and how many steps each has taken: one step each in turn, a warm-up and a cosine over the time that there is.

    What is compared has then taken as many steps, whatever else the machine was busy with.

    Args:
        tasks: and the rows that each learns from.
        seconds: for all of them.
    """
    if not all(rows for _, rows in tasks):
        sys.exit(
            "no film is left to learn from: the networks before had too few --seconds, or there are too few --films"
        )
    trainers, orders = [], [list[int]() for _ in tasks]
    for task, _ in tasks:
        torch.manual_seed(task.seed)
        trainers.append(Trainer(task, task.network(), CPU))
        trainers[-1].train()
    start, step = time.perf_counter(), 0
    while (part := (time.perf_counter() - start) / seconds) < 1:
        rate = min(1.0, (part + 0.01) / WARM_UP) * 0.5 * (1 + np.cos(np.pi * part))
        for (task, rows), trainer, order in zip(tasks, trainers, orders, strict=True):
            for optimizer in trainer.optimizers.values():
                for group in optimizer.param_groups:
                    group["peak_lr"] = task.learning_rate * rate
            rng = np.random.default_rng((task.seed, step))
            while len(order) < task.batch_size:
                order += rng.permutation(len(rows)).tolist()
            chosen = [order.pop(0) for _ in range(task.batch_size)]
            batch = task.collate([task.train_example(rows[i], rng) for i in chosen])
            trainer.step(to_device(batch, CPU, task.host), 0, step, 1_000_000)
        step += 1
    return [trainer.scored.eval() for trainer in trainers], step


def without(rows: Iterable[Row], fold: int) -> list[Row]:
    return [row for row in rows if row["fold"] != fold]


def within(rows: Iterable[Row], fold: int) -> list[Row]:
    return [row for row in rows if row["fold"] == fold]


def by_unseen(task: Task, stage: Any, label: str, rows: list[Row], seconds: float) -> list[Row]:
    """The rows with what the network that has not seen their patient says of them.

    Args:
        stage: whose shards it makes. label: the column that it learns from.
        seconds: of training, each fold.
    """
    known = [row for row in rows if row[label] is not None]
    networks, steps = trained([(task, without(known, fold)) for fold in FOLDS], seconds * len(FOLDS))
    found: dict[str, Row] = {}
    for fold, network in zip(FOLDS, networks, strict=True):
        batches = (task.collate([task.example(row)]) for row in within(rows, fold))
        outputs = evaluate(task, network, batches, CPU, outputs=partial(stage.outputs, task))
        found |= {row["film_id"]: row for row in stage.pack(outputs).to_pylist()}
    print(f"  {label}: {steps} steps a network", flush=True)
    return [row | found[row["film_id"]] for row in rows]


def made(rows_of: Callable[[Row], list[Row]], rows: Sequence[Row]) -> list[Row]:
    """What a stage without a network makes of the rows that it does not refuse."""
    out = []
    for row in rows:
        try:
            out += [one | {"fold": row["fold"]} for one in rows_of(row)]
        except ValueError:
            continue
    return out


def regions(seed: int, options: Options) -> dict[tuple[str, How], list[Row]]:
    """Region and how it was registered → its rows; the same films everywhere: those that registration has not refused."""
    recipe = phantom()
    rows = drawn(seed, options.films)
    rows = by_unseen(replace(recipe.segmentation, seed=seed), Masks(), "mask", rows, 2 * options.seconds)
    overlap = np.array([row["iou"] for row in rows], dtype=float)
    hands = made(Hands().rows, rows)
    hands = by_unseen(replace(recipe.keypoints, seed=seed), Points(), "points", hands, 2 * options.seconds)
    error = np.array([row["error_px"] for row in hands], dtype=float)
    found: dict[tuple[str, How], list[Row]] = {}
    for way in WAYS.values():
        task = model_task(AGES, way.model)
        if (task.region, way.how) not in found:
            found[task.region, way.how] = made(Region(task.region, task.region_scale, way.how).rows, hands)
    there = {row["film_id"] for row in found["A", "points"]}
    print(
        f"seed {seed}: {len(rows)} films; masks IoU {np.nanmean(overlap):.3f}, points off by {np.nanmean(error):.1f} px of "
        f"{rows[0]['rows']}, out of fold; refused: {len(rows) - len(hands)} without a hand, {len(hands) - len(there)} by registration",
        flush=True,
    )
    return {key: [row for row in own if row["film_id"] in there] for key, own in found.items()}


def ages_of(seed: int, options: Options) -> tuple[pd.DataFrame, dict[str, list[int]]]:
    """A row a film, with the months that each way reads out of fold; and how many films each of its networks learned from."""
    rows = regions(seed, options)
    tasks = {name: replace(model_task(AGES, way.model), seed=seed, **way.changes) for name, way in WAYS.items()}
    tables: dict[str, list[pd.DataFrame]] = {name: [] for name in WAYS}
    learned: dict[str, list[int]] = {name: [] for name in WAYS}
    for fold in FOLDS:
        own = {}
        for name, task in tasks.items():
            every = rows[task.region, WAYS[name].how]
            own[name] = [row for row, reads in zip(every, task.reads(pd.DataFrame(every)), strict=True) if reads]
            learned[name].append(len(without(own[name], fold)))
        works = [(tasks[name], without(own[name], fold)) for name in WAYS]
        networks, steps = trained(works, options.seconds * len(works))
        print(f"  ages, fold {fold}: {steps} steps", flush=True)
        for name, network in zip(WAYS, networks, strict=True):
            tables[name].append(answers(tasks[name], network, within(own[name], fold)).assign(fold=fold))
    table = joined_ages({name: pd.concat(own, ignore_index=True) for name, own in tables.items()})
    return table, learned


def with_ensemble(table: pd.DataFrame) -> pd.DataFrame:
    """And the ensemble, its members' mean, a constant, and the member that is best by sex on these films themselves.

    The ensemble's weights are nested: of five parts of the children of a fold, each is answered by the other four's. So weights
    are of the networks that they weigh; with two folds, those of the other fold (``CARRIED``) rest on one other training.
    """
    read = table[[*ABOUT, *MEMBERS]]
    by_fold = [fit(own, correct=False).answers for _, own in read.groupby("fold")]
    found = fit(read, correct=False).answers
    table = table.assign(
        **{
            ENSEMBLE: pd.concat(by_fold)["ensemble"],
            CARRIED: found["ensemble"],
            MEAN: found["mean"],
            CONSTANT: found["constant"],
        },
        **{BEST: np.nan},
    )
    for sex, own in table.groupby("sex"):
        best = best_member(own, MEMBERS)
        assert best is not None
        table.loc[own.index, BEST] = own[best]
        print(f"  best member, {sex}: {best}", flush=True)
    return table


def against(table: pd.DataFrame, first: str, second: str) -> dict[str, Figure]:
    """Mean absolute errors of the two, and "difference": of the first less that of the second, paired by film; months."""
    read = table[table[[first, second]].notna().all(axis=1)]
    one, other = ((read[name] - read["age_months"]).abs().to_numpy(dtype=np.float64) for name in (first, second))
    return means({first: one, second: other, "difference": one - other}, read["patient_id"].to_numpy())


def said(table: pd.DataFrame, first: str, second: str, note: str = "") -> bool:
    """Prints what ``against`` finds. Returns whether the first errs less, and the interval excludes 0."""
    found = against(table, first, second)
    difference = found["difference"]
    value, interval = texts(difference, 2, signed=True)
    sure = "95% " if difference["low"] is not None else ""
    by_seed = [against(own, first, second)["difference"] for _, own in table.groupby("seed")]
    seeds = ", ".join(texts(one, 2, signed=True)[0] for one in by_seed)
    print(f"\n{first} against {second}{note}; n = {difference['films']} films of {difference['patients']} children")
    for name in (first, second):
        print(f"    {f'MAE, {name}':<42}{line(found[name], 2)}")
    print(f"    {'difference':<42}{value}  ({sure}{interval}); of each seed {seeds}")
    return difference["high"] is not None and difference["high"] < 0


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    start, tables, learned = time.perf_counter(), [], dict[str, list[int]]()
    for seed in options.seeds:
        table, numbers = ages_of(seed, options)
        table = with_ensemble(table)
        tables.append(table.assign(seed=seed, patient_id=f"{seed} " + table["patient_id"]))
        learned = {name: learned.get(name, []) + own for name, own in numbers.items()}
        off = {
            name: (table[name] - table["age_months"]).abs().mean()
            for name in (*WAYS, ENSEMBLE, CARRIED, MEAN, BEST, CONSTANT)
        }
        print("  MAE, months: " + "; ".join(f"{name} {value:.1f}" for name, value in off.items()), flush=True)
    every = pd.concat(tables, ignore_index=True)
    print(
        f"\n{ONLY}\n{len(every)} films of {every['patient_id'].nunique()} children, {len(options.seeds)} seeds, {len(FOLDS)} folds, out of "
        f"fold at every stage: hands by a network's masks, points by a network; {time.perf_counter() - start:.0f} s, {options.threads} "
        "threads. MAE in months, 95% over children. The best member was chosen on these films, which favours it."
    )
    claims = {
        "registration": said(every, BOTH, WHOLE_FILM),
        "ensemble": said(every, ENSEMBLE, BEST),
        "sex": said(every, TOLD_SEX, BOTH),
    }
    said(every, ENSEMBLE, MEAN)
    said(every, CARRIED, BEST)
    films = {name: f"{np.mean(learned[name]):.0f}" for name in (GIRLS, BOTH)}
    said(every, GIRLS, BOTH, f", on girls: learned from {films[GIRLS]} girls and from {films[BOTH]} films a fold")
    said(every, BOTH, CONSTANT)
    words = ", ".join(f"{name} {'holds' if holds else 'is not shown'}" for name, holds in claims.items())
    print(f"\nclaims: {words} (less error, and the interval excludes 0)\n{ONLY}")


if __name__ == "__main__":
    main(tyro.cli(Options))
