"""The whole job, from DICOM files to the report in a bucket, while what it leans on fails: MLflow's server is killed and
comes back, and the bucket refuses every write for ten seconds. It ends with the numbers of an undisturbed job."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
from ray_processes import free_port
from servers import Bucket, Door, mlflow_server

from medray.imaging.phantom import PhantomSet
from medray.shards.store import Store

pytestmark = pytest.mark.on_demand
ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 24
RUNS = ("test_resnet/fold0", "test_resnet/fold1")
REFUSED_SECONDS = 10
DEAD_SECONDS = 3  # shorter: no epoch can end before MLflow is back, however fast the machine


@dataclass(frozen=True)
class Ended:
    bucket: Bucket
    logs: dict[str, str]
    tracked: Path  # of MLflow
    reached: list[list[int]]  # epochs of each run when the failures began, and when MLflow was back

    def out(self, name: str) -> Store:
        return Store(self.bucket.uri(name))


def start(phantoms: PhantomSet, folder: Path, out: str, uri: str) -> subprocess.Popen[str]:
    flags = [
        "--dicom", phantoms.dicom, "--labels", phantoms.folder / "labels.csv", "--out", out, "--key-dir", folder / "private",
        "--folds", 2, "--rows-per-shard", 32, "--threads", 1, "--backbones", "test_resnet", "--no-pretrained",
        "--no-sequence-stage", "--size-px", 32, "--epochs", EPOCHS, "--batch-size", 8, "--repeat-epidural", 2,
        "--blend-trials", 10, "--tracking-uri", uri, "--experiment", Store(out).uri.rsplit("/", 1)[1],
    ]  # fmt: skip
    return subprocess.Popen(
        [sys.executable, str(ROOT / "jobs" / "ich_cv.py"), *map(str, flags)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, start_new_session=True,
    )  # fmt: skip


def finish(job: subprocess.Popen[str]) -> str:
    text, _ = job.communicate(timeout=300)
    assert job.returncode == 0, text
    return text


def epochs(out: Store) -> list[int]:
    return [len(out.sub("runs", run).read_json("history.json", [])) for run in RUNS]


@pytest.fixture(scope="module")
def ended(phantoms: PhantomSet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    folder, bucket, ports = tmp_path_factory.mktemp("disturbed"), Bucket(), (free_port(), free_port())
    out, logs, reached, door = Store(bucket.uri("disturbed")), {}, [], Door(ports[0])  # type: ignore[var-annotated]
    uri = door.uri
    with mlflow_server(folder, ports[1]), contextlib.ExitStack() as first:
        first.enter_context(mlflow_server(folder, ports[0]))
        began = time.monotonic()
        logs["undisturbed"] = finish(start(phantoms, folder, bucket.uri("undisturbed"), uri))
        print(f"undisturbed: {time.monotonic() - began:.0f} s")
        began = time.monotonic()
        job = start(phantoms, folder, bucket.uri("disturbed"), uri)
        while not max(epochs(out)):
            assert job.poll() is None, job.communicate()[0]
            time.sleep(0.1)
        reached.append(epochs(out))
        bucket.shut = True
        opening = threading.Timer(REFUSED_SECONDS, setattr, (bucket, "shut", False))
        opening.start()
        first.close()  # kills the server
        time.sleep(DEAD_SECONDS)
        door.behind = ports[1]
        reached.append(epochs(out))
        logs["disturbed"] = finish(job)
        print(f"disturbed: {time.monotonic() - began:.0f} s; {bucket.refused} writes refused; epochs {reached}")
    yield Ended(bucket, logs, folder, reached)
    door.close()
    bucket.close()


def test_both_failures_came_in_mid_run(ended: Ended) -> None:
    assert ended.bucket.refused > 0
    assert max(ended.reached[-1]) < EPOCHS  # when MLflow was back, epochs were still to come
    assert "training goes on, the points follow when it answers" in ended.logs["disturbed"]


def test_it_ends_with_the_same_numbers(ended: Ended) -> None:
    once, again = ended.out("undisturbed"), ended.out("disturbed")
    assert again.read_bytes("metrics.json") == once.read_bytes("metrics.json")
    assert again.read_bytes("oof.parquet") == once.read_bytes("oof.parquet")
    for run in RUNS:
        histories = [out.sub("runs", run).read_json("history.json") for out in (once, again)]
        assert [e["epoch"] for e in histories[1]] == list(range(1, EPOCHS + 1))
        assert [e["metrics"] for e in histories[1]] == [e["metrics"] for e in histories[0]]


@pytest.mark.parametrize("name", ["undisturbed", "disturbed"])
def test_mlflow_has_one_run_a_fold_and_each_epoch_once(ended: Ended, name: str) -> None:
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{ended.tracked}/s.db")
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert len(client.search_runs([experiment.experiment_id])) == len(runs) == 1 + len(RUNS)
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    for run in RUNS:
        for metric in ("train_loss", "held_out_weighted_log_loss", "system/images_per_s"):
            points = client.get_metric_history(runs[run].info.run_id, metric)
            assert sorted(p.step for p in points) == list(range(1, EPOCHS + 1))


def test_nothing_is_half_written(ended: Ended) -> None:
    once, again = ([file.path.split("/", 2)[2] for file in ended.out(n).files()] for n in ("undisturbed", "disturbed"))
    assert again == once
    assert not ended.bucket.unfinished()
