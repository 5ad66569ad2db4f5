"""The sources that the jobs make where they are given none: drawn bodies, of which each source labels some organs.

Under the folder ``<source>/images/b01.nii.gz``, ``<source>/masks/b01.nii.gz`` with what the source labels, ``<source>/all/`` with
all organs, for scores alone, ``sources.csv``, and ``phantoms.json``, written last, which says that all is there. Phantom scores
say that machinery learns. They are never clinical results.
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
from medray.systems.fewlabel.phantom_body import AFFINE, ORGANS, Scanner, draw
from medray.systems.fewlabel.sources import Origin

VERSION = 1  # of the drawing: another version's folder is not this one's
TABLE = "sources.csv"
SCANNERS = (Scanner(), Scanner(0.75, 20.0, 0.8), Scanner(1.2, 16.0, 0.3))
"""One a source, and then again from the first."""


@dataclass(frozen=True)
class PhantomSpec:
    """How many cases a source has, what each labels, and from which numbers they are drawn."""

    cases: int = 8
    seed: int = 0
    sources: tuple[tuple[str, ...], ...] = (("Liver", "Spleen"), ("Kidney_L", "Kidney_R"), ("Pancreas", "Gallbladder"))


EIGHT = tuple((organ,) for organ in ORGANS)
"""A source for each of eight organs: the paper's second experiment."""


@dataclass(frozen=True)
class PhantomSources:
    """Bodies with known organs; a piece is the number of a source, from 0, and of a case, from 1."""

    spec: PhantomSpec

    unit: ClassVar[str] = "scans"

    def count(self, piece: tuple[int, int]) -> int:
        return 1

    def pieces(self, folder: Path) -> list[tuple[int, int]]:
        """All cases, or none where the folder holds them. Raises ValueError where it holds others."""
        if all_there(folder, self._claim()):
            return []
        return [(source, case) for source in range(len(self.spec.sources)) for case in range(1, self.spec.cases + 1)]

    def write(self, folder: Path, piece: tuple[int, int]) -> None:
        """The files of a case."""
        source, case = piece
        hu, masks = draw(np.random.default_rng([self.spec.seed, *piece]), SCANNERS[source % len(SCANNERS)])
        organs = [organ for own in self.spec.sources for organ in own]
        labels = {"masks": self.spec.sources[source], "all": organs}
        home = folder / name_of(source)
        for part in ("images", *labels):
            (home / part).mkdir(parents=True, exist_ok=True)
        write_whole(home / "images" / f"b{case:02d}.nii.gz", _nifti(hu))
        for part, own in labels.items():
            numbers = sum(np.uint8(k) * masks[organ].astype(np.uint8) for k, organ in enumerate(own, 1))
            write_whole(home / part / f"b{case:02d}.nii.gz", _nifti(np.asarray(numbers, np.uint8)))

    def finish(self, folder: Path, written: list[None]) -> tuple[str, str]:
        if not json.loads((folder / MARK).read_text())["finished"]:
            write_whole(folder / TABLE, self.table().encode())
            write_whole(folder / MARK, json.dumps({**self._claim(), "finished": True}, indent=1).encode())
        return str(folder / TABLE), str(folder / TABLE)

    def origins(self) -> tuple[Origin, ...]:
        """As ``read_sources`` gives them."""
        organs = [organ for own in self.spec.sources for organ in own]
        whole = tuple((str(k), (organ,)) for k, organ in enumerate(organs, 1))
        return tuple(
            Origin(name_of(source), own, tuple((str(k), (organ,)) for k, organ in enumerate(own, 1)), whole)
            for source, own in enumerate(self.spec.sources)
        )

    def table(self) -> str:
        """The lines of ``sources.csv``."""
        lines = ["name,images,masks,organs,mapping,scored,scored mapping"]
        organs = [organ for own in self.spec.sources for organ in own]
        for source, own in enumerate(self.spec.sources):
            name = name_of(source)
            mapping, whole = (" ".join(f"{k}={o}" for k, o in enumerate(some, 1)) for some in (own, organs))
            lines.append(f"{name},{name}/images,{name}/masks,{' '.join(own)},{mapping},{name}/all,{whole}")
        return "\n".join(lines) + "\n"

    def _claim(self) -> dict[str, object]:
        spec = json.loads(json.dumps(asdict(self.spec)))
        return {"version": VERSION, "kind": "fewlabel", "spec": spec}


def name_of(source: int) -> str:
    """Of a source by its number, from 0."""
    return "ABCDEFGH"[source]


def _nifti(voxels: np.ndarray) -> bytes:
    return nifti_bytes(voxels, Volume(voxels, AFFINE))


DEMO = PhantomSources(PhantomSpec())
