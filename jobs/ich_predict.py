"""Six probabilities for every slice of new head-CT studies, by the whole method of a finished jobs/ich_cv.py.

    uv run jobs/ich_predict.py --run out/phantom --dicom DIR --to predictions
    uv run jobs/ich_predict.py --run out/rsna --dicom stage_2_test --to test                    # submission.csv
    uv run jobs/ich_predict.py --run out/rsna --dicom other --labels other.csv --to external    # scores.json

Leaves slices.csv, studies.csv, submission.csv, set_aside.csv and a montage a study. The CSV files carry the files' own
identifiers: they are for whoever owns the studies. Run again after a kill, it goes on with the studies that are left.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from medray.engine.derive.predict import SET_ASIDE, decoded_groups, outputs_of, reasons_kept, scan_here
from medray.engine.job.claim import claim
from medray.engine.job.options import run_job
from medray.engine.job.progress import Progress, say, warn
from medray.engine.train.checkpoint import finished_job, finished_run
from medray.shards.digest import digest
from medray.shards.inventory import set_aside
from medray.shards.names import file_name
from medray.shards.store import Store
from medray.systems.ich.external import bleeding_slices, counted, read_truth, score_external, summary
from medray.systems.ich.inventory import assemble
from medray.systems.ich.montage import draw_study
from medray.systems.ich.new_studies import (
    TRAINED_ON_PHANTOMS,
    Members,
    images_of,
    read_hashes,
    read_parts,
    seen_in_training,
    submission,
    write_part,
)
from medray.systems.ich.sequence import SequenceTask
from medray.systems.ich.study import study_table
from medray.systems.ich.task import SliceTask


@dataclass(frozen=True, kw_only=True)
class IchPredict:
    run: str
    """The --out of a finished job."""
    variant: str = ""
    """The variant of the job that is asked, such as one trained with --variant."""
    dicom: str
    """Folder, file or URI with the DICOM files of one or more studies."""
    to: str = "predictions"
    """Folder or URI for the results."""
    montages: int = 100
    """Draw a montage of this many studies at most: each takes about a second."""
    labels: str | None = None
    """Labels to score with: the challenge's long CSV, or a table of slice_id or study_id and one or more of the six
    classes; "any" alone will do."""


def main(job: IchPredict) -> None:
    out, dicom, to = Store(job.run), Store(job.dicom), Store(job.to)
    results = out.sub("variants", job.variant) if job.variant else out
    configuration, method = finished_job(out, results, "method.json")
    models = method["models"]
    members = Members(
        method,
        backbone=lambda name, fold: finished_run(out, models[name]["runs"], fold, SliceTask),
        sequence=lambda name, fold: finished_run(out, models[name]["sequence"], fold, SequenceTask),
    )
    caution = TRAINED_ON_PHANTOMS if configuration["dicom"] is None else ""
    if caution:
        warn(caution)
    source = members.source(configuration["remove_hardware"])
    truth = None if job.labels is None else read_truth(job.labels)
    to.check_writable()
    files = dicom.files()
    parts = to.sub("parts")  # one a study, so that a restart goes on; not by a tag of the file, which no path may hold
    identity = {"method": digest(method), "files": digest([(f.path, f.size_bytes) for f in files])}
    claim(to, identity | {"data_version": source.version}, bool(parts.names()))
    with reasons_kept(to):
        inventory = assemble(scan_here(source, dicom, files), None)
    for line in inventory.warnings:
        warn(line)
    slices = inventory.rows.sort_values(["study_id", "stack_id", "index"])
    numbers = {study: f"study{i + 1:05d}" for i, study in enumerate(sorted(slices["study_id"].unique()))}
    say(f"{counted(len(files), 'file')}, {counted(len(numbers), 'study')}, {members}")

    paths = slices.set_index("slice_id")["path"]
    stems = {slice_id: file_name(path) for slice_id, path in paths.items()}
    bleeding = None if truth is None else bleeding_slices(truth, stems)
    waiting = slices[~slices["study_id"].map(numbers).add(".parquet").isin(parts.names(".parquet"))]
    progress = Progress("studies", len(numbers), "studies", done=len(numbers) - waiting["study_id"].nunique())
    for study_id, rows, lost in decoded_groups(source, dicom, "slice_id", waiting, "study_id"):
        name = numbers[study_id]
        answered = members.ask(rows, outputs_of) if rows else None
        if answered is not None and int(name.removeprefix("study")) <= job.montages:
            title = f"study {int(name.removeprefix('study'))} of {len(numbers)}" + (caution and f": {caution}")
            to.write_bytes(f"{name}.png", draw_study(answered, rows, len(source.windows), title, bleeding))
        write_part(parts, name, answered, rows, lost)
        progress.add(1)
    progress.close()

    found, lost_slices = read_parts(parts, sorted(numbers.values()))
    aside = set_aside(inventory.table)
    lost_files = lost_slices.assign(path=lost_slices["slice_id"].map(paths), status="quarantined")[aside.columns]
    _write_csv(to, SET_ASIDE, pd.concat([aside, lost_files]))
    if found.empty:
        first = lost_slices["reason"].iloc[0]
        raise ValueError(f"{dicom.uri}: no slice could be decoded; first reason: {first}; {to.uri}/{SET_ASIDE} has all")
    found["leaked"] = seen_in_training(found, read_hashes(out))
    if found["leaked"].any():
        studies = found.loc[found["leaked"], "study_id"].nunique()
        warn(
            f"leakage: {int(found['leaked'].sum())} slices of {studies} studies are pixel by pixel in the training data"
        )
    series = found["slice_id"].map(slices.set_index("slice_id")["series_id"])
    _write_csv(to, "slices.csv", found.assign(series_id=series).drop(columns=["pixels_hash"]))
    _write_csv(to, "studies.csv", study_table(found.assign(any=float("nan"))).drop(columns=["label"]))
    ids, no_images = images_of(inventory.table)
    rates = results.read_json("metrics.json")["counts"]["observed_rate"]
    if unlearned := [name for name, rate in rates.items() if rate is None]:
        warn(f"this run had no label of {', '.join(unlearned)}: its probabilities of it say nothing")
    text, guessed = submission(ids, found, rates)
    to.write_bytes("submission.csv", text.encode())
    if guessed:
        warn(f"submission.csv: {counted(guessed, 'image')} that were set aside got the training data's rates")
    if no_images:
        warn(f"submission.csv: left out as not DICOM: {counted(no_images, 'file')}")
    say(
        f"  {len(found)} slices → {to.uri}: slices.csv, studies.csv, submission.csv, montages; {len(aside) + len(lost_files)} set aside"
    )
    if truth is not None:
        scores = score_external(found, truth, stems)
        scores["notes"] = [*([caution] if caution else []), *scores["notes"]]
        to.write_json("scores.json", scores)
        say("\n".join(f"  {line}" for line in summary(scores)))


def _write_csv(to: Store, name: str, table: pd.DataFrame) -> None:
    to.write_bytes(name, table.to_csv(index=False).encode())


def start() -> None:
    run_job(IchPredict, main)


if __name__ == "__main__":
    start()
