"""Searches on a Ray of two cores: trials that are stopped, that fail, that are asked for later."""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import optuna
import pandas as pd
import pytest
import ray
from ray.cloudpickle import register_pickle_by_value

from medray.engine.data.prepare import Ingest
from medray.engine.job.options import Options
from medray.engine.job.tracking import Tracker
from medray.engine.nodes.cluster import Resources
from medray.engine.train.fit import fit
from medray.engine.train.sweep import CrossValidation
from medray.engine.tuning.page import best_trials, write_search
from medray.engine.tuning.search import Search
from medray.engine.tuning.space import parse_space
from medray.engine.tuning.trial import Sweep, read_trials
from medray.engine.tuning.tuner import StudySearch, _searcher, run_search
from medray.shards.store import Store
from medray.systems.ich.objective import OBJECTIVES, score_folds
from medray.systems.ich.system import strata
from medray.systems.ich.task import SliceTask
from medray.tasks.system import Outputs

LOCAL = Resources(workers=0, gpu=False, side_by_side=2, threads=1, cpus_per_worker=0.5, data_cpus=0.5)
FIGURE = "weighted_log_loss"


def scored(task: SliceTask, folds: Sequence[Outputs]) -> dict[str, float]:
    """A poor learning rate has a poor score, so that who is stopped does not hang on chance."""
    return {FIGURE: score_folds(task, folds)[FIGURE] + 100 * task.learning_rate}


def sweep_in(
    folder: Path, prepared: Ingest, task: SliceTask, space: list[str], rungs: tuple[int, ...] = (1, 3)
) -> Sweep:
    bases = {"test_resnet": task}
    return Sweep(
        bases, {"test_resnet": None}, parse_space(space, bases), {FIGURE: "min"}, rungs, scored, prepared,
        CrossValidation(
            Store(folder / "searches" / "s"), (0,),
            Options(out=str(folder), folds=3, monitor="none", key_dir=folder.with_name(f"{folder.name}-keys")), LOCAL, strata,
        ),
    )  # fmt: skip


def tracker_in(folder: Path) -> Tracker:
    folder.mkdir(parents=True, exist_ok=True)
    tracker = Tracker(f"sqlite:///{folder}/mlflow.db", "medray", (folder / "artifacts").as_uri(), "test")
    tracker.want("", "search")
    return tracker


@pytest.fixture(scope="module", autouse=True)
def travelling() -> None:
    register_pickle_by_value(sys.modules[__name__])  # for the trials, which do not import tests


@pytest.fixture(scope="module")
def search() -> Search:
    return Search(trials=5, first_rung=1, reduction=3, sampler="random", search_seed=2)


@pytest.fixture(scope="module")
def searched(
    tmp_path_factory: pytest.TempPathFactory, prepared: Ingest, tiny_task: SliceTask, search: Search
) -> tuple[Sweep, dict[str, float], dict[str, float]]:
    """A search of five trials, and the cluster's free resources before and after it."""
    folder = tmp_path_factory.mktemp("search")
    sweep = sweep_in(folder, prepared, replace(tiny_task, pretrained=False), ["learning-rate=1e-3|1e-1"])
    before = ray.available_resources()
    tracker = tracker_in(folder)
    run_search(search, sweep, tracker)
    assert tracker.close()
    return sweep, before, ray.available_resources()


@pytest.mark.slow
def test_poor_trials_are_stopped_early_and_the_cluster_is_as_it_was(
    searched: tuple[Sweep, dict[str, float], dict[str, float]],
) -> None:
    sweep, before, after = searched
    trials = read_trials(sweep.store, sweep.rungs)
    assert len(trials) == 5
    states = [trial["state"] for trial in trials]
    assert "stopped" in states
    assert "complete" in states
    for trial in trials:
        assert [rung["epoch"] for rung in trial["rungs"]] == ([1, 3] if trial["state"] == "complete" else [1])
    for name in ("CPU", "memory"):
        assert after[name] >= before[name] * (1 - 1e-6)  # more, where an earlier test's last task has just ended
    held = {name for name, group in ray.util.placement_group_table().items() if group["state"] != "REMOVED"}
    assert not held


def test_an_end_that_only_the_study_knows_is_heard_again(tmp_path: Path) -> None:
    """The driver is killed after Optuna was told, before Tune wrote it down."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/optuna.db")
    space = {"rate": optuna.distributions.FloatDistribution(0, 1)}
    searcher = StudySearch(space=space, metric="loss", mode="min", study_name="s", storage=storage)
    assert searcher.suggest("one") is not None
    searcher.save(str(tmp_path / "state"))
    searcher.on_trial_result("one", {"loss": 0.5, "training_iteration": 1})
    searcher.on_trial_complete("one", {"loss": 0.5})

    again = StudySearch(space=space, metric="loss", mode="min", study_name="s", storage=storage)
    again.restore(str(tmp_path / "state"))
    again.on_trial_result("one", {"loss": 0.5, "training_iteration": 1})
    again.on_trial_complete("one", {"loss": 0.5})
    (trial,) = optuna.load_study(study_name="s", storage=storage).trials
    assert (trial.state, trial.value) == (optuna.trial.TrialState.COMPLETE, 0.5)
    assert again.suggest("two") is not None


def bare_sweep(folder: Path) -> Any:
    """What a searcher asks of a sweep: one field from 0 to 1."""
    dimension = SimpleNamespace(field="rate", distribution=lambda: optuna.distributions.FloatDistribution(0, 1))
    return SimpleNamespace(
        store=Store(folder), validation=SimpleNamespace(options=None), objectives={"loss": "min"}, space=(dimension,)
    )


def drawn(search: Search, folder: Path, parts: tuple[int, ...]) -> list[float]:
    """What a search draws that is started once for each of ``parts`` with so many more trials."""
    sweep = bare_sweep(folder)
    found = []
    for part, trials in enumerate(parts):
        searcher = _searcher(search, sweep)
        for i in range(trials):
            values = searcher.suggest(f"{part}-{i}")
            assert values is not None
            found.append(values["rate"])
            searcher.on_trial_complete(f"{part}-{i}", {"loss": abs(values["rate"] - 0.3), "training_iteration": 1})
    return found


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_more_trials_of_a_search_draw_new_values_and_always_the_same(sampler: str, tmp_path: Path) -> None:
    search = Search(sampler=sampler, search_seed=4)  # type: ignore[arg-type]
    first = drawn(search, tmp_path / "a", (5, 5, 3))  # tpe draws its first ten at random
    assert len(set(first)) == 13
    assert drawn(search, tmp_path / "b", (5, 5, 3)) == first
    other = Search(sampler=sampler, search_seed=5)  # type: ignore[arg-type]
    assert not set(drawn(other, tmp_path / "c", (5,))) & set(first)


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_killed_search_draws_what_it_would_have_drawn(sampler: str, tmp_path: Path) -> None:
    """The driver is killed after Optuna had been asked for a fourth trial, of which Tune wrote nothing down."""
    search = Search(sampler=sampler)  # type: ignore[arg-type]
    sweep = bare_sweep(tmp_path / "s")
    searcher = _searcher(search, sweep)
    for i in range(3):
        searcher.suggest(f"{i}")
    searcher.save(str(tmp_path / "state"))
    lost = searcher.suggest("3")
    again = _searcher(search, sweep)
    again.restore(str(tmp_path / "state"))
    assert again.suggest("3") == lost


@pytest.mark.slow
def test_optuna_and_mlflow_know_every_trial(searched: tuple[Sweep, dict[str, float], dict[str, float]]) -> None:
    sweep, _, _ = searched
    trials = {trial["name"]: trial for trial in read_trials(sweep.store, sweep.rungs)}
    database = f"sqlite:///{sweep.store.local}/optuna.db"
    (study,) = optuna.get_all_study_summaries(database)
    assert study.n_trials == 5

    folder = Path(sweep.validation.options.out)
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("medray").experiment_id])
    by_name = {run.info.run_name: run for run in runs}
    parent = by_name["search"].info.run_id
    for name, trial in trials.items():
        run = by_name[f"trial {name}"]
        assert run.data.tags["mlflow.parentRunId"] == parent
        assert float(run.data.params["learning_rate"]) == trial["values"]["learning_rate"]
        points = client.get_metric_history(run.info.run_id, FIGURE)
        assert [p.step for p in points] == [rung["epoch"] for rung in trial["rungs"]]
        fold = by_name[f"{name}/fold0"]
        assert fold.data.tags["mlflow.parentRunId"] == run.info.run_id
        epochs = trial["rungs"][-1]["epoch"]
        losses = client.get_metric_history(fold.info.run_id, "train_loss")
        assert [p.step for p in losses] == list(range(1, epochs + 1))


@pytest.mark.slow
def test_the_page_and_the_command_of_the_best(searched: tuple[Sweep, dict[str, float], dict[str, float]]) -> None:
    sweep, _, _ = searched
    trials = read_trials(sweep.store, sweep.rungs)
    (best,) = best_trials(trials, sweep.objectives)
    ended = [t["rungs"][-1]["scores"][FIGURE] for t in trials if t["state"] == "complete"]
    assert best["rungs"][-1]["scores"][FIGURE] == min(ended)
    lines, artifacts = write_search(
        trials, sweep, ["cv", "--backbones"], {"test_resnet": sweep.bases["test_resnet"]}, phantom=True
    )
    rate = best["values"]["learning_rate"]
    assert f"  cv --backbones test_resnet --learning-rate {rate!r}" in lines
    assert {"history.png", "parallel-coordinates.png", "importances.png", "search.html"} <= set(artifacts)
    html = sweep.store.read_bytes("search.html").decode()
    assert repr(rate) in html
    assert "phantoms" in html
    table = sweep.store.read_table("trials.parquet").to_pandas()
    assert sorted(table["learning_rate"]) == sorted(t["values"]["learning_rate"] for t in trials)
    assert sweep.store.read_json("search.json")["best"][0]["trial"] == best["name"]


@pytest.mark.slow
def test_a_finished_search_trains_nothing_again_and_goes_on_where_more_are_asked_for(
    searched: tuple[Sweep, dict[str, float], dict[str, float]], search: Search
) -> None:
    sweep, _, _ = searched
    tracker = tracker_in(Path(sweep.validation.options.out))
    known = {p: p.stat().st_mtime_ns for p in sweep.store.local.glob("runs/**/history.json")}
    assert len(run_search(search, sweep, tracker)) == 5
    assert {p: p.stat().st_mtime_ns for p in sweep.store.local.glob("runs/**/history.json")} == known
    assert len(run_search(replace(search, trials=6), sweep, tracker)) == 6
    assert {p: p.stat().st_mtime_ns for p in known} == known
    (study,) = optuna.get_all_study_summaries(f"sqlite:///{sweep.store.local}/optuna.db")
    assert study.n_trials == 6  # one study: the sampler has learned from the first five
    tracker.close()


class Planted:
    """Runs a command where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.slow
def test_nothing_that_somebody_puts_into_the_output_runs(
    searched: tuple[Sweep, dict[str, float], dict[str, float]], search: Search, tmp_path: Path
) -> None:
    """Another user's search, killed as it seems, whose state holds a command: its trials begin anew."""
    sweep, _, _ = searched
    before = len(read_trials(sweep.store, sweep.rungs))
    marker, there = tmp_path / "it ran", sweep.store.local / "tune"
    for name in (f"trials-{before + 1}", "trials-99"):
        home = there / name
        home.mkdir(parents=True)
        for file in (
            "tuner.pkl",
            "trainable.pkl",
            "searcher-state-1.pkl",
            "search_gen_state-1.pkl",
            "experiment_state-1.json",
        ):
            (home / file).write_bytes(pickle.dumps(Planted(marker)))
    assert ray.tune.Tuner.can_restore(str(there / "trials-99"))  # it would be loaded from there
    for state in (f"{'../' * 12}{there}".removesuffix("/"), str(there), "0" * 16):
        sweep.store.write_json("tune.json", {"begun": before + 1, "ended": before, "state": state})
        tracker = tracker_in(Path(sweep.validation.options.out))
        assert len(run_search(replace(search, trials=before + 1), sweep, tracker)) == before + 1
        tracker.close()
        assert not marker.exists()
    with contextlib.suppress(Exception):
        pickle.loads((there / "trials-99" / "tuner.pkl").read_bytes())
    assert marker.exists()  # it does run where it is loaded


@pytest.mark.slow
def test_a_rung_goes_on_from_the_one_before_as_if_it_had_not_stopped(
    searched: tuple[Sweep, dict[str, float], dict[str, float]], tmp_path: Path
) -> None:
    sweep, _, _ = searched
    (trial, *_) = (t for t in read_trials(sweep.store, sweep.rungs) if t["state"] == "complete")
    (by_rungs,) = sweep.runs(trial["name"], trial["values"], 3)
    options = replace(sweep.validation.options, monitor="none")
    task = sweep.task(trial["values"])
    (straight,) = CrossValidation(Store(tmp_path), (0,), options, LOCAL, strata).runs("m", task, sweep.data)
    fit([straight])
    pd.testing.assert_frame_equal(by_rungs.predictions(), straight.predictions(), check_exact=True)
    first = replace(by_rungs, stop_after=1)
    assert first.finished
    assert not first.predictions()["p_any"].equals(by_rungs.predictions()["p_any"])


@pytest.mark.slow
def test_a_trial_that_diverges_ends_alone(prepared: Ingest, tiny_task: SliceTask, tmp_path: Path) -> None:
    task = replace(tiny_task, optimizer="sgd", epochs=1)
    sweep = sweep_in(tmp_path, prepared, task, ["learning-rate=1e-3|1e30"], rungs=(1,))
    tracker = tracker_in(tmp_path)
    trials = run_search(Search(trials=4, prune=False, sampler="random", search_seed=7), sweep, tracker)
    tracker.close()
    by_rate = {trial["values"]["learning_rate"]: trial for trial in trials}
    assert by_rate[1e-3]["state"] == "complete"
    assert by_rate[1e30]["state"] == "failed"
    assert "the loss is" in by_rate[1e30]["reason"]
    assert best_trials(trials, sweep.objectives)[0]["values"]["learning_rate"] == 1e-3


@pytest.mark.slow
def test_a_search_without_any_score_says_why(prepared: Ingest, tiny_task: SliceTask, tmp_path: Path) -> None:
    task = replace(tiny_task, optimizer="sgd", epochs=1)
    sweep = sweep_in(tmp_path, prepared, task, ["learning-rate=1e29..1e30"], rungs=(1,))
    tracker = tracker_in(tmp_path)
    with pytest.raises(ValueError, match=r"no trial came to a score; the first reason: epoch 1: .*the loss is"):
        run_search(Search(trials=1, prune=False), sweep, tracker)
    tracker.close()


@pytest.mark.slow
def test_a_mistake_of_the_programs_own_in_a_trial_leaves_its_traceback(
    prepared: Ingest, tiny_task: SliceTask, tmp_path: Path
) -> None:
    def broken(task: Any, folds: Any) -> dict[str, float]:
        return {FIGURE: float((np.zeros(3) + np.zeros(4)).sum())}

    sweep = sweep_in(tmp_path, prepared, replace(tiny_task, epochs=1), ["learning-rate=1e-3..1e-2"], rungs=(1,))
    tracker = tracker_in(tmp_path)
    with pytest.raises(ValueError, match=r"first reason: epoch 1: a mistake of this program.*ValueError at") as error:
        run_search(Search(trials=1, prune=False), replace(sweep, score=broken), tracker)
    tracker.close()
    path = Path(str(error.value).rsplit(" is in ", 1)[1].split(" on ")[0])
    assert "operands could not be broadcast together" in path.read_text()
    path.unlink()


def test_a_database_that_cannot_be_opened(prepared: Ingest, tiny_task: SliceTask, tmp_path: Path) -> None:
    sweep = sweep_in(tmp_path, prepared, tiny_task, ["zoom=0..1"])
    search = Search(trials=1, study_storage="sqlite:////nowhere/at/all/secret.db")
    tracker = tracker_in(tmp_path)
    with pytest.raises(ValueError, match="--study-storage: cannot be opened") as error:
        run_search(search, sweep, tracker)
    assert "secret" not in str(error.value)
    tracker.close()


def test_a_pareto_front() -> None:
    def trial(name: str, loss: float, precision: float, epoch: int = 3) -> dict:
        scores = {"weighted_log_loss": loss, "average_precision_epidural": precision}
        return {"name": name, "rungs": [{"epoch": epoch, "scores": scores}], "state": "complete", "values": {}}

    trials = [trial("a", 0.3, 0.5), trial("b", 0.2, 0.4), trial("c", 0.25, 0.3), trial("d", 0.1, 0.9, epoch=1)]
    assert [t["name"] for t in best_trials(trials, OBJECTIVES)] == ["b", "a"]  # c is beaten by b; d did not go so far
    assert [t["name"] for t in best_trials(trials, {"weighted_log_loss": "min"})] == ["b"]


@pytest.mark.parametrize(
    ("search", "epochs", "rungs"),
    [(Search(), 9, (1, 3, 9)), (Search(first_rung=2, reduction=2), 5, (2, 4, 5)), (Search(prune=False), 9, (9,)),
     (Search(first_rung=5), 3, (3,))],
)  # fmt: skip
def test_rungs(search: Search, epochs: int, rungs: tuple[int, ...]) -> None:
    assert search.rungs(epochs) == rungs


def test_the_plan_counts_what_pruning_leaves() -> None:
    assert Search(trials=9).expected_epochs((1, 3, 9)) == 9 * 1 + 3 * 2 + 1 * 6
    assert Search(trials=9, prune=False).expected_epochs((9,)) == 81
