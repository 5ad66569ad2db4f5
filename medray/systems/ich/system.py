"""Hemorrhage as the engine's jobs see it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from medray.shards.classes import absent_in_folds, by_rarest, one_sided
from medray.systems.ich import recipes
from medray.systems.ich.classes import CLASSES
from medray.systems.ich.inventory import assemble
from medray.systems.ich.labels import Labels, read_labels
from medray.systems.ich.objective import OBJECTIVES, score_folds
from medray.systems.ich.phantoms import SEARCHED
from medray.systems.ich.source import HeadCT
from medray.tasks.system import SearchSetup, System

strata = partial(by_rarest, classes=CLASSES)


def label_notes(labels: Labels) -> list[str]:
    return one_sided(labels.table, CLASSES)


HEAD_CT = System(
    title="Intracranial hemorrhage on head CT",
    purpose="Slices of head CT without contrast go in; for each slice come probabilities of any hemorrhage and of five types of it, and for each study a score of any.",
    columns=CLASSES,
    strata=strata,
    label_notes=label_notes,
    fold_notes=partial(absent_in_folds, classes=CLASSES),
    source=HeadCT(),
    read_labels=read_labels,
    assemble=assemble,
    flags=("--dicom", "--labels"),
    about_flags=(
        "Folder or URI with the DICOM files, in any order. Where not given, phantoms are written and used.",
        "Labels of slices: the challenge's long CSV (ID,Label), or a table of slice_id or SOPInstanceUID and one or more of "
        "the six classes. What is unknown is empty or not there.",
    ),
)

SEARCH = SearchSetup(
    job=("jobs/ich_cv.py",),
    job_flags=("--backbones", "--variant"),
    recipe=recipes.recipe,
    reference=recipes.recipe,
    backbones=recipes.FOUR[:1],
    space=(
        "learning-rate=1e-5..3e-3:log", "weight-decay=1e-6..1e-1:log", "epidural-weight=1..8", "any-weight=1..4",
        "label-smoothing=0..0.1", "augmentation=0..2",
    ),
    objectives=OBJECTIVES,
    score=score_folds,
    options={"out": "out/ich", "train_folds": (0,)},
)  # fmt: skip

PHANTOM_SEARCH = replace(
    SEARCH,
    job=("jobs/ich_cv.py", "--no-sequence-stage"),
    recipe=recipes.phantom_search,
    backbones=("test_efficientnet",),
    space=("learning-rate=1e-4..1e-1:log", "weight-decay=1e-4..1:log", "any-weight=1..4", "augmentation=0..2"),
    options={
        "out": "out/phantom-search", "folds": 2, "train_folds": (0,), "rows_per_shard": 256, "public_ids": True, "monitor": "none",
    },
    trials=20,
    phantoms=SEARCHED,
)  # fmt: skip
