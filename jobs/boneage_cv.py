"""Bone age, cross-validated: hand films in; hands, points, registered regions, up to 18 age networks, an ensemble, a report out.

    uv run jobs/boneage_cv.py                  # drawn hands; --images films --labels labels --out out/hands: your own

Run the same command again after a kill, and it goes on where it was; --until ends it after a stage.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import tyro

from medray.engine.derive.derive import derive
from medray.engine.derive.inputs import Inputs
from medray.engine.job.options import Options, flags_over, run_job
from medray.engine.job.plan import Outcome, Stage, Training
from medray.engine.job.workspace import Workspace
from medray.engine.train.sweep import out_of_fold
from medray.shards.folders import of_model
from medray.systems.boneage import ages, phantoms, recipes, report, results
from medray.systems.boneage.chain import KEYPOINTS, SEGMENTATION, STAGES, chain_of
from medray.systems.boneage.films.source import HandFilm
from medray.systems.boneage.stages.between import Hands, Masks, Points
from medray.systems.boneage.stages.rows import ABOUT
from medray.systems.boneage.system import HAND_FILMS


@dataclass(frozen=True, kw_only=True)
class BoneAgeCV:
    images: str | None = None
    """Folder or URI with the films: PNG, JPEG or DICOM; masks of some of them lie in a folder masks below it."""
    labels: str | None = None
    """CSV of films, bone ages and sexes, or a folder with one and with VIA exports of points (tip, thumb, capitate)."""
    recipe: Literal["published", "modern", "phantom"] = "published"
    """published: the source's 18 networks. modern: one timm backbone that is told the sex. phantom: small, for two CPU cores."""
    name: str = ""
    """Of the method: its runs begin with it, scores and report lie in models/<name>. The recipe's if not given."""
    until: Literal["shards", "segmentation", "keypoints", "regions", "train", "report"] = "report"
    """End after this stage."""
    options: tyro.conf.OmitArgPrefixes[Options] = field(
        default_factory=lambda: Options(out="out/boneage", monitor="none")
    )
    source: tyro.conf.OmitArgPrefixes[HandFilm] = field(default_factory=HandFilm)
    networks: Annotated[recipes.Recipe, tyro.conf.arg(name="")] = field(default_factory=recipes.published)


ON_PHANTOMS = BoneAgeCV(
    recipe="phantom",
    options=Options(out="out/boneage-phantom", folds=2, train_folds=(0,), public_ids=True, monitor="none"),
)


def main(job: BoneAgeCV) -> None:
    name, recipe, settings = job.name or job.recipe, job.networks, job.networks.told(job.recipe)
    where = (job.images, job.labels, job.until, phantoms.DEMO, of_model(name), name)
    with Workspace(HAND_FILMS, job.source, job.options, *where) as work:
        chain = chain_of(work.data.files, work.data.labels, job.source.masks, recipe)
        before, tasks = chain.tasks(recipe, name)
        work.claim_runs({run: task.identity() for run, task in {**before, **tasks}.items()})
        every, count, cuts = work.options.every_fold, chain.images(job.options.folds), chain.regions(tasks)
        plan: list[Stage] = [Training(n, {n: before[n]} if n in before else {}, "", count, every) for n in STAGES]
        plan += [Outcome("regions", "of every hand", [f"{name}-{cut.name}" for cut in cuts])]
        plan += [Training("train", tasks, images=count), Outcome("ensemble", "films.csv, metrics.json")]
        work.begin("boneage", settings, plan, chain.left_out)

        work.stage("shards", "Shards and folds")
        films = chain.checked(work.shards())
        inputs, stages, lost, regions = Inputs((films.rows,)), dict[str, Any](films=films), {}, {}

        work.stage(SEGMENTATION, chain.title(SEGMENTATION))
        if chain.masks:
            stages["masks"], inputs = work.by_unseen(SEGMENTATION, recipe.segmentation, films, Masks(), "masks")
        stages["hands"] = made = derive(Hands(chain.masks), inputs, work.features("hands"), what="hands")
        hands, lost["segmentation"] = made.shards([*ABOUT, "has_points"], films.fold_of_patient), made.set_aside()
        inputs = Inputs((hands.rows,))

        work.stage(KEYPOINTS, chain.title(KEYPOINTS))
        if chain.how == "points":
            stages["points"], inputs = work.by_unseen(KEYPOINTS, recipe.keypoints, hands, Points(), "points")

        work.stage("regions", chain.title("regions"))
        for cut in cuts:
            stages[cut.name] = made = derive(cut, inputs, work.features(f"{name}-{cut.name}"), what=cut.title)
            regions[cut.name], lost["registration"] = made.shards(ABOUT, films.fold_of_patient), made.set_aside()
        refused = results.write_refused(work.results, ages.refused_films(lost, films.index, work.folds), work.say)

        work.stage("train", "Age networks, as many side by side as there is room for")
        tasks = chain.learned(tasks, regions, work.folds, work.say)
        runs = {run: work.cross_validation(run, t, regions[t.region].where(t.reads)) for run, t in tasks.items()}
        work.fit("training", runs.values(), with_models=())  # 18 networks a fold: MLflow gets their curves

        work.stage("report", "Ensemble, scores and report")
        table = ages.joined_ages({task.model: out_of_fold(runs[run]) for run, task in tasks.items()})
        method = chain.method(recipe, tasks, job.source, work.folds, every)
        metrics = results.conclude(work.results, table, refused, method, recipe.correct, ages.quality(stages))
        work.say(results.summary(metrics))
        work.conclude(results.flat(metrics), report.write_report(work.results, work.about(films, settings), stages))


def start() -> None:
    def each(job: BoneAgeCV) -> None:
        default = ON_PHANTOMS if job.images is None else BoneAgeCV()
        networks = recipes.recipe(flags_over(BoneAgeCV, default).recipe)
        main(flags_over(BoneAgeCV, replace(default, networks=networks)))

    run_job(BoneAgeCV, each, BoneAgeCV())


if __name__ == "__main__":
    start()
