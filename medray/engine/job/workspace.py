"""The workspace of a job: its --out and all that is known of it, from the first check to the last line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from typing import Any

import numpy as np

from medray.engine.data.prepare import Ingest
from medray.engine.data.samples import Shards
from medray.engine.derive.derive import DerivedShards, derive
from medray.engine.derive.inputs import Inputs, joined
from medray.engine.job.claim import claim_each
from medray.engine.job.dataset import Dataset
from medray.engine.job.options import Options
from medray.engine.job.plan import Outcome, Plan, Stage, Training, spent, stages_until
from medray.engine.job.progress import say, say_all, warn
from medray.engine.job.tracking import track_run
from medray.engine.nodes.cluster import Resources
from medray.engine.train.fit import fit, renew
from medray.engine.train.run import Run
from medray.engine.train.sweep import CrossValidation, FromRuns
from medray.report.about import About
from medray.report.card import CARD, card
from medray.report.page import IMAGES
from medray.shards.folders import DONE, KEPT, RUNS, features_store, fold_folder, runs_store, searched_folds
from medray.shards.manifest import sha256
from medray.shards.source import Source
from medray.shards.store import Store
from medray.tasks.derivation import ByFunction, ByNetwork
from medray.tasks.system import Phantoms, System
from medray.tasks.task import Task


class _Over(Exception):
    """The job was to end after the last stage."""


def _holds_results(folder: Store) -> bool:
    """Whether there is more below it than what its parts were claimed for."""
    return any(part.folders() or part.names(".parquet") for part in map(folder.sub, folder.folders()))


def _done(run: Run) -> str:
    """Below --out."""
    return f"{RUNS}/{run.name}/{DONE}"


def _large_tasks(plan: Sequence[Stage]) -> dict[str, Task]:
    """Model → task of the networks that are trained, without those that are small."""
    trained = [stage for stage in plan if isinstance(stage, Training) and not stage.over]
    return {model: task for stage in trained for model, task in stage.tasks.items()}


class Workspace(AbstractContextManager["Workspace"]):
    """What the stages of one job have in common. ``begin`` comes first of all that takes time, ``conclude`` last.

    Args:
        files, labels: as the command line names them; None, both of them, for ``phantoms``.
        until: the stage that the job ends after; it then leaves the ``with`` block, and says how to go on. One of the names
            that ``begin``'s plan has, or "shards".
        results: folders below --out to the one of results; --out itself where there are none.
        tracked_as: what the job is called among others with the same --out; the folders of results where not given.
    Raises:
        ValueError: files, labels or flags that cannot be used, or an --out that is another configuration's. Nothing was
            written that was not there.
    """

    def __init__(
        self,
        system: System,
        source: Source,
        options: Options,
        files: str | None,
        labels: str | None,
        until: str = "",
        phantoms: Phantoms | None = None,
        results: Sequence[str] = (),
        tracked_as: str | None = None,
    ) -> None:
        self.data = Dataset(system, source, options, files, labels, phantoms)
        self.lists = self.data.use_lists()
        self.options = self.data.options
        self.folds = self.options.fold_list()
        self.out = Store(self.options.out)
        self.data.claim()
        self.results = self.out.sub(*results)
        self.tracker = self.options.tracker("/".join(results) if tracked_as is None else tracked_as)
        self.done: dict[str, list[Run]] = {}  # stage → its runs
        self._until, self._named, self._stages = until, results[1:], list[str]()
        self._inner: dict[int, frozenset[str]] = {}  # fold → inner patients of all its runs
        self._said = list[str]()
        self._about: About | None = None

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> bool:
        over = kind is _Over
        if over:
            self._say_over()
        if kind is None or over:  # after an error nobody waits for a server
            self.tracker.close()
        return over

    def _say_over(self) -> None:
        """What is there after a job that was to end early, and how to go on."""
        there = [f"{name}/" for name in KEPT if _holds_results(self.out.sub(name))] + self.out.names(".parquet")
        say(f"\nEnded after {self._until}, as --until says. In {self.out.uri}: {', '.join(there)}.")
        if any(self.done.values()):
            say(f"  {self.cost}")
        say("  The same command without --until goes on from here.")

    # ------------------------------------------------------------ before anything is spent

    def claim_runs(self, configurations: Mapping[str, dict[str, Any]], variant: str | None = None) -> dict[str, str]:
        """Model → its folder below runs/, claimed for its configuration; see ``claim_each``."""
        return claim_each(runs_store(self.out), configurations, variant)

    def claim_features(
        self, configurations: Mapping[str, dict[str, Any]], variant: str | None = None
    ) -> dict[str, str]:
        """Model → its folder below features/, likewise."""
        return claim_each(features_store(self.out), configurations, variant)

    def begin(self, title: str, params: Mapping[str, Any], plan: Sequence[Stage], notices: Iterable[str] = ()) -> None:
        """Fetch weights, join the cluster, write phantoms where they are wanted, and show the plan as far as the job goes.

        Args:
            title: begins the job's name in MLflow. params: what its parameters are there.
            plan: the stages after the shards and before the report. notices: lines for the user, before the plan.
        Raises:
            ValueError: weights that cannot be had, or no cluster or room on it.
        """
        shown = stages_until(self._until, [*plan, Outcome("report", "report.html")])
        tasks = _large_tasks(plan)
        soon = _large_tasks(shown)
        for model, task in tasks.items():  # an error for weights that cannot be had, before anything is spent
            if model in soon or getattr(task, "weights", None):  # of a name that may be wrong
                self.data.write_initial(task, runs_store(self.out, model))
        self.data.find()
        together = max([len(stage.tasks) for stage in plan if isinstance(stage, Training) and not stage.over] or [1])
        self.resources = self.options.resources(len(self.folds) * together, tasks.values())
        for line in notices:
            say(line)
        files, of_folds = self.data.files, self.options.folds
        images = self.lists.get("train", len(files)) if self.lists else len(files) * (of_folds - 1) // of_folds
        Plan(
            self.out, files, self.data.shards, self.folds, self.resources, min(images, len(files)),
            self.options.price_per_gpu_hour,
        ).show(shown)  # fmt: skip
        name = " ".join([title, self.out.uri.rsplit("/", 1)[-1], *self._named])
        self.tracker.want("", name, params=dict(params))

    # ------------------------------------------------------------ stages

    def stage(self, name: str, title: str) -> None:
        """Say that a stage of the job begins; leave the ``with`` block where the job was to end before it.

        Args:
            name: one of those that ``until`` may be.
        """
        if self._until in self._stages and name != self._until:
            raise _Over
        self._stages.append(name)
        say(f"\n{len(self._stages)}. {title}")

    def say(self, lines: Iterable[str]) -> None:
        """Figures of a stage on the terminal, and of the last one on the model's card."""
        self._said = [*lines]
        say_all(line if line.startswith("!") else f"  {line}" for line in self._said)

    def shards(self) -> Ingest:
        """Shards and folds of the job's data; what is there is kept."""
        return self.data.prepare()

    def features(self, model: str) -> Store:
        """Where what finished networks make of the shards lies."""
        return features_store(self.out, model)

    def cross_validation(
        self,
        model: str,
        task: Task,
        data: Shards | Callable[[int], Shards],
        starts: Sequence[FromRuns] = (),
        small: bool = False,
        every_fold: bool = False,
    ) -> list[Run]:
        """One run a fold, not yet begun; see ``CrossValidation.runs``.

        Args:
            small: a network that gains nothing from several workers.
            every_fold: whatever --train-folds says: the next stage needs what became of every row.
        """
        resources: Resources = self.resources.for_small_runs() if small else self.resources
        wanted = self.options.every_fold if every_fold else self.folds
        folds = CrossValidation(self.out, wanted, self.options, resources, self.data.system.strata, self._inner)
        return folds.runs(model, task, data, starts)

    def fit(self, stage: str, runs: Iterable[Iterable[Run]], with_models: Iterable[str] | None = None) -> None:
        """Bring every run to its end, as many at once as there is room for; MLflow follows.

        Args:
            stage: under which its hours are counted.
            with_models: models whose networks MLflow gets; all where not given.
        """
        self.done[stage] = list(chain(*runs))
        wanted = None if with_models is None else set(with_models)
        manifest = self.data.manifest
        for run in self.done[stage]:
            renew(run)
            if not run.finished:
                if _done(run) in manifest.files and run.begun:
                    raise ValueError(
                        f"{run.store.uri}/{DONE}: this run had ended, and the file is gone; put it back, or delete the folder, and "
                        "the run is made anew"
                    )
                manifest.forget([_done(run)])
            elif run.store.exists(DONE) and _done(run) not in manifest.files:
                warn(f"{run.name} is finished, and manifest.json does not name it: it is taken as it is")

        def changed(run: Run) -> None:
            if run.store.exists(DONE):  # not of one that stops early, of which no weights are kept
                manifest.settle({_done(run): sha256(self.out, _done(run))})
            track_run(self.tracker, run, wanted is None or run.model in wanted)

        fit(self.done[stage], changed)

    def by_unseen(
        self, model: str, task: Task, data: Shards, derivation: ByNetwork, what: str
    ) -> tuple[DerivedShards, Inputs]:
        """Train a task in every fold, whatever --train-folds says, and send each row through the network that has not seen its
        patient: a stage that the next ones read.

        Args:
            what: names the result, and its folder below features/.
        Returns:
            What the networks made, and the rows of ``data`` joined with it; those that were set aside are left out.
        """
        runs = self.cross_validation(model, task, data, every_fold=True)
        self.fit(model, [runs], with_models=())  # a means, not an end: MLflow gets the curves
        made = derive(derivation, data.rows, self.features(what), runs, data.index["fold"].to_numpy(), what=what)
        own = derivation.id_column
        return made, joined((data.rows, data.index), made.index([own]), on=own, missing="leave out")[0]

    def each_fold_anew(
        self, runs: Sequence[Run], data: Ingest, by_network: ByNetwork, by_function: ByFunction, what: str
    ) -> tuple[DerivedShards, dict[int, Shards]]:
        """Rows that the next stage's run of a fold learns from, made by this stage's run of the same fold, and so without its
        held-out patients: pseudo-labels, and true ones joined with them.

        Args:
            by_network: what a fold's network makes of every row. by_function: rows of ``data`` joined with it → new rows.
            what: names the results, and their folders below features/.
        Returns:
            What the networks made, and fold → rows.
        """
        made = derive(by_network, data.rows, self.features(f"{what}-found"), runs, what=f"{what} found")
        rows, index = made.index([by_network.id_column])
        found = {}
        for run in runs:
            own = np.flatnonzero(index["network_fold"] == run.fold)
            inputs, _ = joined(
                (data.rows, data.index), (rows.take(own), index.iloc[own]), on=by_network.id_column, missing="leave out"
            )
            to = self.features(f"{what}-joined").sub(fold_folder(run.fold))
            new = derive(by_function, inputs, to, what=f"{what} joined, fold {run.fold}")
            columns = ["patient_id", by_network.id_column, *self.data.system.columns]
            found[run.fold] = new.shards(columns, data.fold_of_patient)
        return made, found

    # ------------------------------------------------------------ the end

    @property
    def cost(self) -> str:
        """One line: the hours that training took, and what they came to."""
        return spent(self.done, self.options.price_per_gpu_hour)

    @property
    def searched(self) -> dict[str, list[int]]:
        """Search in the same --out → the folds that it has chosen by: their figures flatter."""
        return searched_folds(self.out)

    def about(self, shards: Ingest, settings: Mapping[str, Any]) -> About:
        """What a report says of the data and of the runs of all stages; to ``settings`` it adds what training cost."""
        histories = {run.name: run.history() for run in chain(*self.done.values())}
        data = self.data
        self._about = About(
            folder=data.folder, inventory=shards.inventory, private=shards.private, index=shards.index, histories=histories,
            settings=dict(settings) | {"cost": self.cost}, phantom=data.of_phantoms, searched=self.searched,
        )  # fmt: skip
        return self._about

    def conclude(self, metrics: dict[str, float], pictures: dict[str, bytes]) -> None:
        """Scores and charts go to MLflow, and what shows images where they may; the terminal says where everything is."""
        self.data.manifest.keep_described(self.results)
        names = ["report.html", "metrics.json"]
        if self._about is not None:
            system = self.data.system
            text = card(system.title, system.purpose, self._about, self._said)
            self.results.write_bytes(CARD, text.encode())
            names.append(CARD)
        files = {name: self.results.read_bytes(name) for name in names}
        artifacts = pictures | files
        if not (self.options.track_pictures or self.options.public_ids or self.data.of_phantoms):
            artifacts = {n: data for n, data in artifacts.items() if n != "report.html" and not n.startswith(IMAGES)}
            say("  MLflow has the charts; pictures of patients and the report with them stay here (--track-pictures)")
        self.tracker.want("", "", metrics=metrics, artifacts=artifacts, finished=True)
        say(
            f"  {self.cost}\n  {self.results.uri}/report.html\n  uv run mlflow ui --backend-store-uri {self.tracker.uri}"
        )
