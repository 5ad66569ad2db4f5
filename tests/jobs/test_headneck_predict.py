"""Contours of new planning CTs by networks that know each organ by its grey: what is written, said and refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import highdicom
import nibabel
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from conftest import the_error
from left_files import finish
from new_scan_files import PATIENT, contours, csv_table, ct_series, put
from volume_files import nifti

from medray.engine.train import checkpoint
from medray.imaging.contours import Slices
from medray.imaging.structure_set import read_structure_set
from medray.imaging.structure_set_write import structure_set_bytes
from medray.imaging.types import Volume
from medray.imaging.volume import read_volume
from medray.imaging.volume_grid import reoriented, resampled
from medray.report.outlines import FOUND
from medray.shards.leakage import pixels_hash
from medray.shards.store import Store
from medray.systems.headneck import recipes
from medray.systems.headneck.joint_task import JointTask
from medray.systems.headneck.new_scans import NewPlans
from medray.systems.headneck.phantoms import PhantomHeads, PhantomSpec
from medray.systems.headneck.source import PlanningCT
from medray.systems.headneck.task import OrganTask
from medray.systems.ich.task import SliceTask
from medray.tasks.new_scans.answers import (
    ABOVE,
    BELOW,
    CUT,
    FAR_ABOVE,
    FAR_BELOW,
    NOT_FOUND,
    PHANTOMS,
    UNKNOWN,
    flags_of,
)
from medray.tasks.new_scans.organs import at_edge

Job = Callable[..., tuple[int, str]]
Box = tuple[slice, slice, slice]

WHO = "Maria-Muster"
IDENTIFIERS = re.compile(f"{WHO}|{PATIENT}|1\\.2\\.826", re.IGNORECASE)
"""What nobody may read but the owner of the scans."""
ORGANS = ("Brainstem", "Parotid_L", "Lens_L")
HU = {"Brainstem": 100, "Parotid_L": 200, "Lens_L": 260}
SHAPE = (12, 32, 28)
SPL = np.array([[0, 0, -2.0, 30], [0, -2.0, 0, 20], [3.0, 0, 0, -9], [0, 0, 0, 1]])
BRAINSTEM, PAROTID, LENS = np.s_[3:9, 14:20, 8:14], np.s_[4:8, 14:20, 16:22], np.s_[5:7, 5:8, 10:13]
TRAINING = {name: {"least": 0.1, "most": 5.0, "scans": 7} for name in ORGANS}
SOURCE = PlanningCT(organs=ORGANS)
TABLES = ("scans.csv", "organs.csv", "set_aside.csv")


class Greys(torch.nn.Module):
    """Each organ is where the image has its grey; with how much the network is sure of it."""

    def __init__(self) -> None:
        super().__init__()
        self.greys = torch.nn.Parameter(torch.tensor([(HU[name] + 200) / 500 for name in ORGANS]))

    def forward(self, voxels: torch.Tensor) -> torch.Tensor:
        return 100 * (0.04 - (voxels - self.greys[:, None, None, None]).abs())


@pytest.fixture(autouse=True)
def greys(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """In place of S-Net."""
    if "slow" not in request.keywords:
        monkeypatch.setattr(OrganTask, "network", lambda task: Greys())


def ct(number: int = 0, **organs: Box) -> np.ndarray:
    """(D, H, W) int16 HU of a head, with axes towards head, back and left."""
    hu = np.full(SHAPE, -1000, np.int16)
    hu[:, 3:29, 3:25] = np.random.default_rng(number).integers(-9, 9, (SHAPE[0], 26, 22))
    for name, box in ({"Brainstem": BRAINSTEM, "Parotid_L": PAROTID} | organs).items():
        hu[box] = HU[name]
    return hu


def made_run(
    folder: Path,
    weights: Sequence[torch.nn.Module] = (Greys(),),
    source: PlanningCT = SOURCE,
    task: OrganTask | None = None,
    **method: Any,
) -> Path:
    """A finished headneck_cv.py, put together by hand; it was trained on one scan that is not at hand."""
    task = (task or OrganTask(architecture="unet", patch_DHW=(8, 16, 16))).reading(source)
    out = Store(folder)
    out.write_json("config.json", {"images": "somewhere"})
    for fold, network in enumerate(weights):
        state = {"weights": network.state_dict(), "task": json.dumps(task.identity())}
        checkpoint.write_weights(out.sub("runs", "net-snet", f"fold{fold}"), "model.pt", state)
    about = {
        "runs": "net-snet", "kind": "snet", "folds": [*range(len(weights))], "source": source.identity(),
        "organs": list(ORGANS), "small": ["Lens_L"], "training_ml": TRAINING,
    }  # fmt: skip
    out.sub("models", "net").write_json("method.json", about | method)
    shards = {"scan_id": ["a", "b"], "pixels_hash": [pixels_hash(ct(1)), ""]}
    out.sub("shards", "scans").write_table("part.parquet", pa.table(shards))
    finish(out)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return made_run(tmp_path / "run")


def answered(job: Job, run: Path, images: Path, to: Path, *more: object) -> str:
    status, text = job("headneck_predict", "--run", run, "--images", images, "--to", to, *more)
    assert status == 0, text
    assert not IDENTIFIERS.search(text.replace(str(images), "").replace(str(to), ""))
    return " ".join(text.split())


# ---- what is left ---------------------------------------------------------------------------------------------------


def test_every_organ_lies_on_the_grid_of_its_file(run: Path, run_in_process: Job, tmp_path: Path) -> None:
    usual = reoriented(Volume(ct(2, Lens_L=LENS), SPL), "RAS")
    images = put(tmp_path / "in", {
        f"{WHO}/ct.nii.gz": nifti(ct(1), SPL), "other/ct.nii": nifti(usual.voxels, usual.affine, sform=2, qform=1),
    })  # fmt: skip
    to = tmp_path / "to"
    said = answered(run_in_process, run, images, to)
    scans = csv_table(to, "scans.csv").set_index("scan_id")
    assert scans["name"].to_dict() == {WHO: "scan00001", "other": "scan00002"}
    for name, hu, affine in (("scan00001", ct(1), SPL), ("scan00002", usual.voxels, usual.affine)):
        found = contours(to, name)
        assert {organ: mask.tolist() for organ, mask in found.items()} == {
            organ: (hu == HU[organ]).tolist() for organ in ORGANS if (hu == HU[organ]).any()
        }
        assert np.array_equal(nibabel.load(to / name / "Brainstem.nii.gz").affine, affine)
    assert scans["organs_found"].to_dict() == {WHO: 2, "other": 3}
    assert scans["organs_not_found"].to_dict() == {WHO: "Lens_L", "other": ""}
    assert scans["trained_on"].to_dict() == {WHO: True, "other": False}
    assert (scans["seconds"] > 0).all()
    organs = csv_table(to, "organs.csv").set_index(["scan_id", "organ"])
    assert organs.loc[(WHO, "Brainstem")].to_dict() == {
        "patient_id": WHO, "visit": 1, "ml": pytest.approx(6 * 6 * 6 * 0.012), "least_ml": 0.1, "most_ml": 5.0,
        "scans": 7, "flag": "",
    }  # fmt: skip
    assert organs.loc[(WHO, "Lens_L"), "flag"] == NOT_FOUND
    assert {path.name for path in to.glob("scan0*")} == {f"scan0000{n}{end}" for n in (1, 2) for end in ("", ".png")}
    assert "5 of 6 organs found, 5 files" in said
    assert "! 1 of 6 organs: not found (Lens_L 1)" in said
    assert "! leakage: 1 of the scans are in the training data, pixel by pixel" in said
    assert not IDENTIFIERS.search(" ".join(str(path.relative_to(to)) for path in to.rglob("*")))
    assert PHANTOMS not in said


def test_a_dicom_series_has_a_structure_set_and_a_segmentation(run: Path, run_in_process: Job, tmp_path: Path) -> None:
    files = ct_series(ct(Lens_L=LENS))
    like = read_volume(files)
    drawn = structure_set_bytes({"Brainstem": ct() == HU["Parotid_L"], "PTV": ct() > 50}, like, files)
    named = {f"{99 - i:02d}.dcm": data for i, data in enumerate(files)}  # names run against the slices
    images = put(tmp_path / "in", named | {"drawn/a.dcm": drawn, "drawn/b.dcm": drawn, "organs/Brainstem.nii": b"none"})
    said = answered(run_in_process, run, images, tmp_path / "to")
    assert "3 of 3 organs found, 5 files" in said
    masks = contours(tmp_path / "to", "scan00001")
    assert {name: mask.tolist() for name, mask in masks.items()} == {
        n: (ct(Lens_L=LENS) == HU[n]).tolist() for n in ORGANS
    }
    found = read_structure_set((tmp_path / "to" / "scan00001_rtstruct.dcm").read_bytes())
    assert found.patient_id == PATIENT
    assert {one.name: one.mask(Slices.of(like))[0].tolist() for one in found.structures} == {
        name: mask.tolist() for name, mask in masks.items()
    }
    seg = highdicom.seg.segread(tmp_path / "to" / "scan00001_seg.dcm")
    for number, name in enumerate(ORGANS, 1):
        assert seg.get_segment_description(number).segment_label == name
        volume = seg.get_volume(segment_numbers=[number], combine_segments=True)
        own = Volume(np.asarray(volume.array > 0), np.diag([-1.0, -1, 1, 1]) @ volume.affine)
        assert np.array_equal(resampled(own, like, order=0).voxels, masks[name])
    aside = csv_table(tmp_path / "to", "set_aside.csv").set_index("path")
    assert {aside.loc[f"{images}/drawn/{name}.dcm", "status"] for name in "ab"} == {"unused"}


def test_what_is_drawn_in_a_table_or_beside_a_ct_is_not_looked_at(
    run: Path, run_in_process: Job, tmp_path: Path
) -> None:
    images = put(tmp_path / "in", {
        "p/ct.nii": nifti(ct(3), SPL), "p/organs/Brainstem.nii": nifti(ct(4), SPL),
        "p/organs/brain_stem.nii": b"damaged", "table.csv": b"patient,scan,ct,organs\np,plan,p/ct.nii,p/organs\n",
    })  # fmt: skip
    answered(run_in_process, run, images, tmp_path / "folder")
    answered(run_in_process, run, images / "table.csv", tmp_path / "table")
    aside = csv_table(tmp_path / "folder", "set_aside.csv").set_index("path")
    assert aside.loc[f"{images}/p/organs/Brainstem.nii", "status"] == "unused"
    one, other = (contours(tmp_path / to, "scan00001") for to in ("folder", "table"))
    assert one.keys() == other.keys()
    assert all(np.array_equal(mask, other[name]) for name, mask in one.items())
    named = csv_table(tmp_path / "table", "organs.csv")
    assert named["visit"].unique().tolist() == [1]  # the scan keeps its name in its id
    assert named["scan_id"].str.endswith("plan").all()
    put(images, {"p/organs/Lens_L.nii": nifti(ct(4), SPL)})  # drawn meanwhile: no reason to begin anew
    answered(run_in_process, run, images, tmp_path / "folder")


def test_what_is_odd_about_an_organ_is_said(tmp_path: Path, run_in_process: Job) -> None:
    run = made_run(tmp_path / "run", training_ml=TRAINING | {"Brainstem": {"least": 3.0, "most": 4.0, "scans": 30}})
    leaves, large = ct(Parotid_L=np.s_[0:4, 14:20, 16:22]), ct(Brainstem=np.s_[2:10, 12:22, 5:15])
    leaves[6, 5, 5] = 2900
    images = put(tmp_path / "in", {"a/ct.nii": nifti(leaves, SPL), "b/ct.nii": nifti(large, SPL)})
    said = answered(run_in_process, run, images, tmp_path / "to")
    flags = csv_table(tmp_path / "to", "organs.csv").set_index(["scan_id", "organ"])["flag"]
    assert flags["a", "Brainstem"] == f"{BELOW} (least 3 mL, 30 scans)"
    assert flags["a", "Parotid_L"] == CUT
    assert flags["b", "Brainstem"] == f"{ABOVE} (most 4 mL, 30 scans)"
    assert flags["b", "Lens_L"] == NOT_FOUND
    for line in (f"{BELOW} (Brainstem 1)", f"{ABOVE} (Brainstem 1)", f"{CUT} (Parotid_L 1)", "not found (Lens_L 2)"):
        assert f" of 6 organs: {line}" in said
    few, many = ({"least": 3.0, "most": 4.0, "scans": scans} for scans in (5, 20))
    for ml, told in ((2.0, False), (1.0, True), (7.0, False), (9.0, True)):  # a range of five scans is passed by chance
        assert bool(flags_of({"ml": ml, "cut": False}, few)) == told
        assert flags_of({"ml": ml, "cut": False}, many)
    both = flags_of({"ml": 9.0, "cut": True}, {"least": 1.0, "most": 4.0, "scans": 5})
    assert both == [f"{FAR_ABOVE} (most 4 mL, 5 scans)", CUT]
    assert flags_of({"ml": 1.0, "cut": False}, few)[0].startswith(FAR_BELOW)
    assert flags_of({"ml": 9.0, "cut": False}, None) == [UNKNOWN]


@pytest.mark.parametrize(
    ("place", "cut"), [((0, 9, 9), True), ((5, 31, 9), True), ((5, 9, 0), True), ((1, 30, 26), False)]
)
def test_every_side_of_the_image_is_an_edge(place: tuple[int, int, int], cut: bool) -> None:
    mask = np.zeros(SHAPE, bool)
    mask[place] = True
    assert at_edge(mask) is cut


def test_metal_is_said(run: Path, run_in_process: Job, tmp_path: Path) -> None:
    teeth = ct()
    teeth[9:11, 5:8, 10:15] = 3000
    images = put(tmp_path / "in", {"a/ct.nii": nifti(teeth, SPL), "b/ct.nii": nifti(ct(), SPL)})
    assert "! 1 scans: metal, which hides" in answered(run_in_process, run, images, tmp_path / "to")
    assert csv_table(tmp_path / "to", "scans.csv")["note"].tolist() == ["metal: 0.4 mL above 2500 HU", ""]


def test_the_mean_over_the_folds_decides(tmp_path: Path, run_in_process: Job) -> None:
    blind = Greys()
    blind.greys.data[1] += 5
    images = put(tmp_path / "in", {"a/ct.nii": nifti(ct(Lens_L=LENS), SPL)})
    run = made_run(tmp_path / "run", [Greys(), blind])
    assert "1 scans, net: 2 networks, 3 organs" in answered(run_in_process, run, images, tmp_path / "to")
    assert {*contours(tmp_path / "to", "scan00001")} == {"Brainstem", "Lens_L"}
    run = made_run(tmp_path / "three", [Greys(), blind, Greys()])
    answered(run_in_process, run, images, tmp_path / "more")
    assert {*contours(tmp_path / "more", "scan00001")} == {*ORGANS}


def test_of_a_run_that_resampled_outlines_come_back_to_the_files_grid(tmp_path: Path, run_in_process: Job) -> None:
    source = PlanningCT(organs=ORGANS, spacing_mm=(3.0, 1.5, 1.5))
    run = made_run(tmp_path / "run", source=source)
    images = put(tmp_path / "in", {"a/ct.nii": nifti(ct(), SPL)})
    answered(run_in_process, run, images, tmp_path / "to")
    found = contours(tmp_path / "to", "scan00001")
    assert found["Brainstem"].shape == SHAPE
    for name in ("Brainstem", "Parotid_L"):  # a grey in between belongs to neither
        wanted = ct() == HU[name]
        assert 2 * (found[name] & wanted).sum() / (found[name].sum() + wanted.sum()) > 0.7


def test_a_run_whose_last_stage_is_joint_and_nothing_that_is_found(
    tmp_path: Path, run_in_process: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the networks themselves
    base = replace(recipes.phantom(), widths=(4, 8), patch_DHW=(8, 16, 16), organs=ORGANS, largest_part=True)
    task = recipes.stage(JointTask, base, ("Lens_L",), code=8, coder_width=4, region_mm=(18.0, 40.0, 40.0))
    run = made_run(tmp_path / "run", [task.network()], task=task, kind="joint")
    images = put(tmp_path / "in", {f"{i:02d}.dcm": data for i, data in enumerate(ct_series(ct()))})
    to = tmp_path / "to"
    status, text = run_in_process("headneck_predict", "--run", run, "--images", images, "--to", to)
    assert status == 0, text
    assert "0 of 3 organs found, 0 files" in text
    assert {path.name for path in to.iterdir()} == {*TABLES, "config.json", "parts", "scan00001.png"}
    assert csv_table(to, "organs.csv")["flag"].tolist() == [NOT_FOUND] * 3


def test_a_picture_of_so_many_scans_with_the_caution(run: Path, run_in_process: Job, tmp_path: Path) -> None:
    Store(run).write_json("config.json", {"images": None})
    finish(Store(run))
    images = put(tmp_path / "in", {f"{p}/ct.nii": nifti(ct(Lens_L=LENS), SPL) for p in (WHO, "other")})
    assert f"! {PHANTOMS}" in answered(run_in_process, run, images, tmp_path / "to", "--pages", 1)
    assert [path.name for path in (tmp_path / "to").glob("*.png")] == ["scan00001.png"]
    picture = cv2.imread(str(tmp_path / "to" / "scan00001.png"))
    assert picture is not None
    assert picture.shape[0] >= 440 + 3 * 26
    assert picture.shape[1] > 500  # two of them, side by side
    assert (picture == FOUND[::-1]).all(-1).any()  # an outline


# ---- what is damaged, and a kill ------------------------------------------------------------------------------------


def test_a_damaged_file_costs_no_neighbour(run: Path, run_in_process: Job, tmp_path: Path) -> None:
    good, bad = nifti(ct(), SPL), ct().astype(np.float32)
    bad[3, 3, 3] = np.nan
    images = put(tmp_path / "in", {
        f"a/{WHO}/ct.nii": good[:-900], "b/ct.nii": nifti(bad, SPL), "c/ct.nii": good, "d/ct.nii": b"no volume",
    })  # fmt: skip
    to = tmp_path / "to"
    said = answered(run_in_process, run, images, to)
    assert csv_table(to, "scans.csv")["scan_id"].tolist() == ["c"]
    aside = csv_table(to, "set_aside.csv").set_index("path")["reason"]
    assert "cut short" in aside[f"a_{WHO}"]  # patient, and scan
    assert aside["b"].startswith("ct: 1 of 10,752 voxels are NaN or infinite")
    assert "neither NIfTI" in aside[f"{images}/d/ct.nii"]
    assert "2 scans could not be read" in said
    assert "! 1 cases are set aside; the first reason: ct: neither NIfTI" in said
    assert {path.name for path in to.iterdir() if path.is_dir()} == {"parts", "scan00003"}


class Killed(BaseException):
    """What no handler takes for an error."""


def left(to: Path) -> dict[str, bytes]:
    """Everything but parts, and the seconds in scans.csv."""
    files = [path for path in to.rglob("*") if path.is_file() and path.parent.name != "parts"]
    kept = {str(path.relative_to(to)): path.read_bytes() for path in files if path.name != "scans.csv"}
    return kept | {"scans.csv": pd.read_csv(to / "scans.csv").drop(columns="seconds").to_csv().encode()}


def test_killed_between_two_scans_it_goes_on_and_leaves_the_same(
    run: Path, run_in_process: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = {f"p{i}/ct.nii": nifti(ct(i, Lens_L=LENS) if i % 2 else ct(i), SPL) for i in range(4)}
    images, to = put(tmp_path / "in", scans), tmp_path / "to"
    answered(run_in_process, run, images, tmp_path / "whole")
    answer, asked = NewPlans.answer, list[int]()

    def counted(self: NewPlans, networks: Any, piece: Any, *more: Any) -> pa.Table:
        asked.append(piece.number)
        if asked == [1, 2, 3]:
            put(to, {"scan00003/Lens_L.nii.gz": b"of a start with another run"})
            raise Killed
        return answer(self, networks, piece, *more)

    monkeypatch.setattr(NewPlans, "answer", counted)
    with pytest.raises(Killed):
        run_in_process("headneck_predict", "--run", run, "--images", images, "--to", to)
    assert not (to / "scans.csv").exists()
    answered(run_in_process, run, images, to)
    assert asked == [1, 2, 3, 3, 4]
    assert left(to) == left(tmp_path / "whole")
    answered(run_in_process, run, images, to)  # nothing is left to do
    assert asked == [1, 2, 3, 3, 4]
    other = made_run(tmp_path / "other", [Greys(), Greys()])
    error = the_error(run_in_process("headneck_predict", "--run", other, "--images", images, "--to", to))
    assert f"--to {to}: holds a run with method = " in error


# ---- what a user can get wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--run", "absent"), "--run absent: holds no models/; name the --out of a finished job of this kind"),
        (("--run", "in"), "--run in: holds no models/; name the --out of a finished job of this kind"),
        (("--run", "lesion"), "--run lesion: ms draws no organs; name the --out of a finished headneck_cv.py"),
        (("--name", "other"), "--name other: --run run has net"),
        (("--name", "../up"), "--name ../up: --run"),
        (("--images", "absent"), "--images absent: no such folder or file"),
        (("--images", "absent.csv"), "--images absent.csv: "),
        (("--images", "bad.csv"), "--images bad.csv: no column patient; found who, ct; wanted patient, ct"),
        (
            ("--images", "gone.csv"),
            "--images: none of 1 cases can be used; the first reason: ct: its file is not there",
        ),
        (
            ("--images", "films"),
            "--images: no CT among 1 files; name a table, or a folder of patients (<patient>/ct.nii",
        ),
        (("--images", "run"), "--images: no CT among "),
        (("--to", "in/a"), "--to in/a: lies among --images, where found contours would pass for drawn ones"),
        (("--pages", -1), "--pages -1: must be 0 or more"),
    ],
)
def test_wrong_flags_end_with_a_line(
    flags: tuple[object, ...],
    message: str,
    run: Path,
    run_in_process: Job,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path, {
        "in/a/ct.nii": nifti(ct(), SPL), "films/a.png": b"no volume", "bad.csv": b"who,ct\na,in/a/ct.nii\n",
        "gone.csv": b"patient,ct\na,gone.nii\n",
    })  # fmt: skip
    Store("lesion").write_json("config.json", {"images": "somewhere"})
    Store("lesion").sub("models", "ms").write_json("method.json", {"runs": "ms", "folds": [0], "thresholds": {}})
    finish(Store("lesion"))
    error = the_error(run_in_process("headneck_predict", "--run", "run", "--images", "in", "--to", "to", *flags))
    assert message in error
    assert not (tmp_path / "to" / "parts").exists()


def test_a_run_that_is_unfinished_is_named_before_anything_is_read(
    run: Path, run_in_process: Job, tmp_path: Path, tiny_task: SliceTask
) -> None:
    flags = ("--run", run, "--images", put(tmp_path / "in", {"a/ct.nii": nifti(ct(), SPL)}), "--to", tmp_path / "to")
    fold = Store(run).sub("runs", "net-snet", "fold0")
    state = {"weights": tiny_task.network().state_dict(), "task": json.dumps(tiny_task.identity())}
    checkpoint.write_weights(fold, "model.pt", state)
    finish(Store(run))
    error = the_error(run_in_process("headneck_predict", *flags))
    assert "runs/net-snet is a SliceTask, expected OrganTask" in error
    fold.delete("model.pt")
    error = the_error(run_in_process("headneck_predict", *flags))
    assert f"--run {run}: runs/net-snet/fold0 has no model.pt; run the job again to its end" in error
    Store(run).sub("models", "net").delete("method.json")
    assert "holds no method.json; run the job again to its end" in the_error(run_in_process("headneck_predict", *flags))
    assert not (tmp_path / "to").exists()


# ---- a run that was trained -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_scans_of_a_trained_run_are_known_again(local_ray: None, run_in_process: Job, tmp_path: Path) -> None:
    drawn = PhantomHeads(PhantomSpec(patients=4))
    folder, to = tmp_path / "in", tmp_path / "to"
    images, _ = drawn.finish(folder, [drawn.write(folder, piece) for piece in drawn.pieces(folder)])
    status, text = run_in_process(
        "headneck_cv", "--images", images, "--recipe", "phantom", "--folds", 2, "--train-folds", 0, "--epochs", 2,
        "--steps-per-epoch", 30, "--small", "--organs", "Brain", "Bone_Mandible", "Eye_L", "--threads", 1, "--public-ids",
        "--key-dir", tmp_path / "private", "--out", tmp_path / "out",
    )  # fmt: skip
    assert status == 0, text
    status, text = run_in_process("headneck_predict", "--run", tmp_path / "out", "--images", images, "--to", to)
    assert status == 0, text
    assert f"! {PHANTOMS}" in text
    scans = csv_table(to, "scans.csv")
    assert len(scans) == 4
    folds = pd.read_parquet(tmp_path / "out" / "folds.parquet").set_index("patient_id")["fold"]
    assert scans["trained_on"].tolist() == [folds[patient] != 0 for patient in scans["patient_id"]]
    assert (scans["organs_found"] > 0).any()
    held_out = tmp_path / "out" / "models" / "phantom" / "contours"
    told = pd.read_csv(tmp_path / "out" / "models" / "phantom" / "scans.csv").set_index("scan_id")["files"]
    names = scans.set_index("scan_id")["name"]
    for scan_id, files in told.items():  # one network: it says of the scan that it held out what it said then
        was, now = contours(held_out, files), contours(to, names[scan_id])
        assert was.keys() == now.keys()
        assert all(np.array_equal(mask, now[organ]) for organ, mask in was.items())
