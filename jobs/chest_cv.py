"""Chest X-ray: films and labels in; a classifier on given lists or cross-validated, scores by finding and view, a report out.

    uv run jobs/chest_cv.py --images images --labels . --out out/nih --public-ids                  # ChestX-ray14 as published
    uv run jobs/chest_cv.py --images films --labels films.csv --out out/ours --split folds --folds 5
    uv run jobs/chest_cv.py --images nih_64px --labels lists --out out/small --recipe small --public-ids    # two CPU cores

Run the same command again after a kill, and it goes on where it was; --until ends it after a stage. Another recipe in the
same --out uses the same shards; --name says what its folder is called.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Literal, cast

import tyro

from medray.engine.job.claim import claim_each
from medray.engine.job.dataset import Dataset
from medray.engine.job.options import Options, flags_over, run_job
from medray.engine.job.plan import show_plan, spent
from medray.engine.job.progress import say
from medray.engine.job.tracking import finish, track_run
from medray.engine.train.checkpoint import finished_run, write_initial
from medray.engine.train.fit import fit
from medray.engine.train.sweep import cross_validation, inner_predictions, out_of_fold
from medray.nn.backbone import Backbone
from medray.shards.part import held
from medray.shards.store import Store
from medray.systems.chest import recipes
from medray.systems.chest.classes import FINDINGS
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

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]*", self.name):
            raise ValueError(f"--name {self.name}: letters, digits, dots and dashes only, it names folders")


def main(job: ChestCV, task: FilmTask) -> None:
    options, out = job.options, Store(job.options.out)
    answers = [read_reader(uri, task.targets) for uri in job.reader]
    source = job.source.holding(task.shard_needs, held(out.sub("shards")))
    data = Dataset(FILMS if job.split == "lists" else FILMS_BY_FOLDS, source, options, job.images, job.labels)
    lists = data.use_lists()
    folds, options = data.options.fold_list(), data.options
    data.claim()
    name = job.name or f"{job.recipe}-{job.heads}{f'-{job.backbone}' if job.backbone else ''}".replace("/", "_")
    claim_each(out.sub("runs"), {name: task.identity()}, "")
    if job.until != "shards" or task.weights:  # weights that cannot be had end it before anything is spent
        write_initial(task, out.sub("runs", name))
    data.find()
    resources = options.resources(len(folds), [task])
    show_plan(
        out, data.files, data.shards, {name: task}, folds, options.folds, resources, images=min(lists.get("train", len(data.files)), len(data.files)) if lists else None,
        price_per_gpu_hour=options.price_per_gpu_hour,
    )  # fmt: skip
    tracker = options.tracker(name)
    tracker.want("", f"chest {out.uri.rsplit('/', 1)[-1]} {name}", params=task.identity())

    say("\n1. Shards and split")
    prepared = data.prepare()
    readers = [on_films(reader, prepared.inventory, prepared.private) for reader in answers]
    if job.until == "shards":
        tracker.close()
        return

    say("\n2. Training")
    runs = cross_validation(name, task, prepared.rows, prepared.index, FINDINGS, folds, out, resources, options)
    fit(runs, lambda run: track_run(tracker, run))
    if job.until == "train":
        tracker.close()
        return

    say("\n3. Scores")
    results = out.sub("models", name)
    metrics = conclude(results, task, out_of_fold(runs), inner_predictions(runs), data.split_name, readers)
    say("\n".join(f"  {line}" for line in summary(metrics)))

    say("\n4. Report")
    networks = {run.fold: cast(Backbone, finished_run(out, name, run.fold, FilmTask)[1]) for run in runs}
    cost = spent({"training": runs}, options.price_per_gpu_hour)
    histories = {run.name: run.history() for run in runs}
    settings = task.identity() | {"cost": cost}
    pictures = write_report(
        results, task, networks, source, data.folder, prepared.inventory, prepared.private, histories, settings
    )
    finish(tracker, results, flat(metrics), pictures, cost)


def start() -> None:
    def each(job: ChestCV) -> None:  # the flags over the recipe
        task = recipes.recipe(job.recipe, job.heads)
        over = replace(ChestCV(), task=replace(task, backbone=job.backbone or task.backbone))
        main(job, flags_over(ChestCV, over).task)

    run_job(ChestCV, each, ChestCV())


if __name__ == "__main__":
    start()
