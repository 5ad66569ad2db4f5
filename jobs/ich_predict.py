"""Six probabilities for every slice of new head-CT studies, by the models of a finished jobs/ich_cv.py.

    uv run jobs/ich_predict.py --run out/phantom --dicom DIR --to predictions

Leaves slices.csv, studies.csv, set_aside.csv and a montage a study. The CSV files carry the files' own identifiers:
they are for whoever owns the studies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from medray.engine.finished import load_job
from medray.engine.options import run_job
from medray.engine.predict import predict_groups, scan_here
from medray.engine.progress import Progress, say
from medray.ich.classes import CLASSES, PROBABILITIES
from medray.ich.inventory import assemble
from medray.ich.labels import read_labels
from medray.ich.montage import draw_montage
from medray.ich.source import HeadCT
from medray.ich.study import study_table
from medray.ich.task import SliceTask
from medray.shards.source import Encoded
from medray.shards.store import Store


@dataclass(frozen=True, kw_only=True)
class IchPredict:
    run: str
    """The --out of a finished job."""
    dicom: str
    """Folder, file or URI with the DICOM files of one or more studies."""
    to: str = "predictions"
    """Folder or URI for the results."""
    labels: str | None = None
    """Labels as the challenge's long CSV, to be shown beside the predictions."""


def main(job: IchPredict) -> None:
    source, task, networks = load_job(Store(job.run), HeadCT, SliceTask)
    folder, to = Store(job.dicom), Store(job.to)
    to.check_writable()
    files = folder.files()
    labels = None if job.labels is None else read_labels(job.labels)
    inventory = assemble(scan_here(source, folder, files), labels)
    slices = inventory.slices.sort_values(["study_id", "series_id", "index"])
    set_aside = inventory.table[~inventory.table["status"].isin(["ok", "unlabelled"])][["path", "status", "reason"]]
    say(f"{len(files)} files, {slices['study_id'].nunique()} studies, {len(networks)} models ({task.backbone})")

    progress = Progress("studies", slices["study_id"].nunique(), "studies")
    tables, lost = [], []
    for number, (table, encoded) in enumerate(predict_groups(source, task, networks, folder, slices, "study_id")):
        lost += [(slice_id, e.note) for slice_id, e in encoded.items() if e.columns is None]
        progress.add(1)
        if len(table):
            name = f"study{number + 1:05d}.png"  # not by a tag of the file: those are not safe in a path
            to.write_bytes(
                name, draw_montage(table, _images(table, encoded, len(source.windows)), "any, and five types, in %")
            )
            tables.append(table.assign(montage=name))
    progress.close()
    if not tables:
        raise ValueError(f"{job.dicom}: no slice could be decoded; first reason: {lost[0][1]}")
    found = pd.concat(tables, ignore_index=True)
    identifiers = ["slice_id", "patient_id", "study_id", "series_id", "index", "position_mm"]
    shown = [*identifiers, *PROBABILITIES, *(CLASSES if labels else ()), "montage"]
    _write_csv(to, "slices.csv", found[shown])
    _write_csv(to, "studies.csv", study_table(found).drop(columns=[] if labels else ["label"]))
    path_of = slices.set_index("slice_id")["path"]
    more = pd.DataFrame([(path_of[s], "quarantined", note) for s, note in lost], columns=set_aside.columns)
    _write_csv(to, "set_aside.csv", pd.concat([set_aside, more]))
    say(
        f"  {len(found)} slices → {to.uri}: slices.csv, studies.csv, {len(tables)} montages; {len(set_aside) + len(lost)} files set aside"
    )


def _images(table: pd.DataFrame, encoded: dict[str, Encoded], windows: int) -> list[np.ndarray]:
    images = []
    for slice_id in table["slice_id"]:
        columns: dict[str, Any] = encoded[slice_id].columns or {}
        pixels = np.frombuffer(columns["image"], np.uint8).reshape(columns["rows"], columns["columns"], windows)
        images.append(pixels[..., 0])
    return images


def _write_csv(to: Store, name: str, table: pd.DataFrame) -> None:
    to.write_bytes(name, table.to_csv(index=False).encode())


def start() -> None:
    run_job(IchPredict, main)


if __name__ == "__main__":
    start()
