"""Rows of lesion shards, as the lesion source makes them, without files."""

from __future__ import annotations

from typing import Any

import numpy as np

from medray.tasks.volume_rows import in_box


def scan_row(
    number: int, shape: tuple[int, int, int] = (18, 20, 22), channels: int = 4, classes: int = 1, lesions: int = 2
) -> dict[str, Any]:
    """A box of brain with bright balls in it, one visit of a patient."""
    rng = np.random.default_rng(number)
    brain = np.zeros(shape, np.uint8)
    brain[1:-1, 1:-1, 1:-1] = 1
    mask = np.zeros(shape, np.uint8)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    for lesion in range(lesions):
        middle = rng.uniform(0.3, 0.7, 3) * shape
        mask[np.linalg.norm(grid - middle, axis=-1) < 3] = 1 + lesion % classes
    voxels = rng.normal(0, 0.3, (channels, *shape)).astype(np.float32)
    voxels += 3 * (mask > 0) * np.linspace(1, -1, channels).reshape(-1, 1, 1, 1) + mask
    return row_of(f"scan{number}", f"patient{number // 2}", (voxels * brain).astype(np.float32), brain, mask)


def row_of(
    scan: str,
    patient: str,
    voxels: np.ndarray,
    brain: np.ndarray,
    mask: np.ndarray,
    spacing_mm: tuple[float, ...] = (1, 1, 1),
) -> dict[str, Any]:
    places = np.flatnonzero((mask > 0) & (mask != 255))
    if len(places) > 10_000:
        places = np.sort(np.random.default_rng(0).choice(places, 10_000, replace=False))
    return {
        "scan_id": scan, "patient_id": patient, "visit": "1", "shape_DHW": list(mask.shape), "spacing_mm": list(spacing_mm),
        "affine": np.eye(4).ravel().tolist(), **in_box(voxels, brain),
        "brain": np.packbits(brain).tobytes(), "mask": mask.astype(np.uint8).tobytes(), "foreground": places.tolist(),
        "lesion_ml": float((mask == 1).sum()) * float(np.prod(spacing_mm)) / 1000, "channels_there": [1] * len(voxels),
    }  # fmt: skip
