"""Rows of head-and-neck shards, as the source makes them, without files."""

from __future__ import annotations

from typing import Any

import numpy as np

from medray.tasks.volume_rows import in_box

ORGANS = ("Brainstem", "Parotid_L", "Parotid_R")


def organ_row(number: int, shape: tuple[int, int, int] = (16, 20, 24), hidden: tuple[str, ...] = ()) -> dict[str, Any]:
    """A body with a ball for each organ, the first two of which overlap; nobody has drawn those that are hidden."""
    rng = np.random.default_rng(number)
    body = np.zeros(shape, np.uint8)
    body[1:-1, 1:-1, 1:-1] = 1
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    voxels = rng.normal(1, 0.02, shape).astype(np.float32)
    bits = np.zeros(shape, np.int64)
    places, classes = [], []
    for k, (organ, middle) in enumerate(zip(ORGANS, ((8, 10, 10), (8, 10, 14), (8, 10, 5)), strict=True)):
        ball = np.linalg.norm(grid - (np.array(middle) + rng.uniform(-1, 1, 3)), axis=-1) < 3
        voxels += (0.08 + 0.06 * k) * ball  # tens of HU apart, as organs are
        if organ not in hidden:
            bits |= ball.astype(np.int64) << k
            places.append(np.flatnonzero(ball))
            classes.append(np.full(int(ball.sum()), k + 1))
    sets, numbers = np.unique(np.append(0, bits.ravel()), return_inverse=True)
    drawn = [int(organ not in hidden) for organ in ORGANS]
    return {
        "scan_id": f"scan{number}", "patient_id": f"patient{number}", "visit": "1", "shape_DHW": list(shape),
        "spacing_mm": [2.5, 1.0, 1.0], "affine": np.eye(4).ravel().tolist(), **in_box((voxels * body)[None], body),
        "brain": np.packbits(body).tobytes(), "mask": numbers[1:].astype(np.uint8).tobytes(), "sets": sets.tolist(),
        "drawn": drawn, "foreground": np.concatenate(places).tolist() if places else [],
        "foreground_class": np.concatenate(classes).tolist() if classes else [], "organs_drawn": sum(drawn),
    }  # fmt: skip
