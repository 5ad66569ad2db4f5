"""Intracranial hemorrhage, cross-validated: head-CT DICOM in; out-of-fold predictions, a ladder of scores, a report out.

    uv run jobs/ich_cv.py          # phantoms, two CPU cores, about five minutes
    uv run jobs/ich_cv.py --dicom stage_2_train --labels stage_2_train.csv --out out/rsna --public-ids
    ray job submit --working-dir . -- python jobs/ich_cv.py --dicom s3://… --labels s3://… --out s3://…

Run the same command again after a kill, and it goes on where it was; --until ends it after a stage.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

import tyro

from medray.engine.derive.derive import derive
from medray.engine.job.options import Options, flags_over, run_job
from medray.engine.job.plan import Embedding, Outcome, Stage, Training
from medray.engine.job.workspace import Workspace
from medray.engine.train.sweep import inner_by_fold, out_of_fold
from medray.shards.folders import held_shards
from medray.systems.ich import features, method, phantoms, pipeline, recipes, report, results
from medray.systems.ich.pipeline import Pipeline, sequence_of
from medray.systems.ich.sequence import SequenceTask
from medray.systems.ich.source import HeadCT
from medray.systems.ich.system import HEAD_CT
from medray.systems.ich.task import SliceTask


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


ON_PHANTOMS = IchCV(
    options=Options(out="out/phantom", folds=2, rows_per_shard=256, public_ids=True, monitor="none"),
    pipeline=pipeline.phantoms(),
    sequence=recipes.phantom_sequence(),
)


def main(job: IchCV, tasks: dict[str, SliceTask]) -> None:
    how, to = job.pipeline, job.options
    plan = pipeline.plan(how, tasks, job.sequence, job.source, held_shards(to.out), to.all_folds)
    with Workspace(HEAD_CT, plan.source, to, job.dicom, job.labels, job.until, phantoms.DEMO, how.results) as work:
        runs_of = work.claim_runs(plan.claims(how), how.variant)
        features_of = work.claim_features(plan.feature_claims(how), how.variant)
        stages: list[Stage] = [
            Training("backbones", {runs_of[n]: task for n, task in plan.backbones.items()}),
            Embedding("features", {features_of[n]: k for n, k in plan.feature_counts.items()}, len(how.views.views)),
            Training("sequence", {runs_of[sequence_of(n)]: task for n, task in plan.sequences.items()}, "all stacks"),
            Outcome("scores", "weights, out-of-fold predictions, metrics.json"),
        ]
        work.begin("ich", plan.settings, stages, plan.notices())

        work.stage("shards", "Shards and folds")
        shards = work.shards()

        work.stage("backbones", "Backbones")
        runs = {n: work.cross_validation(runs_of[n], task, shards) for n, task in plan.backbones.items()}
        work.fit("backbones", runs.values(), with_models=[runs_of[n] for n in tasks])

        work.stage("features", "Features and views")
        derived = {n: derive(how.views, shards.rows, work.features(features_of[n]), runs[n]) for n in plan.models}

        work.stage("sequence", "Sequence")
        sequences = {}
        for n, later in plan.sequences.items():
            found = derived[n].shards(features.INDEX_COLUMNS, shards.fold_of_patient)
            index = features.stack_index(found.index, shards.index["slice_id"], derived[n].store.uri)
            own = replace(found, index=index).by_fold(features.embedded_for, how.embedding)
            sequences[n] = work.cross_validation(runs_of[sequence_of(n)], later, own, small=True)
        work.fit("sequence", sequences.values())

        work.stage("report", "Ensemble and out-of-fold scores")
        predicted = {}
        for n, task in plan.backbones.items():
            views = features.read_slices(derived[n].store, derived[n].names) if n in derived else {}
            sequence = out_of_fold(sequences[n]) if n in sequences else None
            predicted[n] = method.Predictions(task, out_of_fold(runs[n]), inner_by_fold(runs[n]), views, sequence)
        metrics = results.conclude(work.results, plan, how, predicted, runs_of, to.prevalence, work.searched)
        work.say(results.summary(metrics))

        work.stage("report", "Report")
        about = work.about(shards, plan.settings | how.views.identity())
        work.conclude(results.flat(metrics), report.write_report(work.results, plan.source, about, how.results))


def start() -> None:
    def each(job: IchCV) -> None:
        default, recipe = IchCV(), recipes.recipe
        if job.dicom is None:
            default, recipe, job = ON_PHANTOMS, recipes.phantom, flags_over(IchCV, ON_PHANTOMS)
        base = {n: replace(default, pipeline=replace(default.pipeline, task=recipe(n))) for n in job.pipeline.backbones}
        main(job, {n.replace("/", "_"): flags_over(IchCV, over).pipeline.task for n, over in base.items()})

    run_job(IchCV, each, IchCV())


if __name__ == "__main__":
    start()
