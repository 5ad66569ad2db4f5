"""The plan of a job, printed before anything is spent, and what was spent: hours on GPUs from the epochs' own clocks."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from medray.engine.nodes.cluster import Resources
from medray.engine.train.run import Run
from medray.shards.store import File, Store
from medray.tasks.task import Task


def show_plan(
    out: Store,
    files: Sequence[File],
    shards: Store,
    models: Mapping[str, Task],
    folds: Sequence[int],
    of_folds: int,
    resources: Resources,
    features: Mapping[str, int] | None = None,
    views: int = 1,
    sequences: Mapping[str, Task] | None = None,
    price_per_gpu_hour: float | None = None,
    results: Sequence[str] = ("metrics.json", "report.html"),
    images: int | None = None,
) -> None:
    """Stages, what is already done, runs × epochs × images, resources. Images are at most what the files can give.

    Args:
        models: name of its folder below runs → its task.
        features: model that is embedded → its number of features.
        views: of each image, when it is embedded.
        sequences: the stages on the features.
        price_per_gpu_hour: of what is still to be trained, where its rate has been measured here.
        results: what the last stages leave; they are made anew.
        images: that a run learns from, where lists say so.
    """
    table = Table("stage", "work", "already there", title=f"Plan → {out.uri}", title_justify="left")
    number = itertools.count(1)
    there = shards.names(".parquet")
    others = [f for f in out.sub("shards").folders() if f != shards.uri.rsplit("/", 1)[-1]]
    size = sum(file.size_bytes for file in files)
    work = f"{len(files):,} files, {_bytes(size)}\n{shards.uri.rsplit('/', 1)[-1]}"
    table.add_row(f"{next(number)} shards", work, f"{len(there)} shards" if there else "nothing")
    images = len(files) * (of_folds - 1) // of_folds if images is None else images
    stage = f"{next(number)} {'backbones' if features else 'training'}"
    for i, (name, task) in enumerate(models.items()):
        work, done = _training(out, name, task, folds, images, resources, price_per_gpu_hour)
        table.add_row("" if i else stage, f"{name}: {work}", done)
    table.add_row("", "\n".join(filter(None, [str(resources), resources.why])), "")
    if features:
        passes = len(features) * len(folds) * views
        stored = sum(features.values()) * len(folds) * len(files) * 2  # fp16
        work = f"{len(features)} backbones × {len(folds)} folds × {views} views × {len(files):,} images"
        work += f" = {passes * len(files):,} images\nfeatures in fp16: {_bytes(stored)}"
        made = sum(len(out.sub("features", n, f"fold{k}").names(".parquet")) for n in features for k in folds)
        table.add_row(f"{next(number)} features", work, f"{made} files" if made else "nothing")
    stage = f"{next(number)} sequence" if sequences else ""
    for i, (name, task) in enumerate((sequences or {}).items()):
        rest = sum(not out.sub("runs", name, f"fold{k}").exists("done.json") for k in folds)
        work = f"{name}: {rest} runs × {task.epochs} epochs over all stacks"
        table.add_row("" if i else stage, work, f"{len(folds) - rest} of {len(folds)} runs")
    for name in results:
        table.add_row(f"{next(number)} report" if name == results[-1] else f"{next(number)} scores", name, "made anew")
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    if others and not there:
        console.print(f"The shards that are there do not fit: this run shards again, into {shards.uri}")


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
    stores = [out.sub("runs", name, f"fold{k}") for k in folds]
    done = sum(store.exists("done.json") for store in stores)
    epochs = [store.read_json("history.json", []) for store in stores]
    rest = len(folds) - done
    left = sum(task.epochs - len(of_run) for of_run in epochs) * images
    work = f"{rest} run{'s' * (rest != 1)} × {task.epochs} epochs × {images:,} images, {left:,} images left"
    rates = [entry["system"]["images_per_s"] for of_run in epochs for entry in of_run]
    if left and rates:
        work += f"\n{planned(left, sum(rates) / len(rates), resources, price)}"
    elif left and resources.gpu:
        work += "\nGPU-hours: measured with the first epoch, and in the plan of a restart after it"
    return work, f"{done} of {len(folds)} runs"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
