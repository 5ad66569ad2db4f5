"""Folders of phantoms: genuine files, labels that join, whole or not there, the same bytes every time."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import CTImageStorage

from medray.imaging.phantom import LABELS, PhantomSet, PhantomSpec, begin, finish, write_phantoms, write_study

SPEC = PhantomSpec(patients=6, matrix_px=48, slices=(8, 9), seed=4)
pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR UI")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> PhantomSet:
    return write_phantoms(tmp_path_factory.mktemp("written"), SPEC)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_files_are_ct_images_with_the_challenges_kind_of_ids(written: PhantomSet) -> None:
    files = list(written.dicom.iterdir())
    patients, studies = set(), set()
    for path in files:
        dataset = pydicom.dcmread(path)
        assert dataset.SOPClassUID == dataset.file_meta.MediaStorageSOPClassUID == CTImageStorage
        assert dataset.SOPInstanceUID == path.stem
        assert dataset.pixel_array.shape == (48, 48)
        hu = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        assert -1024 <= np.median(hu) < 300
        patients.add(dataset.PatientID)
        studies.add(dataset.StudyInstanceUID)
    assert len(patients) == 6
    assert studies == {plan.study_id for plan in written.plans}


@pytest.mark.filterwarnings("error")
def test_writing_warns_of_nothing(tmp_path: Path) -> None:
    write_phantoms(tmp_path, PhantomSpec(patients=1, matrix_px=32, slices=(8, 8)), broken=True)


def test_labels_are_the_challenges_long_format(written: PhantomSet) -> None:
    with written.labels_csv.open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["ID", "Label"]
    names = [row[0].rsplit("_", 1) for row in rows[1:]]
    assert [kind for _, kind in names] == list(LABELS) * (len(names) // 6)
    assert {slice_id for slice_id, _ in names} == {path.stem for path in written.dicom.iterdir()}
    assert {row[1] for row in rows[1:]} == {"0", "1"}


def test_true_masks_are_kept_by_slice(written: PhantomSet) -> None:
    seen: dict[str, np.ndarray] = {}
    for plan in written.plans:
        seen |= written.true_masks(plan.study_id)
    assert set(seen) == {path.stem for path in written.dicom.iterdir()}
    with written.labels_csv.open() as file:
        positive = {r["ID"][:-4] for r in csv.DictReader(file) if r["ID"].endswith("_any") and r["Label"] == "1"}
    assert positive
    assert all(seen[slice_id].any() for slice_id in positive)


def test_the_same_spec_gives_the_same_bytes(written: PhantomSet, tmp_path: Path) -> None:
    assert contents(write_phantoms(tmp_path, SPEC).folder) == contents(written.folder)


def test_studies_may_be_written_in_any_order(written: PhantomSet, tmp_path: Path) -> None:
    rows = [row for plan in reversed(begin(tmp_path, SPEC)) for row in write_study(tmp_path, plan)]
    finish(tmp_path, SPEC, rows)
    assert contents(tmp_path) == contents(written.folder)


def test_a_finished_folder_is_not_written_again(written: PhantomSet) -> None:
    before = {p: p.stat().st_mtime_ns for p in written.folder.rglob("*")}
    assert write_phantoms(written.folder, SPEC) == written
    assert {p: p.stat().st_mtime_ns for p in written.folder.rglob("*")} == before


def test_an_interrupted_folder_is_completed(written: PhantomSet, tmp_path: Path) -> None:
    half = tmp_path / "half"
    shutil.copytree(written.folder, half)
    marker = json.loads((half / "phantoms.json").read_text())
    (half / "phantoms.json").write_text(json.dumps({**marker, "finished": False}))
    (half / "labels.csv").unlink()
    for path in sorted((half / "masks").iterdir())[2:]:  # the mark of a whole study: these are drawn again
        path.unlink()
    assert contents(write_phantoms(half, SPEC).folder) == contents(written.folder)


def test_a_folder_of_another_set_is_refused(written: PhantomSet) -> None:
    with pytest.raises(ValueError, match="another specification"):
        write_phantoms(written.folder, PhantomSpec(patients=7, matrix_px=48, slices=(8, 9), seed=4))
    with pytest.raises(ValueError, match="another specification"):
        write_phantoms(written.folder, SPEC, broken=True)
