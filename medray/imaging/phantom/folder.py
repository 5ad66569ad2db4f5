"""A folder of phantom studies, with the challenge's long label CSV and the true masks.

Under the folder: ``dicom/ID_xxxxxxxxx.dcm`` (one slice each, names without order, as the challenge's), ``labels.csv``,
``masks/<study>.npz`` and ``phantoms.json``, written last, which says that all is there. Every file appears whole.

Phantom scores say that machinery learns. They are never clinical results.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from medray.imaging.phantom.broken import write_broken
from medray.imaging.phantom.study import PhantomSpec, StudyPlan, plan_phantoms
from medray.imaging.phantom.writer import MARK, LabelRow, all_there, write_study, write_whole

VERSION = 2  # of the drawing: another version's folder is not this one's


@dataclass(frozen=True)
class PhantomSet:
    """A finished folder of phantoms."""

    folder: Path
    spec: PhantomSpec
    broken_files: dict[str, str] = field(default_factory=dict)  # file name -> kind of fault, see ``broken.py``
    broken_labels: dict[str, str] = field(default_factory=dict)  # slice id -> kind of fault

    @property
    def dicom(self) -> Path:
        """The folder of slices."""
        return self.folder / "dicom"

    @property
    def labels_csv(self) -> Path:
        """The labels, in the challenge's long format."""
        return self.folder / "labels.csv"

    @property
    def plans(self) -> list[StudyPlan]:
        """What was drawn; without the study that the broken files come from."""
        return plan_phantoms(self.spec)

    def true_masks(self, study_id: str) -> dict[str, np.ndarray]:
        """slice id -> (rows, columns) uint8 of ``bleeds.BIT``: where blood is visible."""
        with np.load(self.folder / "masks" / f"{study_id}.npz") as kept:
            return dict(zip(kept["slice_ids"].tolist(), kept["masks"], strict=True))


def write_phantoms(folder: Path, spec: PhantomSpec, broken: bool = False) -> PhantomSet:
    """Write a whole set, or find it written. With ``broken``, one more study whose files are faulty (see
    ``broken.py``). Raises ValueError where the folder holds another set."""
    rows = [row for plan in begin(folder, spec, broken) for row in write_study(folder, plan)]
    return finish(folder, spec, rows, broken)


def begin(folder: Path, spec: PhantomSpec, broken: bool = False) -> list[StudyPlan]:
    """Claim a folder for a set and say which studies to write: all, or none where the set is complete."""
    return [] if all_there(folder, _claim(spec, broken)) else plan_phantoms(spec)


def finish(folder: Path, spec: PhantomSpec, rows: list[LabelRow], broken: bool = False) -> PhantomSet:
    """Write the labels, and last the marker that all is there. ``rows`` of all studies in any order."""
    path = folder / MARK
    there = json.loads(path.read_text())
    if not there["finished"]:
        files: dict[str, str] = {}
        labels: dict[str, str] = {}
        rows = sorted(rows, key=lambda row: row[0].rsplit("_", 1)[0])  # by slice id; the six keep their order
        if broken:
            extra, files, labels = write_broken(folder, spec)
            rows = rows + extra
        text = "ID,Label\n" + "".join(f"{name},{value}\n" for name, value in rows)
        write_whole(folder / "labels.csv", text.encode())
        there = {**_claim(spec, broken), "finished": True, "broken_files": files, "broken_labels": labels}
        write_whole(path, json.dumps(there, indent=1).encode())
    return PhantomSet(folder, spec, there["broken_files"], there["broken_labels"])


def _claim(spec: PhantomSpec, broken: bool) -> dict[str, object]:
    plain = json.loads(json.dumps(asdict(spec)))  # as it is read back: JSON has no tuples
    return {"version": VERSION, "broken": broken, "spec": plain}
