"""Multiple-sclerosis lesions, cross-validated: MR scans in; masks, tables of scans and lesions, scores, a report out.

    uv run jobs/lesion_cv.py                                                        # phantoms, two CPU cores, minutes
    uv run jobs/lesion_cv.py --images scans/table.csv --out out/ms --recipe segresnet
    uv run jobs/lesion_cv.py --images bids --out out/ms --recipe vnet --folds 5     # the layout tells the cases

Run the same command again after a kill, and it goes on where it was; --until ends it after a stage.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

import pandas as pd
import tyro

from medray.engine.derive.derive import derive
from medray.engine.job.options import Options, flags_over, run_job
from medray.engine.job.plan import Outcome, Training
from medray.engine.job.workspace import Workspace
from medray.engine.train.sweep import inner_by_fold
from medray.metrics.lesions import Rules
from medray.shards.folders import masks_store, of_model
from medray.systems.lesion import masks, nifti, phantoms, recipes, report, results, scores
from medray.systems.lesion.source import BrainMR
from medray.systems.lesion.system import BRAIN_MR, source_for
from medray.systems.lesion.task import LesionTask


@dataclass(frozen=True, kw_only=True)
class LesionCV:
    images: str | None = None
    """Table (CSV or TSV: patient, visit, a column for each channel, mask) by path or URI, or a folder in the BIDS layout.
    Where not given, phantoms are written and used."""
    recipe: Literal["vnet", "segresnet", "resenc", "unet", "phantom"] = "segresnet"
    """vnet: as published. segresnet, resenc, unet: the same examples, other networks. phantom: small, for two CPU cores."""
    name: str = ""
    """Of the model: its runs lie in runs/<name>, masks, scores and report in models/<name>. The recipe's if not given."""
    until: Literal["shards", "train", "report"] = "report"
    """End after this stage."""
    rules: Rules = field(default_factory=Rules)
    options: tyro.conf.OmitArgPrefixes[Options] = field(
        default_factory=lambda: Options(out="out/lesion", monitor="none")
    )
    source: tyro.conf.OmitArgPrefixes[BrainMR] = field(default_factory=BrainMR)
    task: tyro.conf.OmitArgPrefixes[LesionTask] = field(default_factory=recipes.segresnet)


ON_PHANTOMS = LesionCV(
    recipe="phantom",
    options=Options(out="out/lesion-phantom", folds=2, train_folds=(0,), public_ids=True, monitor="none"),
)


def main(job: LesionCV, task: LesionTask) -> None:
    source = source_for(job.source, task, job.images)
    task, name = task.reading(source), job.name or job.recipe
    to = of_model(name)
    with Workspace(BRAIN_MR, source, job.options, None, job.images, job.until, phantoms.DEMO, to, name) as work:
        work.claim_runs({name: task.identity()})
        crops = task.crops_per_epoch(0 if work.data.phantom else len(work.data.labels.table))
        outcomes = Outcome("masks", "scans.csv, lesions.csv, NIfTI"), Outcome("scores", "metrics.json")
        work.begin("lesion", task.identity(), [Training("train", {name: task}, images=crops), *outcomes])

        work.stage("shards", "Shards and folds")
        scans = work.shards()

        work.stage("train", "Training")
        runs = work.cross_validation(name, task, scans)
        work.fit("training", [runs])

        work.stage("report", "Masks of held-out scans")
        inner, store = inner_by_fold(runs), masks_store(work.out, name)
        thresholds = {run.fold: task.threshold_by(inner.get(run.fold)) for run in runs}
        found = []
        for run in runs:  # each scan by the network that has not seen its patient
            own, how = scans.where(scans.index["fold"] == run.fold), masks.Masks(thresholds[run.fold], job.rules)
            found.append(derive(how, own.rows, store, [run], what="masks"))
        table = pd.concat([one.index(masks.SMALL)[1] for one in found], ignore_index=True)
        table = table.rename(columns={"network_fold": "fold"}).drop(columns="made_by")
        of_scan = nifti.files_of_scans(work.data.labels, work.data.files, work.options.pseudonyms())
        parts = [(one.store, one.names) for one in found]
        files = nifti.write_all(work.results.sub("masks"), work.data.folder, of_scan, parts)

        work.stage("report", "Scores and report")
        metrics = results.conclude(work.results, task, source, table, files, thresholds, job.rules)
        work.say(scores.summary(metrics))
        about = work.about(scans, task.identity())
        pictures = report.write_report(work.results, about, scores.scan_table(table), work.data.shards, parts)
        work.conclude(results.flat(metrics), pictures)


def start() -> None:
    def each(job: LesionCV) -> None:
        default = LesionCV()
        if job.images is None:
            default, job = ON_PHANTOMS, flags_over(LesionCV, ON_PHANTOMS)
        main(job, flags_over(LesionCV, replace(default, task=recipes.recipe(job.recipe))).task)

    run_job(LesionCV, each, LesionCV())


if __name__ == "__main__":
    start()
