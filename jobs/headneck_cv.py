"""Organs at risk, cross-validated: planning CTs in; contours of every organ, scores, a ladder of networks, a report out.

    uv run jobs/headneck_cv.py                                                     # drawn heads, two CPU cores, minutes
    uv run jobs/headneck_cv.py --images plans --out out/oar --organs Brainstem Parotid_L Parotid_R Lens_L Lens_R
    uv run jobs/headneck_cv.py --images table.csv --out out/oar --small Lens_L Lens_R --rungs unet no-ct

S-Net learns all organs; then heatmaps of the small ones, a network for each about its peak, a coder of shapes, and all of
them together. Run the same command again after a kill, and it goes on where it was; --until ends it after a stage.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

import tyro

from medray.engine.derive.derive import derive
from medray.engine.job.options import Options, flags_over, run_job
from medray.engine.job.plan import Outcome, Training
from medray.engine.job.progress import say_all
from medray.engine.job.workspace import Workspace
from medray.engine.train.run import Run
from medray.engine.train.sweep import FromRuns, out_of_fold
from medray.shards.folders import masks_store, of_model
from medray.systems.headneck import phantoms, recipes, report
from medray.systems.headneck.chain import PHANTOM, STAGES, Chain, SmallOrgans
from medray.systems.headneck.scores import held_out, results
from medray.systems.headneck.source import PlanningCT
from medray.systems.headneck.system import HEAD_AND_NECK, scan_notes, source_for
from medray.systems.headneck.task import OrganTask
from medray.tasks.contours import Contours


@dataclass(frozen=True, kw_only=True)
class HeadNeckCV:
    images: str | None = None
    """Table (CSV: patient, scan, ct, structures, organs), or a folder of patients (NIfTI, or DICOM with structure sets), by
    path or URI. Where not given, phantoms are written and used."""
    recipe: Literal["snet", "small", "phantom"] = "snet"
    """snet: as published. small: narrow, for grids of about 4 mm. phantom: narrower, for two CPU cores."""
    name: str = ""
    """Of the model: its runs begin with it, contours, scores and report lie in models/<name>. The recipe's if not given."""
    until: Literal["shards", "organs", "peaks", "outlines", "shapes", "joint", "report"] = "report"
    """End after this stage."""
    chain: tyro.conf.OmitArgPrefixes[SmallOrgans] = field(default_factory=SmallOrgans)
    options: tyro.conf.OmitArgPrefixes[Options] = field(
        default_factory=lambda: Options(out="out/headneck", monitor="none")
    )
    source: tyro.conf.OmitArgPrefixes[PlanningCT] = field(default_factory=PlanningCT)
    task: tyro.conf.OmitArgPrefixes[OrganTask] = field(default_factory=recipes.snet)


ON_PHANTOMS = HeadNeckCV(
    recipe="phantom",
    options=Options(out="out/headneck-phantom", folds=2, train_folds=(0,), public_ids=True, monitor="none"),
)


def main(job: HeadNeckCV) -> None:
    source, name = source_for(job.source, job.task, job.images), job.name or job.recipe
    chain = Chain(name, job.task.reading(source), job.chain)
    stages = chain.tasks()
    where = (None, job.images, job.until, phantoms.DEMO, of_model(name), name)
    with Workspace(HEAD_AND_NECK, source, job.options, *where) as work:
        tasks = {chain.run(rung): task for own in stages.values() for rung, task in own.items()}
        work.claim_runs({run: task.identity() for run, task in tasks.items()})
        crops = chain.base.crops_per_epoch(0 if work.data.phantom else len(work.data.files))
        plan = [Training(n, {chain.run(r): t for r, t in own.items()}, images=crops) for n, own in stages.items()]
        outcomes = Outcome("contours", "organs.csv, NIfTI, structure sets"), Outcome("scores", "metrics.json")
        work.begin("headneck", chain.identity(), [*plan, *outcomes], chain.left_out())

        work.stage("shards", "Shards and folds")
        scans, runs = work.shards(), dict[str, list[Run]]()
        say_all(scan_notes(scans.index, chain.base, work.folds))

        for stage, own in stages.items():
            work.stage(stage, STAGES[stage])
            for rung, task in own.items():
                starts = [FromRuns(runs[before], names) for before, names in chain.starts(rung)]
                runs[rung] = work.cross_validation(chain.run(rung), task, scans, starts)
            work.fit(stage, [runs[rung] for rung in own])

        work.stage("report", "Contours of held-out scans")
        held, final = scans.where(scans.index["fold"].isin(work.folds)), chain.run(chain.final)
        to, fold_of_row = masks_store(work.out, final), held.index["fold"].to_numpy()
        made = derive(Contours(), held.rows, to, runs[chain.final], fold_of_row, what="contours")
        of_scan = held_out.ct_files(work.data.labels, scans.private, work.options.pseudonyms())
        files = held_out.write_all(
            work.results.sub("contours"), work.data.folder, of_scan, made, held.index, work.options.public_ids
        )

        work.stage("report", "Scores and report")
        tables = {rung: out_of_fold(runs[rung]) for rung in chain.scored()}
        metrics = results.conclude(work.results, chain, source, tables, scans.index, work.folds, files)
        work.say(results.summary(metrics))
        pictures = report.write_report(work.results, work.about(scans, chain.identity()), chain, work.data.shards, made)
        work.conclude(results.flat(metrics), pictures)


def start() -> None:
    def each(job: HeadNeckCV) -> None:
        default = ON_PHANTOMS if job.images is None else HeadNeckCV()
        recipe = flags_over(HeadNeckCV, default).recipe
        chain = PHANTOM if recipe == "phantom" else SmallOrgans()
        main(flags_over(HeadNeckCV, replace(default, task=recipes.recipe(recipe), chain=chain)))

    run_job(HeadNeckCV, each, HeadNeckCV())


if __name__ == "__main__":
    start()
