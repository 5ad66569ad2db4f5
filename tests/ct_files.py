"""Small head CTs as files: plain slices, scouts, reformats, dose reports, frames of one file; and folders of them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

ROOT = "1.2.826.0.1.3680043.8.498."
AXIAL, CORONAL, SAGITTAL = [1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1]
SCOUT = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
REFORMAT = ["DERIVED", "SECONDARY", "REFORMATTED"]
SIDE_PX = 64


def head(seed: int = 0, side_px: int = SIDE_PX) -> np.ndarray:
    """(side, side) int16 HU: air, a ring of bone, a brain of its own noise."""
    y, x = np.mgrid[:side_px, :side_px]
    half = side_px / 2
    radius = np.hypot((y - half + 0.5) / (0.38 * side_px), (x - half + 0.5) / (0.32 * side_px))
    hu = np.full((side_px, side_px), -1000, np.int16)
    hu[radius < 1] = 900
    inside = radius < 0.9
    hu[inside] = 35 + np.random.default_rng(seed).integers(-3, 4, int(inside.sum()))
    return hu


def ct(uid: int, z: float = 0.0, series: int = 1, study: int = 1, patient: str = "P1", **tags: Any) -> Dataset:
    """A plain slice; ``tags`` are set over it, or left out where None."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, UID(f"{ROOT}1.{uid}")
    ds.StudyInstanceUID, ds.SeriesInstanceUID = UID(f"{ROOT}2.{study}"), UID(f"{ROOT}3.{series}")
    ds.Modality, ds.PatientID, ds.InstanceNumber = "CT", patient, uid
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleSlope, ds.RescaleIntercept = 1, 0
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [-100, -100, z], AXIAL
    side_px = tags.pop("side_px", SIDE_PX)
    ds.Rows, ds.Columns, ds.PixelSpacing = side_px, side_px, [200 / side_px] * 2
    ds.PixelData = head(uid, side_px).tobytes()
    for name, value in tags.items():
        if value is None:
            delattr(ds, name)
        else:
            setattr(ds, name, value)
    return ds


def dose_report(uid: int, **more: Any) -> Dataset:
    """A page of text that says it is of modality CT."""
    nowhere: dict[str, Any] = dict.fromkeys(("RescaleSlope", "RescaleIntercept", "ImagePositionPatient"))
    return ct(uid, SOPClassUID=SecondaryCaptureImageStorage, ImageOrientationPatient=None, **nowhere, **more)


def enhanced(uid: int, frames: Sequence[dict[str, Any]], **more: Any) -> Dataset:
    """Frames of one file. Each may say position, orientation, image_type, acquisition, stack and time (an index)."""
    image = ct(uid, **more)
    of_file = dict.fromkeys(
        ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept")
    )
    for name in of_file:
        delattr(image, name)
    image.SOPClassUID, image.NumberOfFrames = EnhancedCTImageStorage, len(frames)
    image.PixelData = b"".join(head(uid + k).tobytes() for k in range(len(frames)))
    shared = Dataset()
    shared.PixelMeasuresSequence = _item(PixelSpacing=[200 / SIDE_PX] * 2, SliceThickness=5)
    shared.PixelValueTransformationSequence = _item(RescaleSlope=1, RescaleIntercept=0, RescaleType="HU")
    image.SharedFunctionalGroupsSequence = Items([shared])
    each = []
    for frame in frames:
        own = Dataset()
        own.PlanePositionSequence = _item(ImagePositionPatient=[-100, -100, frame["z"]])
        own.PlaneOrientationSequence = _item(ImageOrientationPatient=frame.get("orientation", AXIAL))
        own.CTImageFrameTypeSequence = _item(FrameType=frame.get("image_type", ["ORIGINAL", "PRIMARY", "VOLUME"]))
        content = {"StackID": "stack", "FrameAcquisitionNumber": "acquisition", "TemporalPositionIndex": "time"}
        own.FrameContentSequence = _item(**{tag: frame[name] for tag, name in content.items() if name in frame})
        each.append(own)
    image.PerFrameFunctionalGroupsSequence = Items(each)
    return image


def _item(**tags: Any) -> Items:
    item = Dataset()
    for name, value in tags.items():
        setattr(item, name, value)
    return Items([item])


def encode(ds: Dataset) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds["PixelData"].VR = "OW"
        ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = (
            ds.SOPClassUID,
            ds.SOPInstanceUID,
        )
        ds.preamble = bytes(128)
        pydicom.dcmwrite(file, ds)
    return file.getvalue()


def write(folder: Path, files: dict[str, Dataset]) -> None:
    for name, ds in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encode(ds))
