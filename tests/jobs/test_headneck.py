"""The jobs of organs at risk as a user starts them, on four drawn heads: killed while the coder of shapes and the networks train
against each other, and run again, they end with the same bytes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from ray_processes import kill_driver

from medray.systems.headneck.phantoms import PhantomHeads, PhantomSpec

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("in")
    phantoms = PhantomHeads(PhantomSpec(patients=4))
    return phantoms.finish(folder, [phantoms.write(folder, piece) for piece in phantoms.pieces(folder)])[0]


def words(job: str, *flags: object) -> list[str]:
    return [sys.executable, str(ROOT / "jobs" / f"{job}.py"), *map(str, flags)]


def cv(heads: str, folder: Path, *more: object) -> list[str]:
    small = ("--widths", 4, 8, "--patch-DHW", 8, 16, 16, "--region-mm", 18, 20, 20, "--small-width", 4, "--code", 8)
    short = ("--epochs", 1, "--steps-per-epoch", 2, "--peaks-epochs", 1, "--outlines-epochs", 1, "--shapes-epochs", 1)
    return words(
        "headneck_cv", "--images", heads, "--recipe", "phantom", "--folds", 2, "--train-folds", 0, *small, *short,
        "--joint-epochs", 4, "--overlap", 0.0, "--threads", 1, "--public-ids", "--out", folder / "out",
        "--key-dir", folder / "private", *more,
    )  # fmt: skip


def done(command: list[str]) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=400, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def finished(heads: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    done(cv(heads, folder, "--rungs", "unet", "no-ct"))
    return folder / "out"


def results(out: Path) -> dict[str, bytes]:
    """Contours and the final network's scores and weights; of the ladder's other rungs, which not every run here has, nothing."""
    folder = out / "models" / "phantom"
    kept = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("contours/*/*"))}
    organs = pd.read_csv(folder / "organs.csv")
    organs = organs[organs["network"].isin(["snet", "outlines", "joint"])]
    history = json.loads((out / "runs" / "phantom-joint" / "fold0" / "history.json").read_text())
    losses = [{name: value for name, value in entry["metrics"].items()} for entry in history]
    return kept | {"organs": organs.to_csv(index=False).encode(), "losses": json.dumps(losses).encode()}


def test_every_stage_starts_from_the_one_before_and_leaves_its_scores(finished: Path) -> None:
    runs = {path.name for path in (finished / "runs").iterdir()}
    stages = ("snet", "unet", "peaks", "outlines", "no-ct", "shapes", "joint")
    assert runs == {f"phantom-{stage}" for stage in stages}
    folder = finished / "models" / "phantom"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["final"], [*metrics["means"]]) == ("joint", ["unet", "snet", "no-ct", "outlines", "joint"])
    assert metrics["small"] == ["Lens_L", "Lens_R", "OpticChiasm"]
    assert {"joint outlines", "outlines snet", "outlines no-ct"} <= {
        f"{s['rung']} {s['against']}" for s in metrics["ladder"]
    }
    page = (folder / "report.html").read_text()
    assert "The ladder" in page and "Where small organs are" in page  # noqa: PT018  one page
    assert str(finished.parents[1]) not in page


def test_killed_in_the_adversarial_stage_it_ends_with_the_same_bytes(
    finished: Path, heads: str, tmp_path: Path
) -> None:
    with (tmp_path / "log").open("w") as log:
        job = subprocess.Popen(cv(heads, tmp_path), stdout=log, stderr=log, start_new_session=True, cwd=ROOT)
    joint = tmp_path / "out" / "runs" / "phantom-joint" / "fold0"
    for _ in range(3000):
        if (joint / "history.json").exists():
            break
        assert job.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.1)
    kill_driver(job)
    assert not (joint / "done.json").exists()
    done(cv(heads, tmp_path))
    whole, again = results(finished), results(tmp_path / "out")
    assert {name for name in {*whole, *again} if whole.get(name) != again.get(name)} == set()


@pytest.mark.on_demand  # what is its own of it, the search of lesions has tried
def test_a_search_of_two_trials(heads: str, tmp_path: Path) -> None:
    done(words(
        "headneck_tune", "--images", heads, "--backbones", "phantom", "--folds", 2, "--train-folds", 0, "--epochs", 1,
        "--steps-per-epoch", 2, "--widths", 4, 8, "--patch-DHW", 8, 16, 16, "--search", "learning-rate=1e-3..2e-2:log",
        "--trials", 2, "--public-ids", "--threads", 1, "--out", tmp_path / "out", "--key-dir", tmp_path / "private",
    ))  # fmt: skip
    best = json.loads((tmp_path / "out" / "searches" / "search" / "search.json").read_text())["best"][0]
    assert best["command"].startswith("uv run jobs/headneck_cv.py")
