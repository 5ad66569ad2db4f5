"""One trial of a search: a task trained rung by rung, each rung going on from the last one's checkpoint."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
import ray.tune

from medray.engine.data.samples import Shards
from medray.engine.job.mistakes import is_ours, write_traceback
from medray.engine.nodes.cluster import what_happened
from medray.engine.train.fit import start
from medray.engine.train.run import Run
from medray.engine.train.sweep import CrossValidation
from medray.engine.tuning.space import VARIANT, Dimension
from medray.shards.store import Store
from medray.tasks.system import Direction, Score
from medray.tasks.task import Task


@dataclass(frozen=True)
class Sweep:
    """What the trials of one search share."""

    bases: Mapping[str, Task]  # variant → its task
    initial: Mapping[str, Store | None]  # variant → where its initial weights are
    space: tuple[Dimension, ...]
    objectives: Mapping[str, Direction]  # figures of ``score``; the first one decides who is stopped early
    rungs: tuple[int, ...]  # epochs after which a trial reports; the last one is the schedule's end
    score: Score
    data: Shards
    validation: CrossValidation  # in the folder of the search, without monitoring: rows are predicted after each rung

    @property
    def store(self) -> Store:
        """Of the search; trials lie in trials/<name>/."""
        return self.validation.out

    @property
    def folds(self) -> tuple[int, ...]:
        return self.validation.folds

    def values(self, sampled: Mapping[str, Any]) -> dict[str, Any]:
        return {dimension.field: dimension.value(sampled[dimension.field]) for dimension in self.space}

    def task(self, values: Mapping[str, Any]) -> Task:
        return replace(self.bases[self.variant(values)], **{n: v for n, v in values.items() if n != VARIANT})

    def variant(self, values: Mapping[str, Any]) -> str:
        return str(values.get(VARIANT, next(iter(self.bases))))

    def runs(self, name: str, values: Mapping[str, Any], stop_after: int) -> list[Run]:
        """The trial's run of each fold."""
        task, initial = self.task(values), self.initial[self.variant(values)]
        runs = [self.validation.run(name, fold, task, self.data, initial) for fold in self.folds]
        return [replace(run, stop_after=stop_after) for run in runs]


def run_trial(sampled: dict[str, Any], sweep: Sweep) -> None:
    """Ray Tune's trainable. What the trial has done lies in its folder, so that a lost trial goes on from there.

    Between two reports the training runs in tasks of its own, and none of them is alive while Tune decides: a trial that
    is stopped there leaves no placement group behind (ray issue 54305).
    """
    values = sweep.values(sampled)
    name = ray.tune.get_context().get_trial_id()  # the same after a restart
    store = sweep.store.sub("trials", name)
    if not store.exists("trial.json"):
        store.write_json("trial.json", {"values": values, "began": time.time()})
    for epoch in sweep.rungs:
        done = store.read_json("rungs.json", [])
        scores = next((rung["scores"] for rung in done if rung["epoch"] == epoch), None)
        if scores is None:
            runs = sweep.runs(name, values, epoch)
            try:
                ray.get([start(run) for run in runs if not run.finished])
                found = sweep.score(runs[0].task, [(run.predictions(), run.inner_predictions()) for run in runs])
                scores = {name: float(value) for name, value in found.items() if math.isfinite(value)}
                for objective in sweep.objectives:
                    if objective not in scores:
                        raise ValueError(f"{objective} is undefined on the held-out rows of these folds")
            except (ray.exceptions.RayTaskError, ray.exceptions.OutOfMemoryError, ValueError) as error:
                # a loss that diverges, or a size that does not fit into memory, ends one trial only
                why = f"{write_traceback(error)} on {socket.gethostname()}" if is_ours(error) else what_happened(error)
                store.write_json("failed.json", {"epoch": epoch, "reason": why})
                return
            store.write_json("rungs.json", [*done, {"epoch": epoch, "scores": scores}])
        ray.tune.report({"epoch": epoch, **scores})


def read_trials(store: Store, rungs: Sequence[int]) -> list[dict[str, Any]]:
    """Every trial of a search in the order in which they began: name, values, rungs (epoch and scores), state.

    The state is "complete", "failed", or "stopped" for one that has not come to the last rung (which, while the
    search goes on, may still be running).
    """
    trials = []
    for name in store.sub("trials").folders():
        folder = store.sub("trials", name)
        about = folder.read_json("trial.json")
        if about is None:
            continue
        done, failed = folder.read_json("rungs.json", []), folder.read_json("failed.json")
        state = "complete" if done and done[-1]["epoch"] == rungs[-1] else "failed" if failed else "stopped"
        reason = "" if failed is None else f"epoch {failed['epoch']}: {failed['reason']}"
        trials.append({"name": name, **about, "rungs": done, "state": state, "reason": reason})
    return sorted(trials, key=lambda trial: trial["began"])
