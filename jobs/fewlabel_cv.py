"""One model of all organs from sources that each label a few of them: a ladder of methods, cross-validated, and a report.

    uv run jobs/fewlabel_cv.py                                             # drawn bodies, two CPU cores, minutes
    uv run jobs/fewlabel_cv.py --sources sources.csv --out out/organs --rungs apart marginal exclusion self cotraining

Networks learn from true labels; one a source writes pseudo-labels; two more learn from both, and teach each other. Run the
same command again after a kill, and it goes on where it was; --until ends it after a stage.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

import tyro

from medray.engine.data.samples import Shards
from medray.engine.derive.derive import derive
from medray.engine.job.options import Options, flags_over, run_job
from medray.engine.job.plan import Outcome, Stage, Training
from medray.engine.job.progress import say_all
from medray.engine.job.workspace import Workspace
from medray.engine.train.sweep import inner_by_fold, out_of_fold
from medray.shards.folders import masks_store, of_model
from medray.systems.fewlabel import phantoms, recipes, report, results
from medray.systems.fewlabel.chain import STAGES, Chain, Ladder
from medray.systems.fewlabel.source import FewLabelCT
from medray.systems.fewlabel.system import FEW_LABELS, source_for
from medray.systems.fewlabel.task import FewLabelTask

OUT = "out/fewlabel"


@dataclass(frozen=True, kw_only=True)
class FewLabelCV:
    sources: str | None = None
    """Table (CSV: name, images, masks, organs, mapping), by path or URI. Where not given, phantoms are written and used."""
    recipe: Literal["marginal", "small", "phantom"] = "marginal"
    """marginal: a residual U-Net. small: narrow, for grids of about 4 mm. phantom: it, for two CPU cores."""
    name: str = ""
    """Of the model: its runs begin with it, results lie in models/<name>. The recipe's if not given."""
    until: Literal["shards", "networks", "pseudo", "taught", "report"] = "report"  # end after this stage
    ladder: tyro.conf.OmitArgPrefixes[Ladder] = field(default_factory=Ladder)
    options: tyro.conf.OmitArgPrefixes[Options] = field(default_factory=lambda: Options(out=OUT, monitor="none"))
    source: tyro.conf.OmitArgPrefixes[FewLabelCT] = field(default_factory=FewLabelCT)
    task: tyro.conf.OmitArgPrefixes[FewLabelTask] = field(default_factory=recipes.marginal)


ON_PHANTOMS = FewLabelCV(
    recipe="phantom", options=Options(out=f"{OUT}-phantom", folds=2, train_folds=(0,), public_ids=True, monitor="none")
)


def main(job: FewLabelCV) -> None:
    source, name = source_for(job.source, job.task, job.sources), job.name or job.recipe
    chain = Chain(name, job.task.reading(source), job.ladder)
    stages = chain.tasks()
    where = (None, job.sources, job.until, phantoms.DEMO, of_model(name), name)
    with Workspace(FEW_LABELS, source, job.options, *where) as work:
        work.claim_runs({run: task.identity() for own in stages.values() for run, task in chain.named(own).items()})
        crops = chain.base.crops_per_epoch(0 if work.data.phantom else len(work.data.files))
        of = {stage: Training(stage, chain.named(own), images=crops) for stage, own in stages.items()}
        pseudo = Outcome("pseudo", "of every scan, by each source's network", chain.kept)
        plan: list[Stage] = [of["networks"], pseudo, of["taught"], Outcome("scores", "metrics.json")]
        work.begin("fewlabel", chain.identity(), plan, chain.notices)

        work.stage("shards", "Shards and folds")
        scans = work.shards()
        say_all(results.source_lines(scans.index, source))
        merge = chain.merged(scans.index)  # locked masks that cannot be used end it before anything is trained

        work.stage("networks", STAGES["networks"])
        runs = {rung: work.cross_validation(chain.run(rung), task, scans) for rung, task in stages["networks"].items()}
        work.fit("networks", runs.values())

        work.stage("pseudo", STAGES["pseudo"])
        found, merged = None, dict[int, Shards]()
        if chain.teaches:
            found, merged = work.each_fold_anew(runs["apart"], scans, chain.pseudo(), merge, chain.run("pseudo-labels"))
            work.say(results.write_pseudo(work.results, found, scans.index, merge))

        work.stage("taught", STAGES["taught"])
        for rung, task in stages["taught"].items():
            runs[rung] = work.cross_validation(chain.run(rung), task, merged.__getitem__)
        work.fit("taught", [runs[rung] for rung in stages["taught"]])

        work.stage("report", "Scores and report")
        answers = results.answers(inner_by_fold(runs.get("cotraining", [])), source, scans.index, work.folds)
        tables = {str(rung): out_of_fold(runs[rung]) for rung in chain.rungs}
        metrics = results.conclude(work.results, chain, source, tables, answers, scans.index, work.folds, merge)
        work.say(results.summary(metrics))
        contours = []
        for run in runs[chain.final]:
            held, to = scans.where(scans.index["fold"] == run.fold), masks_store(work.out, run.model)
            contours.append(derive(chain.asked(answers[run.fold].answer), held.rows, to, [run], what="held-out scans"))
        quality = results.pseudo_table(found, scans.index, source, work.folds)
        about = work.about(scans, chain.identity() | {"locked_masks": merge.locked_masks})
        pictures = report.write_report(work.results, about, chain, source, work.data.shards, contours, quality)
        work.conclude(results.flat(metrics), pictures)


def start() -> None:
    def each(job: FewLabelCV) -> None:
        default = ON_PHANTOMS if job.sources is None else FewLabelCV()
        base = recipes.recipe(flags_over(FewLabelCV, default).recipe)
        main(flags_over(FewLabelCV, replace(default, task=base)))

    run_job(FewLabelCV, each, FewLabelCV())


if __name__ == "__main__":
    start()
