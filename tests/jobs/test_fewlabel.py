"""The ladder as a user starts it, on two small sources: killed while two networks teach each other, and run again, it ends with the
same bytes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from attacker import tells
from ray_processes import kill_driver
from scipy import ndimage

from medray.systems.fewlabel.phantoms import PhantomSources, PhantomSpec

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("in")
    phantoms = PhantomSources(PhantomSpec(cases=4, sources=(("Liver", "Spleen"), ("Kidney_L",))))
    return phantoms.finish(folder, [phantoms.write(folder, piece) for piece in phantoms.pieces(folder)])[0]


def cv(table: str, folder: Path, *more: object) -> list[str]:
    flags = (
        "--sources", table, "--recipe", "phantom", "--folds", 2, "--train-folds", 0, "--width", 4, "--levels", 3, "--patch-DHW", 16, 24,
        24, "--epochs", 3, "--steps-per-epoch", 3, "--batch-size", 4, "--overlap", 0.0, "--pseudo-threshold", 0.05, "--threads", 1, "--out",
        folder / "out", "--key-dir", Path(table).parent / "private", "--project", "one", *more,
    )  # fmt: skip
    return [sys.executable, str(ROOT / "jobs" / "fewlabel_cv.py"), *map(str, flags)]


def done(command: list[str]) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=400, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def finished(table: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    (folder / "log").write_text(
        done(cv(table, folder, "--rungs", "apart", "background", "conditional", "self", "cotraining"))
    )
    return folder / "out"


def results(out: Path) -> dict[str, bytes]:
    """Of the two networks and their means, and of what they were taught: weights, scores, losses, pseudo-labels."""
    folder = out / "models" / "phantom"
    run = out / "runs" / "phantom-cotraining" / "fold0"
    weights = torch.load(run / "model.pt", weights_only=True)["weights"]
    organs = pd.read_csv(folder / "organs.csv", dtype=str)  # a column of nothing but zeros has another type
    losses = [entry["metrics"] for entry in json.loads((run / "history.json").read_text())]
    kept = {str(path.relative_to(folder)): path.read_bytes() for path in sorted((folder / "pseudo").rglob("*.nii.gz"))}
    kept |= {f"weights {name}": value.numpy().tobytes() for name, value in weights.items()}
    return kept | {
        "organs": organs[organs["network"] == "cotraining"].to_csv(index=False).encode(),
        "losses": json.dumps(losses).encode(),
    }


def test_no_order_tells_who_is_who(finished: Path, table: str) -> None:
    assert tells(finished, Path(table).parent / "private") == []


def test_every_rung_is_scored_and_pseudo_labels_lie_there_to_look_at(finished: Path) -> None:
    folder = finished / "models" / "phantom"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["final"], [*metrics["means"]]) == (
        "cotraining", ["apart", "background", "conditional", "self", "cotraining"]
    )  # fmt: skip
    assert metrics["answers"].keys() == {"0"}
    assert {"cotraining self", "cotraining apart"} <= {f"{s['rung']} {s['against']}" for s in metrics["ladder"]}
    organs = pd.read_csv(folder / "organs.csv")
    assert set(organs.groupby("organ")["own"].mean().round(2)) == {0.5}  # as many scans of each source
    table = pd.read_csv(folder / "pseudo" / "pseudo-labels.csv")
    assert len(table) == len(list((folder / "pseudo").rglob("*.nii.gz"))) > 0
    assert not ((table["source"] == "A") & table["organ"].isin(["Liver", "Spleen"])).any()
    page = (folder / "report.html").read_text()
    for words in ("The ladder", "Sources", "Pseudo-labels", "What an answer costs"):
        assert words in page
    assert str(finished.parents[1]) not in page
    text = (finished.parent / "log").read_text()
    assert "source  cases  labelled" in text
    assert "/b0" not in text  # a case's own name


@pytest.fixture(scope="module")
def unlike(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sources: one of four cases; one on another grid, of other axes, that draws both kidneys as one, overlapping another
    label, of which two cases are patients of the first; and one of a single case. Labels beside them that are left out."""
    folder = tmp_path_factory.mktemp("unlike")
    sources = (("Liver", "Spleen"), ("Kidney_L", "Kidney_R"), ("Kidney_L", "Kidney_R"))
    drawn = PhantomSources(PhantomSpec(cases=4, sources=sources))
    for piece in [(0, 1), (0, 2), (0, 3), (0, 4), (1, 1), (1, 2), (1, 3), (2, 1)]:
        drawn.write(folder, piece)
    for path in sorted((folder / "B").rglob("*.nii.gz")):
        image = nibabel.load(path).slicer[::-1, :, ::2]
        data = np.asarray(image.dataobj)
        if path.parent.name == "masks":
            home = path.parent / path.name.removesuffix(".nii.gz")
            home.mkdir()
            for name, mask in {
                "kidney": data > 0,
                "Liver": ndimage.binary_dilation(data == 1),
                "tumour": data < 0,
            }.items():
                nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), image.affine), home / f"{name}.nii.gz")
            path.unlink()
        else:
            nibabel.save(nibabel.Nifti1Image(data.astype(np.int16), image.affine), path)
    for name in ("b01", "b02"):  # of the same two patients as the first source's
        for path in [folder / "B" / "images" / f"{name}.nii.gz", folder / "B" / "masks" / name]:
            path.rename(path.parent / f"p{path.name[1:]}")
    for path in [*(folder / "A" / "images").iterdir(), *(folder / "A" / "masks").iterdir()]:
        path.rename(path.parent / f"p{path.name[1:]}")
    (folder / "sources.csv").write_text(
        "name,images,masks,organs,mapping,patient\n"
        "A,A/images,A/masks,Liver Spleen,1=Liver 2=Spleen,(p\\d+)\n"
        "B,B/images,B/masks,Kidney_L Kidney_R Liver,kidney=Kidney_L+Kidney_R tumour=none,(.\\d+)\n"
        "C,C/images,C/masks,Kidney_L Kidney_R,1=Kidney_L 2=Kidney_R,\n"
    )
    return folder / "sources.csv"


def test_sources_that_differ_in_everything_are_learned_from(unlike: Path, tmp_path: Path) -> None:
    flags = ("--rungs", "apart", "marginal", "cotraining", "--public-ids", "--spacing-mm", 4, 4, 4)
    said = " ".join(done(cv(str(unlike), tmp_path, *flags)).split())
    folds = pd.read_parquet(tmp_path / "out" / "folds.parquet").set_index("patient_id")["fold"]
    assert {"p01", "p02", "b03", "C/b01"} <= {*folds.index}
    assert len(folds) == 4 + 1 + 1  # p01 and p02 are in two sources
    organs = pd.read_csv(tmp_path / "out" / "models" / "phantom" / "organs.csv")
    held = organs[organs["network"] == "cotraining"]
    assert {"A/p01", "B/p01"} <= {*held["scan_id"]} or not {"A/p01", "B/p01"} & {*held["scan_id"]}  # never apart
    reasons = pd.read_parquet(tmp_path / "out" / "inventory.parquet")["reason"].dropna()
    assert reasons.str.startswith("labels overlap in").sum() == 3 * 3  # of each file of each case of B
    assert "source C: all its scans are in fold" in said


def test_killed_while_networks_teach_each_other_it_ends_with_the_same_bytes(
    finished: Path, table: str, tmp_path: Path
) -> None:
    command = cv(table, tmp_path, "--rungs", "apart", "cotraining")
    with (tmp_path / "log").open("w") as log:
        job = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=ROOT)
    run = tmp_path / "out" / "runs" / "phantom-cotraining" / "fold0"
    for _ in range(3000):
        if (run / "history.json").exists():
            break
        assert job.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.1)
    kill_driver(job)
    assert not (run / "done.json").exists()
    done(command)
    whole, again = results(finished), results(tmp_path / "out")
    assert {name for name in {*whole, *again} if whole.get(name) != again.get(name)} == set()


def test_a_prediction_finds_in_held_out_scans_what_the_run_found(finished: Path, table: str, tmp_path: Path) -> None:
    images = Path(table).parent / "A" / "images"
    command = [sys.executable, str(ROOT / "jobs" / "fewlabel_predict.py")]
    said = done([*command, "--run", str(finished), "--images", str(images), "--to", str(tmp_path / "to")])
    scans = pd.read_csv(tmp_path / "to" / "scans.csv")
    organs = pd.read_csv(tmp_path / "to" / "organs.csv").set_index(["scan_id", "organ"])["ml"]
    own = pd.read_csv(finished / "models" / "phantom" / "organs.csv")
    own = own[(own["network"] == "cotraining") & (own["origin"] == "A")]
    assert len(scans) == 4
    assert int(scans["trained_on"].sum()) == 4 - own["scan_id"].nunique() > 0  # known by their pixels alone
    held = {scan for scan in scans.loc[~scans["trained_on"], "scan_id"]}
    told = sorted(ml for (scan, _), ml in organs.items() if scan in held)
    assert told == pytest.approx(sorted(own["ml"]), rel=1e-3, abs=1e-6)  # a voxel of one is a hundredth of a millilitre
    assert "of 12 organs found" in " ".join(said.split())


def test_a_search_learns_from_the_pseudo_labels_of_the_run(finished: Path, table: str, tmp_path: Path) -> None:
    """A copy, since a search leaves its own trials in --out."""
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    flags = (
        "--sources", table, "--backbones", "phantom", "--folds", 2, "--train-folds", 0, "--width", 4, "--levels", 3, "--patch-DHW",
        16, 24, 24, "--epochs", 2, "--steps-per-epoch", 3, "--overlap", 0.0, "--threads", 1, "--trials", 2, "--out", out,
        "--search", "ramp=1..20", "soft-weight=0.01..1:log", "--key-dir", Path(table).parent / "private",
    )  # fmt: skip
    command = [sys.executable, str(ROOT / "jobs" / "fewlabel_tune.py"), *map(str, flags)]
    said = done(command)
    assert "uv run jobs/fewlabel_cv.py" in said
    for words in ("--soft-weight", "--ramp"):
        assert words in said
    shutil.rmtree(out / "features")
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=200, check=False)
    assert ended.returncode == 2
    assert (
        "no pseudo-labels of fold 0 by phantom; run jobs/fewlabel_cv.py --recipe phantom --until pseudo first"
        in " ".join((ended.stdout + ended.stderr).split())
    )
