"""Cross-validation: the same task once a fold, each trained without the patients that it then predicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from medray.engine.data.samples import Shards
from medray.engine.job.options import Options
from medray.engine.nodes.cluster import Resources
from medray.engine.train.checkpoint import write_initial
from medray.engine.train.run import Run, Start
from medray.shards.digest import digest
from medray.shards.folders import run_store, runs_store
from medray.shards.folds import assign_folds
from medray.shards.store import Store
from medray.tasks.task import Task

INNER_FOLDS = 10
Strata = Callable[[pd.DataFrame], np.ndarray]


@dataclass(frozen=True)
class FromRuns:
    """Finished runs, one a fold, whose weights others start from: the run of a fold from that fold's."""

    runs: Sequence[Run]
    prefixes: Mapping[str, str]  # as ``Start.prefixes``

    def of(self, fold: int) -> Start:
        """Raises ValueError where no run holds out this fold, or it is not finished."""
        for run in self.runs:
            if run.fold == fold:
                if not run.finished:
                    raise ValueError(f"fold {fold}: starts from {run.name}, which is not finished")
                return Start(run.store, run.weights_digest(), self.prefixes)
        models = ", ".join(sorted({run.model for run in self.runs}))
        raise ValueError(f"fold {fold}: starts from {models}, of which no run holds out this fold; train all its folds")


@dataclass(frozen=True)
class CrossValidation:
    """What the runs of a job, or of a search, have in common."""

    out: Store  # runs lie in runs/ in it
    folds: tuple[int, ...]  # those that are trained
    options: Options
    resources: Resources
    strata: Strata  # of the system
    inner_patients: dict[int, frozenset[str]] = field(default_factory=dict)
    """Fold → inner patients, as its first run with some has drawn them: those of its later stages are the same."""

    def runs(
        self,
        model: str,
        task: Task,
        data: Shards | Callable[[int], Shards],
        starts: Sequence[FromRuns] = (),
    ) -> list[Run]:
        """One run a fold, in runs/<model>/fold<k>; see ``run``.

        Args:
            data: the same for all folds, or fold → its own, such as what that fold's network made of the films.
            starts: runs that must be finished; of weights that several of them have, the last one's count.
        """
        initial = write_initial(task, runs_store(self.out, model))
        return [
            self.run(
                model, fold, task, data(fold) if callable(data) else data, initial,
                tuple(start.of(fold) for start in starts),
            )
            for fold in self.folds
        ]  # fmt: skip

    def run(
        self,
        model: str,
        fold: int,
        task: Task,
        data: Shards,
        initial: Store | None = None,
        starts: tuple[Start, ...] = (),
    ) -> Run:
        """The run that holds out ``fold``. Rows of which the task has nothing to learn are predicted only.

        Args:
            data: its index has patient_id, fold, what the task's ``labelled`` looks at, and the task's id column, which
                may hold a list of ids where one row gives several outputs. "inner", where there is one, says which rows
                of the other folds are not learned from; "made_by", by which networks each row was derived.
        Raises:
            ValueError: a fold that does not exist, or whose rows are not among these.
        """
        options, rows, index = self.options, data.rows, data.index
        made_by = (digest(sorted(set(index["made_by"]))),) if "made_by" in index else ()
        labelled, fold_of_row = task.labelled(index), index["fold"].to_numpy()
        if not (fold_of_row == fold).any():
            raise ValueError(
                f"{model}: fold {fold} has no row that it could read: all were set aside before, or the fold is too "
                "small; use fewer --folds or another --split-seed, or train other folds (--train-folds)"
            )
        held_out = np.flatnonzero(fold_of_row == fold)
        train = np.flatnonzero((fold_of_row != fold) & labelled)
        inner = np.zeros(0, dtype=np.int64)
        given = index["inner"].to_numpy()[train] if "inner" in index else np.zeros(len(train), dtype=bool)
        if given.any():  # of given lists: the validation list
            train, inner = train[~given], train[given]
        elif options.monitor == "inner" or task.keeps_inner(index.iloc[train]):
            inner = self._inner(fold, index.iloc[train], task.seed)
            train, inner = np.delete(train, inner), train[inner]
        learned, share = _copies(task.times_per_epoch(index.iloc[train]), task.examples_per_row)
        return Run(
            model=model,
            fold=fold,
            store=run_store(self.out, model, fold),
            task=replace(task.learning_from(index.iloc[train]), seed=task.seed + fold),
            train=replace(rows.take(train[learned]), together=task.examples_per_row, share=share),
            held_out=rows.take(held_out),
            held_out_ids=tuple(index[task.id_column].iloc[held_out].explode()),
            inner=rows.take(inner) if len(inner) else None,
            monitor=options.monitor,
            monitor_every=options.monitor_every,
            resources=self.resources,
            initial=initial,
            starts=starts,
            origin=(*(start.digest for start in starts), *made_by),
            deterministic=not self.resources.gpu if options.deterministic is None else options.deterministic,
            checkpoint_minutes=options.checkpoint_minutes,
            layout=options.layout,
            compiled=options.compile,
        )

    def _inner(self, fold: int, index: pd.DataFrame, seed: int) -> np.ndarray:
        """Places of the inner rows. A stage whose features come from a network must not choose its epoch on patients whom that
        network has learned from."""
        if fold not in self.inner_patients:
            rows = _inner_rows(index, self.strata, seed)
            self.inner_patients[fold] = frozenset(index["patient_id"].iloc[rows])
        found = index["patient_id"].isin(self.inner_patients[fold]).to_numpy()
        # none of them has such rows, or all who have: a stage of other patients than the first
        return _inner_rows(index, self.strata, seed) if found.all() or not found.any() else np.flatnonzero(found)


def _copies(times: np.ndarray, together: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows that are seen so many times an epoch, each time for ``together`` examples: the places of their copies, and the
    part of the epochs that sees each copy; None where every epoch sees all."""
    copies = np.ceil(times).astype(np.int64)
    places = np.repeat(np.arange(len(times)), copies * together)
    return places, None if (copies == times).all() else (times / copies)[places]


def _inner_rows(index: pd.DataFrame, strata: Strata, seed: int) -> np.ndarray:
    """Places of the rows of a tenth of the patients (a half of very few): choose and recalibrate on them."""
    # numbered as they appear: identifiers are hashes of a key, and results must not depend on it
    patients = pd.factorize(index["group" if "group" in index else "patient_id"])[0]
    if len(patients) == 0 or patients.max() == 0:
        raise ValueError(
            "one patient is left to learn from, and none to choose on; take --monitor none, fewer --folds or more patients"
        )
    folds = min(INNER_FOLDS, patients.max() + 1)
    own = strata(index)
    part = assign_folds(patients, own, folds, seed).loc[patients].to_numpy()
    # the first part that holds as many kinds of rows as any: few patients of a class may all lie in other ones
    kinds = [len(np.unique(own[part == k])) for k in range(folds)]
    return np.flatnonzero(part == int(np.argmax(kinds)))


def inner_predictions(runs: Sequence[Run]) -> pd.DataFrame | None:
    """The predictions of the runs' inner rows as one table with the run's fold; None where a run has none."""
    found = inner_by_fold(runs)
    return (
        pd.concat([t.assign(fold=k) for k, t in found.items()], ignore_index=True) if len(found) == len(runs) else None
    )


def inner_by_fold(runs: Sequence[Run]) -> dict[int, pd.DataFrame]:
    """Fold → the predictions of its run's inner rows, of the runs that have some."""
    found = {run.fold: run.inner_predictions() for run in runs}
    return {fold: table for fold, table in found.items() if table is not None}


def out_of_fold(runs: Sequence[Run]) -> pd.DataFrame:
    """The held-out predictions of finished runs as one table with the fold; every id once."""
    table = pd.concat([run.predictions().assign(fold=run.fold) for run in runs], ignore_index=True)
    repeated = table[runs[0].task.id_column].duplicated()
    assert not repeated.any(), "a row was held out of two folds"
    return table
