"""What the benchmarks of bone age share: a plain loop round a task's own examples, and the 40 real films with their points."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from medray.engine.train.device import to_device
from medray.engine.train.outputs import evaluate
from medray.engine.train.step import Trainer
from medray.imaging.radiograph import read_film
from medray.systems.boneage.films.labels import read_labels
from medray.tasks.task import Task

CPU = torch.device("cpu")
POINTS_CSV = Path(__file__).parents[1] / "systems" / "boneage" / "real_points.csv"
Row = dict[str, Any]


def trained(
    task: Task, rows: Sequence[Row], seconds: float, fresh: Callable[[Row, np.random.Generator], Row] | None = None
) -> tuple[torch.nn.Module, int]:
    """The network after so many seconds with a cosine over them, and how many steps it has taken.

    Args:
        fresh: makes another row of each for each use, such as the same hand in another pose.
    """
    torch.manual_seed(task.seed)
    trainer = Trainer(task, task.network(), CPU)
    start, step, order = time.perf_counter(), 0, list[int]()
    peak = task.learning_rate
    trainer.train()
    while (part := (time.perf_counter() - start) / seconds) < 1:
        for optimizer in trainer.optimizers.values():
            for group in optimizer.param_groups:
                group["peak_lr"] = peak * 0.5 * (1 + np.cos(np.pi * part))
        rng = np.random.default_rng((task.seed, step))
        while len(order) < task.batch_size:
            order += rng.permutation(len(rows)).tolist()
        chosen, order = order[: task.batch_size], order[task.batch_size :]
        own = [rows[i] if fresh is None else fresh(rows[i], rng) for i in chosen]
        batch = task.collate([task.train_example(row, rng) for row in own])
        trainer.step(to_device(batch, CPU, task.host), 0, step, 1_000_000)
        step += 1
    return trainer.scored.eval(), step


def answers(task: Task, network: torch.nn.Module, rows: Sequence[Row]) -> pd.DataFrame:
    """The task's outputs for these rows."""
    size = task.evaluation_batch
    batches = [task.collate([task.example(row) for row in rows[i : i + size]]) for i in range(0, len(rows), size)]
    return evaluate(task, network, batches, CPU)


def real_films(data: Path) -> list[Row]:
    """The 40 films as rows of shards have them, and "marked": (3, 2) points by eye, NaN where the film does not show one."""
    labels = read_labels(str(data / "boneage-training-dataset.csv")).table
    marked = pd.read_csv(POINTS_CSV, dtype={"film": str}).set_index("film")
    names = [f"{point}_{axis}" for point in ("tip", "thumb", "capitate") for axis in "xy"]
    rows = []
    for path in sorted((data / "images").glob("*.png")):
        image = read_film(path.read_bytes()).grey
        label = labels.loc[path.stem]
        rows.append(
            {"film_id": path.stem, "patient_id": path.stem, "image": image.tobytes(), "rows": image.shape[0]}
            | {"columns": image.shape[1], "age_months": float(label["age_months"]), "sex": label["sex"]}
            | {"calendar_months": None, "mask": None, "points": None, "grey": image}
            | {"marked": marked.loc[path.stem, names].to_numpy(dtype=np.float64).reshape(3, 2)}
        )
    return rows
