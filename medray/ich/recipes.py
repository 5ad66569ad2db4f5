"""Recipes: functions that return a task. A variant changes the base with ``dataclasses.replace``."""

from __future__ import annotations

from medray.ich.task import SliceTask


def slice_backbone() -> SliceTask:
    """A pretrained SE-ResNeXt-50 on three windows at 224 px; a starting point for real data and one GPU or more."""
    return SliceTask(
        backbone="seresnext50_32x4d", size_px=224, epochs=3, batch_size=64, optimizer="adam", learning_rate=1e-4,
        schedule="exponential", schedule_gamma=0.5, clip_norm=1.0, flip_vertical=True,
    )  # fmt: skip


def phantom() -> SliceTask:
    """Small enough to learn phantoms from random weights on two CPU cores in two minutes."""
    return SliceTask(
        backbone="resnet10t", pretrained=False, size_px=96, epochs=14, batch_size=16, optimizer="adamw",
        learning_rate=3e-3, weight_decay=0.02, schedule="one-cycle", rotate_deg=8.0,
    )  # fmt: skip
