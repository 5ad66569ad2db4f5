"""Tasks, rows and batches that the steps share: noise in the shape of the real thing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from medray.tasks.task import Task


def device_of(dry: bool) -> torch.device:
    return torch.device("cpu") if dry else torch.device("cuda", 0)


def slice_task(backbone: str, size_px: int, batch_size: int, **more: Any) -> Any:
    from medray.systems.ich.task import SliceTask

    return SliceTask(
        backbone=backbone, pretrained=False, size_px=size_px, batch_size=batch_size, schedule="constant",
        learning_rate=1e-4, **more,
    )  # fmt: skip


def slices(count: int, side_px: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of shards. A slice with a bleed has a bright square, so that there is something to learn."""
    from medray.systems.ich.classes import CLASSES

    rows = []
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        image = rng.normal(90, 12, (side_px, side_px, 3))
        bleeds = number % 2
        if bleeds:
            top, left = rng.integers(0, side_px - side_px // 4, 2)
            image[top : top + side_px // 4, left : left + side_px // 4] += 90
        ids = {name: f"{name}{number}" for name in ("slice_id", "patient_id", "study_id", "stack_id")}
        labels = {name: bleeds for name in CLASSES} | {CLASSES[number % 6]: None if number % 5 == 0 else bleeds}
        about = {"rows": side_px, "columns": side_px, "index": number, "position_mm": 5.0 * number}
        rows.append(ids | about | labels | {"image": image.clip(0, 255).astype(np.uint8).tobytes()})
    return rows


def film_task(size_px: int, batch_size: int, **more: Any) -> Any:
    from medray.systems.chest.task import FilmTask

    return FilmTask(
        backbone="densenet121", pretrained=False, resize_px=size_px + size_px // 8, crop_px=size_px, batch_size=batch_size,
        views="flip", schedule="constant", **more,
    )  # fmt: skip


def films(count: int, side_px: int) -> list[dict[str, Any]]:
    from medray.systems.chest.classes import FINDINGS

    rows = []
    for number in range(count):
        rng = np.random.default_rng(number)
        ids = {"image_id": f"i{number}", "patient_id": f"p{number}", "view": "PA", "rows": side_px, "columns": side_px}
        labels = {name: int(rng.integers(0, 2)) for name in FINDINGS}
        rows.append(ids | labels | {"image": rng.integers(0, 255, (side_px, side_px), dtype=np.uint8).tobytes()})
    return rows


def sequence_task(features: int, hidden: int, batch_size: int, **more: Any) -> Any:
    from medray.systems.ich.sequence import SequenceTask

    return SequenceTask(
        feature_count=features,
        hidden=hidden,
        layers=2,
        batch_size=batch_size,
        schedule="constant",
        ema_decay=0.999,
        **more,
    )


def stacks(count: int, features: int, longest: int = 40) -> list[dict[str, Any]]:
    from medray.systems.ich.classes import CLASSES

    rows = []
    for number in range(count):
        rng = np.random.default_rng(number)
        length = int(rng.integers(max(1, longest // 2), longest + 1))
        ids = {name: f"{name}{number}" for name in ("stack_id", "study_id", "patient_id")}
        lists = {"slice_id": [f"s{number}-{i}" for i in range(length)], "index": list(range(length))}
        labels = {name: rng.integers(0, 2, length).tolist() for name in CLASSES}
        feature = rng.normal(size=(length, features)).astype(np.float16).tobytes()
        about = {"position_mm": [5.0 * i for i in range(length)], "feature": feature, "feature_count": features}
        rows.append(ids | lists | labels | about)
    return rows


def kinds(dry: bool) -> dict[str, tuple[Task, list[dict[str, Any]]]]:
    """A task of each kind, with rows; fp32, where figures of two devices are compared."""
    name, size = ("test_efficientnet", 32) if dry else ("efficientnet_b3", 300)
    hidden, features = (8, 6) if dry else (256, 512)
    chest: Task = film_task(32 if dry else 224, 8, precision="fp32")
    if dry:
        chest = replace(chest, backbone="test_resnet")  # type: ignore[call-arg]
    return {
        "slice": (slice_task(name, size, 8, precision="fp32"), slices(12, 40 if dry else 320)),
        "sequence": (sequence_task(features, hidden, 4, precision="fp32"), stacks(10, features)),
        "film": (chest, films(12, 48 if dry else 256)),
    }


def batches_of(task: Task, rows: list[dict[str, Any]], train: bool = False) -> list[dict[str, Any]]:
    """As a reading task makes them; training examples without augmentation, which may want a package."""
    size = task.batch_size if train else task.evaluation_batch
    return [task.collate([task.example(row) for row in rows[i : i + size]]) for i in range(0, len(rows), size)]


def noise(task: Any, count: int = 4) -> list[dict[str, Any]]:
    """Ready batches of a slice task."""
    from medray.systems.ich.classes import CLASSES

    rng = np.random.default_rng(0)
    shape = (task.batch_size, task.channels, task.size_px, task.size_px)
    ids = np.array([str(i) for i in range(task.batch_size)], dtype=object)
    return [
        {
            "image": rng.integers(0, 255, shape, dtype=np.uint8),
            "labels": rng.integers(0, 2, (task.batch_size, len(CLASSES))).astype(np.float32),
            "slice_id": ids,
        }
        for _ in range(count)
    ]
