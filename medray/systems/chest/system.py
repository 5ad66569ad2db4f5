"""Chest X-ray as the engine's jobs see it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from medray.shards.classes import absent_in_folds, by_rarest, one_sided
from medray.systems.chest import recipes
from medray.systems.chest.classes import FINDINGS
from medray.systems.chest.inventory import assemble
from medray.systems.chest.labels import Labels, read_labels
from medray.systems.chest.results import OBJECTIVES, score_folds
from medray.systems.chest.source import Radiograph
from medray.tasks.system import SearchSetup, System


def read_labels_alone(uri: str) -> Labels:
    """The labels without the lists that they come with: folds are drawn."""
    return replace(read_labels(uri), split=None)


strata = partial(by_rarest, classes=FINDINGS)


def label_notes(labels: Labels) -> list[str]:
    return one_sided(labels.table, FINDINGS)


FILMS = System(
    title="Chest X-ray",
    purpose="Frontal chest films go in; for each come probabilities of fourteen findings, and heatmaps of what moved the network.",
    columns=FINDINGS,
    strata=strata,
    label_notes=label_notes,
    fold_notes=partial(absent_in_folds, classes=FINDINGS),
    source=Radiograph(),
    read_labels=read_labels,
    assemble=assemble,
    flags=("--images", "--labels"),
    about_flags=(
        "Folder or URI with the films: PNG, JPEG or DICOM.",
        "Folder with lists, or any CSV with columns for image, patient and findings.",
    ),
)
FILMS_BY_FOLDS = replace(FILMS, read_labels=read_labels_alone)

SEARCH = SearchSetup(
    job=("jobs/chest_cv.py",),
    job_flags=("--recipe", "--name"),
    recipe=recipes.recipe,
    reference=recipes.recipe,
    backbones=("chexnet",),
    space=(
        "learning-rate=1e-5..1e-2:log",
        "weight-decay=1e-6..1e-1:log",
        "positive-weight=1..4",
        "label-smoothing=0..0.1",
    ),
    objectives=OBJECTIVES,
    score=score_folds,
    options={"out": "out/chest", "train_folds": (0,), "monitor": "inner"},
)
