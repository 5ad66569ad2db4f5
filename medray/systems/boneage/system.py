"""Bone age as the engine's jobs see it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from medray.shards.leakage import PIXELS_HASH, same_under_two_patients
from medray.shards.store import File
from medray.systems.boneage import recipes
from medray.systems.boneage.bands import band_of
from medray.systems.boneage.inventory import assemble
from medray.systems.boneage.labels import Labels, labels_for, read_labels
from medray.systems.boneage.objective import OBJECTIVES, score_folds
from medray.systems.boneage.phantoms import DEMO
from medray.systems.boneage.recipes import Recipe
from medray.systems.boneage.source import HandFilm
from medray.systems.boneage.stages import Hands, How, Region
from medray.systems.boneage.task import AgeTask
from medray.tasks.system import SearchSetup, System
from medray.tasks.task import Task

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
    lines = [
        f"no film of a {'girl' if sex == 'F' else 'boy'} in fold {fold} has a bone age"
        for fold in sorted(index["fold"].unique())
        for sex in sorted(set(known["sex"].dropna()))
        if not ((known["fold"] == fold) & (known["sex"] == sex)).any()
    ]
    return lines + same_under_two_patients(index, "film_id")


HAND_FILMS = System(
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


@dataclass(frozen=True)
class Chain:
    """Which stages a job has, by what users have drawn."""

    masks: bool
    """Networks look for the hand."""
    how: How
    """How hands come onto the canvas."""
    left_out: tuple[str, ...] = ()
    """What is left out and why, a line each."""

    def tasks(self, recipe: Recipe, name: str) -> tuple[dict[str, Task], dict[str, AgeTask]]:
        """Run → task: the stages before, and the age networks of those models that can be trained.

        Raises:
            ValueError: none of the models can be.
        """
        before: dict[str, Task] = {SEGMENTATION: recipe.segmentation} if self.masks else {}
        before |= {KEYPOINTS: recipe.keypoints} if self.how == "points" else {}
        every = {f"{name}-{model}": recipes.model_task(recipe.age, model) for model in recipe.models}
        ages = {run: task for run, task in every.items() if self.how != "film" or task.region == "A"}
        if not ages:
            raise ValueError(
                f"--models {' '.join(recipe.models)}: without registration there are no regions B and C; {self.left_out[-1]}"
            )
        return before, ages

    def regions(self, ages: Iterable[AgeTask]) -> list[Region]:
        """What is cut out of the hands for these networks, each region once."""
        return [
            Region(name, scale, self.how) for name, scale in sorted({(one.region, one.region_scale) for one in ages})
        ]

    def method(
        self, recipe: Recipe, ages: Mapping[str, AgeTask], source: HandFilm, folds: Sequence[int], every: Sequence[int]
    ) -> dict[str, Any]:
        """What a prediction of new films needs to know, for method.json.

        Args:
            ages: run → task. folds: of the age networks. every: of the stages before.
        """
        return {
            "models": {task.model: run for run, task in ages.items()}, "folds": list(folds), "stage_folds": list(every),
            "masks": SEGMENTATION if self.masks else None, "points": KEYPOINTS if self.how == "points" else None,
            "how": self.how, "clip": Hands().clip, "source": source.identity(), "task": recipe.age.identity(),
        }  # fmt: skip


def chain_of(files: Sequence[File], labels: Labels | None, masks: str, recipe: Recipe) -> Chain:
    """The stages that there are labels for.

    Args:
        labels: None for phantoms, which have everything.
        masks: name of the folder of masks.
    """
    outlines, points = 1, 1
    if labels is not None:
        outlines = sum(masks in file.path.split("/")[:-1] for file in files) + int(
            labels.table["outline_px"].notna().sum()
        )
        points = int(labels.table["points"].notna().sum())
    lines = []
    if not outlines:
        lines.append(
            "no segmentation: no mask or outline of a hand is there; the networks see the whole film, its marks too"
        )
    how: How = "canvas" if recipe.registered else "points" if recipe.register and points else "film"
    if how == "film":
        why = "no film has points (tip, thumb, capitate)" if recipe.register else "--no-register"
        lines.append(f"no registration: {why}; only models of the whole film (A) can be trained")
    return Chain(bool(outlines), how, tuple(lines))


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
