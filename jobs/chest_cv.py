"""Chest X-ray: films and labels in; a classifier on given lists or cross-validated, scores by finding and view, a report out.

    uv run jobs/chest_cv.py --images images --labels . --out out/nih --public-ids                  # ChestX-ray14 as published
    uv run jobs/chest_cv.py --images films --labels films.csv --out out/ours --split folds --folds 5
    uv run jobs/chest_cv.py --images nih_64px --labels lists --out out/small --recipe small --public-ids    # two CPU cores

Run the same command again after a kill, and it goes on where it was; --until ends it after a stage. Another recipe in the
same --out uses the same shards; --name says what its folder is called.
"""

from dataclasses import dataclass, field, replace
from typing import Literal, cast

import tyro

from medray.engine.job.options import Options, flags_over, run_job
from medray.engine.job.plan import Outcome, Training
from medray.engine.job.workspace import Workspace
from medray.engine.train.finished import finished_run
from medray.engine.train.sweep import inner_predictions, out_of_fold
from medray.nn.backbone import Backbone
from medray.shards.folders import held_shards, of_model
from medray.systems.chest import recipes
from medray.systems.chest.readers import on_films, read_reader
from medray.systems.chest.report import write_report
from medray.systems.chest.results import conclude, flat, summary
from medray.systems.chest.source import Radiograph
from medray.systems.chest.system import FILMS, FILMS_BY_FOLDS
from medray.systems.chest.task import FilmTask


@dataclass(frozen=True, kw_only=True)
class ChestCV:
    images: str | None = None
    """Folder or URI with the films: PNG, JPEG or DICOM."""
    labels: str | None = None
    """Folder with Data_Entry_2017*.csv and lists, or with train_list.txt, val_list.txt and test_list.txt; or any CSV with
    columns for image, patient and findings."""
    split: Literal["lists", "folds"] = "lists"
    """lists: train, choose and test on the lists that the labels come with, if they do. folds: draw folds by patient."""
    recipe: Literal["chexnet", "sgd", "small"] = "chexnet"
    """chexnet: DenseNet-121 with Adam. sgd: the same with SGD and momentum. small: 64 pixels, for two CPU cores."""
    heads: recipes.TargetSet = "findings"
    """The 14 findings; abnormal or not; or the source's two, tumour and inflammation. --targets names others."""
    backbone: str = ""
    """Any timm model in place of the recipe's."""
    reader: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """CSV of what a reader saw: a column of images, and one named like each of some targets, 0 or 1. Cohen's kappa with the
    model; given twice, also between the two readers."""
    name: str = ""
    """Of the model: its runs lie in runs/<name>, scores and report in models/<name>. The recipe's and heads' if not given."""
    until: Literal["shards", "train", "report"] = "report"
    """End after this stage."""
    options: tyro.conf.OmitArgPrefixes[Options] = field(
        default_factory=lambda: Options(out="out/chest", monitor="inner")
    )
    source: tyro.conf.OmitArgPrefixes[Radiograph] = field(default_factory=Radiograph)
    task: tyro.conf.OmitArgPrefixes[FilmTask] = field(default_factory=recipes.chexnet)


def main(job: ChestCV, task: FilmTask) -> None:
    answers = [read_reader(uri, task.targets) for uri in job.reader]
    source = job.source.holding(task.shard_needs, held_shards(job.options.out))
    system = FILMS if job.split == "lists" else FILMS_BY_FOLDS
    name = job.name or f"{job.recipe}-{job.heads}{f'-{job.backbone}' if job.backbone else ''}".replace("/", "_")
    to = of_model(name)
    with Workspace(system, source, job.options, job.images, job.labels, job.until, None, to, tracked_as=name) as work:
        work.claim_runs({name: task.identity()})
        work.begin("chest", task.identity(), [Training("train", {name: task}), Outcome("scores", "metrics.json")])

        work.stage("shards", "Shards and split")
        films = work.shards()
        readers = [on_films(reader, films.inventory, films.private) for reader in answers]

        work.stage("train", "Training")
        runs = work.cross_validation(name, task, films)
        work.fit("training", [runs])

        work.stage("report", "Scores")
        split = work.data.split_name
        metrics = conclude(
            work.results,
            task,
            out_of_fold(runs),
            inner_predictions(runs),
            split,
            readers,
            job.options.prevalence,
            work.searched,
        )
        work.say(summary(metrics))

        work.stage("report", "Report")
        networks = {run.fold: cast(Backbone, finished_run(work.out, name, run.fold, FilmTask)[1]) for run in runs}
        about = work.about(films, task.identity())
        work.conclude(flat(metrics), write_report(work.results, task, networks, source, about))


def start() -> None:
    def each(job: ChestCV) -> None:  # the flags over the recipe
        task = recipes.recipe(job.recipe, job.heads)
        over = replace(ChestCV(), task=replace(task, backbone=job.backbone or task.backbone))
        main(job, flags_over(ChestCV, over).task)

    run_job(ChestCV, each, ChestCV())


if __name__ == "__main__":
    start()
