"""The jobs of organs at risk as a user starts them, on four drawn heads: killed while the coder of shapes and the networks train
against each other, and run again, they end with the same bytes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from ray_processes import kill_driver
from volume_files import as_bytes, mr_series, nifti

from medray.imaging.structure_set_write import structure_set_bytes
from medray.imaging.volume import read_volume
from medray.systems.headneck.phantom_head import AFFINE, ORGANS, SPACING_MM, draw

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


WHO, PATIENT = "Maria-Muster", "PID-4711"


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A table of four heads: two as NIfTI with masks, two as DICOM series with structure sets, one of these with metal."""
    folder = tmp_path_factory.mktemp("in")
    lines = ["patient,ct,structures,organs"]
    for number in range(1, 5):
        hu, masks = draw(np.random.default_rng([0, number]))
        home = folder / f"p{number}"
        home.mkdir()
        if number < 3:
            (home / "masks").mkdir()
            (home / "ct.nii.gz").write_bytes(nifti(hu, AFFINE))
            for organ, mask in masks.items():
                (home / "masks" / f"{organ}.nii.gz").write_bytes(nifti(mask.astype(np.uint8), AFFINE))
            lines.append(f"p{number},p{number}/ct.nii.gz,,p{number}/masks")
            continue
        hu[20, 30:36, 30:36] = 3000 if number == 4 else hu[20, 30:36, 30:36]
        uid = f"1.2.826.0.1.3680043.8.498.{number}"
        series = mr_series(
            hu, step_lps=(0.0, 0.0, SPACING_MM[0]), spacing_rc=SPACING_MM[1:], Modality="CT", PatientID=f"{PATIENT}-{number}",
            PatientName=WHO, SeriesInstanceUID=uid, FrameOfReferenceUID=f"{uid}.1",
        )  # fmt: skip
        files = [as_bytes(one) for one in series]
        for k, data in enumerate(files):
            (home / f"{k:03d}.dcm").write_bytes(data)
        (folder / f"p{number}.rtstruct").write_bytes(structure_set_bytes(masks, read_volume(files), files))
        lines.append(f"{PATIENT}-{number},p{number},p{number}.rtstruct,")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return str(folder / "table.csv")


def words(job: str, *flags: object) -> list[str]:
    return [sys.executable, str(ROOT / "jobs" / f"{job}.py"), *map(str, flags)]


def cv(heads: str, folder: Path, *more: object) -> list[str]:
    small = ("--widths", 4, 8, "--patch-DHW", 8, 16, 16, "--region-mm", 18, 20, 20, "--small-width", 4, "--code", 8)
    short = ("--epochs", 1, "--steps-per-epoch", 2, "--peaks-epochs", 1, "--outlines-epochs", 1, "--shapes-epochs", 1)
    return words(
        "headneck_cv", "--images", heads, "--recipe", "phantom", "--folds", 2, "--train-folds", 0, *small, *short,
        "--organs", *ORGANS, "--joint-epochs", 4, "--overlap", 0.0, "--threads", 1, "--out", folder / "out",
        "--key-dir", Path(heads).parent / "private", "--project", "one", *more,
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
    organs = pd.read_csv(folder / "organs.csv", dtype=str)  # a column of nothing but zeros has another type
    organs = organs[organs["network"].isin(["snet", "outlines", "joint"])]
    history = json.loads((out / "runs" / "phantom-joint" / "fold0" / "history.json").read_text())
    losses = [{name: value for name, value in entry["metrics"].items()} for entry in history]
    weights = torch.load(out / "runs" / "phantom-joint" / "fold0" / "model.pt", weights_only=True)["weights"]
    kept |= {f"weights {name}": value.numpy().tobytes() for name, value in weights.items()}
    return kept | {"organs": organs.to_csv(index=False).encode(), "losses": json.dumps(losses).encode()}


def test_every_stage_starts_from_the_one_before_and_leaves_its_scores(finished: Path) -> None:
    runs = {path.name for path in (finished / "runs").iterdir()}
    stages = ("snet", "unet", "peaks", "outlines", "no-ct", "shapes", "joint")
    assert runs == {f"phantom-{stage}" for stage in stages}
    folder = finished / "models" / "phantom"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["final"], [*metrics["means"]]) == ("joint", ["unet", "snet", "no-ct", "outlines", "joint"])
    assert {*metrics["small"]} == {"Lens_L", "Lens_R", "OpticChiasm"}
    assert {"joint outlines", "outlines snet", "outlines no-ct"} <= {
        f"{s['rung']} {s['against']}" for s in metrics["ladder"]
    }
    page = (folder / "report.html").read_text()
    assert "The ladder" in page and "Where small organs are" in page  # noqa: PT018  one page
    assert str(finished.parents[1]) not in page


def test_every_held_out_scan_has_contours_and_none_names_a_patient(finished: Path) -> None:
    """One of them is DICOM, one has metal: what is odd about a scan takes nothing from it."""
    folder = finished / "models" / "phantom"
    scans = pd.read_csv(folder / "scans.csv")
    assert len(scans) == 2
    assert scans["files"].notna().all()
    organs = pd.read_csv(folder / "organs.csv")
    found = organs[organs["network"].eq("joint")].groupby("scan_id")["ml"].sum()  # of a network of seconds, maybe none
    written = [bool(list((folder / "contours" / name).glob("*.nii.gz"))) for name in scans["files"]]
    assert written == (found[scans["scan_id"]] > 0).tolist()
    assert any(written)
    inventory = pd.read_parquet(finished / "inventory.parquet")
    assert inventory["reason"].str.contains("metal: ").any()
    secret = re.compile(f"{WHO}|{PATIENT}|1\\.2\\.826".encode())
    for path in (path for path in finished.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            texts = [
                n for n, kind in zip(table.column_names, table.schema.types, strict=True) if pa.types.is_string(kind)
            ]
            content = str(table.select(texts).to_pylist()).encode()
        assert not secret.search(content), path


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
        "headneck_tune", "--images", heads, "--organs", *ORGANS, "--backbones", "phantom", "--folds", 2, "--train-folds", 0, "--epochs", 1,
        "--steps-per-epoch", 2, "--widths", 4, 8, "--patch-DHW", 8, 16, 16, "--search", "learning-rate=1e-3..2e-2:log",
        "--trials", 2, "--public-ids", "--threads", 1, "--out", tmp_path / "out", "--key-dir", tmp_path / "private",
    ))  # fmt: skip
    best = json.loads((tmp_path / "out" / "searches" / "search" / "search.json").read_text())["best"][0]
    assert best["command"].startswith("uv run jobs/headneck_cv.py")
