"""All organs in new scans by networks that know each organ by its grey: what is written, said and refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
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
from medray.imaging.volume import read_volume
from medray.shards.leakage import pixels_hash
from medray.shards.store import Store
from medray.systems.fewlabel import recipes
from medray.systems.fewlabel.methods import ApartTask, ConditionalTask, CoTrainingTask
from medray.systems.fewlabel.source import FewLabelCT
from medray.systems.fewlabel.sources import Origin
from medray.systems.fewlabel.task import FewLabelTask
from medray.tasks.new_scans.answers import FAR_ABOVE, NOT_FOUND, PHANTOMS

Job = Callable[..., tuple[int, str]]

ORGANS = ("Liver", "Spleen", "Pancreas")
HU = {"Liver": 100, "Spleen": 160, "Pancreas": 240}
SHAPE = (12, 32, 28)
SPL = np.array([[0, 0, -2.0, 30], [0, -2.0, 0, 20], [3.0, 0, 0, -9], [0, 0, 0, 1]])
BOXES = {"Liver": np.s_[3:9, 10:20, 6:14], "Spleen": np.s_[4:8, 14:20, 16:22]}
ORIGINS = (Origin("A", ("Liver",)), Origin("B", ("Spleen", "Pancreas")))
SOURCE = FewLabelCT(organs=ORGANS, origins=ORIGINS)
TRAINING = {"Liver": {"least": 0.1, "most": 1.0, "scans": 4}, "Spleen": {"least": 0.1, "most": 50.0, "scans": 3}}


class Greys(torch.nn.Module):
    """Logits of background and of each organ, which is where the image has its grey."""

    def __init__(self, **moved: float) -> None:
        super().__init__()
        greys = [(HU[name] + moved.get(name, 0) + 200) / 500 for name in ORGANS]
        self.greys = torch.nn.Parameter(torch.tensor(greys))

    def forward(self, voxels: torch.Tensor) -> torch.Tensor:
        of_organs = 200 * (0.04 - (voxels - self.greys[:, None, None, None]).abs())
        return torch.cat([torch.zeros_like(voxels), of_organs], 1)


@pytest.fixture(autouse=True)
def greys(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of U-Nets."""
    monkeypatch.setattr(FewLabelTask, "network", lambda task: Greys())


def ct(number: int = 0, **organs: tuple[slice, slice, slice]) -> np.ndarray:
    """(D, H, W) int16 HU of a body, with axes towards head, back and left."""
    hu = np.full(SHAPE, -1000, np.int16)
    hu[:, 3:29, 3:25] = np.random.default_rng(number).integers(-9, 9, (SHAPE[0], 26, 22))
    for name, box in (BOXES | organs).items():
        hu[box] = HU[name]
    return hu


def made_run(
    folder: Path,
    states: Sequence[torch.nn.Module] = (Greys(),),
    kind: type[FewLabelTask] = FewLabelTask,
    rung: str = "marginal",
    answers: dict[str, str] | None = None,
    source: FewLabelCT = SOURCE,
    **about: Any,
) -> Path:
    """A finished fewlabel_cv.py, put together by hand; of its three scans one was held out, and one never labelled."""
    task = recipes.method(kind, replace(recipes.small(), patch_DHW=(8, 16, 16))).reading(source)
    out = Store(folder)
    out.write_json("config.json", {"sources": "sources.csv"})
    for fold, network in enumerate(states):
        state = {"weights": network.state_dict(), "task": json.dumps(task.identity())}
        checkpoint.write_weights(out.sub("runs", f"net-{rung}", f"fold{fold}"), "model.pt", state)
    method = {
        "runs": f"net-{rung}", "kind": rung, "folds": [*range(len(states))], "source": SOURCE.identity(),
        "organs": list(ORGANS), "answers": answers or {}, "small": ["Pancreas"], "training_ml": TRAINING,
    }  # fmt: skip
    results = out.sub("models", "net")
    results.write_json("method.json", method | {"source": source.identity()} | about)
    results.write_bytes("organs.csv", b"network,scan_id,organ\nmarginal,held,Liver\n")
    hashes = {"learned": pixels_hash(ct(1)), "held": pixels_hash(ct(2)), "unlabelled": pixels_hash(ct(3))}
    shards = {"scan_id": [*hashes], "pixels_hash": [*hashes.values()], "organs_labelled": [1, 1, 0]}
    out.sub("shards", "scans").write_table("part.parquet", pa.table(shards))
    finish(out)
    return folder


def answered(job: Job, run: Path, images: Path, to: Path, *more: object) -> str:
    status, text = job("fewlabel_predict", "--run", run, "--images", images, "--to", to, *more)
    assert status == 0, text
    return " ".join(text.split())


def test_every_organ_of_any_source_lies_on_the_grid_of_its_file(run_in_process: Job, tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    pancreas = np.s_[5:7, 5:8, 10:13]
    scans = {"one.nii.gz": ct(1), "held.nii": ct(2), "never/ct.nii": ct(3, Pancreas=pancreas)}
    images = put(tmp_path / "in", {name: nifti(hu, SPL) for name, hu in scans.items()} | {"damaged.nii": b"none"})
    to = tmp_path / "to"
    said = answered(run_in_process, run, images, to)
    table = csv_table(to, "scans.csv").set_index("scan_id")
    assert table["patient_id"].to_dict() == {"held": "held", "never": "never", "one": "one"}
    assert table["trained_on"].to_dict() == {"held": False, "never": False, "one": True}
    assert table["organs_found"].to_dict() == {"held": 2, "never": 3, "one": 2}
    for case, hu in (("held", ct(2)), ("never", scans["never/ct.nii"]), ("one", ct(1))):
        found = contours(to, table.loc[case, "name"])
        assert {organ: mask.tolist() for organ, mask in found.items()} == {
            organ: (hu == HU[organ]).tolist() for organ in ORGANS if (hu == HU[organ]).any()
        }
    flags = csv_table(to, "organs.csv").set_index(["scan_id", "organ"])["flag"]
    assert flags["one", "Pancreas"] == NOT_FOUND
    assert flags["one", "Liver"] == f"{FAR_ABOVE} (most 1 mL, 4 scans)"
    assert csv_table(to, "set_aside.csv").set_index("path").loc[f"{images}/damaged.nii", "status"] == "quarantined"
    assert "3 scans, net: 1 networks, 3 organs" in said
    assert "! 1 cases are set aside; the first reason: ct: " in said
    assert "7 of 9 organs found, 7 files" in said
    assert PHANTOMS not in said


def test_a_dicom_series_has_a_structure_set_and_a_segmentation(run_in_process: Job, tmp_path: Path) -> None:
    files = ct_series(ct())
    images = put(tmp_path / "in", {f"case/{99 - i:02d}.dcm": data for i, data in enumerate(files)})
    answered(run_in_process, made_run(tmp_path / "run"), images, tmp_path / "to")
    found = read_structure_set((tmp_path / "to" / "scan00001_rtstruct.dcm").read_bytes())
    assert found.patient_id == PATIENT
    slices = Slices.of(read_volume(files))
    assert {one.name: one.mask(slices)[0].tolist() for one in found.structures} == {
        organ: (ct() == HU[organ]).tolist() for organ in BOXES
    }
    seg = highdicom.seg.segread(tmp_path / "to" / "scan00001_seg.dcm")
    coded = [seg.get_segment_description(number).segmented_property_type.meaning for number in (1, 2)]
    assert coded == ["Liver", "Spleen"]


def test_a_voxel_is_of_one_organ_by_the_mean_over_the_folds(run_in_process: Job, tmp_path: Path) -> None:
    """Two networks take the liver for the spleen, one knows it: the most probable one of their mean has it all."""
    wrong = Greys(Liver=500, Spleen=HU["Liver"] - HU["Spleen"])
    images = put(tmp_path / "in", {"a.nii": nifti(ct(), SPL)})
    run = made_run(tmp_path / "run", [wrong, Greys(), wrong])
    answered(run_in_process, run, images, tmp_path / "to")
    found = contours(tmp_path / "to", "scan00001")
    assert {*found} == {"Spleen"}
    assert np.array_equal(found["Spleen"], ct() == HU["Liver"])


def test_of_co_training_the_mean_answers_that_inner_scans_chose(run_in_process: Job, tmp_path: Path) -> None:
    images = put(tmp_path / "in", {"a.nii": nifti(ct(), SPL)})
    task = recipes.method(CoTrainingTask, recipes.small())
    twins = task.network()
    twins.means["first"].greys.data += 5  # type: ignore[operator, union-attr]
    for answer, count in (("first", 0), ("second", 2)):
        run = made_run(tmp_path / answer, [twins], CoTrainingTask, "cotraining", {"0": answer})
        answered(run_in_process, run, images, tmp_path / f"to-{answer}")
        assert csv_table(tmp_path / f"to-{answer}", "scans.csv")["organs_found"].tolist() == [count]


@pytest.mark.parametrize(("kind", "rung"), [(ApartTask, "apart"), (ConditionalTask, "conditional")])
def test_networks_of_several_passes_answer_too(
    kind: type[FewLabelTask], rung: str, run_in_process: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the networks themselves
    task = recipes.method(kind, replace(recipes.small(), patch_DHW=(8, 16, 16))).reading(SOURCE)
    run = made_run(tmp_path / "run", [task.network()], kind, rung)
    images = put(tmp_path / "in", {"a.nii": nifti(ct(), SPL)})
    assert "of 3 organs found" in answered(run_in_process, run, images, tmp_path / "to")


def test_a_scout_of_one_column_is_answered_and_drawn(run_in_process: Job, tmp_path: Path) -> None:
    images = put(tmp_path / "in", {"a.nii": nifti(ct()[:, :, :1] * 0 + 100, SPL), "b.nii": nifti(ct(), SPL)})
    answered(run_in_process, made_run(tmp_path / "run"), images, tmp_path / "to")
    assert csv_table(tmp_path / "to", "scans.csv")["scan_id"].tolist() == ["a", "b"]
    assert (tmp_path / "to" / "scan00001.png").stat().st_size > 0


def test_of_a_run_that_resampled_outlines_come_back_to_the_files_grid(run_in_process: Job, tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", source=replace(SOURCE, spacing_mm=(3.0, 1.5, 1.5)))
    images = put(tmp_path / "in", {"a.nii": nifti(ct(), SPL)})
    answered(run_in_process, run, images, tmp_path / "to")
    found = contours(tmp_path / "to", "scan00001")
    wanted = ct() == HU["Liver"]
    assert 2 * (found["Liver"] & wanted).sum() / (found["Liver"].sum() + wanted.sum()) > 0.7


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--run", "absent"), "--run absent: holds no models/; name the --out of a finished job of this kind"),
        (
            ("--run", "other"),
            "--run other: oar finds no organs of several sources; name the --out of a finished fewlabel",
        ),
        (("--name", "other"), "--name other: --run run has net"),
        (("--images", "absent"), "--images absent: no such folder or file"),
        (("--images", "films"), "--images films: no scan among 1 files; wanted <case>.nii.gz, <case>/ct.nii.gz, or"),
        (("--images", "damaged"), "--images: no case can be used; the first reason: ct: "),
        (("--pages", -1), "--pages -1: must be 0 or more"),
    ],
)
def test_wrong_flags_end_with_a_line(
    flags: tuple[object, ...], message: str, run_in_process: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made_run(tmp_path / "run")
    put(tmp_path, {"in/a.nii": nifti(ct(), SPL), "films/a.png": b"no volume", "damaged/a.nii": b"none"})
    Store("other").write_json("config.json", {"images": "somewhere"})
    method = {"runs": "r", "kind": "snet", "folds": [0], "source": {}, "organs": [], "small": [], "training_ml": {}}
    Store("other").sub("models", "oar").write_json("method.json", method)
    finish(Store("other"))
    error = the_error(run_in_process("fewlabel_predict", "--run", "run", "--images", "in", "--to", "to", *flags))
    assert message in error
    assert not (tmp_path / "to" / "parts").exists()
