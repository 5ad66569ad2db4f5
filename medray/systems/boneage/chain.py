"""Which stages of the method a job has, by what users have drawn, and which networks have films to learn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import pandas as pd

from medray.shards.store import File
from medray.systems.boneage import recipes
from medray.systems.boneage.films.labels import Labels
from medray.systems.boneage.films.source import HandFilm
from medray.systems.boneage.phantoms.films import DEMO
from medray.systems.boneage.recipes import Recipe
from medray.systems.boneage.stages.between import Hands, How, Region
from medray.systems.boneage.stages.canvas import POINTS, RegionName, points_of
from medray.systems.boneage.task import AgeTask
from medray.tasks.task import Task

SEGMENTATION, KEYPOINTS = "segmentation", "keypoints"
STAGES = (SEGMENTATION, KEYPOINTS)
"""Runs of the stages before the ages, in order: all methods in one --out share them."""
LEAST_TO_LEARN = 2
"""Films with a bone age: with fewer nothing is trained."""


class Films(Protocol):
    """Shards, as far as they are looked at here."""

    @property
    def index(self) -> pd.DataFrame:
        """One row a film, with the fold."""


SomeFilms = TypeVar("SomeFilms", bound=Films)


@dataclass(frozen=True)
class Chain:
    """Which stages a job has, by what users have drawn."""

    masks: bool
    """Networks look for the hand."""
    how: How
    """How hands come onto the canvas."""
    films: int
    """Files that are films, not masks."""
    left_out: tuple[str, ...] = ()
    """What is left out and why, a line each."""
    why: Mapping[str, str] = field(default_factory=dict)
    """Stage that has no network → the reason in a few words."""

    def title(self, stage: str) -> str:
        """Of a stage before the ages, on the terminal: what it does, or that it is left out and why."""
        by_unseen = "each film by the network that has not seen its patient"
        if stage in self.why:
            left = {
                SEGMENTATION: "Hands are not looked for, films are read whole",
                KEYPOINTS: "Points are not looked for",
            }
            return f"{left[stage]}: {self.why[stage]}"
        if stage == SEGMENTATION:
            return f"Hands: {by_unseen}"
        if stage == KEYPOINTS:
            return "Points of every hand, likewise" if self.masks else f"Points of every hand: {by_unseen}"
        return {"film": "Region A, of the whole film", "canvas": "The regions"}.get(
            self.how, "Registration, and the regions"
        )

    def images(self, folds: int) -> int:
        """Films that a network of one of so many folds learns from, at most."""
        return self.films * (folds - 1) // folds

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

    def checked(self, films: SomeFilms) -> SomeFilms:
        """The films, once they are read.

        Raises:
            ValueError: a network that the ages need has no film to learn from: what is drawn is of other films, or of no use.
        """
        index = films.index
        masks = (
            self.masks,
            "has_mask",
            "a mask or outline of its hand",
            "draw some, or take away those that are there",
        )
        points = (self.how == "points", "has_points", "points (tip, thumb, capitate)", "mark some, or --no-register")
        for needed, column, what, way_out in (masks, points):
            folds = index.loc[index[column].eq(1), "fold"].unique()
            if needed and not len(folds):
                raise ValueError(
                    f"none of {len(index):,} films has {what}: those that are there are of other films, or cannot be used, as "
                    f"inventory.parquet says; {way_out}"
                )
            if needed and len(folds) == 1:
                raise ValueError(
                    f"every film that has {what} is in fold {folds[0]}, whose network learns from the other folds; {way_out}"
                )
        return films

    def learned(
        self,
        ages: Mapping[str, AgeTask],
        regions: Mapping[RegionName, Films],
        folds: Sequence[int],
        say: Callable[[list[str]], None],
    ) -> dict[str, AgeTask]:
        """The age networks that have films to learn from and to predict in every fold; of the others why not, to ``say``.

        Args:
            regions: name → the films of which it was cut. folds: that are trained.
        Raises:
            ValueError: there is none.
        """
        kept: dict[str, AgeTask] = {}
        lines = []
        for run, task in ages.items():
            index = regions[task.region].index
            own = index[task.reads(index)]
            known = own[task.labelled(own)]
            lost = next(
                (k for k in folds if (known["fold"] != k).sum() < LEAST_TO_LEARN or not (own["fold"] == k).any()), None
            )
            if lost is None:
                kept[run] = task
            elif not (index["fold"] == lost).any():
                lines.append(
                    f"{task.model} is left out: every film of fold {lost} was refused by the stages before, as refused.csv says"
                )
            else:
                there, rest = int((own["fold"] == lost).sum()), int((known["fold"] != lost).sum())
                whose = {"girls": "girls'", "boys": "boys'"}.get(task.sexes, "the")
                lines.append(
                    f"{task.model} is left out: fold {lost} has {there} of {whose} films, the others {rest} with a bone age"
                )
        if lines:
            say(lines)
        if not kept:
            raise ValueError(
                f"no model has films to learn from in every fold; {lines[0]}; use fewer --folds, or more films"
            )
        return kept

    def regions(self, ages: Mapping[str, AgeTask]) -> list[Region]:
        """What is cut out of the hands for these networks (run → task), each region once."""
        wanted = {(one.region, one.region_scale) for one in ages.values()}
        return [Region(name, scale, self.how) for name, scale in sorted(wanted)]

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
    Raises:
        ValueError: points are marked, but one of the three on too few films to be learned.
    """
    outlines, points, films = True, True, DEMO.spec.films
    if labels is not None:
        of_masks = sum(masks in file.path.split("/")[:-1] for file in files)
        outlines, films = bool(of_masks or labels.table["outline_px"].notna().any()), len(files) - of_masks
        points = bool(labels.table["points"].notna().any())
        if points and recipe.register and not recipe.registered:
            _check_points(labels)
    lines, why = [], {}
    if not outlines:
        why[SEGMENTATION] = "no mask or outline of a hand is there"
        lines.append(
            f"no segmentation: {why[SEGMENTATION]}; the networks see the whole film, its marks too, and a film "
            "without a hand is not noticed"
        )
    how: How = "canvas" if recipe.registered else "points" if recipe.register and points else "film"
    if how == "film":
        why[KEYPOINTS] = "no film has points (tip, thumb, capitate)" if recipe.register else "--no-register"
        lines.append(f"no registration: {why[KEYPOINTS]}; only models of the whole film (A) can be trained")
    elif how == "canvas":
        why[KEYPOINTS] = "--registered, the films lie on the canvas"
    return Chain(outlines, how, films, tuple(lines), why)


def _check_points(labels: Labels) -> None:
    marked = np.stack([points_of([np.nan if v is None else v for v in six]) for six in labels.table["points"].dropna()])
    counts = np.isfinite(marked).all(axis=2).sum(axis=0)
    for name, count in zip(POINTS, counts.tolist(), strict=True):
        if count < LEAST_TO_LEARN:
            raise ValueError(
                f"--labels: points are marked on {len(marked):,} films, {name} on {count} of them; mark all three (tip, thumb, "
                "capitate), or --no-register"
            )
