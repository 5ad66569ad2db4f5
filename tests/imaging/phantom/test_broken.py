"""Faulty files: each kind is there and is faulty in the way it says."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.errors import InvalidDicomError

from medray.imaging.phantom import PhantomSet, PhantomSpec, write_phantoms

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
SPEC = PhantomSpec(patients=2, matrix_px=64, slices=(8, 9), seed=1)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> PhantomSet:
    return write_phantoms(tmp_path_factory.mktemp("faulty"), SPEC, broken=True)


def of_kind(faulty: PhantomSet, kind: str) -> list[Path]:
    return [faulty.dicom / name for name, k in faulty.broken_files.items() if k == kind]


def test_every_kind_of_fault_is_there(faulty: PhantomSet) -> None:
    kinds = {"truncated", "wrapped", "unsigned", "no rescale", "text", "modality"}
    assert set(faulty.broken_files.values()) == kinds
    assert all((faulty.dicom / name).exists() for name in faulty.broken_files)
    assert set(faulty.broken_labels.values()) == {"duplicate", "conflicting", "unlabelled", "no file"}


def test_truncated_has_too_few_pixels(faulty: PhantomSet) -> None:
    (path,) = of_kind(faulty, "truncated")
    dataset = pydicom.dcmread(path)
    assert len(dataset.PixelData) < dataset.Rows * dataset.Columns * 2


def test_wrapped_becomes_right_by_the_known_repair_and_unsigned_is_right_as_it_stands(faulty: PhantomSet) -> None:
    for kind in ("wrapped", "unsigned"):
        for path in of_kind(faulty, kind):
            dataset = pydicom.dcmread(path)
            assert (dataset.BitsStored, dataset.PixelRepresentation) == (12, 0)
            x = dataset.pixel_array.astype(int)
            if kind == "wrapped":
                assert float(dataset.RescaleIntercept) > -100
                x += 1000
                x[x >= 4096] -= 4096
                hu = x - 1000
            else:
                hu = x + int(dataset.RescaleIntercept)
            assert np.median(hu[:4]) == pytest.approx(-1000, abs=60)


def test_no_rescale_text_and_modality(faulty: PhantomSet) -> None:
    (path,) = of_kind(faulty, "no rescale")
    assert "RescaleSlope" not in pydicom.dcmread(path)
    (path,) = of_kind(faulty, "modality")
    assert pydicom.dcmread(path).Modality == "MR"
    (path,) = of_kind(faulty, "text")
    with pytest.raises(InvalidDicomError):
        pydicom.dcmread(path)


def test_label_rows_are_faulty_as_said(faulty: PhantomSet) -> None:
    with faulty.labels_csv.open() as file:
        rows = [(r["ID"].rsplit("_", 1)[0], r["ID"], r["Label"]) for r in csv.DictReader(file)]
    count = Counter(slice_id for slice_id, _, _ in rows)
    for slice_id, kind in faulty.broken_labels.items():
        own = [(name, label) for s, name, label in rows if s == slice_id]
        assert count[slice_id] == {"duplicate": 12, "conflicting": 12, "unlabelled": 0, "no file": 6}[kind]
        if count[slice_id] == 12:
            assert (len(set(own)) == 6) == (kind == "duplicate")
        assert (faulty.dicom / f"{slice_id}.dcm").exists() == (kind != "no file")


def test_the_sound_studies_are_the_same_with_and_without_faulty_ones(faulty: PhantomSet, tmp_path: Path) -> None:
    sound = write_phantoms(tmp_path, SPEC)
    for path in sound.dicom.iterdir():
        assert (faulty.dicom / path.name).read_bytes() == path.read_bytes()
