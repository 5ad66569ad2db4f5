"""Rows of shards of sources that label a few organs each, as the source makes them, without files."""

from __future__ import annotations

from typing import Any

import numpy as np

from medray.systems.fewlabel.possible import set_of
from medray.tasks.ct_rows import places_of
from medray.tasks.volume_rows import in_box

ORGANS = ("Liver", "Spleen", "Pancreas")
SOURCES = {"one": ("Liver",), "two": ("Spleen", "Pancreas")}


def few_row(number: int, shape: tuple[int, int, int] = (16, 20, 24)) -> dict[str, Any]:
    """A body with a ball for each organ, labelled as one of the sources does; all of them may be scored."""
    rng = np.random.default_rng(number)
    origin = list(SOURCES)[number % len(SOURCES)]
    body = np.zeros(shape, np.uint8)
    body[1:-1, 1:-1, 1:-1] = 1
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    voxels = rng.normal(1, 0.02, shape).astype(np.float32)
    classes = np.zeros(shape, np.uint8)
    for k, middle in enumerate(((8, 10, 5), (8, 10, 11), (8, 10, 18)), start=1):
        ball = np.linalg.norm(grid - (np.array(middle) + rng.uniform(-0.5, 0.5, 3)), axis=-1) < 3
        voxels += (0.02 + 0.06 * k) * ball  # tens of HU apart, as organs are
        classes[ball] = k
    own = [k for k, organ in enumerate(ORGANS, 1) if organ in SOURCES[origin]]
    mask = np.zeros(shape, np.uint8)
    for place, k in enumerate(own, 1):
        mask[classes == k] = place
    rest = [k for k in range(1, len(ORGANS) + 1) if k not in own]
    return {
        "scan_id": f"scan{number}", "patient_id": f"patient{number}", "visit": "1", "origin": origin, "shape_DHW": list(shape),
        "spacing_mm": [2.5, 1.0, 1.0], "affine": np.eye(4).ravel().tolist(), **in_box((voxels * body)[None], body),
        "brain": np.packbits(body).tobytes(), "mask": mask.tobytes(),
        "sets": [set_of([0, *rest]), *(set_of([k]) for k in own)], "scored": classes.tobytes(),
        "scored_organs": [1] * len(ORGANS), **places_of({k: classes == k for k in own}), "organs_labelled": len(own),
    }  # fmt: skip
