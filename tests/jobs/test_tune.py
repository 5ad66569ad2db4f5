"""The search as a user starts it: its driver is killed, and the same command goes on."""

from __future__ import annotations

import itertools
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from ray_processes import kill_driver

from medray.imaging.phantom import PhantomSet

ROOT = Path(__file__).resolve().parents[2]


def flags(phantoms: PhantomSet, folder: Path, *more: object) -> list[str]:
    words = [
        "--dicom", phantoms.dicom, "--labels", phantoms.labels_csv, "--out", folder / "out", "--key-dir",
        folder / "private", "--folds", 3, "--rows-per-shard", 32, "--threads", 1, "--backbones", "test_resnet",
        "--no-pretrained", "--size-px", 32, "--epochs", 3, "--batch-size", 8, "--repeat-epidural", 2,
        "--search", "learning-rate=1e-4..1e-2:log", "epidural-weight=1..4", "--trials", 5, *more,
    ]  # fmt: skip
    return list(map(str, words))


@pytest.mark.on_demand
def test_a_killed_search_goes_on_and_repeats_no_rung(phantoms: PhantomSet, tmp_path: Path) -> None:
    words = [sys.executable, str(ROOT / "jobs" / "ich_tune.py"), *flags(phantoms, tmp_path)]
    log = tmp_path / "log"
    with log.open("w") as stream:
        job = subprocess.Popen(words, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True, cwd=ROOT)
    store = tmp_path / "out" / "searches" / "search"
    wait_for(job, lambda: len(list(store.glob("trials/*/rungs.json"))) >= 2, log)
    kill_driver(job)
    assert not (store / "search.json").exists()
    before = {path: json.loads(path.read_text())[0] for path in store.glob("trials/*/rungs.json")}

    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "goes on with" in done.stdout
    trials = sorted(store.glob("trials/*/trial.json"))
    # one that was suggested within the last seconds before the kill may have been forgotten by Tune, and is left over
    finished = [path for path in trials if (path.parent / "rungs.json").exists()]
    assert 5 <= len(finished) <= len(trials) <= 7
    for path, rung in before.items():
        assert json.loads(path.read_text())[0] == rung
    best = json.loads((store / "search.json").read_text())["best"][0]
    command = shlex.split(best["command"])
    assert command[:3] == ["uv", "run", "jobs/ich_cv.py"]
    given = dict(itertools.pairwise(command))
    assert float(given["--learning-rate"]) == best["values"]["learning_rate"]
    assert (given["--out"], given["--variant"]) == (str(tmp_path / "out"), "search-best")
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{store}/optuna.db")
    complete = [t for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE]
    assert len(complete) >= 5


def wait_for(job: subprocess.Popen, happened: Callable[[], bool], log: Path) -> None:
    for _ in range(1200):
        if happened():
            return
        assert job.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(log.read_text())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--search", "lr=1..2"), "--search lr=1..2: no such field"),
        (("--trials", 0), "--trials 0: must be at least 1"),
        (("--name", "../up"), "--name ../up: letters"),
        (("--backbones", "resnext101_32x8d", "inception_v3"), "unlike epochs"),
        (("--backbones", "resnet_18"), "resnet_18"),
        (("--train-folds", 3), "--train-folds 3"),
    ],
)
def test_what_cannot_be_is_said_before_a_cluster_is_joined(
    run_in_process: Callable[..., tuple[int, str]],
    phantoms: PhantomSet,
    tmp_path: Path,
    more: tuple[object, ...],
    message: str,
) -> None:
    words = flags(phantoms, tmp_path)
    if more[0] == "--backbones":
        at = words.index("--epochs")
        del words[at : at + 2]
    status, text = run_in_process("ich_tune", *words, *more)
    assert status == 2
    assert message in text
    assert "Traceback" not in text
