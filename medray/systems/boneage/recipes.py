"""Settings that are known to work together. Only what differs from the task's own defaults is set here."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import tyro

from medray.systems.boneage.stages.canvas import RegionName
from medray.systems.boneage.stages.mask_task import MaskTask
from medray.systems.boneage.stages.point_task import PointTask
from medray.systems.boneage.task import AgeTask, Head, Sexes
from medray.tasks.recipes import named

MODELS = tuple("-".join(parts) for parts in itertools.product(get_args(RegionName), get_args(Head), get_args(Sexes)))
"""A-regression-girls … C-classification-both: 18."""


@dataclass(frozen=True)
class Recipe:
    """How hands come onto the canvas, the networks of all stages, and which of the 18 models are trained."""

    models: tuple[str, ...] = MODELS
    """Which of the 18 are trained, by names or parts of them: A, B-regression, girls, C-classification-both."""
    register: bool = True
    """Lay every hand on the canvas by three points; --no-register: the whole film as it is."""
    registered: bool = False
    """The films lie on the 1600 × 2080 canvas already, as those of the source's authors do."""
    correct: bool = False
    """Answer with the corrected age: a line that undoes the pull to the mean, fitted on films that are not scored."""
    segmentation: MaskTask = field(
        default_factory=lambda: MaskTask(epochs=30, batch_size=16, learning_rate=1e-3, rotate_deg=45.0)
    )
    keypoints: PointTask = field(
        default_factory=lambda: PointTask(epochs=60, batch_size=32, learning_rate=1e-3, rotate_deg=45.0, zoom=0.25)
    )
    age: tyro.conf.OmitArgPrefixes[AgeTask] = field(
        default_factory=lambda: AgeTask(epochs=60, batch_size=16, learning_rate=5e-4)
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "models", chosen(self.models))
        if self.registered and not self.register:
            raise ValueError("--registered --no-register: films on the canvas are registered; leave one of the two")

    def told(self, name: str) -> dict[str, Any]:
        """All settings, for a page and for MLflow: of the recipe ``name``, then of the networks of each stage."""
        own = {"recipe": name} | {
            field: getattr(self, field) for field in ("models", "register", "registered", "correct")
        }
        of_models = ("region", "head", "sexes")  # each has its own
        stages = {"segmentation": self.segmentation, "keypoints": self.keypoints, "age networks": self.age}
        fields = {
            f"{stage}: {field}": value
            for stage, task in stages.items()
            for field, value in task.identity().items()
            if field != "task" and not (stage == "age networks" and field in of_models)
        }
        return own | fields


def published() -> Recipe:
    """The 18 models of the source (Iglovikov et al. 2018); sizes of images and lengths of training are ours."""
    return Recipe()


def modern() -> Recipe:
    """One timm backbone on the whole hand, told the sex: what has led the published tables since 2023."""
    age = AgeTask(
        backbone="convnext_tiny.fb_in22k", pretrained=True, inputs=("sex",), epochs=20, batch_size=32, optimizer="adamw",
        learning_rate=2e-4, weight_decay=0.05, warmup_fraction=0.05, ema_decay=0.999, dense=256,
    )  # fmt: skip
    return Recipe(("A-regression-both",), age=age)


def phantom() -> Recipe:
    """Small, for drawn hands on two CPU cores: a few of the 18."""
    age = AgeTask(
        scale=0.05, channels=(16, 32, 48, 64), dense=64, dropout=0.1, epochs=16, batch_size=8, copies=4, learning_rate=1e-3,
        clip_norm=1.0,
        contrast=0.1, shift=0.03, zoom=0.05, rotate_deg=5.0,
    )  # fmt: skip
    segmentation = MaskTask(side_px=96, width=8, epochs=10, batch_size=8, copies=4, learning_rate=3e-3, rotate_deg=30.0)
    keypoints = PointTask(
        side_px=64, channels=(8, 16, 32, 64), dense=256, dropout=0.1, epochs=30, batch_size=8, copies=8, learning_rate=3e-3,
        rotate_deg=25.0, zoom=0.2,
    )  # fmt: skip
    some = (
        "A-regression-girls",
        "A-regression-boys",
        "A-regression-both",
        "A-classification-both",
        "B-regression-both",
    )
    return Recipe((*some, "C-regression-both"), segmentation=segmentation, keypoints=keypoints, age=age)


RECIPES: dict[str, Callable[[], Recipe]] = {"published": published, "modern": modern, "phantom": phantom}


def recipe(name: str) -> Recipe:
    """Raises ValueError, with near names, for a name that there is not."""
    return named(RECIPES, name)()


def age_task(name: str) -> AgeTask:
    """Of a recipe, as a search starts from it."""
    return recipe(name).age


def model_task(task: AgeTask, model: str) -> AgeTask:
    """One of the 18 with the settings of ``task``. Raises ValueError for another name."""
    if model not in MODELS:
        raise ValueError(f"--models {model}: there is no such model; they are {MODELS[0]} … {MODELS[-1]}, 18 in all")
    region, head, sexes = model.split("-")
    return replace(task, region=region, head=head, sexes=sexes)  # type: ignore[arg-type]


def chosen(models: Sequence[str]) -> tuple[str, ...]:
    """The models that names and parts of names stand for, such as "A" or "regression", in their order.

    Raises:
        ValueError: a part that no model has, or none at all.
    """
    if not models:
        raise ValueError("--models: name one or more, such as A-regression-girls, or A for all six of that region")
    found: set[str] = set()
    for name in models:
        wanted = {*name.split("-")}
        own = {model for model in MODELS if wanted <= {*model.split("-")}}
        if not own:
            raise ValueError(
                f"--models {name}: no model is called so; parts are A B C, regression classification, girls boys both, such as "
                "A-regression-girls, or A for all six of that region"
            )
        found |= own
    return tuple(model for model in MODELS if model in found)
