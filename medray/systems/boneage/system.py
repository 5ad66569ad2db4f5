"""Bone age as the engine's jobs see it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from medray.shards.leakage import PIXELS_HASH
from medray.systems.boneage import recipes
from medray.systems.boneage.films.inventory import assemble
from medray.systems.boneage.films.labels import Labels, labels_for, read_labels
from medray.systems.boneage.films.source import HandFilm
from medray.systems.boneage.objective import OBJECTIVES, score_folds
from medray.systems.boneage.phantoms.films import DEMO
from medray.systems.boneage.scores.bands import band_of
from medray.tasks.system import SearchSetup, System

SEGMENTATION, KEYPOINTS = "segmentation", "keypoints"
"""Runs of the stages before the ages: all methods in one --out share them."""
_SEXES = {"F": 1, "M": 2}


def strata(index: pd.DataFrame) -> np.ndarray:
    """Folds have about as many films of each band of age and of each sex, and as many of which nobody knows the age."""
    ages = index["age_months"].to_numpy(dtype=float)
    sexes = index["sex"].map(_SEXES).fillna(0).to_numpy(dtype=int)
    return np.where(np.isnan(ages), -1, band_of(ages) * 3 + sexes)


def label_notes(labels: Labels) -> list[str]:
    """Raises ValueError where there is nothing to learn from."""
    if not labels.table["age_months"].notna().any():
        raise ValueError("--labels: no film has a bone age, and training needs some; fill in the column boneage")
    return []


def fold_notes(index: pd.DataFrame) -> list[str]:
    known = index[index["age_months"].notna()]
    return [
        f"no film of a {'girl' if sex == 'F' else 'boy'} in fold {fold} has a bone age"
        for fold in sorted(index["fold"].unique())
        for sex in sorted(set(known["sex"].dropna()))
        if not ((known["fold"] == fold) & (known["sex"] == sex)).any()
    ]


HAND_FILMS = System(
    title="Bone age from hand films",
    purpose="Films of a child's left hand go in; an age in months comes out, with an interval.",
    source=HandFilm(),
    read_labels=read_labels,
    assemble=assemble,
    columns=("age_months", "sex", "calendar_months", "has_mask", "has_points", PIXELS_HASH),
    strata=strata,
    flags=("--images", "--labels"),
    about_flags=(
        "Folder or URI with the films: PNG, JPEG or DICOM; masks of some of them lie in a folder masks below it.",
        "CSV of films, bone ages and sexes, or a folder with one and with VIA exports of points.",
    ),
    labels_for=labels_for,
    label_notes=label_notes,
    fold_notes=fold_notes,
)


SEARCH = SearchSetup(
    job=("jobs/boneage_cv.py",),
    job_flags=("--recipe", "--name"),
    recipe=recipes.age_task,
    reference=recipes.age_task,
    backbones=("modern",),
    space=(
        "learning-rate=1e-5..1e-2:log",
        "weight-decay=1e-6..1e-1:log",
        "dropout=0..0.5",
        "rotate-deg=0..30",
        "zoom=0..0.3",
    ),
    objectives=OBJECTIVES,
    score=score_folds,
    options={"out": "out/boneage", "train_folds": (0,), "monitor": "none"},
)
PHANTOM_SEARCH = replace(
    SEARCH,
    backbones=("phantom",),
    space=("learning-rate=1e-4..3e-2:log", "dropout=0..0.5", "rotate-deg=0..30"),
    options={"out": "out/boneage-search", "folds": 2, "train_folds": (0,), "public_ids": True, "monitor": "none"},
    trials=6,
    phantoms=DEMO,
)
