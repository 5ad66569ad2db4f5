"""Recipes: functions that return a task. A variant changes the base with ``dataclasses.replace``.

Optimizer, schedule, epochs, input size, clipping and smoothing are the sources'; where a source does not state a
learning rate it is ours, a usual one for fine-tuning.
"""

from __future__ import annotations

from dataclasses import replace

from medray.systems.ich.sequence import SequenceTask
from medray.systems.ich.task import SliceTask

FOUR = ("resnext101_32x8d", "inception_v3", "efficientnet_b3", "seresnext50_32x4d")
"""The backbones of the published ensemble."""

FREE = {"resnext101_32x8d.fb_wsl_ig1b_ft_in1k": "resnext101_32x8d.tv_in1k"}
"""Pretrained weights under a non-commercial licence → an alternative without one."""


def any_backbone(name: str) -> SliceTask:
    """Any timm model on three windows, with both remedies against the rarity of epidural bleeds."""
    return SliceTask(
        backbone=name, size_px=224, epochs=5, batch_size=64, optimizer="adam", learning_rate=1e-4, schedule="cosine",
        flip_vertical=True, repeat_epidural=3, epidural_weight=2.0,
    )  # fmt: skip


def resnext101_32x8d() -> SliceTask:
    """Weights pretrained on Instagram pictures (CC-BY-NC)."""
    return replace(any_backbone("resnext101_32x8d.fb_wsl_ig1b_ft_in1k"), epochs=6, schedule="constant")


def inception_v3() -> SliceTask:
    """Label smoothing as in the architecture's paper (Szegedy et al. 2016); the source trains it with Adam."""
    return replace(any_backbone("inception_v3"), size_px=299, epochs=5, schedule="constant", label_smoothing=0.1)


def efficientnet_b3() -> SliceTask:
    return replace(any_backbone("efficientnet_b3"), size_px=300, epochs=6, schedule="constant")


def seresnext50_32x4d() -> SliceTask:
    return replace(
        any_backbone("seresnext50_32x4d"), epochs=3, schedule="exponential", schedule_gamma=0.5, clip_norm=1.0
    )


def second_place() -> SliceTask:
    """The challenge's second place: 480 px on a square around the head, its windows, the metric itself as the loss."""
    return SliceTask(
        backbone="resnext101_32x8d.fb_wsl_ig1b_ft_in1k", windows=("40/80", "80/200", "40/380"), size_px=480,
        head_crop=True, epochs=5, batch_size=64, optimizer="adam", learning_rate=2e-5, schedule="constant", flip=True,
        flip_vertical=True, transpose=True, shift=0.1, zoom=0.2, rotate_deg=30.0, brightness=0.0,
    )  # fmt: skip


def second_place_quick() -> SliceTask:
    """Not as published: half of the negatives each epoch, and two of the five epochs at 320 px. Of slices of which 14%
    bleed it trains 57% of the images, and so about 44% of the pixels; --ladder compares it with the published method."""
    return replace(second_place(), negatives=0.5, early_size_px=320, early_epochs=2)


RECIPES = {
    r.__name__: r
    for r in (resnext101_32x8d, inception_v3, efficientnet_b3, seresnext50_32x4d, second_place, second_place_quick)
}


def recipe(name: str) -> SliceTask:
    """The recipe of that name; for resnext101_32x8d.tv_in1k the one of resnext101_32x8d with those weights."""
    if name in RECIPES:
        return RECIPES[name]()
    base = name.split(".")[0]
    return replace(RECIPES[base](), backbone=name) if base in RECIPES else any_backbone(name)


def sequence() -> SequenceTask:
    """The strongest public version: two layers of 2048 units, and a running mean of the weights for its mean of epochs."""
    return SequenceTask(
        hidden=2048, layers=2, epochs=12, batch_size=8, optimizer="adam", learning_rate=1e-5, schedule="exponential",
        schedule_gamma=0.95, ema_decay=0.999,
    )  # fmt: skip


def phantom(name: str = "test_efficientnet") -> SliceTask:
    """Small enough to learn phantoms from random weights on two CPU cores in a minute."""
    return SliceTask(
        backbone=name, pretrained=False, size_px=64, crop=0.86, epochs=8, batch_size=32, optimizer="adamw",
        learning_rate=1e-2, weight_decay=0.05, schedule="one-cycle", clip_norm=1.0, rotate_deg=10.0, zoom=0.08, shift=0.04,
        brightness=0.05, repeat_epidural=2,
    )  # fmt: skip


def phantom_search(name: str = "test_efficientnet") -> SliceTask:
    """What the search on phantoms starts from: rungs of 1, 3 and 9 epochs, seconds each. Without the one-cycle's rise, in
    which early scores say little about the end."""
    return replace(phantom(name), epochs=9, size_px=48, repeat_epidural=1, schedule="cosine")


def phantom_sequence() -> SequenceTask:
    return SequenceTask(
        hidden=48, layers=2, epochs=12, batch_size=8, optimizer="adamw", learning_rate=2e-3, weight_decay=0.01,
        schedule="one-cycle", dropout=0.3,
    )  # fmt: skip


def ladder(lead: SliceTask) -> dict[str, SliceTask]:
    """The lead model without its later steps: what the report's ladder compares it with.

    Its steps are windows, remedies, fewer negatives, low resolution first; each network lacks what comes after it.
    """
    full = replace(lead, early_size_px=None, early_epochs=0)
    slow = replace(full, negatives=1.0)
    bare = replace(slow, repeat_epidural=1, epidural_weight=1.0)
    steps = {"no-remedy": bare, "full-resolution": full, "all-negatives": slow}
    if len(lead.windows) > 1:
        steps = {"single-window": replace(bare, windows=lead.windows[:1])} | steps
    if lead.repeat_epidural > 1 and lead.epidural_weight != 1:
        steps["repeat-only"] = replace(slow, epidural_weight=1.0)
    names = {task: name for name, task in reversed(steps.items())}  # what two steps have in common is trained once
    return {name: task for name, task in steps.items() if task != lead and names[task] == name}
