"""What a finished classifier says of a film, and where on the film it found it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch

from medray.nn.backbone import Backbone
from medray.nn.gradcam import grad_cam
from medray.systems.chest.task import FilmTask
from medray.systems.chest.views import centre, resized, seen

OPACITY = 0.45
"""Of the colours where the heat is 1; where it is 0 the film stands as it is."""

NO_HEAT = "no heat: nothing speaks for it"
"""Said of a film whose map is 0 everywhere."""


@dataclass(frozen=True)
class Explained:
    """One film."""

    probabilities: dict[str, float]  # target → mean over the folds' networks
    heat: dict[str, np.ndarray]
    """Target → (rows, columns) float32 on the film's own pixels: 1 at the strongest evidence, 0 where there is none, NaN
    where the network did not look. All 0 where nothing speaks for the target."""

    def top(self, count: int) -> list[str]:
        """The most probable targets."""
        return sorted(self.probabilities, key=lambda name: -self.probabilities[name])[:count]


def explain(
    task: FilmTask,
    networks: Sequence[Backbone],
    film_grey: np.ndarray,
    row: Mapping[str, Any],
    targets: Sequence[str] = (),
    top: int = 3,
    also: Sequence[str] = (),
) -> Explained:
    """Probabilities of all targets, and heatmaps of some.

    Args:
        networks: of the folds, in evaluation mode.
        film_grey: (rows, columns) uint8, the film at its own size.
        row: as a shard holds the film.
        targets: names whose heatmaps are wanted; the ``top`` most probable ones where none is named.
        also: further names.
    Raises:
        ValueError: a name that is not one of the task's, or a backbone without feature maps.
    """
    check_targets(task, targets)
    device = next(networks[0].parameters()).device
    batch = task.collate([task.example(row)])
    batch |= {name: torch.from_numpy(batch[name]).to(device) for name in ("image", "labels")}
    with torch.inference_mode():
        answers = [task.outputs(network, batch) for network in networks]
    probabilities = {name: float(np.mean([a[f"p_{name}"][0] for a in answers])) for name in task.names}
    wanted = list(dict.fromkeys([*(targets or Explained(probabilities, {}).top(top)), *also]))
    # the central crop, whatever the views are that probabilities are averaged over: the map is of what it shows
    stored = np.frombuffer(row["image"], np.uint8).reshape(row["rows"], row["columns"])
    crop = centre(resized(stored, task.resize_px), task.crop_px)
    image = torch.from_numpy(crop.copy())[None, None].to(device)
    places = [task.names.index(name) for name in wanted]
    maps = sum(grad_cam(network, image, places)[0] for network in networks)
    assert isinstance(maps, torch.Tensor)
    raw = maps.cpu().numpy()
    return Explained(probabilities, {name: on_film(raw[i], film_grey.shape, task) for i, name in enumerate(wanted)})


def check_targets(task: FilmTask, targets: Sequence[str]) -> None:
    """Raise ValueError for a name that is not one of the task's."""
    for name in targets:
        if name not in task.names:
            raise ValueError(f"--target {name}: this model answers for {', '.join(task.names)}")


def on_film(evidence: np.ndarray, film_shape: tuple[int, ...], task: FilmTask) -> np.ndarray:
    """A map over the central crop as heat on the film's own pixels: resize and crop undone.

    Args:
        evidence: (rows, columns), 0 or more.
    Returns:
        As ``Explained.heat``.
    """
    film_rows, film_columns = film_shape
    top, left, height, width = seen(film_rows, film_columns, task.resize_px, task.crop_px)
    first, last = (round(top), round(left)), (round(top + height), round(left + width))
    size = (last[1] - first[1], last[0] - first[0])
    peak = float(evidence.max())
    fine = cv2.resize(
        (evidence / peak if peak > 0 else evidence).astype(np.float32), size, interpolation=cv2.INTER_LINEAR
    )
    heat = np.full(film_shape, np.nan, dtype=np.float32)
    heat[first[0] : last[0], first[1] : last[1]] = fine.clip(0, 1)
    return heat


def overlay(film_grey: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """(rows, columns, 3) uint8: the film under its heat, a thin line around what the network saw."""
    hot = np.nan_to_num(heat)
    colour = cv2.applyColorMap((hot * 255).round().astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    weight = (OPACITY * hot**0.75)[..., None].astype(np.float32)
    out = (film_grey[..., None] * (1 - weight) + colour * weight).round().astype(np.uint8)
    saw = ~np.isnan(heat)
    if not saw.all():
        rows, columns = np.flatnonzero(saw.any(1)), np.flatnonzero(saw.any(0))
        corners = (int(columns[0]), int(rows[0])), (int(columns[-1]), int(rows[-1]))
        cv2.rectangle(out, *corners, (110, 120, 130), max(1, film_grey.shape[0] // 512))
    return out
