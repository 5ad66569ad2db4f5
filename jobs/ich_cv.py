"""Intracranial hemorrhage, cross-validated: head-CT DICOM in; out-of-fold predictions, a ladder of scores, a report out.

    uv run jobs/ich_cv.py          # phantoms, two CPU cores, about five minutes
    uv run jobs/ich_cv.py --dicom stage_2_train --labels stage_2_train.csv --out out/rsna --public-ids
    ray job submit --working-dir . -- python jobs/ich_cv.py --dicom s3://… --labels s3://… --out s3://…

Run the same command again after a kill, and it goes on where it was; --until ends it after a stage.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Literal

import tyro

from medray.engine.derive.embed import embed, read_features
from medray.engine.job.claim import claim_each
from medray.engine.job.dataset import Dataset
from medray.engine.job.options import Options, flags_over, run_job
from medray.engine.job.plan import show_plan, spent
from medray.engine.job.progress import say
from medray.engine.job.tracking import finish, track_run
from medray.engine.train.checkpoint import write_initial
from medray.engine.train.fit import fit
from medray.engine.train.sweep import cross_validation, cross_validation_on_features, out_of_fold
from medray.imaging.phantom import PhantomSpec
from medray.shards.part import held
from medray.shards.store import Store
from medray.systems.ich import recipes
from medray.systems.ich.classes import CLASSES
from medray.systems.ich.features import INDEX_COLUMNS, pack_stacks, read_slices, stack_index
from medray.systems.ich.method import Predicted
from medray.systems.ich.pipeline import Pipeline, folder, phantoms, plan
from medray.systems.ich.report import write_report
from medray.systems.ich.results import conclude, flat, summary
from medray.systems.ich.sequence import SequenceTask
from medray.systems.ich.source import HeadCT
from medray.systems.ich.system import HEAD_CT
from medray.systems.ich.task import SliceTask

DEMO = PhantomSpec(patients=160, matrix_px=128, slices=(18, 22))


@dataclass(frozen=True, kw_only=True)
class IchCV:
    dicom: str | None = None
    """Folder or URI with the DICOM files, in any order. Where not given, phantoms are written and used."""
    labels: str | None = None
    """Labels of slices: the challenge's long CSV (ID,Label), or a table of slice_id or SOPInstanceUID and one or more of
    the six classes. What is unknown is empty or not there."""
    until: Literal["shards", "backbones", "features", "sequence", "report"] = "report"
    """End after this stage."""
    options: tyro.conf.OmitArgPrefixes[Options] = field(default_factory=lambda: Options(out="out/ich"))
    source: tyro.conf.OmitArgPrefixes[HeadCT] = field(default_factory=HeadCT)
    pipeline: tyro.conf.OmitArgPrefixes[Pipeline] = field(default_factory=Pipeline)
    sequence: SequenceTask = field(default_factory=recipes.sequence)


PHANTOMS = IchCV(
    options=Options(out="out/phantom", folds=2, rows_per_shard=256, public_ids=True, monitor="none"),
    pipeline=phantoms(),
    sequence=recipes.phantom_sequence(),
)


def main(job: IchCV, tasks: dict[str, SliceTask]) -> None:
    options, out, pipeline = job.options, Store(job.options.out), job.pipeline
    folds = options.fold_list()
    planned = plan(pipeline, tasks, job.sequence, job.source, held(out.sub("shards")), len(folds) == options.folds)
    data = Dataset(HEAD_CT, planned.source, options, job.dicom, job.labels, DEMO)
    data.claim()
    places = claim_each(out.sub("runs"), planned.claims(pipeline), pipeline.variant)
    features = claim_each(out.sub("features"), planned.feature_claims(pipeline), pipeline.variant)
    for name, task in planned.backbones.items() if job.until != "shards" or pipeline.task.weights else ():
        write_initial(task, out.sub("runs", places[name]))  # weights that cannot be had end it before anything is spent
    data.find()
    resources = options.resources(len(folds) * len(planned.backbones), planned.backbones.values())
    for line in planned.notices():
        say(line)
    show_plan(
        out, data.files, data.shards, {places[n]: task for n, task in planned.backbones.items()}, folds, options.folds,
        resources, {features[n]: count for n, count in planned.feature_counts.items()}, len(pipeline.views.views),
        {places[folder(n)]: task for n, task in planned.sequences.items()}, options.price_per_gpu_hour,
        ("weights, out-of-fold predictions, metrics.json", "report.html"),
    )  # fmt: skip
    variant = ["variants", pipeline.variant] if pipeline.variant else []
    results, tracker = out.sub(*variant), options.tracker("/".join(variant))
    title = " ".join(["ich", out.uri.rsplit("/", 1)[-1], *variant[1:]])
    tracker.want("", title, params=planned.backbones[planned.models[0]].identity())

    def end(stage: str) -> bool:
        return job.until == stage and (tracker.close() or True)

    say("\n1. Shards and folds")
    prepared = data.prepare()
    if end("shards"):
        return
    common = (CLASSES, folds, out)

    say("\n2. Backbones")
    runs = {
        name: cross_validation(places[name], task, prepared.rows, prepared.index, *common, resources, options)
        for name, task in planned.backbones.items()
    }
    fit(chain(*runs.values()), lambda run: track_run(tracker, run, run.model in [places[n] for n in tasks]))
    if end("backbones"):
        return

    say("\n3. Features and views")
    stores = {name: out.sub("features", features[name]) for name in planned.models}
    names = {n: embed(runs[n], prepared.rows, stores[n], pipeline.views, pack_stacks) for n in planned.models}
    if end("features"):
        return

    say("\n4. Sequence")
    stages = {}
    for name, sequence in planned.sequences.items():
        rows, table = read_features(stores[name], names[name], INDEX_COLUMNS, prepared.fold_of_patient)
        index = stack_index(table, prepared.index["slice_id"], stores[name].uri)
        stages[name] = cross_validation_on_features(
            places[folder(name)], sequence, rows, index, pipeline.embedding == "within-fold", *common, resources.for_small_runs(),
            options,
        )  # fmt: skip
    fit(chain(*stages.values()), lambda run: track_run(tracker, run))
    if end("sequence"):
        return

    say("\n5. Ensemble and out-of-fold scores")
    predicted = {
        name: Predicted(
            task=task,
            plain=out_of_fold(runs[name]),
            inner={run.fold: inner for run in runs[name] if (inner := run.inner_predictions()) is not None},
            views=read_slices(stores[name], names[name]) if name in names else {},
            sequence=out_of_fold(stages[name]) if name in stages else None,
        )
        for name, task in planned.backbones.items()
    }
    metrics = conclude(results, planned, pipeline, predicted, places)
    say("\n".join(f"  {line}" for line in summary(metrics)))

    say("\n6. Report")
    histories = {run.name: run.history() for run in chain(*runs.values(), *stages.values())}
    of_stage = {"backbones": [*chain(*runs.values())], "sequence": [*chain(*stages.values())]}
    cost = spent(of_stage, options.price_per_gpu_hour)
    settings = planned.backbones[planned.models[0]].identity() | pipeline.views.identity() | {"cost": cost}
    lead = " ".join(["a cross-validated run", *variant])
    pictures = write_report(
        results, planned.source, data.folder, prepared.inventory, prepared.private, prepared.index, histories, settings,
        phantom=data.phantom, lead=lead,
    )  # fmt: skip
    finish(tracker, results, flat(metrics), pictures, cost)


def start() -> None:
    given = any(flag.startswith("--dicom") for flag in sys.argv)
    default, recipe = (IchCV(), recipes.recipe) if given else (PHANTOMS, recipes.phantom)

    def each(job: IchCV) -> None:  # the flags over the recipe of each backbone
        over = {n: replace(default, pipeline=replace(default.pipeline, task=recipe(n))) for n in job.pipeline.backbones}
        main(job, {n.replace("/", "_"): flags_over(IchCV, base).pipeline.task for n, base in over.items()})

    run_job(IchCV, each, default)


if __name__ == "__main__":
    start()
