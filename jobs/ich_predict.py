"""Six probabilities for every slice of new head-CT studies, by the whole method of a finished jobs/ich_cv.py.

    uv run jobs/ich_predict.py --run out/phantom --dicom DIR --to predictions
    uv run jobs/ich_predict.py --run out/rsna --dicom stage_2_test --to test                    # submission.csv
    uv run jobs/ich_predict.py --run out/rsna --dicom other --labels other.csv --to external    # scores.json

Leaves slices.csv, studies.csv, submission.csv, set_aside.csv and a montage a study. The CSV files carry the files' own
identifiers: they are for whoever owns the studies. Run again after a kill, it goes on with the studies that are left.
"""

from __future__ import annotations

from dataclasses import dataclass

from medray.engine.derive.files import NewFiles, derive_files
from medray.engine.derive.scan import little, reasons_kept, scan_new
from medray.engine.job.claim import claim_answers
from medray.engine.job.options import KEY_DIR, KeyOfRun, run_job
from medray.engine.job.phantoms import are_phantoms
from medray.engine.job.progress import say, say_all, warn
from medray.engine.train.finished import finished_job, finished_task
from medray.shards.digest import digest
from medray.shards.folders import of_variant
from medray.shards.store import Store
from medray.systems.ich.answers import TRAINED_ON_PHANTOMS, StudySet, training_slices, write_answers
from medray.systems.ich.external import counted, read_truth
from medray.systems.ich.inventory import assemble
from medray.systems.ich.new_studies import NewStudies, backbone_runs, sequence_runs, source_for
from medray.systems.ich.task import SliceTask


@dataclass(frozen=True, kw_only=True)
class IchPredict:
    run: str
    """The --out of a finished job."""
    key_dir: KeyOfRun = KEY_DIR
    variant: str = ""
    """The variant of the job that is asked, such as one trained with --variant."""
    dicom: str
    """Folder, file or URI with the DICOM files of one or more studies."""
    to: str = "out/predictions"
    """Folder or URI for the results."""
    montages: int = 100
    """Draw a montage of this many studies at most: each takes about a second."""
    labels: str | None = None
    """Labels to score with: the challenge's long CSV, or a table of slice_id or study_id and one or more of the six
    classes; "any" alone will do."""


def main(job: IchPredict) -> None:
    out, dicom, to = Store(job.run), Store(job.dicom), Store(job.to)
    results = out.sub(*of_variant(job.variant))
    configuration, method = finished_job(out, results, "method.json", job.key_dir)
    tasks = [finished_task(out, name, fold, SliceTask) for name, fold, _ in backbone_runs(method)]
    for run in sequence_runs(method):  # one that is missing is named before anything is read
        finished_task(out, *run)
    caution = TRAINED_ON_PHANTOMS if are_phantoms(configuration["dicom"]) else ""
    if caution:
        warn(caution)
    source = source_for(tasks, configuration)
    truth = None if job.labels is None else read_truth(job.labels)
    files = dicom.files(to)
    identity = {"method": digest(method), "files": digest([(f.path, f.size_bytes) for f in files])}
    claim_answers(to, identity | {"data_version": source.version})
    with reasons_kept(to):
        asked = StudySet(assemble(scan_new(source, dicom, files), None), truth, dicom.uri)
    for line in asked.inventory.warnings:
        warn(line)
    studies = asked.studies()
    new = NewStudies(method, source, dicom, len(studies), job.montages, caution, asked.bleeding())
    say(f"{counted(len(files), 'file')}, {counted(len(studies), 'study')}, {new}")

    pieces = {study.name: study for study in studies}
    parts = derive_files(NewFiles(new, out, to, pieces, [1] * len(studies), "studies"), here=little(files))
    rates = results.read_json("metrics.json")["counts"]["observed_rate"]
    say_all(write_answers(to, parts, asked, training_slices(out), rates, caution, method.get("study_thresholds")))


def start() -> None:
    run_job(IchPredict, main)


if __name__ == "__main__":
    start()
