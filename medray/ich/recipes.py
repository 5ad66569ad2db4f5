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
        backbone="test_byobnet", pretrained=False, size_px=80, crop=0.86, epochs=28, batch_size=32, optimizer="adamw",
        learning_rate=8e-3, weight_decay=0.05, schedule="one-cycle", rotate_deg=10.0, zoom=0.08, shift=0.04,
        brightness=0.05,
    )  # fmt: skip
