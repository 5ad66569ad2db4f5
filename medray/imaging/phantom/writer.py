"""Phantom studies as genuine CT Image Storage files: how a scanner stores them, and one study written. Every file
appears whole."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from medray.imaging.phantom.bleeds import BLEED_TYPES
from medray.imaging.phantom.geometry import Stack
from medray.imaging.phantom.study import StudyPlan, draw_study

LABELS = (*BLEED_TYPES, "any")  # in the challenge's order
LabelRow = tuple[str, int]


@dataclass(frozen=True)
class Scanner:
    """How one study's files store Hounsfield units. Drawn without a look at the labels."""

    signed: bool
    bits_stored: int
    intercept: int
    outside_hu: int | None  # beyond the reconstruction circle
    padding_tag: bool
    windows: tuple[tuple[int, int], ...]  # (centre, width)

    @staticmethod
    def draw(rng: np.random.Generator) -> Scanner:
        """One of the kinds of files that the challenge holds."""
        signed = bool(rng.uniform() < 0.6)
        outside = int(rng.choice([-2048, -3024])) if signed and rng.uniform() < 0.7 else None
        tag = bool(rng.uniform() < 0.4) and outside is not None
        window = (int(rng.choice([30, 35, 40])), int(rng.choice([80, 100, 150])))
        windows = (window, (600, 2800)) if rng.uniform() < 0.3 else (window,)
        return Scanner(signed, 16 if signed else 12, -1024, outside, tag, windows)

    def stored(self, image_hu: np.ndarray) -> np.ndarray:
        """(rows, columns) HU -> stored values, little endian."""
        values = image_hu.astype(np.int32) - self.intercept
        if self.outside_hu is not None:
            rows, columns = image_hu.shape
            r, c = np.ogrid[:rows, :columns]
            beyond = (r - rows / 2 + 0.5) ** 2 + (c - columns / 2 + 0.5) ** 2 > (min(rows, columns) / 2) ** 2
            values[beyond] = self.outside_hu - self.intercept
        if not self.signed:
            values = np.clip(values, 0, 2**self.bits_stored - 1)
        return values.astype("<i2" if self.signed else "<u2")


def put(dataset: Dataset, **values: object) -> None:
    """Set elements by keyword without pydicom's checks: the challenge's ids break the standard's rule for UIDs."""
    for keyword, value in values.items():
        tag = tag_for_keyword(keyword)
        assert tag is not None, keyword
        dataset[tag] = DataElement(tag, dictionary_VR(tag), value, validation_mode=config.IGNORE)


def dataset_of(plan: StudyPlan, stack: Stack, scanner: Scanner, index: int, image_hu: np.ndarray) -> Dataset:
    """One slice as a DICOM dataset."""
    ds = Dataset()
    decimal = [f"{v:.6f}" for v in stack.orientation]
    put(
        ds,
        SOPClassUID=CTImageStorage,
        SOPInstanceUID=plan.slice_id(index),
        Modality="CT",
        PatientID=plan.patient_id,
        StudyInstanceUID=plan.study_id,
        SeriesInstanceUID=plan.series_id,
        StudyID="",
        ImagePositionPatient=[f"{v:.3f}" for v in stack.positions_mm[index]],
        ImageOrientationPatient=decimal,
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        Rows=image_hu.shape[0],
        Columns=image_hu.shape[1],
        PixelSpacing=[f"{stack.pixel_mm:.6f}"] * 2,
        BitsAllocated=16,
        BitsStored=scanner.bits_stored,
        HighBit=scanner.bits_stored - 1,
        PixelRepresentation=int(scanner.signed),
        WindowCenter=[str(c) for c, _ in scanner.windows],
        WindowWidth=[str(w) for _, w in scanner.windows],
        RescaleIntercept=str(scanner.intercept),
        RescaleSlope="1",
    )
    if stack.instance_numbers[index] is not None:
        put(ds, InstanceNumber=str(stack.instance_numbers[index]))
    if stack.says_thickness:
        put(ds, SliceThickness=f"{stack.spacing_mm:.3f}")
    if scanner.padding_tag and scanner.outside_hu is not None:
        tag = tag_for_keyword("PixelPaddingValue")
        assert tag is not None
        ds[tag] = DataElement(tag, "SS" if scanner.signed else "US", scanner.outside_hu - scanner.intercept)
    ds.add_new(0x7FE00010, "OW", scanner.stored(image_hu).tobytes())
    return ds


def encode(dataset: Dataset) -> bytes:
    """A dataset as the bytes of a DICOM file (explicit VR, little endian, uncompressed)."""
    meta = FileMetaDataset()
    digest = hashlib.blake2b(str(dataset.SOPInstanceUID).encode(), digest_size=12).digest()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = UID("2.25." + str(int.from_bytes(digest, "big")))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID("1.2.826.0.1.3680043.8.498.1")
    meta.FileMetaInformationVersion = b"\0\1"
    dataset.file_meta = meta
    dataset.preamble = b"\0" * 128
    out = io.BytesIO()
    # not enforce_file_format: it would copy the id that breaks the rule for UIDs into the meta header, with a warning
    dcmwrite(out, dataset, enforce_file_format=False, implicit_vr=False, little_endian=True)
    return out.getvalue()


MARK = "phantoms.json"
"""In every folder of phantoms: what they are. Whoever is given such files knows that they are no patients'."""


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def all_there(folder: Path, claim: Mapping[str, object]) -> bool:
    """Claim a folder for phantoms, or find it claimed; whether all of them are there.

    Args:
        claim: what tells these phantoms from others, as JSON has it; MARK holds it, and "finished".
    Raises:
        ValueError: the folder holds others.
    """
    path = folder / MARK
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps({**claim, "finished": False}, indent=1).encode())
        return False
    there = json.loads(path.read_text())
    if {name: there.get(name) for name in claim} != claim:
        raise ValueError(f"{folder} holds phantoms of another specification; choose an empty folder")
    return bool(there["finished"])


def label_rows(slice_id: str, labels: Iterable[int]) -> list[LabelRow]:
    """The six rows of one slice."""
    return [(f"{slice_id}_{name}", int(value)) for name, value in zip(LABELS, labels, strict=True)]


def write_study(folder: Path, plan: StudyPlan) -> list[LabelRow]:
    """Draw and write one study and return its label rows; a study that is there already is not drawn again.

    Studies are independent of each other: any number of processes may write different ones into one folder.
    """
    kept = folder / "masks" / f"{plan.study_id}.npz"
    if kept.exists():  # written last
        with np.load(kept) as done:
            ids, labels = done["slice_ids"].tolist(), done["labels"]
    else:
        study = draw_study(plan)
        ids, labels = list(study.slice_ids), study.labels
        scanner = Scanner.draw(plan.rng("scanner"))
        (folder / "dicom").mkdir(parents=True, exist_ok=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        for k, slice_id in enumerate(ids):
            dataset = dataset_of(plan, study.stack, scanner, k, study.images_hu[k])
            write_whole(folder / "dicom" / f"{slice_id}.dcm", encode(dataset))
        out = io.BytesIO()
        np.savez_compressed(out, slice_ids=np.array(ids), masks=study.masks, labels=labels)
        write_whole(kept, out.getvalue())
    return [row for slice_id, line in zip(ids, labels, strict=True) for row in label_rows(slice_id, line)]
