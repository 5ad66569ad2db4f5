"""Cross-validation: the same task once a fold, each trained without the patients that it then predicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from medray.engine.data.samples import Rows
from medray.engine.job.options import Options
from medray.engine.nodes.cluster import Resources
from medray.engine.train.checkpoint import write_initial
from medray.engine.train.run import Run
from medray.shards.folds import assign_folds
from medray.shards.store import Store
from medray.tasks.task import Task

INNER_FOLDS = 10


def cross_validation(
    name: str,
    task: Task,
    rows: Rows,
    index: pd.DataFrame,
    labels: Sequence[str],
    folds: Sequence[int],
    out: Store,
    resources: Resources,
    options: Options,
) -> list[Run]:
    """One run a fold, called ``<name>/fold<k>``, below ``runs`` in ``out``; see ``fold_run``."""
    initial = write_initial(task, out.sub("runs", name))
    return [fold_run(name, k, task, rows, index, labels, out, resources, options, initial) for k in folds]


def fold_run(
    name: str,
    fold: int,
    task: Task,
    rows: Rows,
    index: pd.DataFrame,
    labels: Sequence[str],
    out: Store,
    resources: Resources,
    options: Options,
    initial: Store | None = None,
) -> Run:
    """The run that holds out ``fold``. Rows without any label are predicted but not learned from.

    Args:
        index: one row for each of ``rows``: patient_id, fold, the labels (NaN where unknown) and the task's id column,
            which may hold a list of ids where one row gives several outputs. "inner", where there is one, says which
            rows of the other folds are not learned from.
    Raises:
        ValueError: a fold that does not exist, or a fold whose other folds hold no labelled row.
    """
    labelled = index[list(labels)].notna().any(axis=1).to_numpy()
    fold_of_row = index["fold"].to_numpy()
    if not (fold_of_row == fold).any():
        raise ValueError(f"--train-folds {fold}: there is no such fold")
    held_out = np.flatnonzero(fold_of_row == fold)
    train = np.flatnonzero((fold_of_row != fold) & labelled)
    inner = np.zeros(0, dtype=np.int64)
    given = index["inner"].to_numpy()[train] if "inner" in index else np.zeros(len(train), dtype=bool)
    if given.any():  # of given lists: the validation list
        train, inner = train[~given], train[given]
    elif options.monitor == "inner" or task.keeps_inner(index.iloc[train]):
        inner = _inner_rows(index.iloc[train], labels, task.seed)
        train, inner = np.delete(train, inner), train[inner]
    learned, share = _copies(task.times_per_epoch(index.iloc[train]), task.examples_per_row)
    return Run(
        name=f"{name}/fold{fold}",
        store=out.sub("runs", name, f"fold{fold}"),
        task=replace(task, seed=task.seed + fold),
        train=replace(rows.take(train[learned]), together=task.examples_per_row, share=share),
        held_out=rows.take(held_out),
        held_out_ids=tuple(index[task.id_column].iloc[held_out].explode()),
        inner=rows.take(inner) if len(inner) else None,
        monitor=options.monitor,
        monitor_every=options.monitor_every,
        resources=resources,
        initial=initial,
        deterministic=not resources.gpu if options.deterministic is None else options.deterministic,
        checkpoint_minutes=options.checkpoint_minutes,
        layout=options.layout,
        compiled=options.compile,
    )


def _copies(times: np.ndarray, together: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows that are seen so many times an epoch, each time for ``together`` examples: the places of their copies, and the
    part of the epochs that sees each copy; None where every epoch sees all."""
    copies = np.ceil(times).astype(np.int64)
    places = np.repeat(np.arange(len(times)), copies * together)
    return places, None if (copies == times).all() else (times / copies)[places]


def cross_validation_on_features(
    name: str,
    task: Task,
    rows: Rows,
    index: pd.DataFrame,
    within_fold: bool,
    labels: Sequence[str],
    folds: Sequence[int],
    out: Store,
    resources: Resources,
    options: Options,
) -> list[Run]:
    """As ``cross_validation``, on stacks that several networks have embedded.

    Within fold, the run of fold k sees every stack as network k embeds it: one space of features, and no label of a
    held-out patient has reached it. Otherwise each stack comes as the network that has not trained on it embeds it:
    several spaces, and those networks have learned from the patients that the run is scored on.

    Args:
        index: with "embedded_by", the fold of the network; each stack once for each network.
    """
    runs = []
    for fold in folds:
        wanted = fold if within_fold else index["fold"].to_numpy()
        keep = np.flatnonzero(index["embedded_by"].to_numpy() == wanted)
        own = _of_own_files(rows.take(keep))
        runs.append(fold_run(name, fold, task, own, index.iloc[keep], labels, out, resources, options))
    return runs


def _of_own_files(rows: Rows) -> Rows:
    """Without files that hold none of the rows: the order of samples depends on how many there are, and must not on
    which other folds are trained."""
    used, file = np.unique(rows.file, return_inverse=True)
    return replace(rows, files=tuple(rows.files[i] for i in used), file=file.astype(np.int32))


def _inner_rows(index: pd.DataFrame, labels: Sequence[str], seed: int) -> np.ndarray:
    """Places of the rows of a tenth of the patients (a half of very few): choose and recalibrate on them."""
    # numbered as they appear: identifiers are hashes of a key, and results must not depend on it
    patients = pd.factorize(index["patient_id"])[0]
    folds = min(INNER_FOLDS, patients.max() + 1)
    by_patient = assign_folds(patients, index[list(labels)].to_numpy(dtype=np.float64), folds, seed)
    return np.flatnonzero(by_patient.loc[patients].to_numpy() == 0)


def inner_predictions(runs: Sequence[Run]) -> pd.DataFrame | None:
    """The predictions of the runs' inner rows as one table with the run's fold; None where a run has none."""
    found = [(run.fold, run.inner_predictions()) for run in runs]
    tables = [table.assign(fold=fold) for fold, table in found if table is not None]
    return pd.concat(tables, ignore_index=True) if len(tables) == len(runs) else None


def out_of_fold(runs: Sequence[Run]) -> pd.DataFrame:
    """The held-out predictions of finished runs as one table with the fold; every id once."""
    table = pd.concat([run.predictions().assign(fold=run.fold) for run in runs], ignore_index=True)
    repeated = table[runs[0].task.id_column].duplicated()
    assert not repeated.any(), "a row was held out of two folds"
    return table
