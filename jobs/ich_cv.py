"""Intracranial hemorrhage, cross-validated: head-CT DICOM in; out-of-fold predictions, scores and a report out.

    uv run jobs/ich_cv.py          # phantoms, two CPU cores, under five minutes
    uv run jobs/ich_cv.py --dicom stage_2_train --labels stage_2_train.csv --out out/rsna --public-ids
    ray job submit --working-dir . -- python jobs/ich_cv.py --dicom s3://… --labels s3://… --out s3://…

Run the same command again after a kill, and it goes on where it was.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace

import tyro

from medray.engine.claim import claim
from medray.engine.cluster import connect, spread
from medray.engine.fit import fit
from medray.engine.options import Options, run_job
from medray.engine.phantoms import phantom_files
from medray.engine.plan import show_plan
from medray.engine.prepare import prepare
from medray.engine.progress import say
from medray.engine.sweep import cross_validation, out_of_fold
from medray.engine.tracking import track_run
from medray.ich import recipes
from medray.ich.classes import CLASSES
from medray.ich.inventory import assemble
from medray.ich.labels import read_labels
from medray.ich.report import write_report
from medray.ich.results import flat, summary, write_results
from medray.ich.source import HeadCT
from medray.ich.task import SliceTask
from medray.imaging.phantom import PhantomSpec
from medray.shards.store import Store, place


@dataclass(frozen=True, kw_only=True)
class IchCV:
    dicom: str | None = None
    """Folder or URI with the DICOM files, in any order. Where not given, phantoms are written and used."""
    labels: str | None = None
    """The labels as the challenge's long CSV (ID,Label)."""
    options: tyro.conf.OmitArgPrefixes[Options] = field(default_factory=lambda: Options(out="out/ich"))
    source: tyro.conf.OmitArgPrefixes[HeadCT] = field(default_factory=HeadCT)
    task: tyro.conf.OmitArgPrefixes[SliceTask] = field(default_factory=recipes.slice_backbone)


PHANTOMS = IchCV(
    options=Options(out="out/phantom", folds=2, rows_per_shard=128, public_ids=True, monitor_every=7),
    task=recipes.phantom(),
)


def main(job: IchCV) -> None:
    options, out = job.options, Store(job.options.out)
    task = replace(job.task, channels=len(job.source.windows))
    task.network()  # a wrong name or missing weights end here, before anything is spent
    folds, pseudonyms = options.fold_list(), options.pseudonyms()
    if (job.dicom is None) != (job.labels is None):
        raise ValueError("--dicom and --labels: both are needed to train, or neither for phantoms")
    labels = None if job.labels is None else read_labels(job.labels)
    out.check_writable()
    inputs = {"dicom": place(job.dicom), "labels": place(job.labels)}
    claim(out, inputs | options.identity() | job.source.identity() | task.identity())
    connect()
    dicom = job.dicom
    if dicom is None:
        say("No --dicom: this run is on phantoms. Its scores say that the machinery learns, nothing about patients.")
        say("On your own data: uv run jobs/ich_cv.py --dicom DIR --labels LABELS.csv --out OUT")
        dicom, labels_csv = phantom_files(out, PhantomSpec(patients=96, matrix_px=256, slices=(20, 24)))
        labels = read_labels(labels_csv)
    folder, files = Store(dicom), Store(dicom).files()
    resources = spread(len(folds), options.workers, options.gpu, options.threads)
    show_plan(task, files, out, folds, options.folds, resources)
    tracker = options.tracker()
    tracker.want("", f"ich {out.uri.rsplit('/', 1)[-1]}", params=task.identity())

    say("\n1. Shards and folds")
    prepared = prepare(
        job.source, lambda scan: assemble(scan, labels), list(CLASSES), folder, files, out, pseudonyms,
        options.private, options.folds, options.rows_per_shard, options.split_seed,
    )  # fmt: skip

    say("\n2. Training")
    runs = cross_validation(task, prepared, CLASSES, folds, out, resources, options)
    fit(runs, lambda run: track_run(tracker, run))

    say("\n3. Out-of-fold scores")
    metrics = write_results(out, out_of_fold(runs))
    say("\n".join(f"  {line}" for line in summary(metrics)))

    say("\n4. Report")
    plots = write_report(
        out, job.source, folder, prepared.private, prepared.index, {run.name: run.history() for run in runs},
        task.identity(), phantom=job.dicom is None,
    )  # fmt: skip
    artifacts = plots | {name: out.read_bytes(name) for name in ("report.html", "metrics.json")}
    tracker.want("", "", metrics=flat(metrics), artifacts=artifacts, finished=True)
    tracker.close()
    say(f"  {out.uri}/report.html\n  uv run mlflow ui --backend-store-uri {tracker.uri}")


def start() -> None:
    given = any(flag.startswith("--dicom") for flag in sys.argv)
    run_job(IchCV, main, default=IchCV() if given else PHANTOMS)


if __name__ == "__main__":
    start()
