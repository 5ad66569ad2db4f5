"""The phantoms that the jobs make where they are given no head CT."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from medray.imaging.phantom import PhantomSpec, StudyPlan, begin, finish, write_study


@dataclass(frozen=True)
class PhantomStudies:
    """Head-CT studies with known bleeds; a piece is a study."""

    spec: PhantomSpec

    unit: ClassVar[str] = "studies"

    def count(self, piece: StudyPlan) -> int:
        return 1

    def pieces(self, folder: Path) -> list[StudyPlan]:
        return begin(folder, self.spec)

    def write(self, folder: Path, piece: StudyPlan) -> list[Any]:
        return write_study(folder, piece)

    def finish(self, folder: Path, written: list[list[Any]]) -> tuple[str, str]:
        made = finish(folder, self.spec, [row for study in written for row in study])
        return str(made.dicom), str(made.labels_csv)


DEMO = PhantomStudies(PhantomSpec(patients=160, matrix_px=128, slices=(18, 22)))
SEARCHED = PhantomStudies(PhantomSpec(patients=60, matrix_px=96, slices=(16, 20), seed=7))
