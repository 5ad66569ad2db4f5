"""The lesion jobs as a user starts them, on four phantom patients: killed and run again they end with the same numbers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from ray_processes import kill_driver

from medray.systems.lesion.phantoms import PhantomPatients, PhantomSpec

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("in")
    phantoms = PhantomPatients(PhantomSpec(patients=4))
    return phantoms.finish(folder, [phantoms.write(folder, piece) for piece in phantoms.pieces(folder)])[0]


def words(job: str, *flags: object) -> list[str]:
    return [sys.executable, str(ROOT / "jobs" / f"{job}.py"), *map(str, flags)]


def cv(table: str, folder: Path) -> list[str]:
    return words(
        "lesion_cv", "--images", table, "--recipe", "phantom", "--folds", 2, "--epochs", 3, "--steps-per-epoch", 8,
        "--no-choose-threshold", "--threads", 1, "--public-ids", "--out", folder / "out", "--key-dir", folder / "private",
    )  # fmt: skip


def done(command: list[str]) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=400, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def finished(table: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    done(cv(table, folder))
    return folder / "out"


def results(out: Path) -> dict[str, bytes]:
    """Tables, scores and masks."""
    folder = out / "models" / "phantom"
    kept = [*folder.glob("*.csv"), folder / "metrics.json", *folder.glob("masks/*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(kept)}


def test_it_leaves_masks_of_every_scan_and_run_again_it_trains_nothing(finished: Path, table: str) -> None:
    before, weights = results(finished), {p: p.stat().st_mtime_ns for p in (finished / "runs").rglob("model.pt")}
    assert len(weights) == 2
    scans = pd.read_csv(finished / "models" / "phantom" / "scans.csv")
    assert len(scans) == 6
    assert (scans.groupby("patient_id")["fold"].nunique() == 1).all()
    assert {f"masks/{name}_mask.nii.gz" for name in scans["files"]} <= set(before)
    done(cv(table, finished.parent))
    assert results(finished) == before
    assert {p: p.stat().st_mtime_ns for p in (finished / "runs").rglob("model.pt")} == weights


def test_killed_in_the_middle_it_ends_with_the_same_bytes(finished: Path, table: str, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        job = subprocess.Popen(cv(table, tmp_path), stdout=log, stderr=log, start_new_session=True, cwd=ROOT)
    for _ in range(2000):
        if list((tmp_path / "out" / "runs").rglob("history.json")):
            break
        assert job.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.1)
    kill_driver(job)
    assert not (tmp_path / "out" / "models" / "phantom" / "metrics.json").exists()
    done(cv(table, tmp_path))
    assert results(tmp_path / "out") == results(finished)


def test_new_scans_are_predicted_and_a_prediction_goes_on(finished: Path, table: str, tmp_path: Path) -> None:
    command = words("lesion_predict", "--run", finished, "--images", table, "--to", tmp_path)
    text = done(command)
    assert "6 of the scans are in the training data" in text
    changes = pd.read_csv(tmp_path / "changes.csv")
    assert set(changes.loc[changes["kind"] == "all lesions", "patient_id"]) == {"sub-02", "sub-04"}
    assert changes.loc[changes["kind"] == "all lesions", "repeatability_mm3"].notna().all()
    tables = {path.name: path.read_bytes() for path in tmp_path.glob("*.csv")}
    lost = sorted((tmp_path / "parts").iterdir())[-1]
    lost.unlink()
    done(command)
    assert lost.exists()
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.csv")} == tables


def test_a_search_of_two_trials(table: str, tmp_path: Path) -> None:
    done(words(
        "lesion_tune", "--images", table, "--backbones", "phantom", "--folds", 2, "--train-folds", 0, "--epochs", 1, "--steps-per-epoch",
        4, "--search", "learning-rate=1e-4..3e-2:log", "foreground-share=0.2..0.9", "--trials", 2, "--public-ids", "--threads", 1,
        "--out", tmp_path / "out", "--key-dir", tmp_path / "private",
    ))  # fmt: skip
    best = json.loads((tmp_path / "out" / "searches" / "search" / "search.json").read_text())["best"][0]
    assert best["command"].startswith("uv run jobs/lesion_cv.py")
