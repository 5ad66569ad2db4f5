"""The whole method as one group of settings, and what it comes to for a set of backbones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import tyro

from medray.nn.backbone import licence_of
from medray.shards.folders import of_variant
from medray.shards.names import check_name
from medray.systems.ich import recipes
from medray.systems.ich.method import Ensemble
from medray.systems.ich.sequence import SequenceTask
from medray.systems.ich.source import HeadCT
from medray.systems.ich.task import SliceTask
from medray.systems.ich.views import Views


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Backbones, views, sequence stage, ensemble."""

    backbones: tuple[str, ...] = recipes.FOUR
    """Recipes (resnext101_32x8d, inception_v3, efficientnet_b3, seresnext50_32x4d, second_place, second_place_quick) or
    any timm names. A recipe's flags that are given count for all of them. The first backbone is followed up the report's
    ladder."""
    variant: str = ""
    """Name of another version of the method in the same --out: what is set as before is used as it is there, what
    differs is trained beside it, and scores and report go to variants/<name>/."""
    ladder: bool = False
    """Also train the first backbone on a single window, without remedies, and without what makes it faster (--negatives,
    --early-size-px), for the report's ladder."""
    sequence_stage: bool = True
    """Train the sequence stage on each backbone's features."""
    embedding: Literal["within-fold", "out-of-fold"] = "within-fold"
    """Which network embeds the studies that the sequence stage of a fold learns from: that fold's own, or for each
    study the one that has not trained on it (needs all folds, and its score is optimistic)."""
    views: tyro.conf.OmitArgPrefixes[Views] = field(default_factory=Views)
    ensemble: tyro.conf.OmitArgPrefixes[Ensemble] = field(default_factory=Ensemble)
    task: tyro.conf.OmitArgPrefixes[SliceTask] = field(default_factory=lambda: recipes.recipe(recipes.FOUR[0]))

    def __post_init__(self) -> None:
        check_name("--variant", self.variant)
        if not self.backbones or len(set(self.backbones)) < len(self.backbones):
            raise ValueError(f"--backbones {' '.join(self.backbones)}: one or more are needed, each once")

    @property
    def results(self) -> tuple[str, ...]:
        """Folders below --out to the one of scores and report."""
        return of_variant(self.variant)


@dataclass(frozen=True)
class Stages:
    """What is to be trained, each under the name of its folder below runs/."""

    source: HeadCT
    models: tuple[str, ...]  # the backbones of the ensemble
    backbones: dict[str, SliceTask]  # these, and the lead's ablations
    feature_counts: dict[str, int]  # of the models
    sequences: dict[str, SequenceTask]  # model → its sequence stage

    def claims(self, pipeline: Pipeline) -> dict[str, dict[str, Any]]:
        """Name of runs → what makes them what they are: backbones, and their sequence stages by ``sequence_of``."""
        features = self.feature_claims(pipeline)
        stages = {
            sequence_of(name): task.identity() | features[name] | {"embedding": pipeline.embedding}
            for name, task in self.sequences.items()
        }
        return {name: task.identity() for name, task in self.backbones.items()} | stages

    def feature_claims(self, pipeline: Pipeline) -> dict[str, dict[str, Any]]:
        """Model → what makes its features what they are."""
        views = pipeline.views.identity()
        return {name: views | {"backbone": self.backbones[name].identity()} for name in self.models}

    @property
    def settings(self) -> dict[str, Any]:
        """Of the first backbone, for MLflow and the report."""
        return self.backbones[self.models[0]].identity()

    def notices(self) -> list[str]:
        """What makes training faster and is another method, and the licences that do not leave everything free."""
        lines = []
        for name in self.models:
            task = self.backbones[name]
            if faster := quicker(task):
                lines.append(f"{name}: {faster}. This is another method than without: --ladder compares the two")
            licence = licence_of(task.backbone) if task.pretrained and not task.weights else None
            if licence and "nc" in licence.split("-"):
                free = recipes.FREE.get(task.backbone)
                way_out = f"; free of that: --backbones {free}" if free else ""
                lines.append(
                    f"{task.backbone}: its pretrained weights are {licence}, for non-commercial use only{way_out}"
                )
        return lines


def quicker(task: SliceTask) -> str:
    """What makes training faster and changes the method; empty where nothing does."""
    parts = []
    if task.negatives < 1:
        parts.append(
            f"an epoch sees {task.negatives:.0%} of the slices without any bleed (--negatives), so it has fewer images than "
            "the plan counts"
        )
    if task.early_size_px is not None:
        parts.append(f"{task.early_epochs} of {task.epochs} epochs are at {task.early_size_px} px (--early-size-px)")
    return ", ".join(parts)


def sequence_of(model: str) -> str:
    """Where the runs of a model's sequence stage are, below runs/."""
    return f"{model}-sequence"


def plan(
    pipeline: Pipeline,
    tasks: Mapping[str, SliceTask],
    sequence: SequenceTask,
    source: HeadCT,
    there: Sequence[Mapping[str, Any]],
    all_folds: bool,
) -> Stages:
    """Fit backbones, windows and later stages together.

    Args:
        tasks: backbone → its task.
        there: what shards that exist hold (``part.held``).
        all_folds: whether every fold is trained.
    Raises:
        ValueError: what cannot go together, or a backbone that timm does not know.
    """
    if pipeline.embedding == "out-of-fold" and not all_folds:
        raise ValueError("--embedding out-of-fold: needs a network for every fold; leave --train-folds out")
    every = dict(tasks)
    if pipeline.ladder:
        every |= recipes.ladder(next(iter(tasks.values())))
    source = source.holding([window for task in every.values() for window in task.windows], there)
    every = {name: task.reading(source) for name, task in every.items()}
    counts: dict[str, int] = {name: task.feature_count() for name, task in every.items()}
    sequences = {}
    if pipeline.sequence_stage:
        sequences = {name: replace(sequence, feature_count=counts[name]) for name in tasks}
    return Stages(source, tuple(tasks), every, {name: counts[name] for name in tasks}, sequences)


def phantoms() -> Pipeline:
    """The whole method, small enough for two CPU cores."""
    return Pipeline(backbones=("test_efficientnet", "test_byobnet"), ladder=True, task=recipes.phantom())
