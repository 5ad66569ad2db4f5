"""Search hyper-parameters of the hemorrhage backbones: Ray Tune, Optuna, early stopping; every trial in MLflow.

    uv run jobs/ich_tune.py        # phantoms, two CPU cores, 20 trials in minutes
    uv run jobs/ich_tune.py --dicom stage_2_train --labels stage_2_train.csv --out out/rsna --public-ids --folds 5 \\
        --backbones resnext101_32x8d --search learning-rate=1e-5..1e-3:log epidural-weight=1..8 size-px=224|300

Shards and folds are those of ich_cv.py with the same --out. Run the same command again after a kill, and it goes on.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from typing import Literal

import tyro

from medray.engine.dataset import Dataset, System
from medray.engine.initial import write_initial
from medray.engine.options import Options, flags_over, run_job
from medray.engine.progress import say
from medray.engine.search import Search, claim_search, show_search
from medray.engine.search_page import best_trials, write_search
from medray.engine.space import parse_space
from medray.engine.trial import Sweep
from medray.engine.tuner import run_search
from medray.ich import recipes
from medray.ich.classes import CLASSES
from medray.ich.inventory import assemble
from medray.ich.labels import read_labels
from medray.ich.objective import OBJECTIVES, score_folds
from medray.ich.source import HeadCT
from medray.ich.task import SliceTask
from medray.imaging.phantom import PhantomSpec
from medray.shards.store import Store

SPACE = (
    "learning-rate=1e-5..3e-3:log", "weight-decay=1e-6..1e-1:log", "epidural-weight=1..8", "any-weight=1..4",
    "label-smoothing=0..0.1", "augmentation=0..2",
)  # fmt: skip
HEAD_CT = System(CLASSES, read_labels, assemble, PhantomSpec(patients=60, matrix_px=96, slices=(16, 20), seed=7))


@dataclass(frozen=True, kw_only=True)
class IchTune:
    dicom: str | None = None
    """Folder or URI with the DICOM files, in any order. Where not given, phantoms are written and used."""
    labels: str | None = None
    """The labels as the challenge's long CSV (ID,Label)."""
    backbones: tuple[str, ...] = recipes.FOUR[:1]
    """Recipes or timm names; where several are named, the backbone is searched too."""
    objective: tuple[Literal["weighted_log_loss", "average_precision_epidural"], ...] = ("weighted_log_loss",)
    """Of the held-out slices, recalibrated after repetition; the first one named decides who is stopped early, both
    give a Pareto front."""
    options: tyro.conf.OmitArgPrefixes[Options] = field(
        default_factory=lambda: Options(out="out/ich", train_folds=(0,))
    )
    source: tyro.conf.OmitArgPrefixes[HeadCT] = field(default_factory=HeadCT)
    search: tyro.conf.OmitArgPrefixes[Search] = field(default_factory=lambda: Search(search=SPACE))
    task: tyro.conf.OmitArgPrefixes[SliceTask] = field(default_factory=lambda: recipes.recipe(recipes.FOUR[0]))


PHANTOMS = IchTune(
    backbones=("test_efficientnet",),
    options=Options(
        out="out/phantom-search", folds=2, train_folds=(0,), rows_per_shard=256, public_ids=True, monitor="none"
    ),
    search=Search(
        trials=20, search=("learning-rate=1e-4..1e-1:log", "weight-decay=1e-4..1:log", "any-weight=1..4", "augmentation=0..2")
    ),
    task=recipes.phantom_search(),
)  # fmt: skip


def main(job: IchTune, tasks: dict[str, SliceTask]) -> None:
    options, search, out = job.options, job.search, Store(job.options.out)
    folds, space = options.fold_list(), parse_space(search.search, tasks)
    windows = [window for task in tasks.values() for window in task.windows]
    windows += [window for d in space if d.field == "windows" for choice in d.choices for window in choice]
    source = job.source.holding(windows, out.sub("shards").folders())
    bases = {name: task.reading(source.windows) for name, task in tasks.items()}
    for task in bases.values():
        task.feature_count()  # a backbone that timm does not know ends it here
    data = Dataset(HEAD_CT, source, options, job.dicom, job.labels, out.sub("shards", source.folder))
    data.claim(remove_hardware=source.remove_hardware)
    objectives = {str(name): OBJECTIVES[name] for name in job.objective}
    store = claim_search(out, search, space, bases, objectives, folds)
    initial = {name: write_initial(task, store.sub("initial", name)) for name, task in bases.items()}
    data.find()
    resources = search.spread(options, folds)
    rungs = search.rungs(next(iter(bases.values())).epochs)
    show_search(search, space, rungs, len(data.files), options, resources)
    tracker = options.tracker(search.name)
    tracker.want("", f"search {search.name}", params={d.field: str(d) for d in space} | {"objective": job.objective})
    prepared = data.prepare()
    sweep = Sweep(
        bases, initial, space, objectives, rungs, score_folds, prepared.rows, prepared.index, CLASSES, folds, store,
        resources, options,
    )  # fmt: skip
    trials = run_search(search, sweep, tracker)
    command = [
        "uv",
        "run",
        "jobs/ich_cv.py",
        *data.flags(f"{search.name}-best"),
        *["--no-sequence-stage"] * data.phantom,
    ]
    lines, artifacts = write_search(trials, sweep, command, {n: recipes.recipe(n) for n in bases}, data.phantom)
    say("\n".join(lines))
    scores = {
        f"best/{name}": value for name, value in best_trials(trials, objectives)[0]["rungs"][-1]["scores"].items()
    }
    tracker.want("", "", metrics=scores, artifacts=artifacts, finished=True)
    tracker.close()
    say(f"  uv run mlflow ui --backend-store-uri {tracker.uri}")


def start() -> None:
    given = any(flag.startswith("--dicom") for flag in sys.argv)
    default = IchTune() if given else PHANTOMS

    def each(job: IchTune) -> None:  # the flags over the recipe of each backbone
        bases = {n: recipes.recipe(n) if given else recipes.phantom_search(n) for n in job.backbones}
        main(job, {n: flags_over(IchTune, replace(default, task=base)).task for n, base in bases.items()})

    run_job(IchTune, each, default)


if __name__ == "__main__":
    start()
