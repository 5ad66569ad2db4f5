"""The plan of a job, printed before anything is spent, and what was spent: hours on GPUs from the epochs' own clocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from medray.engine.nodes.cluster import Resources
from medray.engine.train.run import Run
from medray.shards.folders import DONE, features_store, fold_folder, run_store, shards_store
from medray.shards.store import File, Store
from medray.tasks.task import Task


@dataclass(frozen=True)
class Training:
    """A stage of cross-validated runs; one without tasks is left out, and keeps its number."""

    name: str
    tasks: Mapping[str, Task]
    """Folder below runs/ → its task."""
    over: str = ""
    """What an epoch of a small network goes over, such as "all stacks"; images where not given."""
    images: int | None = None
    """That a run learns from in an epoch, where they are not the files."""
    folds: Sequence[int] | None = None
    """Those that are trained, where they are not those of --train-folds."""

    def unmeasured(self, at: Plan) -> bool:
        """Whether there is work left on GPUs of which no epoch says how long it takes."""
        folds = at.folds if self.folds is None else self.folds
        stores = [run_store(at.out, model, k) for model in self.tasks for k in folds]
        return (
            at.resources.gpu
            and not self.over
            and any(not store.exists(DONE) for store in stores)
            and not any(store.read_json("history.json", []) for store in stores)
        )

    def rows(self, at: Plan) -> list[tuple[str, str]]:
        rows = []
        folds = at.folds if self.folds is None else self.folds
        for model, task in self.tasks.items():
            if self.over:
                rest = sum(not run_store(at.out, model, k).exists(DONE) for k in folds)
                work = f"{rest} runs × {task.epochs} epochs over {self.over}"
                done = f"{len(folds) - rest} of {len(folds)} runs"
            else:
                work, done = _training(
                    at.out, model, task, folds, self.images or at.images, at.resources, at.price_per_gpu_hour
                )
            rows.append((f"{model}: {work}", done))
        if self.tasks and not self.over:
            rows.append(("\n".join(filter(None, [str(at.resources), at.resources.why])), ""))
        return rows


@dataclass(frozen=True)
class Embedding:
    """A stage in which every image goes through the network of every fold."""

    name: str
    features: Mapping[str, int]
    """Folder below features/ → number of features, kept in fp16."""
    views: int = 1
    """Of each image."""

    def rows(self, at: Plan) -> list[tuple[str, str]]:
        images = len(at.files)
        passes = len(self.features) * len(at.folds) * self.views
        stored = sum(self.features.values()) * len(at.folds) * images * 2
        work = f"{len(self.features)} backbones × {len(at.folds)} folds × {self.views} views × {images:,} images"
        work += f" = {passes * images:,} images\nfeatures in fp16: {_bytes(stored)}"
        made = sum(
            len(features_store(at.out, n, fold_folder(k)).names(".parquet")) for n in self.features for k in at.folds
        )
        return [(work, f"{made} files" if made else "nothing")]


@dataclass(frozen=True)
class Outcome:
    """What a stage after the training leaves; what of it can be kept is found, the rest is made anew by every start."""

    name: str
    what: str
    features: Sequence[str] = ()
    """Folders below features/ whose files are kept."""

    def rows(self, at: Plan) -> list[tuple[str, str]]:
        if not self.features:
            return [(self.what, "made anew")]
        below = [store for name in self.features for store in _with_folders(features_store(at.out, name))]
        made = sum(len(store.names(".parquet")) for store in below)
        return [(self.what, f"{made} files" if made else "nothing")]


def _with_folders(store: Store) -> list[Store]:
    """A folder, and those in it: what each fold has anew."""
    return [store, *(store.sub(name) for name in store.folders())]


Stage = Training | Embedding | Outcome


def stages_until(last: str, stages: Sequence[Stage]) -> list[Stage]:
    """The stages of a job that ends after the one called ``last``; all of them where it is "" or the last one's name."""
    if last == "shards":  # before all of these
        return []
    names = [stage.name for stage in stages]
    assert not last or last in names, f"--until {last}: the plan has {', '.join(names)}"
    return [*stages[: len(names) - names[::-1].index(last)]] if last else [*stages]


@dataclass(frozen=True)
class Plan:
    """What stages need to know to say what is left of them."""

    out: Store
    files: Sequence[File]
    shards: Store
    folds: Sequence[int]
    resources: Resources
    images: int  # that a run learns from, at most
    price_per_gpu_hour: float | None = None

    def show(self, stages: Sequence[Stage]) -> None:
        """Print the stages, what is already done, runs × epochs × images, resources."""
        table = Table("stage", "work", "already there", title=f"Plan → {self.out.uri}", title_justify="left")
        there = self.shards.names(".parquet")
        own = self.shards.uri.rsplit("/", 1)[-1]
        others = [folder for folder in shards_store(self.out).folders() if folder != own]
        size = sum(file.size_bytes for file in self.files)
        found = f"{len(there)} shards" if there else "nothing"
        table.add_row("1 shards", f"{len(self.files):,} files, {_bytes(size)}\n{own}", found)
        for number, stage in enumerate(stages, start=2):
            for i, (work, done) in enumerate(stage.rows(self)):
                table.add_row("" if i else f"{number} {stage.name}", work, done)
        console = Console(highlight=False, soft_wrap=True)
        console.print(table)
        if any(isinstance(stage, Training) and stage.unmeasured(self) for stage in stages):
            console.print("GPU-hours: measured with the first epochs, and in the plan of a restart after them")
        if others and not there:
            console.print(f"The shards that are there do not fit: this run shards again, into {self.shards.uri}")


def gpu_hours(runs: Sequence[Run]) -> float:
    """Of finished epochs, all workers together; what a kill threw away and the start-up are not in it."""
    seconds = sum(
        entry["system"]["epoch_seconds"] * entry.get("workers", [max(1, run.resources.workers)])[-1]
        for run in runs
        for entry in run.history()
    )
    return float(seconds) / 3600


def spent(stages: Mapping[str, Sequence[Run]], price_per_gpu_hour: float | None) -> str:
    """One line: hours by stage, and money where there is a price. On CPUs hours are those of the workers."""
    runs = [run for of_stage in stages.values() for run in of_stage]
    kind = "GPU-hours" if any(run.resources.gpu for run in runs) else "worker-hours on CPUs"
    hours = {name: gpu_hours(of_stage) for name, of_stage in stages.items() if of_stage}
    text = f"training took {_number(sum(hours.values()))} {kind}"
    if len(hours) > 1:
        text += f" ({', '.join(f'{name} {_number(value)}' for name, value in hours.items())})"
    if price_per_gpu_hour is not None and "GPU" in kind:
        text += f", {_number(sum(hours.values()) * price_per_gpu_hour)} at {price_per_gpu_hour:g} an hour"
    return text


def planned(images: int, images_per_s: float, resources: Resources, price_per_gpu_hour: float | None) -> str:
    """One line for what is still to be trained, at a rate that was measured.

    Args:
        images: of all epochs that are left, over all runs.
        images_per_s: of one run, all its workers together.
    """
    hours = images / images_per_s / 3600
    at_once = max(1, resources.side_by_side)
    text = f"at {images_per_s:,.0f} images/s a run, as measured here: {_number(hours / at_once)} h"
    if resources.gpu:
        of_gpus = hours * max(1, resources.workers)
        text += f", {_number(of_gpus)} GPU-hours"
        if price_per_gpu_hour is not None:
            text += f", {_number(of_gpus * price_per_gpu_hour)} at {price_per_gpu_hour:g} an hour"
    return text


def _training(
    out: Store, name: str, task: Task, folds: Sequence[int], images: int, resources: Resources, price: float | None
) -> tuple[str, str]:
    stores = [run_store(out, name, k) for k in folds]
    done = sum(store.exists(DONE) for store in stores)
    epochs = [store.read_json("history.json", []) for store in stores]
    rest = len(folds) - done
    left = sum(task.epochs - len(of_run) for of_run in epochs) * images
    work = f"{rest} run{'s' * (rest != 1)} × {task.epochs} epochs × {images:,} images, {left:,} images left"
    rates = [entry["system"]["images_per_s"] for of_run in epochs for entry in of_run]
    if left and rates:
        work += f"\n{planned(left, sum(rates) / len(rates), resources, price)}"
    return work, f"{done} of {len(folds)} runs"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
