"""What a user of the lesion jobs can get wrong, and cases among good ones that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from conftest import the_error
from left_files import finish
from lesion_files import LAS, SHAPE, brain, las, lesion, write, write_table
from volume_files import as_bytes, mr_series, nifti

from medray.engine.train import checkpoint
from medray.metrics.lesions import Rules
from medray.shards.pseudonym import read_map
from medray.shards.store import Store
from medray.systems.ich.task import SliceTask
from medray.systems.lesion.source import BrainMR
from medray.systems.lesion.task import LesionTask

Job = Callable[..., tuple[int, str]]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    for name, data in {"a.nii": las(brain(1)), "b.nii": las(brain(2)), "m.nii": las(lesion())}.items():
        write(tmp_path / "in", name, data)
    rows = [{"patient": patient, "flair": f"{patient}.nii", "mask": "m.nii"} for patient in "ab"]
    return write_table(tmp_path / "in", rows)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--images", "absent.csv"), "--images absent.csv: "),
        (
            ("--images", "bad.csv"),
            "--images bad.csv: no column patient; found who, flair; wanted patient, visit, a column",
        ),
        (("--images", "twice.csv"), "--images twice.csv: lines 2 and 3 are the same visit of one patient; keep one"),
        (("--images", "unmasked.csv"), "--images: no case has a mask, and training needs some"),
        (("--images", "empty"), "--images empty: there are no files in it"),
        (("--name", "../up"), "--name ../up: letters, digits"),
        (("--channels", "t9"), "--channels t9: the scans have flair"),
        (("--channels", "flair-smooth"), "--channels flair-smooth: the scans have flair"),
        (("--channels", "flair", "flair"), "--channels flair flair: each once"),
        (("--classes", "a", "a"), "--classes a a: one or more, each once"),
        (("--smallest-mm3", -1), "--smallest-mm3 -1.0: must be 0 or more"),
        (("--threshold", 1), "--threshold 1.0: between 0 and 1"),
        (("--rules.connectivity", 8), "connectivity 8: 6, 18 or 26 neighbours"),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(
    flags: tuple[object, ...], message: str, table: Path, run_in_process: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.csv").write_text("who,flair\na,f.nii\n")
    (tmp_path / "twice.csv").write_text("patient,flair,mask\na,f.nii,m.nii\na,g.nii,m.nii\n")
    (tmp_path / "unmasked.csv").write_text("patient,flair\na,f.nii\n")
    given = () if "--images" in flags else ("--images", table)
    own = ("--recipe", "phantom", "--out", tmp_path / "out", "--key-dir", tmp_path / "k")
    status, text = run_in_process("lesion_cv", *own, *given, *flags)
    assert status == 2
    assert message in " ".join(text.replace("│", " ").split())
    assert "Traceback" not in text
    assert not (tmp_path / "out" / "runs").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--search", "lr=1..2"), "--search lr=1..2: no such field"),
        (("--backbones", "segresnett"), "--recipe segresnett: no such recipe; did you mean segresnet?"),
        (("--objective", "auc"), "dice"),
        (("--channels", "t9"), "--channels t9: the scans have flair"),
    ],
)
def test_what_cannot_be_searched_is_one_line(
    flags: tuple[str, ...], message: str, table: Path, run_in_process: Job, tmp_path: Path
) -> None:
    own = ("--backbones", "phantom", "--images", table, "--out", tmp_path / "out", "--key-dir", tmp_path / "k")
    status, text = run_in_process("lesion_tune", *own, *flags)
    assert status == 2
    assert message in " ".join(text.replace("│", " ").split())
    assert "Traceback" not in text


@pytest.mark.usefixtures("local_ray")
def test_cases_that_cannot_be_used_cost_no_neighbour(run_in_process: Job, tmp_path: Path) -> None:
    nan, inf, odd = brain(1), brain(1), lesion()
    nan[3, 3, 3], inf[3, 3, 3], odd[0, 0, 0] = np.nan, np.inf, 9
    moved = LAS.copy()
    moved[2, 3] += 8
    good, mask = las(brain(1)), las(lesion())
    cases = {
        "good1": (good, good, mask), "good2": (las(brain(2)), good, las(lesion((3, 3, 3)))),
        "unmasked": (las(brain(3)), good, None),
        "nan": (las(nan), good, mask), "inf": (good, las(inf), mask), "odd": (good, good, las(odd)),
        "moved": (good, nifti(brain(2), moved), mask), "maskmoved": (good, good, nifti(lesion(), moved)),
        "empty": (las(np.zeros(SHAPE, np.float32)),) * 2 + (mask,), "fourd": (las(np.ones((4, 4, 4, 2), np.float32)), good, mask),
        "cut": (good[:-50], good, mask), "lost": (good, None, mask),
    }  # fmt: skip
    rows = []
    for patient, named in cases.items():
        row = {"patient": patient}
        for name, data in zip(("flair", "t1", "mask"), named, strict=True):
            row[name] = "" if data is None else write(tmp_path / "in", f"{patient}-{name}.nii", data)
        rows.append(row)
    out = tmp_path / "out"
    flags = [
        "--images",
        write_table(tmp_path / "in", rows),
        "--recipe",
        "phantom",
        "--folds",
        2,
        "--out",
        out,
        "--public-ids",
    ]
    flags += ["--until", "shards", "--workers", 0, "--key-dir", tmp_path / "private"]
    status, text = run_in_process("lesion_cv", *flags)
    assert status == 0, text
    shards = pd.concat(
        pd.read_parquet(path, columns=["scan_id", "lesion_ml"]) for path in (out / "shards").rglob("*.parquet")
    )
    assert sorted(shards["scan_id"]) == ["good1", "good2", "unmasked"]
    assert shards.set_index("scan_id")["lesion_ml"].isna().to_dict() == {
        "good1": False,
        "good2": False,
        "unmasked": True,
    }
    inventory = pd.read_parquet(out / "inventory.parquet")
    told = {Path(path).stem: reason for path, reason in zip(inventory["path"], inventory["reason"], strict=True)}
    for name, reason in {
        "nan-flair": "flair: 1 of 5,760 voxels are NaN or infinite", "inf-t1": "t1: 1 of 5,760 voxels are NaN or infinite",
        "odd-mask": "mask: values that are no class (9)", "moved-t1": "t1: another grid than flair: origin",
        "maskmoved-mask": "mask: another grid than the scan: origin", "empty-flair": "an empty brain",
        "fourd-flair": "4D, not 3D", "cut-flair": "cut short", "lost-flair": "t1 is missing; give it, or --missing-channels zeros",
    }.items():  # fmt: skip
        assert reason in str(told[name]), name
    assert set(inventory.loc[inventory["path"].str.contains("good|unmasked"), "status"]) == {"ok"}


@pytest.mark.usefixtures("local_ray")
def test_a_channel_that_is_not_asked_for_can_spoil_no_case(run_in_process: Job, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    moved = LAS.copy()
    moved[2, 3] += 8
    files = {
        "cut.nii": las(brain(1))[:-50],
        "moved.nii": nifti(brain(2), moved),
        **{f"t1-{who}.nii": las(brain(number)) for who, number in (("cut", 3), ("moved", 4), ("lost", 3))},
        "m.nii": las(lesion()),
    }
    for name, data in files.items():
        write(folder, name, data)
    flairs = {"cut": "cut.nii", "moved": "moved.nii", "lost": "no.nii"}
    rows = [{"patient": who, "flair": flair, "t1": f"t1-{who}.nii", "mask": "m.nii"} for who, flair in flairs.items()]
    flags = (
        "--images",
        write_table(folder, rows),
        "--channels",
        "t1",
        "--recipe",
        "phantom",
        "--folds",
        2,
        "--out",
        out,
    )
    private = ("--public-ids", "--key-dir", tmp_path / "private")
    status, text = run_in_process("lesion_cv", *flags, *private, "--until", "shards", "--workers", 0)
    assert status == 0, text
    columns = ["scan_id", "lesion_ml", "voxels", "box_DHW"]
    shards = pd.concat(pd.read_parquet(path, columns=columns) for path in (out / "shards").rglob("*.parquet"))
    assert sorted(shards["scan_id"]) == ["cut", "lost", "moved"]
    assert (shards["lesion_ml"] > 0).all()
    for voxels, box in zip(shards["voxels"], shards["box_DHW"], strict=True):
        assert len(voxels) == 4 * int(np.prod(box[1::2] - box[::2]))  # of one channel
    assert (
        "the same under several patients: 1, of 2 patients, such as cut and lost; such patients stay in one fold"
        in text
    )

    # runs have learned from these shards: another mask is no reason to score them as if they had learned from it
    (out / "runs" / "phantom" / "fold0").mkdir(parents=True)
    write(folder, "m2.nii", las(lesion((3, 3, 3))))
    write_table(folder, [row | {"mask": "m2.nii"} for row in rows])
    message = the_error(run_in_process("lesion_cv", *flags, *private, "--until", "shards", "--workers", 0))
    assert "its runs have learned from other shards than these" in message
    write_table(folder, rows)
    status, text = run_in_process("lesion_cv", *flags, *private, "--until", "shards", "--workers", 0)
    assert status == 0, text


@pytest.mark.usefixtures("local_ray")
def test_a_pseudonym_of_a_patient_leads_back(run_in_process: Job, table: Path, tmp_path: Path) -> None:
    out, keys = tmp_path / "out", tmp_path / "private"
    flags = ("--images", table, "--folds", 2, "--out", out, "--key-dir", keys, "--until", "shards", "--workers", 0)
    status, text = run_in_process("lesion_cv", *flags)
    assert status == 0, text
    names = read_map(keys, Store(out).uri)
    assert set(names.loc[names["kind"] == "patient", "identifier"]) == {"a", "b"}


# ---- lesion_predict -------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished lesion_cv.py, put together by hand: one small network that knows nothing."""
    source = BrainMR(channels=("flair", "t1"))
    task = LesionTask(architecture="unet", width=4, levels=2, patch_DHW=(16, 16, 16)).reading(source)
    out = Store(tmp_path / "run")
    out.write_json("config.json", {"images": "somewhere"})
    state = {"weights": task.network().state_dict(), "task": json.dumps(task.identity())}
    checkpoint.write_weights(out.sub("runs", "net", "fold0"), "model.pt", state)
    method = {
        "runs": "net",
        "folds": [0],
        "thresholds": {"0": 0.5},
        "rules": vars(Rules()),
        "source": source.identity(),
    }
    out.sub("models", "net").write_json("method.json", method)
    out.sub("models", "net").write_json("metrics.json", {"repeatability": {"ml": None, "pairs": 0, "patients": 0}})
    finish(out)
    return tmp_path / "run"


def test_new_scans_that_cannot_be_asked_for_are_one_line(
    run: Path, table: Path, run_in_process: Job, tmp_path: Path, tiny_task: SliceTask
) -> None:
    def error(*flags: object) -> str:
        return the_error(run_in_process("lesion_predict", "--to", tmp_path / "to", *flags))

    given = ("--run", run, "--images", table)
    assert "--site-names pons: write a number and a name" in error(*given, "--site-names", "pons")
    assert "--site-names ²=a: write a number and a name" in error(*given, "--site-names", "²=a")
    assert "--site-names 1=b: 1 has a name already, a" in error(*given, "--site-names", "1=a", "1=b")
    assert "--atlas: neither NIfTI" in error(*given, "--atlas", table)
    write(tmp_path, "halves.nii", las(np.full((4, 4, 4), 1.9, np.float32)))
    assert "holds 1.9: a label map has whole numbers" in error(*given, "--atlas", tmp_path / "halves.nii")
    (tmp_path / "t2.csv").write_text("patient,t2\na,f.nii\n")
    assert "--images: has t2, and the run wants flair, t1" in error("--run", run, "--images", tmp_path / "t2.csv")
    (tmp_path / "gone.csv").write_text("patient,flair\na,gone.nii\n")
    text = error("--run", run, "--images", tmp_path / "gone.csv")
    assert "none of 1 cases can be used; the first reason: flair: its file is not there" in text
    assert f"{tmp_path}/to/set_aside.csv says what became of each file" in text
    state = {"weights": tiny_task.network().state_dict(), "task": json.dumps(tiny_task.identity())}
    checkpoint.write_weights(Store(run).sub("runs", "net", "fold0"), "model.pt", state)
    finish(Store(run))
    assert "runs/net is a SliceTask, expected LesionTask" in error(*given)


def test_new_scans_with_bad_masks_broken_neighbours_and_a_series_of_dicom_files(
    run: Path, run_in_process: Job, tmp_path: Path
) -> None:
    new = tmp_path / "new"
    stored = np.random.default_rng(0).integers(1, 900, (16, 16, 16)).astype(np.int16)
    for channel, number in (("flair", 1), ("t1", 2)):
        for i, dataset in enumerate(mr_series(stored // number)):
            write(new, f"d/{channel}/{i:02d}.dcm", as_bytes(dataset))
    good, bad = las(brain(1)), brain(2)
    bad[4, 4, 4] = np.nan
    for name, data in {"f.nii": good, "bad.nii": las(bad), "mask.nii": b"no mask"}.items():
        write(new, name, data)
    rows = [
        {"patient": "d", "visit": "1", "flair": "d/flair", "t1": "d/t1", "mask": ""},
        {"patient": "n", "visit": "1", "flair": "f.nii", "t1": "f.nii", "mask": "mask.nii"},
        {"patient": "n", "visit": "2", "flair": "f.nii", "t1": "bad.nii", "mask": ""},
        {"patient": "n", "visit": "3", "flair": "f.nii", "t1": "", "mask": "", "pd": "f.nii"},
    ]
    rows = [{"pd": ""} | row for row in rows]
    flags = ["--run", run, "--images", write_table(new, rows), "--to", tmp_path / "to"]
    status, text = run_in_process("lesion_predict", *flags)
    assert status == 0, text
    assert "3 scans →" in text
    assert "pd: not looked at, as the networks know flair, t1" in text
    assert "1 scans could not be read" in text
    scans = pd.read_csv(tmp_path / "to" / "scans.csv").set_index("scan_id")
    assert scans.index.tolist() == ["d_1", "n_1", "n_3"]
    assert scans["note"]["n_3"] == "t1 is missing: 0 is taken for it"
    assert scans["name"].to_dict() == {"d_1": "scan00001", "n_1": "scan00002", "n_3": "scan00004"}
    left = {path.name for path in (tmp_path / "to").iterdir()}
    assert {f"scan0000{n}_{what}.nii.gz" for n in (1, 2, 4) for what in ("mask", "probability")} <= left
    assert not {name for name in left if name.startswith("scan00003")}
    aside = pd.read_csv(tmp_path / "to" / "set_aside.csv").set_index("path")["reason"]
    assert aside["n_2"].startswith("t1: 1 of 5,760 voxels are NaN or infinite")
    if scans["lesions"]["d_1"]:
        assert pydicom.dcmread(tmp_path / "to" / "scan00001_seg.dcm").Modality == "SEG"
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "to").glob("*.nii.gz")}
    write(new, "predictions/beside.nii", good)  # what no case names changes nothing
    status, again = run_in_process("lesion_predict", *flags)  # nothing is left to do
    assert status == 0, again
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "to").glob("*.nii.gz")} == before
    assert pd.read_csv(tmp_path / "to" / "scans.csv").set_index("scan_id").equals(scans)
    assert "1 scans: t1 is missing: 0 is taken for it" in again
    write_table(new, [row | {"flair": row["t1"], "t1": row["flair"]} for row in rows if row["t1"]])
    assert "holds a run with files" in the_error(run_in_process("lesion_predict", *flags))  # the same files, as others
    (run / "runs" / "net" / "fold0" / "model.pt").write_bytes(b"cut short")
    flags[-1] = tmp_path / "other"
    assert "runs/net/fold0/model.pt is damaged; copy it anew" in the_error(run_in_process("lesion_predict", *flags))
