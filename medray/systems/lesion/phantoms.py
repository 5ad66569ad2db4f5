"""The phantoms that the jobs make where they are given no scans: patients with lesions, some of them seen twice.

Under the folder, laid out as BIDS has it: ``sub-01/ses-1/anat/sub-01_ses-1_FLAIR.nii.gz`` and the other channels, the masks
below ``derivatives/masks``, ``table.csv`` with a row a visit and paths from its own folder, and ``phantoms.json``, written
last, which says that all is there. Phantom scores say that machinery learns. They are never clinical results.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from medray.imaging.phantom.writer import MARK, all_there, write_whole
from medray.imaging.types import Volume
from medray.imaging.volume_nifti import nifti_bytes
from medray.systems.lesion.phantom_brain import AFFINE, CHANNELS, Brain, Lesion, draw_brain, draw_lesions, scan

VERSION = 1  # of the drawing: another version's folder is not this one's
SUFFIX = {"flair": "FLAIR", "t1": "T1w", "t1c": "ce-gadolinium_T1w", "t2": "T2w"}
COLUMNS = ("patient", "visit", *CHANNELS, "mask")


@dataclass(frozen=True)
class PhantomSpec:
    """How many patients, and from which numbers they are drawn; every second one has two visits."""

    patients: int = 12
    seed: int = 0


@dataclass(frozen=True)
class PhantomPatients:
    """Scans with known lesions; a piece is the number of a patient, from 1."""

    spec: PhantomSpec

    unit: ClassVar[str] = "scans"

    def count(self, piece: int) -> int:
        return visits(piece)

    def pieces(self, folder: Path) -> list[int]:
        """All patients, or none where the folder holds them. Raises ValueError where it holds others."""
        if all_there(folder, self._claim()):
            return []
        return list(range(1, self.spec.patients + 1))

    def write(self, folder: Path, piece: int) -> list[dict[str, str]]:
        """The files of a patient, and their rows of the table."""
        brain, lesions = patient(self.spec, piece)
        rows = []
        for visit in range(1, visits(piece) + 1):
            there = [found for lesion in lesions if (found := lesion.at(visit))]
            channels, mask = scan(np.random.default_rng([self.spec.seed, piece, visit]), brain, there)
            name = f"sub-{piece:02d}_ses-{visit}"
            anat = Path(f"sub-{piece:02d}") / f"ses-{visit}" / "anat"
            row = {"patient": f"sub-{piece:02d}", "visit": f"ses-{visit}"}
            for channel, voxels in channels.items():
                row[channel] = _written(folder, anat / f"{name}_{SUFFIX[channel]}.nii.gz", voxels)
            row["mask"] = _written(
                folder, Path("derivatives", "masks") / anat / f"{name}_label-lesion_mask.nii.gz", mask
            )
            rows.append(row)
        return rows

    def finish(self, folder: Path, written: list[list[dict[str, str]]]) -> tuple[str, str]:
        table = folder / "table.csv"
        if not json.loads((folder / MARK).read_text())["finished"]:
            rows = pd.DataFrame([row for rows in written for row in rows], columns=COLUMNS)
            write_whole(table, rows.sort_values(["patient", "visit"]).to_csv(index=False).encode())
            about = {"Name": "medray phantoms of multiple sclerosis", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
            write_whole(folder / "dataset_description.json", json.dumps(about, indent=1).encode())
            write_whole(folder / MARK, json.dumps({**self._claim(), "finished": True}, indent=1).encode())
        return str(table), str(table)

    def _claim(self) -> dict[str, object]:
        return {"version": VERSION, "kind": "lesion", "spec": asdict(self.spec)}


def patient(spec: PhantomSpec, number: int) -> tuple[Brain, list[Lesion]]:
    """The brain of a patient, and all lesions of both visits."""
    rng = np.random.default_rng([spec.seed, number])
    brain = draw_brain(rng)
    new = int(rng.integers(1, 4)) if visits(number) == 2 else 0
    return brain, draw_lesions(rng, brain, int(rng.integers(6, 14)), new)


def visits(number: int) -> int:
    """How many visits a patient has."""
    return 2 if number % 2 == 0 else 1


def _written(folder: Path, name: Path, voxels: np.ndarray) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, nifti_bytes(voxels, Volume(voxels, AFFINE)))
    return name.as_posix()


DEMO = PhantomPatients(PhantomSpec())
