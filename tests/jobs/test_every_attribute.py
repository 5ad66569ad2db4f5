"""A mark in every attribute of the standard that can hold text, a date or a UID, also within sequences and private elements:
none of them is found in what a job leaves or says (DICOM PS3.15 Annex E)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import ct_files
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pydicom
import pytest
from chest_films import dicom, noise
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset
from volume_files import mr_series

from medray.shards.deidentification import DEIDENTIFICATION

Job = Callable[..., tuple[int, str]]
MARKS = {
    **dict.fromkeys(("LO", "SH", "PN", "LT", "ST", "UT", "UC", "UR", "AE", "CS"), "ZQMARK"),
    "DA": "19030405", "DT": "19030405112233", "TM": "112233.445566", "UI": "1.9.876543219.77", "AS": "097Y",
}  # fmt: skip
SEEN = ("ZQMARK", "19030405", "112233.44", "876543219", "097Y", "1903")
# what a reader must know to read at all, and terms that it looks at
KEPT = {
    "SpecificCharacterSet", "BurnedInAnnotation", "ImageType", "PresentationLUTShape", "ConversionType", "PatientID", "PixelPaddingValue",
    "RescaleType", "VOILUTFunction", "ModalityLUTType",
}  # fmt: skip


def marked(dataset: Dataset) -> Dataset:
    """Every attribute that the file has not, or that says who it is of."""
    own = {
        "PatientName",
        "PatientBirthDate",
        "StudyDate",
        "StudyTime",
        "StudyID",
        "ReferringPhysicianName",
        "FrameOfReferenceUID",
    }
    inner = Dataset()
    for tag, (vr, vm, _, _, keyword) in DicomDictionary.items():
        if vr not in MARKS or keyword in KEPT or tag >> 16 <= 2 or (keyword in dataset and keyword not in own):
            continue
        for place in (dataset, inner):
            value = MARKS[vr]
            place.add_new(tag, vr, value if vm.startswith("1") else [value, value])
    dataset.OriginalAttributesSequence = [inner]
    block = dataset.private_block(0x0099, "ZQMARK", create=True)
    block.add_new(1, "LO", "ZQMARK")
    for overlay in ("OverlayDescription", "OverlayLabel"):
        assert overlay not in dataset  # of repeating groups
    dataset.add_new(0x60000022, "LO", "ZQMARK")
    dataset.add_new(0x60001500, "LO", "ZQMARK")
    return dataset


def written(path: Path, dataset: Dataset) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    marked(dataset).save_as(path, enforce_file_format=False)


@pytest.fixture(autouse=True)
def _written_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pydicom.config.settings, "_writing_validation_mode", pydicom.config.IGNORE)


def head_ct(folder: Path) -> list[object]:
    rows = []
    for i in range(8):
        slice_ = ct_files.ct(i + 1, z=5.0 * (i % 2), series=i // 2, study=i // 2, patient=f"P{i // 2}")
        written(folder / "in" / f"{i}.dcm", slice_)
        rows.append((str(slice_.SOPInstanceUID), i % 2))
    with (folder / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("slice_id", "any"), *rows])
    return [
        "ich_cv",
        "--dicom",
        folder / "in",
        "--labels",
        folder / "labels.csv",
        "--backbones",
        "test_resnet",
        "--no-pretrained",
    ]


def films(folder: Path) -> list[object]:
    rows = []
    for i in range(8):
        film = pydicom.dcmread(io.BytesIO(dicom(noise(i, 64, 64), PatientID=f"P{i // 2}")))
        written(folder / "in" / f"{i}.dcm", film)
        rows.append({"image": f"{i}.dcm", "patient": f"P{i // 2}", "Mass": i % 2})
    pd.DataFrame(rows).to_csv(folder / "labels.csv", index=False)
    return ["chest_cv", "--images", folder / "in", "--labels", folder / "labels.csv", "--recipe", "small"]


def brains(folder: Path) -> list[object]:
    rows = []
    for i in range(4):
        flair = np.random.default_rng(i).integers(1, 900, (16, 16, 16)).astype(np.int16)
        mask = np.zeros_like(flair)
        mask[6:9, 6:9, 6:9] = 1
        for place, voxels in ((f"{i}", flair), (f"{i}-mask", mask)):
            ids = {
                "PatientID": f"P{i}",
                "SeriesInstanceUID": f"1.2.3.{len(place)}.{i}",
                "StudyInstanceUID": f"1.2.4.{i}",
            }
            for j, dataset in enumerate(mr_series(voxels, **ids)):
                dataset.SOPInstanceUID = f"1.2.5.{len(place)}.{i}.{j}"
                written(folder / "in" / place / f"{j}.dcm", dataset)
        rows.append({"patient": f"P{i}", "visit": "1", "flair": f"{i}", "mask": f"{i}-mask"})
    pd.DataFrame(rows).to_csv(folder / "in" / "table.csv", index=False)
    return ["lesion_cv", "--images", folder / "in" / "table.csv", "--recipe", "phantom", "--channels", "flair"]


def texts(out: Path) -> Iterator[str]:
    for path in out.rglob("*"):
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            small = [name for name in table.column_names if "binary" not in str(table.schema.field(name).type)]
            yield f"{path.name} {table.select(small).to_pydict()} {table.schema.metadata}"
        elif path.suffix in (".json", ".csv", ".html"):
            yield f"{path.name} {path.read_text()}"


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("system", [head_ct, films, brains])
def test_no_attribute_passes(system: Callable[[Path], list[object]], run_in_process: Job, tmp_path: Path) -> None:
    flags = [
        "--folds",
        2,
        "--workers",
        0,
        "--until",
        "shards",
        "--out",
        tmp_path / "out",
        "--key-dir",
        tmp_path / "keys",
    ]
    status, said = run_in_process(*system(tmp_path), *flags)
    assert status == 0, said
    found = [said, *texts(tmp_path / "out")]
    assert any(text.startswith("part-") for text in found), "no shards: nothing was tried"
    for text in found:
        for mark in (*SEEN, "P0", "P1"):
            assert mark not in text, (mark, text[max(0, text.index(mark) - 200) : text.index(mark) + 100])
    aside = pd.read_parquet(tmp_path / "out" / "inventory.parquet")
    assert (aside["status"] == "ok").all(), aside["reason"].unique()
    about = json.loads((tmp_path / "out" / DEIDENTIFICATION).read_text())
    assert any(option.startswith("113100") for option in about["satisfied"])
    assert any(name.endswith("_id") for name in about["kept"])
