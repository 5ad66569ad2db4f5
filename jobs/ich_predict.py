"""Six probabilities for every slice of new head-CT studies, by the whole method of a finished jobs/ich_cv.py.

    uv run jobs/ich_predict.py --run out/phantom --dicom DIR --to predictions
    uv run jobs/ich_predict.py --run out/rsna --dicom stage_2_test --to test                    # submission.csv
    uv run jobs/ich_predict.py --run out/rsna --dicom other --labels other.csv --to external    # scores.json

Leaves slices.csv, studies.csv, submission.csv, set_aside.csv and a montage a study. The CSV files carry the files' own
identifiers: they are for whoever owns the studies. Run again after a kill, it goes on with the studies that are left.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

import pandas as pd
import pyarrow as pa

from medray.engine.claim import claim
from medray.engine.finished import finished_job, finished_run
from medray.engine.options import run_job
from medray.engine.predict import decoded_groups, outputs_of, scan_here
from medray.engine.progress import Progress, say, warn
from medray.engine.shard import digest
from medray.ich.classes import CLASSES, PROBABILITIES
from medray.ich.external import read_truth, score_external, summary
from medray.ich.features import pack_stacks
from medray.ich.inventory import assemble
from medray.ich.montage import draw_montage
from medray.ich.new_studies import Members, answer, submission
from medray.ich.pipeline import folder
from medray.ich.sequence import SequenceTask
from medray.ich.source import HeadCT, stored_image
from medray.ich.study import study_table
from medray.ich.task import SliceTask
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
    """Labels to score with: the challenge's long CSV, or a table of slice_id or study_id and one or more of the six
    classes; "any" alone will do."""


def main(job: IchPredict) -> None:
    out, dicom, to = Store(job.run), Store(job.dicom), Store(job.to)
    configuration, method = finished_job(out, "method.json")
    members = Members(
        method,
        lambda name, fold: finished_run(out, name, fold, SliceTask),
        lambda name, fold: finished_run(out, folder(name), fold, SequenceTask),
    )
    source = HeadCT(windows=members.windows, remove_hardware=configuration["remove_hardware"])
    truth = None if job.labels is None else read_truth(job.labels)
    to.check_writable()
    files = dicom.files()
    inventory = assemble(scan_here(source, dicom, files), None)
    slices = inventory.slices.sort_values(["study_id", "series_id", "index"])
    claim(to, {"method": digest(method), "files": digest([(f.path, f.size_bytes) for f in files])})
    numbers = {study: f"study{i + 1:05d}" for i, study in enumerate(sorted(slices["study_id"].unique()))}
    say(f"{len(files)} files, {len(numbers)} studies, {members}")

    parts = to.sub("parts")
    waiting = slices[~slices["study_id"].map(numbers).add(".parquet").isin(parts.names(".parquet"))]
    progress = Progress("studies", len(numbers), "studies", done=len(numbers) - waiting["study_id"].nunique())
    for study_id, rows, lost in decoded_groups(source, dicom, "slice_id", waiting, "study_id"):
        name = numbers[study_id]  # not by a tag of the file: those are not safe in a path
        table = members.ask(rows, outputs_of)
        if rows:
            images = [stored_image(row, len(source.windows))[..., 0] for row in rows]
            to.write_bytes(f"{name}.png", draw_montage(table, images, "any, and five types, in %"))
        both = pd.concat(
            [table.assign(montage=f"{name}.png"), pd.DataFrame(list(lost.items()), columns=["slice_id", "reason"])]
        )
        parts.write_table(f"{name}.parquet", pa.Table.from_pandas(both, preserve_index=False))
        progress.add(1)
    progress.close()
