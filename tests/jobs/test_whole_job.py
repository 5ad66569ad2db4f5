"""The whole job as a user starts it: killed in every stage it ends with the numbers of an uninterrupted one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import empty_network
import mlflow
import numpy as np
import pandas as pd
import psutil
import pyarrow.parquet as pq
import pytest
from attacker import tells
from calls_home import METADATA, calls, watched
from ray_processes import kill_driver

from medray.imaging.phantom import PhantomSet
from medray.systems.ich.classes import CLASSES, PROBABILITIES

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


TRYING = """
import contextlib, socket
on_link = socket.if_nametoindex("out0")
for kind, to in ((socket.AF_INET, ("192.0.2.7", 9)), (socket.AF_INET6, ("2001:db8::7", 9)), (socket.AF_INET6, ("ff02::1", 9, 0, on_link))):
    socket.socket(kind, socket.SOCK_DGRAM).sendto(b"x", to)
with contextlib.suppress(OSError):
    socket.getaddrinfo("medray.invalid", 80)
web = socket.socket(socket.AF_INET6)
web.settimeout(0.3)
web.connect_ex(("2001:db8::8", 443))
own = socket.socket(type=socket.SOCK_DGRAM)
own.bind(("127.0.0.1", 0))
for _ in range(20_000):  # what stays here hides nothing
    own.sendto(b"y", own.getsockname())
"""


def command(phantoms: PhantomSet, folder: Path, *more: object) -> list[str]:
    flags = [
        "--dicom", phantoms.folder / "dicom", "--labels", phantoms.folder / "labels.csv", "--out", folder / "out",
        "--key-dir", folder.parent / "private", "--folds", 2, "--rows-per-shard", 32, "--threads", 1,
        "--backbones", "test_resnet", "test_byobnet", "--ladder", "--no-pretrained", "--size-px", 32, "--epochs", 2,
        "--batch-size", 8, "--repeat-epidural", 2, "--sequence.epochs", 2, "--sequence.hidden", 8,
        "--sequence.learning-rate", 1e-3, "--blend-trials", 10, *more,
    ]  # fmt: skip
    return [sys.executable, str(ROOT / "jobs" / "ich_cv.py"), *map(str, flags)]


def start(words: list[str], environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, bufsize=1, cwd=ROOT,
        env=environment,
    )  # fmt: skip


def finish(job: subprocess.Popen[str]) -> str:
    text, _ = job.communicate(timeout=300)
    assert job.returncode == 0, text
    return text


def run_until(words: list[str], *steps: tuple[str, Callable[[subprocess.Popen[str]], None]]) -> None:
    """Start, and whenever the next step's line comes out, do that to the job; the last step ends it."""
    job = start(words)
    assert job.stdout is not None
    seen, waiting = [], list(steps)
    for text in job.stdout:
        seen.append(text)
        if waiting[0][0] in text:
            waiting.pop(0)[1](job)
            if not waiting:
                return
    raise AssertionError(f"{waiting[0][0]!r} never came:\n{''.join(seen)}")


@pytest.fixture(scope="module")
def uninterrupted(phantoms: PhantomSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "job"
    folder.mkdir()
    started = time.monotonic()
    words = command(phantoms, folder)
    if empty_network.can_be_made():
        words = empty_network.inside(folder.parent / "sent.log", words)
    (folder / "log").write_text(finish(start(words, watched(folder.parent))))
    assert time.monotonic() - started < 300  # the whole method on two cores: it promises five minutes
    return folder


def test_nobody_is_called(uninterrupted: Path, tmp_path: Path) -> None:
    assert calls(uninterrupted.parent) == []
    # the watch sees what a process of Python tries
    trying = "import urllib.request; urllib.request.urlopen('http://medray.invalid', timeout=1)"
    subprocess.run([sys.executable, "-c", trying], env=watched(tmp_path), stderr=subprocess.DEVNULL, check=False)
    assert calls(tmp_path)
    assert calls(tmp_path)[0].startswith("medray.invalid by ")


@pytest.mark.skipif(
    not empty_network.can_be_made(),
    reason="wants a network of its own, which only Linux has (unshare and ip) and not every machine lets its users make; what Python "
    "processes call is watched everywhere, by test_nobody_is_called",
)
def test_nothing_is_sent_whoever_wanted_to(uninterrupted: Path, tmp_path: Path) -> None:
    """What is not Python, too: Ray's own processes, libraries in C. Ray's agent asks which cloud this is, see ``calls``."""
    log = uninterrupted.parent / "sent.log"
    sent = log.read_text().splitlines() if log.exists() else []
    assert [line for line in sent if not line.startswith(METADATA)] == []
    subprocess.run(empty_network.inside(tmp_path / "log", [sys.executable, "-c", TRYING]), check=True)
    assert (tmp_path / "log").read_text().splitlines() == [
        "192.0.2.7 port 9, protocol 17", "2001:db8::7 port 9, protocol 17", "ff02::1 port 9, protocol 17",
        f"medray.invalid asked of {empty_network.ROUTER}", "2001:db8::8 port 443, protocol 6",
    ]  # fmt: skip


def test_it_leaves_what_it_says(uninterrupted: Path, phantoms: PhantomSet) -> None:
    out = uninterrupted / "out"
    card = (out / "model_card.md").read_text()
    assert "# Model card: Intracranial hemorrhage on head CT" in card
    assert "weighted log loss  0." in card
    files = len(list((phantoms.folder / "dicom").iterdir()))
    inventory = pd.read_parquet(out / "inventory.parquet")
    assert len(inventory) == files
    assert inventory["path"].is_unique
    assert {"ok", "repaired", "quarantined", "unlabelled"} <= set(inventory["status"])
    assert inventory.loc[inventory["status"] == "quarantined", "reason"].str.len().gt(5).all()

    oof = pd.read_parquet(out / "oof.parquet")
    folds = pd.read_parquet(out / "folds.parquet")
    assert oof["slice_id"].is_unique
    labelled = inventory[inventory["status"].isin(["ok", "repaired"])]
    assert set(oof["slice_id"]) == set(labelled["slice_id"])
    assert {"slice_id", "study_id", "fold", *PROBABILITIES, *CLASSES} <= set(oof.columns)
    assert (oof["fold"] == oof["patient_id"].map(folds.set_index("patient_id")["fold"])).all()
    assert np.isfinite(oof[list(PROBABILITIES)].to_numpy()).all()

    studies = pd.read_parquet(out / "studies.parquet")
    assert set(oof["study_id"]) <= set(studies["study_id"])
    assert studies["study_id"].is_unique
    metrics = json.loads((out / "metrics.json").read_text())
    assert {"weighted_log_loss", "auc", "average_precision", "log_loss", "counts", "study"} <= metrics.keys()
    assert metrics["auc"]["any"].keys() - {"reason"} == {"value", "low", "high"}
    steps = [row["name"] for row in metrics["ladder"]]
    assert steps == [
        "single window", "3 windows", "imbalance", "test-time augmentation", "mean over neighbours", "sequence",
        "ensemble",
    ]  # fmt: skip
    assert {row["slices"] for row in metrics["ladder"]} == {len(oof)}
    assert metrics["ladder"][-1]["weighted_log_loss"] == metrics["weighted_log_loss"]
    assert {p.stem for p in (out / "oof").iterdir()} == {
        *("test_resnet", "test_resnet sequence", "test_byobnet", "test_byobnet sequence")
    }
    page = (out / "report.html").read_text()
    assert "://" not in page.replace("http://www.w3.org", "")
    schema = pq.read_schema(next((out / "shards").rglob("*.parquet")))
    assert schema.field("position_mm").metadata[b"unit"] == b"mm"


def test_nothing_of_a_patient_leaves_the_private_folder(uninterrupted: Path, phantoms: PhantomSet) -> None:
    import pydicom

    names = set()
    for path in (phantoms.folder / "dicom").glob("ID_*.dcm"):
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        names |= {
            str(header.get(tag)) for tag in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
        }
    names = {name.encode() for name in names if len(name) > 6}
    assert len(names) > 100
    for path in [uninterrupted / "log", *(uninterrupted / "out").rglob("*")]:
        if path.is_file():
            content = path.read_bytes()
            if path.suffix == ".parquet":
                content = b"".join(
                    str(c.to_pylist()).encode()
                    for f in [pq.read_table(path)]
                    for c in f.select([n for n in f.column_names if n != "image"]).columns
                )
            assert not [name for name in names if name in content], path


def test_no_order_tells_who_is_who(uninterrupted: Path) -> None:
    assert tells(uninterrupted / "out", uninterrupted.parent / "private") == []


def test_mlflow_holds_a_parent_and_each_epoch_once(uninterrupted: Path) -> None:
    runs = mlflow_runs(uninterrupted / "out")
    parents = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
    assert len(parents) == 1
    assert len(children) == 2 * (5 + 2)  # two folds of two backbones, three ablations and two sequence stages
    assert "oof/weighted_log_loss" in parents[0].data.metrics
    assert_epochs_once(uninterrupted / "out")
    assert {run.data.params.get("backbone") for run in runs} == {"test_resnet", "test_byobnet", None}


def mlflow_runs(out: Path) -> list[mlflow.entities.Run]:
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{out}/mlflow.db")
    experiment = client.get_experiment_by_name("medray")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def assert_epochs_once(out: Path) -> None:
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{out}/mlflow.db")
    for run in mlflow_runs(out):
        if "mlflow.parentRunId" in run.data.tags:
            for name in ("train_loss", "held_out_weighted_log_loss", "system/images_per_s"):
                assert sorted(m.step for m in client.get_metric_history(run.info.run_id, name)) == [1, 2]


@pytest.mark.real_data
def test_the_models_predict_the_real_series(
    uninterrupted: Path, head_ct_dir: Path, run_in_process: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    status, text = run_in_process(
        "ich_predict", "--run", uninterrupted / "out", "--dicom", head_ct_dir / "rsna2019_series", "--to", tmp_path
    )
    assert status == 0, text
    slices = pd.read_csv(tmp_path / "slices.csv")
    assert sorted(slices["slice_id"]) == sorted(path.stem for path in (head_ct_dir / "rsna2019_series").iterdir())
    assert slices["index"].tolist() == list(range(36))
    assert slices[list(PROBABILITIES)].apply(lambda p: p.between(0, 1)).all(axis=None)
    assert len(pd.read_csv(tmp_path / "studies.csv")) == 1
    assert (tmp_path / "study00001.png").read_bytes().startswith(b"\x89PNG")
    assert "ID_" not in text  # identifiers are for the CSV files, not for a log
    rows = [line.split(",") for line in (tmp_path / "submission.csv").read_text().splitlines()]
    assert rows[0] == ["ID", "Label"]
    assert sorted(name for name, _ in rows[1:]) == sorted(f"{s}_{c}" for s in slices["slice_id"] for c in CLASSES)


def test_studies_that_were_trained_on_are_reported_and_left_out_of_the_scores(
    uninterrupted: Path, phantoms: PhantomSet, run_in_process: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    truth = pd.read_csv(phantoms.folder / "labels.csv")
    some = sorted({path.stem for path in (phantoms.folder / "dicom").glob("ID_*.dcm")})[:40]
    (tmp_path / "dicom").mkdir()
    for stem in some:
        shutil.copy(phantoms.folder / "dicom" / f"{stem}.dcm", tmp_path / "dicom")
    truth[truth["ID"].str.endswith("_any")].to_csv(tmp_path / "any.csv", index=False)
    status, text = run_in_process(
        "ich_predict", "--run", uninterrupted / "out", "--dicom", tmp_path / "dicom", "--to", tmp_path / "to",
        "--labels", tmp_path / "any.csv", "--montages", 1,
    )  # fmt: skip
    assert status == 0, text
    assert "! leakage: " in text
    slices = pd.read_csv(tmp_path / "to" / "slices.csv")
    assert slices["leaked"].mean() > 0.9  # a slice that is repaired, or all air, may differ
    scores = json.loads((tmp_path / "to" / "scores.json").read_text())
    assert scores["classes"] == ["any"]
    assert scores["counts"]["slices"] == 0
    assert scores["counts"]["left_out_as_leaked"]["slices"] == len(slices)
    submission = pd.read_csv(tmp_path / "to" / "submission.csv")
    assert submission["ID"].is_unique
    assert len(submission) == 6 * len(some)


@pytest.mark.usefixtures("local_ray")
def test_other_windows_use_the_same_shards_where_they_can(
    uninterrupted: Path, phantoms: PhantomSet, run_in_process: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    (tmp_path / "job").mkdir()
    ignored = shutil.ignore_patterns("checkpoints", "mlflow*", "features")
    shutil.copytree(uninterrupted / "out", tmp_path / "job" / "out", ignore=ignored)
    shutil.copytree(uninterrupted.parent / "private", tmp_path / "private")
    shards = tmp_path / "job" / "out" / "shards"
    first = {p.name for p in shards.iterdir()}
    words = [w for w in command(phantoms, tmp_path / "job")[2:] if w != "--ladder"]
    status, text = run_in_process("ich_cv", *words, "--variant", "brain", "--windows", "40/80", "--until", "shards")
    assert status == 0, text
    assert "shards again" not in text
    assert {p.name for p in shards.iterdir()} == first
    status, text = run_in_process("ich_cv", *words, "--variant", "soft", "--windows", "soft", "--until", "shards")
    assert status == 0, text
    assert "this run shards again" in text
    assert {p.name for p in shards.iterdir()} == first | {"40x375"}


@pytest.mark.usefixtures("local_ray")
def test_another_sequence_stage_is_a_variant_on_the_same_backbones(
    uninterrupted: Path, phantoms: PhantomSet, run_in_process: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    (tmp_path / "job").mkdir()
    out = tmp_path / "job" / "out"
    shutil.copytree(uninterrupted / "out", out, ignore=shutil.ignore_patterns("checkpoints", "mlflow*"))
    shutil.copytree(uninterrupted.parent / "private", tmp_path / "private")
    places = (*out.glob("*.json"), *out.glob("*.html"), *out.glob("runs/*/fold*/done.json"))
    kept = {p: p.read_bytes() for p in places if p.name != "manifest.json"}
    named = json.loads((out / "manifest.json").read_text())["files"]
    words = command(phantoms, tmp_path / "job")[2:]
    words[words.index("--sequence.hidden") + 1] = "12"
    status, text = run_in_process("ich_cv", *words)
    assert status == 2
    assert "hidden = 8, this one has 12" in text
    status, text = run_in_process("ich_cv", *words, "--variant", "wide")
    assert status == 0, text
    assert {p: p.read_bytes() for p in kept} == kept  # no backbone again, and the first results stay
    assert named.items() < json.loads((out / "manifest.json").read_text())["files"].items()
    assert {p.name for p in (out / "runs").iterdir() if "wide" in p.name} == {
        "test_resnet-sequence-wide", "test_byobnet-sequence-wide"
    }  # fmt: skip
    assert not [p for p in (out / "features").iterdir() if "wide" in p.name]
    first, wide = (json.loads((folder / "metrics.json").read_text()) for folder in (out, out / "variants" / "wide"))
    of_backbone, of_sequence = (
        [r["weighted_log_loss"] for r in m["ladder"] if r["name"] == "single window"] for m in (first, wide)
    )
    assert of_backbone == of_sequence
    assert first["weighted_log_loss"] != wide["weighted_log_loss"]
    assert "variants wide" in (out / "variants" / "wide" / "report.html").read_text()
    where = tmp_path / "predicted"
    flags = ("--run", out, "--variant", "wide", "--dicom", next(iter(sorted(phantoms.dicom.iterdir()))), "--to", where)
    status, text = run_in_process("ich_predict", *flags)
    assert status == 0, text


@pytest.mark.parametrize("lost", ["test_resnet/fold1", "test_byobnet-sequence", "test_byobnet"])
def test_a_run_folder_with_something_missing(
    uninterrupted: Path, run_in_process: Callable[..., tuple[int, str]], tmp_path: Path, lost: str
) -> None:
    shutil.copytree(uninterrupted / "out", tmp_path / "out", ignore=shutil.ignore_patterns("checkpoints", "mlflow*"))
    shutil.rmtree(tmp_path / "out" / "runs" / lost)
    status, text = run_in_process(
        "ich_predict", "--run", tmp_path / "out", "--dicom", tmp_path, "--to", tmp_path / "to"
    )
    assert status == 2
    assert f"runs/{lost}" in text
    assert "run the job again to its end" in text


def kill_worker(job: subprocess.Popen[str]) -> None:
    """Kill a process that trains; the job goes on."""
    for _ in range(100):
        for process in psutil.Process(job.pid).children(recursive=True):
            try:
                if "/fold" in " ".join(process.cmdline()):
                    process.kill()
                    return
            except psutil.NoSuchProcess:
                pass
        time.sleep(0.1)
    raise AssertionError("no worker was found")


def test_killed_in_every_stage_it_ends_with_the_same_numbers(
    uninterrupted: Path, phantoms: PhantomSet, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("killed") / "job"
    folder.mkdir()
    words = command(phantoms, folder)
    run_until(words, ("headers", kill_driver))
    run_until(words, ("epoch 1/2", kill_worker), ("3. Features", kill_driver))
    run_until(words, ("sequence/fold0  epoch 1/2", kill_driver))
    finish(start(words))
    assert_same_results(folder / "out", uninterrupted / "out")
    assert_epochs_once(folder / "out")
    assert not [p for p in (folder / "out").rglob(".*") if p.is_file() and "train" not in p.parts]


def assert_same_results(one: Path, other: Path) -> None:
    """To the bit; the jobs had different keys, so the names differ and nothing else."""
    assert (one / "metrics.json").read_bytes() == (other / "metrics.json").read_bytes()
    tables = [pd.read_parquet(out / "oof.parquet") for out in (one, other)]
    assert not set(tables[0]["slice_id"]) & set(tables[1]["slice_id"])
    values = ["index", "fold", *PROBABILITIES, *CLASSES]
    pd.testing.assert_frame_equal(tables[0][values], tables[1][values], check_exact=True)
