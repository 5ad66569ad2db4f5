"""Start training runs on the cluster, side by side, and see them through."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import ray
import ray.train
from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.torch.torch_trainer import TorchTrainer

from medray.engine.job.progress import say
from medray.engine.nodes.cluster import what_happened
from medray.engine.nodes.elastic import RESIZE_SECONDS, ElasticTrainer
from medray.engine.nodes.groups import NamedGroups, remove_groups
from medray.engine.train.glimpse import read_glimpse
from medray.engine.train.loop import train_worker
from medray.engine.train.run import ORIGIN, Run
from medray.engine.train.stop import StopRun
from medray.shards.folders import DONE

RETRIES = 3
_POLL_SECONDS = 2.0
_SAY_SECONDS = 30.0
_MOST_LINES = 500
"""Epochs that are said one by one; of more, only the end of each run is, and now and then where all of them are."""


def fit(runs: Iterable[Run], on_change: Callable[[Run], None] = lambda run: None) -> None:
    """Bring every run to its end. Finished ones are left alone, begun ones go on from their last checkpoint.

    Args:
        on_change: called on the driver whenever a run's history has grown, and once when it is finished.
    Raises:
        StopRun: a run cannot go on; the others are brought to their end first.
    """
    runs = list(runs)
    for run in runs:
        renew(run)
    waiting = [run for run in runs if not run.finished]
    for run in runs:
        _check(run)
        if run.finished:
            on_change(run)
    active: dict[ray.ObjectRef, _Watched] = {}
    failures: list[tuple[StopRun, Exception]] = []
    together = _Together(waiting) if _epochs_left(waiting) > _MOST_LINES else None
    while waiting or active:
        while waiting and len(active) < waiting[0].resources.side_by_side:
            run = waiting.pop(0)
            begun = run.history()
            if begun:
                say(f"  {run.name}  goes on after epoch {begun[-1]['epoch']}")
            elif together is None:
                say(f"  {run.name}  starts")
            active[start(run)] = _Watched(run, on_change, each_epoch=together is None)
        done, _ = ray.wait(list(active), timeout=_POLL_SECONDS)
        for watched in active.values():
            watched.look()
        if together is not None:
            together.look(len(active) - len(done))
        for reference in done:
            watched = active.pop(reference)
            error = _error(reference)
            watched.look()
            if together is not None and error is None:
                watched.say_end()
            if error is not None:
                line, name = what_happened(error), watched.run.name
                failures.append((StopRun(line if name in line else f"run {name}: {line}"), error))
    if failures:
        failure, cause = failures[0]
        raise failure from cause


def renew(run: Run) -> None:
    """Make a run anew that depended on other weights than now: its folder is emptied.

    A run of an older version did not note what it depended on, and is made anew too.
    """
    if run.store.read_json(ORIGIN, []) == list(run.origin):
        return
    if run.history():
        say(f"  {run.name}  is made anew: what it was made from has changed, or was not noted")
    run.store.clear()
    run.store.write_json(ORIGIN, list(run.origin))


def _check(run: Run) -> None:
    """What would fail after minutes of start-up, and would fail again at each retry, fails here."""
    run.resources.world_sizes(run.task.batch_size)
    if run.train.per_epoch < 2:
        raise ValueError(
            f"run {run.name}: {run.train.per_epoch} rows with a label to learn from, without its held-out patients; label more "
            "patients, or use fewer folds"
        )


def start(run: Run) -> ray.ObjectRef:
    """Begin a run on the cluster, or go on with it; the reference raises what ended it."""
    local = run.resources.workers == 0
    cpus = run.resources.cpus_per_worker if local else 0.01
    # an idle process of Ray's keeps its run's controller, and the controller its node: a node that is paid for is let go.
    # On a Ray of our own, processes are kept, since a fresh one imports for seconds; not those that have initialised a GPU,
    # since the next run may get another one
    on_gpu = local and run.resources.gpu
    train = _train_once if os.environ.get("RAY_ADDRESS") or on_gpu else _train
    return train.options(
        num_cpus=cpus,
        num_gpus=1 if on_gpu else 0,
        max_retries=RETRIES,
        name=run.name,
        scheduling_strategy="DEFAULT",  # out of the placement group of a trial that starts it: that one only waits
    ).remote(run)


def _fit(run: Run) -> None:
    """One run: Ray Train with its workers, or in local mode within this task. A lost task is started again."""
    if run.finished:
        return
    for name in ("ray.data", "ray.train"):  # again: Ray sets these levels when it configures a worker
        logging.getLogger(name).setLevel(logging.ERROR)
    if run.resources.workers == 0:
        scaling = ScalingConfig(num_workers=0, use_gpu=run.resources.gpu)
        TorchTrainer(train_worker, train_loop_config={"run": run}, scaling_config=scaling).fit()
        return
    name, smallest = run.name.replace("/", "-"), run.resources.min_workers
    storage = run.store.root + "/train"
    requester = f"{storage}/{name}"
    remove_groups(requester)
    trainer = ElasticTrainer(
        train_worker,
        train_loop_config={"run": run},
        scaling_config=ScalingConfig(
            num_workers=run.resources.workers if smallest is None else (smallest, run.resources.workers),
            use_gpu=run.resources.gpu,
            resources_per_worker={"CPU": run.resources.cpus_per_worker} | ({"GPU": 1} if run.resources.gpu else {}),
            placement_strategy=run.resources.placement(),
            elastic_resize_monitor_interval_s=RESIZE_SECONDS,
        ),
        run_config=RunConfig(
            name=name,
            storage_path=storage,
            storage_filesystem=run.store.filesystem,
            failure_config=FailureConfig(max_failures=RETRIES),  # a node that goes with notice is not counted
            callbacks=[NamedGroups(requester)],  # type: ignore[list-item]  # Ray takes others too
        ),
        sizes=run.resources.world_sizes(run.task.batch_size),
        requester=requester,
    )
    try:
        trainer.fit()
    finally:
        remove_groups(requester)


_train = ray.remote(_fit)
_train_once = ray.remote(max_calls=1)(_fit)


def _error(reference: ray.ObjectRef) -> Exception | None:
    try:
        ray.get(reference)
    except Exception as error:  # whatever happened in the workers
        return error
    return None


def after_changes(own: Sequence[str]) -> str:
    """What is true of a run whose number of workers has changed.

    Args:
        own: what in it depends on the number of workers, as in done.json.
    """
    trained = "trained by changing numbers of workers: the same batches, but"
    if own:
        return f"{trained} with {' and '.join(own)} its loss may differ from an undisturbed run's by more than 1e-3"
    return f"{trained} its loss equals an undisturbed run's within 1e-3 where every label is known, not to the bit"


def _epochs_left(runs: Iterable[Run]) -> int:
    return sum(0 if run.finished else run.task.epochs - len(run.history()) for run in runs)


class _Together:
    """Many runs: says now and then how many are finished, and how long the others will take."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs, self.epochs = list(runs), sum(run.task.epochs for run in runs)
        self.left = _epochs_left(runs)
        self.started = self.shown = time.monotonic()

    def look(self, active: int) -> None:
        now = time.monotonic()
        if now - self.shown < _SAY_SECONDS:
            return
        self.shown, left = now, _epochs_left(self.runs)
        finished = sum(run.finished for run in self.runs)
        rest = ""
        if left < self.left:
            rest = f", {timedelta(seconds=round((now - self.started) / (self.left - left) * left))} left"
        say(
            f"  {finished:,} of {len(self.runs):,} runs finished, {active} in progress; "
            f"epoch {self.epochs - left:,} of {self.epochs:,}{rest}"
        )


class _Watched:
    """A run in progress: says each epoch as it ends, and now and then where it is within one.

    Args:
        each_epoch: else nothing is said of the run before its end.
    """

    def __init__(self, run: Run, on_change: Callable[[Run], None], each_epoch: bool = True) -> None:
        self.run, self.on_change, self.each_epoch = run, on_change, each_epoch
        self.epochs = len(run.history())
        self.workers = [max(1, run.resources.workers)]  # of the last epoch that was shown
        self.started = self.shown = time.monotonic()
        self.first = self.epochs
        self.ended = False

    def look(self) -> None:
        history = self.run.history()
        finished = self.run.finished
        for entry in history[self.epochs :] if self.each_epoch else ():
            scores = _scores(entry)
            left = (
                (time.monotonic() - self.started)
                / (entry["epoch"] - self.first)
                * (self.run.task.epochs - entry["epoch"])
            )
            rate = entry["system"]["images_per_s"]
            by = f"  by {' then '.join(map(str, entry['workers']))} workers" if entry["workers"] != self.workers else ""
            self.workers = entry["workers"][-1:]
            say(
                f"  {self.run.name}  epoch {entry['epoch']}/{self.run.task.epochs}  {scores}  {rate:.0f} images/s{by}  {timedelta(seconds=round(left))} left"
            )
            self.shown = time.monotonic()
        if len(history) > self.epochs or (finished and not self.ended):
            changed = len({n for entry in history for n in entry.get("workers", [])}) > 1
            if finished and not self.ended and changed:
                own = self.run.results.read_json(DONE).get("depends_on_workers", [])
                say(f"  {self.run.name}  {after_changes(own)}")
            self.epochs, self.ended = len(history), finished
            self.on_change(self.run)
        if self.each_epoch and time.monotonic() - self.shown > _SAY_SECONDS:
            self.shown = time.monotonic()
            now = read_glimpse(self.run.store)
            if now and now["epoch"] >= len(history):
                say(
                    f"  {self.run.name}  epoch {now['epoch'] + 1}/{self.run.task.epochs}  step {now['step']:,}/{now['steps']:,}  "
                    f"loss {now['loss']:.4f}  {now['images_per_s']:.0f} images/s"
                )

    def say_end(self) -> None:
        """One line for a run whose epochs were not said."""
        history, seconds = self.run.history(), round(time.monotonic() - self.started)
        if history:
            say(f"  {self.run.name}  {len(history)} epochs  {_scores(history[-1])}  in {timedelta(seconds=seconds)}")


def _scores(entry: Mapping[str, Any]) -> str:
    """What an epoch's entry of the history has measured."""
    return "  ".join(f"{n} {v:.4f}" for n, v in entry["metrics"].items() if n != "learning_rate")
