"""Training in Ray's local mode: what a run leaves, and that a resumed run equals an uninterrupted one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from medray.engine.data.prepare import Ingest
from medray.engine.data.samples import EvaluationPlan
from medray.engine.data.stream import stream
from medray.engine.job.options import Options
from medray.engine.nodes.cluster import Resources
from medray.engine.train import checkpoint
from medray.engine.train.fit import fit
from medray.engine.train.loop import Worker
from medray.engine.train.outputs import evaluate
from medray.engine.train.run import Run
from medray.engine.train.saving import Saver
from medray.engine.train.stop import StopRun
from medray.engine.train.sweep import CrossValidation, out_of_fold
from medray.shards.store import Store
from medray.systems.ich.classes import PROBABILITIES
from medray.systems.ich.system import strata
from medray.systems.ich.task import SliceTask

LOCAL = Resources(workers=0, gpu=False, side_by_side=2, threads=1, cpus_per_worker=0.5, data_cpus=0.5)


def runs_in(folder: Path, prepared: Ingest, task: SliceTask, **options: object) -> list[Run]:
    flags = Options(out=str(folder), folds=3, **options)  # type: ignore[arg-type]
    return CrossValidation(Store(folder), (0, 1), flags, LOCAL, strata).runs("model", task, prepared)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, prepared: Ingest, tiny_task: SliceTask) -> list[Run]:
    runs = runs_in(tmp_path_factory.mktemp("runs"), prepared, tiny_task)
    fit(runs)
    return runs


def test_every_held_out_slice_is_predicted_once_and_no_patient_is_learned_from(
    finished: list[Run], prepared: Ingest
) -> None:
    oof = out_of_fold(finished)
    held_out = prepared.index[prepared.index["fold"].isin([0, 1])]
    assert sorted(oof["slice_id"]) == sorted(held_out["slice_id"])
    assert oof[list(PROBABILITIES)].notna().all(axis=None)
    for run in finished:
        name = {
            (f, g, r): i
            for i, (f, g, r) in enumerate(zip(prepared.rows.file, prepared.rows.group, prepared.rows.row, strict=True))
        }
        learned = [name[f, g, r] for f, g, r in zip(run.train.file, run.train.group, run.train.row, strict=True)]
        patients = set(prepared.index["patient_id"].iloc[learned])
        assert not patients & set(run.predictions()["patient_id"])


def test_a_run_leaves_its_history_and_the_loss_falls(finished: list[Run]) -> None:
    history = finished[0].history()
    assert [entry["epoch"] for entry in history] == [1, 2, 3]
    losses = [entry["metrics"]["train_loss"] for entry in history]
    assert losses[-1] < losses[0]
    assert {"held_out_weighted_log_loss", "learning_rate"} <= history[-1]["metrics"].keys()
    assert history[-1]["system"]["images_per_s"] > 0
    assert finished[0].store.read_json("done.json")["depends_on_workers"] == ["batch normalization", "dropout"]


def test_a_finished_run_is_left_alone(finished: list[Run]) -> None:
    before = finished[0].store.read_bytes("model.pt")
    seen: list[str] = []
    fit(finished, lambda run: seen.append(run.name))
    assert finished[0].store.read_bytes("model.pt") == before
    assert seen == [run.name for run in finished]


def kill_after(run: Run, saves: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train in this process until so many checkpoints are written."""

    class Killed(BaseException):
        pass

    save = Worker._save

    def save_and_die(self: Worker) -> None:
        save(self)
        self.saves = getattr(self, "saves", 0) + 1
        if self.saves == saves:
            self.saver.wait()
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Worker, "_save", save_and_die)
        patched.setattr("ray.train.report", lambda metrics: None)
        with pytest.raises(Killed):
            Worker(run).work()


def check_same(run: Run, expected: Run) -> None:
    pd.testing.assert_frame_equal(run.predictions(), expected.predictions(), check_exact=True)
    weights, wanted = (checkpoint.read_weights(r.store, "model.pt")["weights"] for r in (run, expected))
    assert all(torch.equal(weights[name], wanted[name]) for name in wanted)
    assert [e["metrics"] for e in run.history()] == [e["metrics"] for e in expected.history()]


@pytest.mark.parametrize("stop", ["between epochs", "within an epoch"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    stop: str,
    finished: list[Run],
    prepared: Ingest,
    tiny_task: SliceTask,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (run, _) = runs_in(tmp_path, prepared, tiny_task, checkpoint_minutes=0.0 if stop == "within an epoch" else 10.0)
    # with 0 minutes, a checkpoint also lies in the middle of each epoch
    kill_after(run, 2 if stop == "between epochs" else 3, monkeypatch)
    names = run.store.sub("checkpoints").names(".pt")
    assert ("step00000000" not in names[-1]) == (stop == "within an epoch")
    fit([run])
    check_same(run, finished[0])


def test_with_half_of_the_negatives_and_low_resolution_first_a_resumed_run_equals_an_uninterrupted_one(
    prepared: Ingest, tiny_task: SliceTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = replace(tiny_task, negatives=0.5, early_size_px=32, early_epochs=1, size_px=48)
    whole, run = (
        runs_in(tmp_path / name, prepared, task, monitor="none", checkpoint_minutes=minutes)[0]
        for name, minutes in (("whole", 10.0), ("killed", 0.0))
    )
    sides: list[int] = []
    losses = SliceTask.losses

    def noted(self: SliceTask, network: Any, batch: dict[str, Any], at: Any) -> Any:
        sides.append(batch["image"].shape[-1])
        return losses(self, network, batch, at)

    monkeypatch.setattr(SliceTask, "losses", noted)
    monkeypatch.setattr("ray.train.report", lambda metrics: None)
    Worker(whole).work()
    labels = prepared.index[(prepared.index["fold"] != 0) & prepared.index["any"].notna()]
    assert whole.inner is not None  # to recalibrate on
    assert whole.train.share is not None
    assert len(whole.train) + len(whole.inner) == len(labels)
    negatives = int((whole.train.share == 0.5).sum())
    steps = (len(whole.train) - negatives + negatives // 2) // task.batch_size
    assert sides == [32] * steps + [48] * 2 * steps

    sides.clear()
    kill_after(run, 3, monkeypatch)
    assert 32 in sides
    fit([run])
    check_same(run, whole)


def test_the_inner_split_chooses_the_epoch_and_shares_no_patient(
    prepared: Ingest, tiny_task: SliceTask, tmp_path: Path
) -> None:
    (run, _) = runs_in(tmp_path, prepared, replace(tiny_task, learning_rate=0.02), monitor="inner")
    assert run.inner is not None
    fit([run])
    values = [e["metrics"]["inner_weighted_log_loss"] for e in run.history()]
    assert run.store.read_json("done.json")["epoch"] == int(np.argmin(values)) + 1
    place = {
        (f, g, r): i
        for i, (f, g, r) in enumerate(zip(prepared.rows.file, prepared.rows.group, prepared.rows.row, strict=True))
    }
    patients = [
        set(prepared.index["patient_id"].iloc[[place[k] for k in zip(rows.file, rows.group, rows.row, strict=True)]])
        for rows in (run.train, run.inner, run.held_out)
    ]
    assert not patients[0] & patients[1]
    assert not (patients[0] | patients[1]) & patients[2]


@pytest.mark.parametrize(("redone", "chosen"), [(2.0, 1), (0.4, 2)])
def test_a_kill_between_the_best_weights_and_their_checkpoint(
    redone: float,
    chosen: int,
    prepared: Ingest,
    tiny_task: SliceTask,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second epoch is the best so far, and the process ends before its checkpoint; trained again it ends with other
    weights, as it may on a GPU. Predictions come from the epoch that is named."""
    (run, _) = runs_in(tmp_path, prepared, tiny_task, monitor="inner")

    class Killed(BaseException):
        pass

    save, train, scores = checkpoint.save, Worker._train_epoch, [1.0, 0.5]
    after: dict[int, dict[str, torch.Tensor]] = {}

    def save_or_die(store: Store, epoch: int, step: int, state: dict[str, Any]) -> None:
        if epoch == 2 and len(after) == 1:
            after[0] = {}
            raise Killed
        after[epoch] = {name: value.clone() for name, value in state["network"].items()}
        save(store, epoch, step, state)

    def train_otherwise(self: Worker, batches: Any, steps: int) -> None:
        train(self, batches, steps)
        if after:
            with torch.no_grad():
                for parameter in self.trainer.network.parameters():
                    parameter.mul_(1 + 0.01 * len(after))

    monkeypatch.setattr(SliceTask, "metrics", lambda self, table: {"weighted_log_loss": scores.pop(0)})
    monkeypatch.setattr(checkpoint, "save", save_or_die)
    monkeypatch.setattr(Worker, "_train_epoch", train_otherwise)
    monkeypatch.setattr(Saver, "write", lambda self, work: work())  # at once, so that the kill comes between the two
    monkeypatch.setattr("ray.train.report", lambda metrics: None)
    with pytest.raises(Killed):
        Worker(run).work()
    assert {"best-epoch0001.pt", "best-epoch0002.pt"} == set(run.store.names(".pt"))  # killed exactly between the two
    scores += [redone, 3.0]
    Worker(run).work()

    assert run.store.read_json("done.json")["epoch"] == chosen
    weights = checkpoint.read_weights(run.store, "model.pt")["weights"]
    assert all(torch.equal(weights[name], after[chosen][name]) for name in weights)
    assert not all(torch.equal(weights[name], after[3 - chosen][name]) for name in weights)
    assert run.store.names(".pt") == [f"best-epoch000{chosen}.pt", "model.pt"]
    monkeypatch.undo()
    network = tiny_task.network().eval()
    network.load_state_dict(after[chosen])
    assert run.inner is not None
    plan = EvaluationPlan(run.held_out, tiny_task.evaluation_batch, 1, 0)
    table = evaluate(tiny_task, network, stream(tiny_task, plan, LOCAL), torch.device("cpu"))
    pd.testing.assert_frame_equal(run.predictions(), table.reset_index(drop=True))


@pytest.mark.parametrize("monitor", ["held-out", "inner"])
def test_the_outputs_of_the_last_epoch_are_computed_once(
    monitor: str, prepared: Ingest, tiny_task: SliceTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An evaluation is a pass over a fifth of the data: of a challenge, minutes of every GPU."""
    (run, _) = runs_in(tmp_path, prepared, replace(tiny_task, epochs=2), monitor=monitor)
    asked: list[int] = []
    evaluate_rows = Worker._evaluate

    def counted(self: Worker, rows: Any) -> pd.DataFrame:
        asked.append(len(rows))
        return evaluate_rows(self, rows)

    scores = iter([1.0, 0.5])  # the second epoch is the better one
    monkeypatch.setattr(SliceTask, "metrics", lambda self, table: {"weighted_log_loss": next(scores)})
    monkeypatch.setattr(Worker, "_evaluate", counted)
    monkeypatch.setattr("ray.train.report", lambda metrics: None)
    Worker(run).work()
    held_out = len(run.held_out)
    expected = [held_out] * 2 if run.inner is None else [len(run.inner)] * 2 + [held_out]
    assert asked == expected
    assert sorted(run.predictions()["slice_id"]) == sorted(run.held_out_ids)


def test_a_checkpoint_that_names_best_weights_which_are_not_there(
    prepared: Ingest, tiny_task: SliceTask, tmp_path: Path
) -> None:
    (run, _) = runs_in(tmp_path, prepared, tiny_task, monitor="inner")
    fit([replace(run, stop_after=1)])
    run.store.delete("best-epoch0001.pt")
    with pytest.raises(StopRun, match=r"best-epoch0001\.pt, which its checkpoint names, is not there.*--out"):
        fit([run])


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_batch(
    prepared: Ingest, tiny_task: SliceTask, tmp_path: Path
) -> None:
    (run, _) = runs_in(tmp_path, prepared, replace(tiny_task, optimizer="sgd", learning_rate=1e30))
    with pytest.raises(StopRun, match=r"model/fold0: the loss is (nan|inf) in epoch 1; batch: slice-.*--learning-rate"):
        fit([run])
    assert not run.finished


def test_an_average_of_weights_is_scored_and_resumes(prepared: Ingest, tiny_task: SliceTask, tmp_path: Path) -> None:
    (run, _) = runs_in(tmp_path, prepared, replace(tiny_task, ema_decay=0.9, epochs=1, clip_norm=0.5, accumulate=2))
    fit([run])
    state = checkpoint.latest(run.store.sub("checkpoints"))
    assert state is not None
    weights = checkpoint.read_weights(run.store, "model.pt")["weights"]
    assert torch.equal(weights["head.weight"], state["averaged"]["module.head.weight"])
    assert not torch.equal(weights["head.weight"], state["network"]["head.weight"])


def test_a_batch_that_does_not_divide_fails_before_the_start(
    prepared: Ingest, tiny_task: SliceTask, tmp_path: Path
) -> None:
    (run, _) = runs_in(tmp_path, prepared, tiny_task)
    with pytest.raises(ValueError, match="--batch-size 8: not a multiple of 3 workers"):
        fit([replace(run, resources=replace(LOCAL, workers=3))])


def test_half_precision_learns_and_stays_finite(prepared: Ingest, tiny_task: SliceTask, tmp_path: Path) -> None:
    (run, _) = runs_in(tmp_path, prepared, replace(tiny_task, precision="bf16"), monitor_every=3)
    fit([run])
    losses = [entry["metrics"]["train_loss"] for entry in run.history()]
    assert losses[-1] < losses[0]
    assert ["held_out_weighted_log_loss" in entry["metrics"] for entry in run.history()] == [False, False, True]
