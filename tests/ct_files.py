"""Small head CTs as files: plain slices, scouts, reformats, dose reports, frames of one file; and folders of them."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    JPEGLosslessSV1,
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
        ds["PixelData"].VR = "OB" if ds.file_meta.TransferSyntaxUID.is_encapsulated else "OW"
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


def jpeg_lossless(ds: Dataset) -> Dataset:
    """The slice with its pixels in JPEG Lossless, process 14, first-order prediction (T.81 annex H; PS3.5 A.4.2)."""
    stored = np.frombuffer(ds.PixelData, np.uint16).reshape(ds.Rows, ds.Columns).astype(np.int64)
    predicted = np.empty_like(stored)
    predicted[:, 1:] = stored[:, :-1]
    predicted[1:, 0] = stored[:-1, 0]
    predicted[0, 0] = 1 << 15
    bits = []
    for difference in ((stored - predicted + (1 << 15)) % (1 << 16) - (1 << 15)).ravel().tolist():
        size = 16 if difference == -(1 << 15) else abs(difference).bit_length()
        value = difference if difference > 0 else difference + (1 << size) - 1
        bits.append(f"{size:05b}" + (f"{value:0{size}b}" if 0 < size < 16 else ""))
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    scan = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")
    frame = struct.pack(">BHHBBBB", 16, ds.Rows, ds.Columns, 1, 1, 0x11, 0)
    table = bytes([0, 0, 0, 0, 0, 17, *[0] * 11]) + bytes(range(17))  # 17 codes of five bits: 0 to 16 themselves
    segments = [(0xC3, frame), (0xC4, table), (0xDA, bytes([1, 1, 0, 1, 0, 0]))]
    stream = b"\xff\xd8" + b"".join(
        bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content for marker, content in segments
    )
    ds.PixelData = encapsulate([stream + scan + b"\xff\xd9"])
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    return ds


def pacs_folder(folder: Path, patients: int = 3) -> list[str]:
    """Studies as a PACS sends them, and as the public head-CT set CQ500 holds them: in each a thick and a thin series, the
    thin one in JPEG Lossless, a scout, coronal and sagittal reformats, a dose report; beside them one odd thing a patient.

    Returns:
        The ids of the thick series' slices.
    """
    ids = []
    for p in range(patients):
        first, study = 1000 * p, {"study": p, "patient": f"P{p}"}

        def of(number: int, series: int, at: dict[str, Any] = study, first: int = first) -> dict[str, Any]:
            return {"uid": first + number, "series": first + series} | at

        thick = {f"CT Plain/{k}": ct(**of(k, 1), z=5 * k, SliceThickness=5) for k in range(1, 7)}
        ids += [str(ds.SOPInstanceUID) for ds in thick.values()]
        files = thick | {
            f"CT PLAIN THIN/{k}": jpeg_lossless(ct(**of(100 + k, 2), z=2.5 * k, SliceThickness=2.5))
            for k in range(1, 13)
        }
        files |= {f"CT Scout/{k}": ct(**of(200 + k, 3), ImageOrientationPatient=plane, ImageType=SCOUT) for k, plane in enumerate((CORONAL, SAGITTAL))}  # fmt: skip
        for k, plane in enumerate((CORONAL, SAGITTAL)):
            position = [[-100, 5 * k, 100], [5 * k, -100, 100]][k]
            files[f"MPR/{k}"] = ct(
                **of(300 + k, 4), ImageOrientationPatient=plane, ImageType=REFORMAT, ImagePositionPatient=position
            )
        files["Dose/1"] = dose_report(**of(400, 5))
        if p == 0:  # thick axial reformats under the UID of the thin series
            mpr = {"ImageType": ["DERIVED", "SECONDARY", "AXIAL"], "SliceThickness": 10}
            files |= {f"CT PLAIN THIN/mpr{k}": ct(**of(500 + k, 2), z=10 * k, **mpr) for k in range(1, 4)}
        if p == 1:  # with contrast agent, under the UID of the plain series, each its number of acquisition
            for ds in thick.values():
                ds.AcquisitionNumber = 1
            files |= {f"CT Plain/c{k}": ct(**of(600 + k, 1), z=5 * k + 1, AcquisitionNumber=2) for k in range(1, 7)}
        if p == 2:  # an exporter that left one position in all slices, and a scout in the axial series
            for k in range(1, 13):
                files[f"CT PLAIN THIN/{k}"].ImagePositionPatient = [-100, -100, 0]
            files["CT Plain/0"] = ct(**of(700, 1), ImageOrientationPatient=SAGITTAL, ImageType=SCOUT)
        write(folder / f"P{p}" / "Unknown Study", {f"{name}.dcm": ds for name, ds in files.items()})
    return ids
