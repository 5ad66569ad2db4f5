"""What a prediction of organs reads, and what it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
from volume_files import as_bytes, mr_series

PATIENT = "PID-4711"


def put(folder: Path, scans: Mapping[str, bytes]) -> Path:
    for name, data in scans.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def ct_series(hu: np.ndarray) -> list[bytes]:
    """A DICOM file a slice, with the name of a patient."""
    step, spacing = (0.0, 0.0, 3.0), (2.0, 2.0)
    made = mr_series(
        hu, step_lps=step, spacing_rc=spacing, Modality="CT", PatientID=PATIENT, PatientName="Muster^Maria"
    )
    return [as_bytes(dataset) for dataset in made]


def contours(to: Path, name: str) -> dict[str, np.ndarray]:
    return {
        path.name.removesuffix(".nii.gz"): np.asarray(nibabel.load(path).dataobj) > 0
        for path in sorted((to / name).iterdir())
    }


def csv_table(to: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(to / name, keep_default_na=False)
