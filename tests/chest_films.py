"""Films made for tests."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from medray.systems.chest.classes import FINDINGS


def noise(seed: int = 0, rows: int = 48, columns: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, columns), dtype=np.uint8)


def write_png(path: Path, pixels: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(len(str(path))) if pixels is None else pixels).save(path)
    return path


def dicom(pixels: np.ndarray, **tags: Any) -> bytes:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = DigitalXRayImageStorageForPresentation, generate_uid()
    ds.PatientID, ds.Modality, ds.ViewPosition = "p", "DX", "PA"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation = 7, 0
    ds.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(ds, name, value)
    stream = io.BytesIO()
    ds.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def film_row(number: int, rows: int = 48, columns: int = 40) -> dict[str, Any]:
    """A row of the shards; the bits of ``number`` are its findings."""
    labels = {name: int((number >> i) & 1) for i, name in enumerate(FINDINGS)}
    return {
        "image_id": f"image{number}", "patient_id": f"patient{number // 2}", "view": ("PA", "AP")[number % 2],
        "age_years": 50.0, "sex": "F", "film_rows": rows, "film_columns": columns, "rows": rows, "columns": columns,
        "image": noise(number, rows, columns).tobytes(), **labels,
    }  # fmt: skip
