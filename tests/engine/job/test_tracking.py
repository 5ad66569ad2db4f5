"""MLflow's mirror: a server that goes away delays nothing, and has every point once when it is back."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from ray_processes import free_port
from servers import mlflow_server

from medray.engine.job import tracking
from medray.engine.job.tracking import Tracker
from medray.shards.store import Store


def history(epochs: int) -> list[dict]:
    return [
        {"epoch": e + 1, "metrics": {"loss": 1.0 / (e + 1)}, "system": {"images_per_s": 9.0}} for e in range(epochs)
    ]


def steps(uri: str, run_name: str) -> list[int]:
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("e")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], f"tags.`mlflow.runName` = '{run_name}'")
    assert len(runs) == 1
    return sorted(m.step for m in client.get_metric_history(runs[0].info.run_id, "loss"))


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_restarted_job_continues_its_runs(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    for epochs in (2, 3, 3):  # killed after two epochs, redone from the first one, then started once more
        tracker = Tracker(uri, "e", tmp_path.as_uri(), "job")
        tracker.want("", "job", params={"a": 1}, artifacts={"images/a.png": b"x", "b.png": b"y"})
        tracker.want("fold0", "fold0", parent="", params={"b": 2}, history=history(epochs), finished=epochs == 3)
        assert tracker.close()
    assert steps(uri, "fold0") == [1, 2, 3]
    client = mlflow.MlflowClient(tracking_uri=uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == "e"]
    runs = {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"job", "fold0"}
    assert [one.path for one in client.list_artifacts(runs["job"].info.run_id, "images")] == ["images/a.png"]
    assert runs["fold0"].data.tags["mlflow.parentRunId"] == runs["job"].info.run_id
    assert runs["fold0"].info.status == "FINISHED"


@pytest.mark.slow
def test_a_server_that_never_answers_costs_ten_seconds_at_most(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as deaf:  # accepts connections and never speaks: the worst kind
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(50)
        tracker = Tracker(f"http://127.0.0.1:{deaf.getsockname()[1]}", "e", None, "job")
        started = time.monotonic()
        tracker.want("", "job", history=history(3))
        assert time.monotonic() - started < 0.1
        started = time.monotonic()
        assert not tracker.close()
        assert time.monotonic() - started < tracking.LONGEST_WAIT_SECONDS + 1.5
    assert "does not answer; run the same command again" in capsys.readouterr().err


def test_a_deleted_experiment_is_named_with_the_way_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = mlflow.MlflowClient(tracking_uri=uri)
    number = client.create_experiment("e", artifact_location=tmp_path.as_uri())
    client.delete_experiment(number)
    capsys.readouterr()
    tracker = Tracker(uri, "e", tmp_path.as_uri(), "job")
    tracker.want("", "job", history=history(1))
    wait_for(lambda: tracker._failure is not None)  # it is said at the start, while training goes on
    at_start = capsys.readouterr().err
    tracker.want("", "job", history=history(2))
    assert not tracker.close()
    at_end = capsys.readouterr().err
    for said in (at_start, at_end):
        assert said.count("\n") == 1
        assert 'the experiment "e" was deleted there' in said
        assert f"mlflow experiments restore --experiment-id {number}" in said
        assert "choose another --experiment" in said
        assert "answer" not in said

    client.restore_experiment(number)
    tracker = Tracker(uri, "e", tmp_path.as_uri(), "job")
    tracker.want("", "job", history=history(2))
    assert tracker.close()
    assert steps(uri, "job") == [1, 2]


def test_an_experiment_that_is_deleted_and_restored_while_a_job_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "RETRY_SECONDS", 0.2)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    tracker = Tracker(uri, "e", tmp_path.as_uri(), "job")
    tracker.want("", "job", history=history(1))
    wait_for(lambda: not tracker._changed)
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("e")
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    tracker.want("", "job", history=history(2))
    wait_for(lambda: tracker._failure is not None)
    client.restore_experiment(experiment.experiment_id)
    tracker.want("", "job", history=history(3), finished=True)
    assert tracker.close()
    assert steps(uri, "job") == [1, 2, 3]
    assert capsys.readouterr().err.count("was deleted there") == 1


@pytest.mark.parametrize("when", ["while the job runs", "before it is started again"])
def test_a_deleted_run_is_logged_again_and_it_is_said(
    when: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"

    def job_of_two_runs() -> Tracker:
        tracker = Tracker(uri, "e", tmp_path.as_uri(), "job")
        tracker.want("", "job", params={"a": 1})
        tracker.want("fold0", "fold0", parent="", history=history(1))
        return tracker

    tracker = job_of_two_runs()
    wait_for(lambda: not tracker._changed)
    client = mlflow.MlflowClient(tracking_uri=uri)
    old = dict(tracker._ids)
    for run_id in old.values():
        client.delete_run(run_id)
    capsys.readouterr()
    if when == "before it is started again":
        assert tracker.close()
        tracker = job_of_two_runs()
    tracker.want("fold0", "fold0", parent="", history=history(2), finished=True)
    tracker.want("", "job", params={"a": 1}, finished=True)
    assert tracker.close()
    said = capsys.readouterr().err.splitlines()
    assert sorted(said) == [
        f"! MLflow: the run {n} was deleted there; it is logged again, as a new run" for n in ("fold0", "job")
    ]
    assert steps(uri, "fold0") == [1, 2]
    fold = client.get_run(tracker._ids["fold0"])
    assert fold.data.tags["mlflow.parentRunId"] == tracker._ids[""] != old[""]


def test_what_a_database_refuses_is_not_called_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracker = Tracker(f"sqlite:///{tmp_path}/mlflow.db", "e", tmp_path.as_uri(), "job")
    tracker.want("", "job", params={"a?": 1})
    assert not tracker.close()
    said = capsys.readouterr().err
    assert "MLflow has not taken everything (Invalid value" in said
    assert "answer" not in said


@pytest.mark.slow
def test_points_of_an_outage_are_there_when_the_server_is_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "RETRY_SECONDS", 1.0)
    port = free_port()
    with mlflow_server(tmp_path, port) as uri:
        tracker = Tracker(uri, "e", None, "job")
        tracker.want("", "job", history=history(2))
        deadline = time.monotonic() + 60
        while tracker._changed and time.monotonic() < deadline:
            time.sleep(0.1)
    tracker.want("", "job", history=history(4))  # two epochs while nobody listens
    time.sleep(3)
    with mlflow_server(tmp_path, port) as uri:
        tracker.want("", "job", history=history(5), finished=True)
        assert tracker.close()
        assert steps(uri, "job") == [1, 2, 3, 4, 5]


@pytest.mark.slow
def test_a_model_is_logged_with_its_signature_and_its_batch_is_free(tmp_path: Path) -> None:
    import numpy as np
    import torch

    from medray.engine.train import checkpoint
    from medray.systems.ich.task import SliceTask

    task = SliceTask(backbone="test_resnet", pretrained=True, size_px=32)  # the weights come from the run, not the hub
    network = task.without_weights().network().eval()
    store = Store(tmp_path / "run")
    digest = checkpoint.write_weights(store, "model.pt", {"weights": network.state_dict()})
    store.write_json("done.json", {"weights": digest})
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    tracker = Tracker(uri, "e", tmp_path.as_uri(), "job")
    tracker.want("", "job", model=(store, task), finished=True)
    assert tracker.close()
    mlflow.set_tracking_uri(uri)
    (experiment,) = [e for e in mlflow.MlflowClient().search_experiments() if e.name == "e"]
    (info,) = mlflow.search_logged_models([experiment.experiment_id], output_format="list")
    assert not [tag for tag in info.tags if "user" in tag or "source" in tag]
    model = mlflow.pyfunc.load_model(info.model_uri)
    images = np.random.default_rng(0).integers(0, 255, (5, 3, 32, 32), dtype=np.uint8)
    with torch.inference_mode():
        expected = network(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(np.asarray(model.predict(images)), expected, atol=1e-5)
    assert model.metadata.signature.inputs.inputs[0].shape == (-1, 3, 32, 32)


@pytest.mark.slow
def test_a_model_that_cannot_be_logged_is_said_and_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from medray.systems.ich.task import SliceTask

    task = SliceTask(backbone="test_resnet", pretrained=False, size_px=32)
    tracker = Tracker(f"sqlite:///{tmp_path}/mlflow.db", "e", tmp_path.as_uri(), "job")
    tracker.want("", "job", model=(Store(tmp_path / "empty"), task), history=history(1), finished=True)
    assert tracker.close()
    assert "the model of job is not logged" in capsys.readouterr().err
    assert steps(tracker.uri, "job") == [1]
