"""The plan of a job, printed before anything is spent."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from medray.engine.cluster import Resources
from medray.shards.store import File, Store
from medray.task import Task


def show_plan(
    task: Task, files: Sequence[File], out: Store, folds: Sequence[int], of_folds: int, resources: Resources
) -> None:
    """Stages, what is already done, runs x epochs x images, resources. Images are at most what the files can give."""
    done = [fold for fold in folds if out.sub("runs", *task.name.split("/"), f"fold{fold}").exists("done.json")]
    images = len(files) * (of_folds - 1) // of_folds
    rest = len(folds) - len(done)
    shards = out.sub("shards").names(".parquet")
    size = sum(file.size_bytes for file in files)
    table = Table("stage", "work", "already there", title=f"Plan → {out.uri}", title_justify="left")
    table.add_row("1 shards", f"{len(files):,} files, {_bytes(size)}", f"{len(shards)} shards" if shards else "nothing")
    table.add_row(
        "2 training",
        f"{rest} runs × {task.epochs} epochs × {images:,} images = {rest * task.epochs * images:,} images\n{task.name}, {resources}",
        f"{len(done)} of {len(folds)} runs",
    )
    table.add_row("3 scores", "out-of-fold predictions, metrics.json, report.html", "made anew")
    Console(highlight=False, soft_wrap=True).print(table)


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
