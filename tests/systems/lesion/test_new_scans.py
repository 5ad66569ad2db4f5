"""New scans through a network that finds what is bright: where the answer lies, and what comes with it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pydicom
import pytest
import torch
from lesion_files import LAS, PERMUTED, SHAPE, brain, inventory_of, las, lesion, write, write_table
from volume_files import as_bytes, mr_series, nifti

from medray.engine.derive.outputs import outputs_of
from medray.imaging.types import Volume
from medray.metrics.lesions import Rules
from medray.shards.store import Store
from medray.systems.lesion.answers import patients_of
from medray.systems.lesion.cases import read_cases
from medray.systems.lesion.new_scans import OTHER_GRID, SCHEMA, NewScans, Patient
from medray.systems.lesion.source import BrainMR
from medray.systems.lesion.task import LesionTask

METHOD = {"runs": "net", "folds": [0], "thresholds": {"0": 0.5}, "rules": vars(Rules())}


class Bright(torch.nn.Module):
    """Probability 1 where the first channel is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(50.0))

    def forward(self, voxels: torch.Tensor) -> torch.Tensor:
        return self.gain * (voxels[:, :1] - 6)


class Everything(torch.nn.Module):
    """The second class everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(torch.tensor([-9.0, 9.0]).reshape(2, 1, 1, 1))

    def forward(self, voxels: torch.Tensor) -> torch.Tensor:
        return 0 * voxels[:, :1] + self.bias


def scan(*lesions: np.ndarray, number: int = 1) -> np.ndarray:
    return brain(number) + 100 * np.maximum.reduce(lesions).astype(np.float32) if lesions else brain(number)


def answer(
    folder: Path, to: Path, piece: Patient, channels: Sequence[str] = ("flair",), pages: int = 0, **more: object
) -> list[dict]:
    task = LesionTask(architecture="unet", patch_DHW=(8, 8, 8))
    new = NewScans(METHOD, BrainMR(channels=tuple(channels)), Store(folder), pages, **more)  # type: ignore[arg-type]
    networks = {("net", 0): (task, Bright())}
    table = new.answer(networks, piece, new.read(piece, map), outputs_of, Store(to))
    assert table.schema == SCHEMA
    return table.to_pylist()


def of_files(folder: Path, **visits: bytes | None) -> Patient:
    """One patient, a FLAIR a visit."""
    for visit, data in visits.items():
        if data is not None:
            write(folder, f"{visit}.nii", data)
    rows = [{"patient": "p", "visit": visit, "flair": f"{visit}.nii"} for visit in visits]
    (piece,) = patients_of(inventory_of(write_table(folder, rows)))
    return piece


CORNER = lesion((1, 1, 1))


@pytest.mark.parametrize(
    ("data", "affine", "codes"),
    [
        (las(scan(CORNER)), LAS, (1, 0)),
        (nifti(scan(CORNER), PERMUTED, sform=2, qform=0), PERMUTED, (0, 2)),
        (nifti(scan(CORNER), PERMUTED, sform=1, qform=4), PERMUTED, (4, 1)),
    ],
    ids=["LAS with a qform alone", "permuted axes", "permuted axes with both forms"],
)  # fmt: skip
def test_a_lesion_at_a_corner_comes_back_at_that_corner_on_the_files_own_grid(
    data: bytes, affine: np.ndarray, codes: tuple[int, int], tmp_path: Path
) -> None:
    (row,) = answer(tmp_path, tmp_path / "to", of_files(tmp_path, a=data))
    assert row["reason"] is None
    own = nibabel.Nifti1Image.from_bytes(data)
    for what in ("mask", "probability"):
        written = nibabel.load(tmp_path / "to" / f"scan00001_{what}.nii.gz")
        assert written.shape == own.shape == SHAPE
        assert np.array_equal(written.affine, own.affine)
        for form, code in zip(("qform", "sform"), codes, strict=True):
            (mine, had), (its, there) = (getattr(image, f"get_{form}")(coded=True) for image in (written, own))
            assert had == there == code
            assert (mine is None and its is None) or np.array_equal(mine, its)
        assert np.array_equal(np.asarray(written.dataobj) > 0.5, CORNER > 0)
    assert written.get_data_dtype() == np.float32
    (found,) = row["findings"]
    assert [found[f"{axis}_mm"] for axis in "xyz"] == pytest.approx((affine @ [1.5, 1.5, 1.5, 1])[:3])
    volume = 8 * abs(np.linalg.det(affine[:3, :3]))
    assert (found["mm3"], row["ml"]) == (pytest.approx(volume), pytest.approx(volume / 1000))


def test_changes_between_visits_and_a_visit_that_cannot_be_read_between_them(tmp_path: Path) -> None:
    stays, gone, new = lesion((3, 3, 3)), lesion((10, 3, 3)), lesion((3, 12, 12))
    grows = lesion((9, 11, 11)), lesion((9, 11, 11), 4)
    bad = brain(1)
    bad[2, 2, 2] = np.nan
    piece = of_files(
        tmp_path, m1=las(scan(stays, gone, grows[0])), m2=las(bad), m10=las(scan(stays, new, grows[1])),
    )  # fmt: skip
    one, lost, two = answer(tmp_path, tmp_path / "to", piece)
    assert [one["visit"], lost["visit"], two["visit"]] == ["1", "2", "3"]
    assert (
        lost["reason"]
        == "flair: 1 of 5,760 voxels are NaN or infinite; give them the value of what is outside (0 in an MR, -1000 HU in a CT)"
    )
    assert not (tmp_path / "to" / "scan00002_mask.nii.gz").exists()
    assert one["before"] is None
    assert two["before"] == "1"
    told = {change["kind"]: (change["before_mm3"], change["after_mm3"]) for change in two["changes"]}
    assert told == {"stable": (16, 16), "vanished": (16, 0), "enlarged": (16, 128), "new": (0, 16)}
    new_one = next(change for change in two["changes"] if change["kind"] == "new")
    assert [new_one[f"{axis}_mm"] for axis in "xyz"] == pytest.approx((LAS @ [3.5, 12.5, 12.5, 1])[:3])


def test_visits_on_other_grids_are_not_compared_and_it_is_said(tmp_path: Path) -> None:
    moved = LAS.copy()
    moved[0, 3] += 5
    piece = of_files(tmp_path, a=las(scan(CORNER)), b=nifti(scan(CORNER), moved))
    _, two = answer(tmp_path, tmp_path / "to", piece)
    assert (two["before"], two["changes"], two["no_change"]) == ("1", None, OTHER_GRID)


def test_visits_that_differ_in_orientation_only_are_compared(tmp_path: Path) -> None:
    turned = np.diag([-1.0, 1, 1, 1])
    turned[0, 3] = SHAPE[0] - 1
    piece = of_files(tmp_path, a=las(scan(CORNER)), b=nifti(scan(CORNER)[::-1].copy(), LAS @ turned))
    _, two = answer(tmp_path, tmp_path / "to", piece)
    assert [change["kind"] for change in two["changes"]] == ["stable"]


def test_sites_are_those_of_an_atlas_in_the_space_of_the_scans(tmp_path: Path) -> None:
    label = np.zeros((8, 9, 20), np.uint8)  # of half the resolution in plane
    label[:4], label[4:] = 1, 7
    atlas = Volume(label, LAS @ np.diag([2.0, 2, 1, 1]))
    piece = of_files(tmp_path, a=las(scan(lesion((2, 3, 3)), lesion((11, 3, 3)))))
    (row,) = answer(tmp_path, tmp_path / "to", piece, atlas=atlas, sites={1: "periventricular"})
    by_place = {
        round(float((np.linalg.inv(LAS) @ [*(f[f"{a}_mm"] for a in "xyz"), 1])[0])): f["site"] for f in row["findings"]
    }
    assert by_place == {2: "periventricular", 12: "7"}


def test_a_dicom_series_gets_a_segmentation_beside_the_nifti(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(1, 20, (16, 18, 20)).astype(np.int16)
    stored[1:3, 1:3, 1:3] = 900
    for i, dataset in enumerate(mr_series(stored)):
        write(tmp_path, f"p/flair/{15 - i:02d}.dcm", as_bytes(dataset))  # names run against the slices
    (piece,) = patients_of(inventory_of(write_table(tmp_path, [{"patient": "p", "flair": "p/flair"}])))
    (row,) = answer(tmp_path, tmp_path / "to", piece)
    assert row["note"] is None
    seg = pydicom.dcmread(io.BytesIO((tmp_path / "to" / "scan00001_seg.dcm").read_bytes()))
    assert seg.Modality == "SEG"
    assert seg.PatientID == "p1"
    refers = {
        str(source.ReferencedSOPInstanceUID): frame
        for frame, group in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True)
        for source in group.DerivationImageSequence[0].SourceImageSequence
    }
    for i, slice_ in enumerate(stored):
        frame = refers.get(f"1.2.826.0.1.3680043.8.498.7.{i + 1}", np.zeros_like(slice_))
        assert np.array_equal(frame > 0, slice_ == 900), i
    mask = nibabel.load(tmp_path / "to" / "scan00001_mask.nii.gz")
    assert np.array_equal(np.asarray(mask.dataobj) > 0, stored == 900)


def test_the_segments_of_a_run_of_two_classes_have_their_names(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(1, 20, (16, 18, 20)).astype(np.int16)
    for i, dataset in enumerate(mr_series(stored)):
        write(tmp_path, f"p/flair/{i:02d}.dcm", as_bytes(dataset))
    (piece,) = patients_of(inventory_of(write_table(tmp_path, [{"patient": "p", "flair": "p/flair"}])))
    task = LesionTask(architecture="unet", patch_DHW=(8, 8, 8), classes=("old", "active"))
    new = NewScans(METHOD, BrainMR(channels=("flair",), classes=task.classes), Store(tmp_path), 0)
    new.answer({("net", 0): (task, Everything())}, piece, new.read(piece, map), outputs_of, Store(tmp_path / "to"))
    seg = pydicom.dcmread(tmp_path / "to" / "scan00001_seg.dcm")
    assert [(one.SegmentNumber, one.SegmentLabel) for one in seg.SegmentSequence] == [(1, "old"), (2, "active")]


def test_a_mask_in_the_table_of_new_scans_can_spoil_nothing(tmp_path: Path) -> None:
    table = write_table(tmp_path, [{"patient": "p", "flair": "f.nii", "mask": "bad.nii"}])
    assert read_cases(str(table)).having(["flair"], masks=False).table["mask"].tolist() == [None]


def test_a_picture_of_so_many_scans(tmp_path: Path) -> None:
    piece = of_files(tmp_path, a=las(scan(CORNER)), b=las(scan()))
    rows = answer(tmp_path, tmp_path / "to", piece, pages=1, caution="phantoms")
    assert rows[1]["findings"] == []
    assert [path.name for path in (tmp_path / "to").glob("*.png")] == ["scan00001.png"]
    image = cv2.imread(str(tmp_path / "to" / "scan00001.png"))
    assert image.shape[0] > 34
    assert image.std() > 5


def test_a_patient_that_cannot_be_answered_at_all_is_told_by_visit(tmp_path: Path) -> None:
    piece = of_files(tmp_path, a=las(scan()), b=las(scan()))
    new = NewScans(METHOD, BrainMR(channels=("flair",)), Store(tmp_path), 0)
    rows = new.refused(piece, "a worker was lost").to_pylist()
    assert [(row["scan_id"], row["name"], row["reason"]) for row in rows] == [
        ("p_a", "scan00001", "a worker was lost"), ("p_b", "scan00002", "a worker was lost"),
    ]  # fmt: skip
