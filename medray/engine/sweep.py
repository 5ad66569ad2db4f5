"""Cross-validation: the same task once a fold, each trained without the patients that it then predicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from medray.engine.cluster import Resources
from medray.engine.options import Options
from medray.engine.prepare import Prepared
from medray.engine.run import Run
from medray.shards.folds import assign_folds
from medray.shards.store import Store
from medray.task import Task

INNER_FOLDS = 10


def cross_validation(
    task: Task,
    prepared: Prepared,
    labels: Sequence[str],
    folds: Sequence[int],
    out: Store,
    resources: Resources,
    options: Options,
) -> list[Run]:
    """One run a fold. Rows without any label are predicted but not learned from.

    Raises:
        ValueError: a fold that does not exist, or a fold whose other folds hold no labelled row.
    """
    index = prepared.index
    labelled = index[list(labels)].notna().any(axis=1).to_numpy()
    fold_of_row = index["fold"].to_numpy()
    runs = []
    for fold in folds:
        if not (fold_of_row == fold).any():
            raise ValueError(f"--train-folds {fold}: there is no such fold")
        held_out = np.flatnonzero(fold_of_row == fold)
        train = np.flatnonzero((fold_of_row != fold) & labelled)
        inner = np.zeros(0, dtype=np.int64)
        if options.monitor == "inner":
            inner = _inner_rows(index.iloc[train], labels, task.seed)
            train, inner = np.delete(train, inner), train[inner]
        name = f"{task.name}/fold{fold}"
        runs.append(
            Run(
                name=name,
                store=out.sub("runs", *name.split("/")),
                task=replace(task, seed=task.seed + fold),
                train=prepared.rows.take(train),
                held_out=prepared.rows.take(held_out),
                held_out_ids=tuple(index["slice_id"].iloc[held_out]),
                inner=prepared.rows.take(inner) if len(inner) else None,
                monitor=options.monitor,
                monitor_every=options.monitor_every,
                resources=resources,
                deterministic=not resources.gpu if options.deterministic is None else options.deterministic,
                checkpoint_minutes=options.checkpoint_minutes,
            )
        )
    return runs


def _inner_rows(index: pd.DataFrame, labels: Sequence[str], seed: int) -> np.ndarray:
    """Places of the rows of a tenth of the patients (a half of very few): an inner split to choose a checkpoint on."""
    patients = index["patient_id"].to_numpy()
    folds = min(INNER_FOLDS, len(np.unique(patients)))
    by_patient = assign_folds(patients, index[list(labels)].to_numpy(dtype=np.float64), folds, seed)
    return np.flatnonzero(by_patient.loc[patients].to_numpy() == 0)


def out_of_fold(runs: Sequence[Run]) -> pd.DataFrame:
    """The held-out predictions of finished runs as one table with the fold; every id once."""
    tables = [run.predictions().assign(fold=int(run.name.rsplit("fold", 1)[1])) for run in runs]
    table = pd.concat(tables, ignore_index=True)
    repeated = table[runs[0].task.id_column].duplicated()
    assert not repeated.any(), "a row was held out of two folds"
    return table
