"""A search on the cluster: Ray Tune with Optuna's samplers, trials stopped early by ASHA, resumable after any kill."""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
import shutil
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import ray
import ray.tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler
from ray.tune.search.optuna import OptunaSearch

from medray.engine.job.options import Options
from medray.engine.job.progress import say, warn
from medray.engine.job.tracking import Tracker
from medray.engine.nodes.cluster import what_happened
from medray.engine.tuning.search import Search
from medray.engine.tuning.trial import Sweep, read_trials, run_trial
from medray.engine.tuning.watch import Watcher
from medray.shards.digest import digest
from medray.shards.store import Store

LOST_TRIALS = 2  # a trial whose process is lost is started again this often
_CLEAN_SECONDS = 30.0
_NAME = re.compile("[0-9a-f]{16}")  # of a folder with Tune's state


def run_search(search: Search, sweep: Sweep, tracker: Tracker) -> list[dict[str, Any]]:
    """Run the trials that are still missing, and give all of them as ``read_trials`` does.

    Raises:
        ValueError: the database cannot be opened, or no trial came to a score.
    """
    for name in ("ray.tune", "ray.train", "optuna"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # a trial's failure is one line, not ten of traceback
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", module="ray.tune")
    before = ray.available_resources()
    watcher = Watcher(sweep, tracker)
    watcher.start()
    try:
        _tune(search, sweep)
    finally:
        watcher.stop()
    _check_clean(before)
    trials = read_trials(sweep.store, sweep.rungs)
    if not any(trial["rungs"] for trial in trials):
        reasons = sorted({trial["reason"] for trial in trials if trial["reason"]})
        raise ValueError(f"no trial came to a score{f'; the first reason: {reasons[0]}' if reasons else ''}")
    return trials


def _tune(search: Search, sweep: Sweep) -> None:
    """An experiment of Tune's, and where more trials are asked for later, another one over the same Optuna study.

    Tune goes on by loading pickles, which run whatever is in them: they lie in this user's folder, never in --out, into which
    others may write. tune.json says only which of them they are.
    """
    store = sweep.store
    state = {"begun": 0, "ended": 0, "state": ""} | store.read_json("tune.json", {})
    while state["ended"] < search.trials:
        fresh = state["begun"] <= state["ended"]
        if fresh or not _NAME.fullmatch(str(state["state"])):  # no name that a search has given
            state |= {"begun": search.trials if fresh else state["begun"], "state": secrets.token_hex(8)}
            store.write_json("tune.json", state)
        own = sweep.validation.options.private / "searches" / digest(store.uri) / state["state"]
        _experiment(search, sweep, state["ended"], state["begun"], own)
        state["ended"] = state["begun"]
        store.write_json("tune.json", state)


def _experiment(search: Search, sweep: Sweep, first: int, stop: int, own: Path) -> None:
    """Trials number ``first`` to ``stop``, from where a driver that was killed has left them.

    Args:
        own: with Tune's state. Where it is another machine's or user's, trials that had not ended begin anew.
    """
    name = f"trials-{stop}"
    trainable: Any = ray.tune.with_resources(
        # the training runs in tasks that reserve what they need; the trial itself only waits for them
        ray.tune.with_parameters(run_trial, sweep=sweep),
        ray.tune.PlacementGroupFactory([{"CPU": 0.01}]),
    )
    if ray.tune.Tuner.can_restore(str(own / name)):
        say(f"  goes on with {sweep.store.uri}")
        tuner = ray.tune.Tuner.restore(str(own / name), trainable, resume_unfinished=True)
    else:
        if sweep.store.sub("trials").folders() and (ended := _ended(search, sweep)) > first:
            say(f"  goes on with {sweep.store.uri} after {ended} trials; what had not ended elsewhere begins anew")
            first = ended
        if first >= stop:
            return
        tuner = ray.tune.Tuner(
            trainable,
            tune_config=ray.tune.TuneConfig(
                search_alg=_searcher(search, sweep),
                scheduler=_scheduler(search, sweep),
                num_samples=stop - first,
                max_concurrent_trials=max(1, sweep.validation.resources.side_by_side // len(sweep.folds)),
            ),
            run_config=ray.tune.RunConfig(
                name=name, storage_path=str(own), verbose=0,
                failure_config=ray.tune.FailureConfig(max_failures=LOST_TRIALS),
            ),
        )  # fmt: skip
    for error in tuner.fit().errors:
        warn(f"a trial was lost: {what_happened(error)}")
    shutil.rmtree(own)


class StudySearch(OptunaSearch):
    """Optuna's study may know the end of a trial that Tune, whose driver was killed a moment later, has to hear again."""

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            super().on_trial_result(trial_id, result)


def _searcher(search: Search, sweep: Sweep) -> StudySearch:
    name, storage = _study(search, sweep)
    sampler = _sampler(search, _finished(name, storage))
    names, modes = list(sweep.objectives), [str(mode) for mode in sweep.objectives.values()]
    return StudySearch(
        space={dimension.field: dimension.distribution() for dimension in sweep.space},
        metric=names if len(names) > 1 else names[0],
        mode=modes if len(names) > 1 else modes[0],
        sampler=sampler,
        study_name=name,
        storage=storage,
    )


def _study(search: Search, sweep: Sweep) -> tuple[str, optuna.storages.BaseStorage]:
    """Name and storage of the search's study. Raises ValueError where it cannot be opened."""
    database = study_database(search, sweep.store, sweep.validation.options)
    try:
        storage = optuna.storages.RDBStorage(database)
    except Exception as error:  # SQLAlchemy's and the database drivers' own kinds
        first_line = str(error).splitlines()[0].replace(database, "its URL")
        raise ValueError(f"--study-storage: cannot be opened ({first_line})") from None
    return f"{search.name}-{digest(sweep.store.uri)}", storage


def _ended(search: Search, sweep: Sweep) -> int:
    """Trials of the search that its study knows the end of."""
    return _finished(*_study(search, sweep))


def _finished(name: str, storage: optuna.storages.BaseStorage) -> int:
    """Trials of a study that have ended; 0 where there is no such study yet."""
    if name not in optuna.get_all_study_names(storage):
        return 0
    ended = [state for state in optuna.trial.TrialState if state.is_finished()]
    return len(optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False, states=ended))


def _sampler(search: Search, finished: int) -> optuna.samplers.BaseSampler:
    """A sampler that draws other values than those before it in the study did (optuna issue 3255), and always the same.

    A search that was killed goes on with the sampler that Tune has kept.
    """
    samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
    kept: dict[str, Any] = {"constant_liar": True} if search.sampler == "tpe" else {}  # several trials at once
    seed = int(np.random.SeedSequence((search.search_seed, finished)).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return samplers[search.sampler](seed=seed, **kept)


def _scheduler(search: Search, sweep: Sweep) -> FIFOScheduler:
    if not search.prune:
        return FIFOScheduler()
    first, mode = next(iter(sweep.objectives.items()))
    return AsyncHyperBandScheduler(
        time_attr="epoch", metric=first, mode=mode, max_t=sweep.rungs[-1],
        grace_period=min(search.first_rung, sweep.rungs[-1]), reduction_factor=search.reduction,
    )  # fmt: skip


def study_database(search: Search, store: Store, options: Options) -> str:
    """URL of Optuna's storage: the one that was given, or a file in --out (in --key-dir where that is object storage)."""
    if search.study_storage is not None:
        return search.study_storage
    folder = store.local or options.private / "searches" / digest(store.uri)
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder}/optuna.db"


def _check_clean(before: Mapping[str, float]) -> None:
    """What the trials had reserved is free again; Ray takes a moment to count it."""
    names = ("CPU", "GPU", "memory")
    deadline = time.monotonic() + _CLEAN_SECONDS
    while time.monotonic() < deadline:
        now = ray.available_resources()
        # a cluster that has grown in the meantime is no leak
        if all(now.get(name, 0) >= before.get(name, 0) - 1e-3 for name in names):
            return
        time.sleep(0.5)
    held = {name: before.get(name, 0) - now.get(name, 0) for name in names}
    warn("after the search " + ", ".join(f"{n:g} {name} are still reserved" for name, n in held.items() if n > 1e-3))
