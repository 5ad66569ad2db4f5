"""MLflow from the driver, in a thread of its own: a dead server delays nothing, and gets its points when it is back.

The truth is in the runs' folders (history.json); MLflow is a mirror of it. The thread compares the two and logs what
is missing, so that a restarted job, a redone epoch and a lost connection all end in each epoch standing there once.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medray.engine.job.database import make_database
from medray.engine.job.model_logging import log_model_apart
from medray.engine.job.progress import warn
from medray.engine.train.run import Run
from medray.shards.digest import digest
from medray.shards.store import Store
from medray.tasks.task import Task

RETRY_SECONDS = 15.0
LONGEST_WAIT_SECONDS = 10.0
_KEY, _PARENT = "medray.key", "mlflow.parentRunId"


@dataclass
class _Wanted:
    """What MLflow should say of one run."""

    name: str
    parent: str | None
    params: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    artifacts: dict[str, bytes] = field(default_factory=dict)  # file name → content
    model: tuple[Store, Task] | None = None  # where model.pt is, and whose network it is
    finished: bool = False


class DeletedExperiment(Exception):
    """The experiment was deleted: its name can neither take runs nor be made again. The text is one line."""


class Tracker:
    """Runs are named by keys ("" is the job itself); a key means the same MLflow run whenever the job is started.

    Args:
        uri: of the MLflow server or database.
        experiment: its name.
        artifacts: where a new experiment keeps its artifacts; None leaves that to the server.
        identity: of the job; with a run's key it finds the run again.
    """

    def __init__(self, uri: str, experiment: str, artifacts: str | None, identity: str) -> None:
        self.uri, self.experiment, self.artifacts, self.identity = uri, experiment, artifacts, identity
        self._wanted: dict[str, _Wanted] = {}
        self._changed: set[str] = set()
        self._ids: dict[str, str] = {}
        self._lock, self._wake, self._closing = threading.Lock(), threading.Event(), threading.Event()
        self._gave_up, self._logging_model = threading.Event(), False
        self._failure: Exception | None = None  # of the last attempt
        self._last_answer = 0.0
        self._thread = threading.Thread(target=self._mirror, name="mlflow", daemon=True)
        self._thread.start()

    def want(self, key: str, name: str, parent: str | None = None, **changes: Any) -> None:
        """Say what MLflow should hold of a run; returns at once."""
        with self._lock:
            wanted = self._wanted.setdefault(key, _Wanted(name, parent))
            for attribute, value in changes.items():
                setattr(wanted, attribute, value)
            self._changed.add(key)
        self._wake.set()

    def close(self) -> bool:
        """Wait until everything is logged, but at most 10 seconds for a server that does not answer.

        A local database cannot go away, and logging a model takes its time: those are waited for.
        """
        self._closing.set()
        self._wake.set()
        closed = time.monotonic()
        while self._thread.is_alive():
            silent = time.monotonic() - max(closed, self._last_answer)
            if self.uri.startswith("http") and not self._logging_model and silent > LONGEST_WAIT_SECONDS:
                self._gave_up.set()
                break
            self._thread.join(0.1)
        if not self._changed:
            return True
        if self._failure is None or _unanswered(self._failure):
            warn(f"MLflow at {self.uri} does not answer; run the same command again when it does, and it gets the rest")
        else:
            warn(
                f"MLflow has not taken everything ({_line(self._failure)}); run the same command again, and it gets the rest"
            )
        return False

    # ------------------------------------------------------------ the thread

    def _mirror(self) -> None:
        while not self._gave_up.is_set():
            self._wake.wait(timeout=RETRY_SECONDS if self._failure else None)
            self._wake.clear()
            try:
                while (key := self._next()) is not None and not self._gave_up.is_set():
                    self._log(key)
                    self._failure, self._last_answer = None, time.monotonic()
            except Exception as error:  # a server's failures have many types; none of them may end a night's run
                if self._failure is None or _unanswered(self._failure) != _unanswered(error):
                    then = (
                        "the points follow when it answers"
                        if _unanswered(error)
                        else "the points follow once that is mended"
                    )
                    warn(f"MLflow: {_line(error)}; training goes on, {then}")
                self._failure = error
                if self._closing.is_set() and (isinstance(error, DeletedExperiment) or not self.uri.startswith("http")):
                    return  # what is deleted, or a local database refuses, is refused again
            if self._closing.is_set():
                if not self._changed:
                    return
                time.sleep(0.5)
                self._wake.set()

    def _next(self) -> str | None:
        """A changed key, parents first."""
        with self._lock:
            return min(self._changed, key=lambda k: (self._wanted[k].parent is not None, k), default=None)

    def _log(self, key: str) -> None:
        import mlflow

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        with self._lock:
            wanted = _Wanted(**vars(self._wanted[key]))
        make_database(self.uri)
        client = mlflow.MlflowClient(tracking_uri=self.uri)
        run = self._run(client, key, wanted)
        run_id = run.info.run_id
        if wanted.parent is not None and run.data.tags.get(_PARENT) != self._ids[wanted.parent]:
            client.set_tag(run_id, _PARENT, self._ids[wanted.parent])
        for name, value in wanted.params.items():
            if name not in run.data.params:
                client.log_param(run_id, name, str(value)[:6000])
        self._log_history(client, run_id, run.data.metrics, wanted.history)
        for name, value in wanted.metrics.items():
            if run.data.metrics.get(name) != value:
                client.log_metric(run_id, name, value)
        with tempfile.TemporaryDirectory() as folder:
            for name, content in wanted.artifacts.items():
                (Path(folder) / name).parent.mkdir(exist_ok=True)
                (Path(folder) / name).write_bytes(content)
            if wanted.artifacts:
                client.log_artifacts(run_id, folder)
        if wanted.model is not None and "medray.model" not in run.data.tags:
            self._logging_model = True
            failure = log_model_apart(self.uri, run_id, *wanted.model)
            self._logging_model, self._last_answer = False, time.monotonic()
            if failure:
                warn(f"MLflow: the model of {wanted.name} is not logged ({failure}); it lies in the run's folder")
            client.set_tag(run_id, "medray.model", failure or "logged")
        if wanted.finished and run.info.status != "FINISHED":
            client.set_terminated(run_id, "FINISHED")
        with self._lock:
            if vars(self._wanted[key]) == vars(wanted):
                self._changed.discard(key)

    def _run(self, client: Any, key: str, wanted: _Wanted) -> Any:
        """The run of ``key``: the one that is known or found, else a new one, also in place of one that was deleted.

        Raises:
            DeletedExperiment: there is no place for it.
        """
        from mlflow.entities import ViewType
        from mlflow.exceptions import MlflowException

        known = self._ids.get(key)
        if known is not None:
            with contextlib.suppress(MlflowException):  # removed from the database for good
                run = client.get_run(known)
                if run.info.lifecycle_stage == "active":
                    return run
        name = f"{self.identity}/{key}"
        experiment = self._experiment(client)
        runs = client.search_runs([experiment], f"tags.`{_KEY}` = '{name}'", ViewType.ALL)
        active = [run for run in runs if run.info.lifecycle_stage == "active"]
        if active:
            self._ids[key] = active[0].info.run_id
            return active[0]
        if known is not None or runs:
            warn(f"MLflow: the run {wanted.name} was deleted there; it is logged again, as a new run")
        tags = {_KEY: name}
        run = client.create_run(experiment, tags=tags, run_name=wanted.name)
        self._ids[key] = run.info.run_id
        with self._lock:  # they name their parent
            self._changed |= {other for other, each in self._wanted.items() if each.parent == key}
        return run

    def _experiment(self, client: Any) -> str:
        found = client.get_experiment_by_name(self.experiment)
        if found is None:
            return str(client.create_experiment(self.experiment, artifact_location=self.artifacts))
        if found.lifecycle_stage != "active":
            raise DeletedExperiment(
                f'the experiment "{self.experiment}" was deleted there; restore it (mlflow experiments restore '
                f"--experiment-id {found.experiment_id}) or choose another --experiment"
            )
        return str(found.experiment_id)

    @staticmethod
    def _log_history(client: Any, run_id: str, known: dict[str, float], history: list[dict[str, Any]]) -> None:
        from mlflow.entities import Metric

        points: dict[str, dict[int, float]] = {}
        for entry in history:
            for name, value in entry["metrics"].items():
                points.setdefault(name, {})[entry["epoch"]] = value
            for name, value in entry["system"].items():
                points.setdefault(f"system/{name}", {})[entry["epoch"]] = value
        now = int(time.time() * 1000)
        new = []
        for name, by_epoch in points.items():
            logged = {m.step for m in client.get_metric_history(run_id, name)} if name in known else set()
            new += [Metric(name, value, now, epoch) for epoch, value in by_epoch.items() if epoch not in logged]
        for start in range(0, len(new), 500):
            client.log_batch(run_id, metrics=new[start : start + 500])


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:250]


def _unanswered(error: BaseException | None) -> bool:
    """No answer came, unlike one that refuses: MLflow wraps both in one type."""
    from requests.exceptions import RequestException

    while error is not None and not isinstance(error, RequestException):
        error = error.__cause__ or error.__context__
    return error is not None


def track_run(tracker: Tracker, run: Run, with_model: bool = True) -> None:
    """Mirror a run as a child of the job's run: parameters, each epoch once, and its final model where it is wanted."""
    model = (run.store, run.task) if run.finished and with_model and run.task.has_example_input else None
    # a run that is made anew, since what it was made from has changed, is another one
    key = f"{run.name}@{digest(*run.origin)}" if run.origin else run.name
    tracker.want(
        key, run.name, parent="", params=run.identity(), history=run.history(),
        finished=run.finished, model=model,
    )  # fmt: skip
