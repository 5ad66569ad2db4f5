"""The planning CTs that the jobs make where they are given none: drawn heads, of which some organs are not drawn in.

Under the folder ``plans/p01/ct.nii.gz``, ``plans/p01/organs/`` with a mask an organ, and ``phantoms.json``, written last, which says that
all is there. Phantom scores say that machinery learns. They are never clinical results.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from medray.imaging.phantom.writer import MARK, all_there, write_whole
from medray.imaging.types import Volume
from medray.imaging.volume_nifti import nifti_bytes
from medray.systems.headneck.phantom_head import AFFINE, ORGANS, draw

PLANS = "plans"
"""The folder of patients, within the phantoms'."""
VERSION = 4  # of the drawing: another version's folder is not this one's


@dataclass(frozen=True)
class PhantomSpec:
    """How many patients, and from which numbers they are drawn."""

    patients: int = 16
    seed: int = 0
    hidden: float = 0.15
    """Part of the organs that nobody has drawn in a patient."""


@dataclass(frozen=True)
class PhantomHeads:
    """Heads with known organs; a piece is the number of a patient, from 1."""

    spec: PhantomSpec

    unit: ClassVar[str] = "scans"

    def count(self, piece: int) -> int:
        return 1

    def pieces(self, folder: Path) -> list[int]:
        """All patients, or none where the folder holds them. Raises ValueError where it holds others."""
        if all_there(folder, self._claim()):
            return []
        return list(range(1, self.spec.patients + 1))

    def write(self, folder: Path, piece: int) -> None:
        """The files of a patient."""
        rng = np.random.default_rng([self.spec.seed, piece])
        hu, masks = draw(rng)
        home = folder / PLANS / f"p{piece:02d}"
        (home / "organs").mkdir(parents=True, exist_ok=True)
        for name, mask in masks.items():
            if rng.random() >= self.spec.hidden:
                write_whole(home / "organs" / f"{name}.nii.gz", _nifti(mask.astype(np.uint8)))
        write_whole(home / "ct.nii.gz", _nifti(hu))

    def finish(self, folder: Path, written: list[None]) -> tuple[str, str]:
        if not json.loads((folder / MARK).read_text())["finished"]:
            write_whole(folder / MARK, json.dumps({**self._claim(), "finished": True}, indent=1).encode())
        return str(folder / PLANS), str(folder / PLANS)

    def _claim(self) -> dict[str, object]:
        return {"version": VERSION, "kind": "headneck", "spec": asdict(self.spec)}


def _nifti(voxels: np.ndarray) -> bytes:
    return nifti_bytes(voxels, Volume(voxels, AFFINE))


DEMO = PhantomHeads(PhantomSpec())
NAMES = tuple(ORGANS)
