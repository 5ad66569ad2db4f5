"""Another pose and another exposure of the same film: the augmentation of all three networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True, kw_only=True)
class Disturbed:
    """Fields of a task that disturbs its training images."""

    copies: int = 1
    """Training examples of a film each time that it is read, each disturbed anew: more steps an epoch where films are few."""
    rotate_deg: float = 20.0
    """Augment: largest rotation in degrees."""
    shift: float = 0.1
    """Augment: largest shift, in parts of the image's sides."""
    zoom: float = 0.15
    """Augment: largest change of scale."""
    contrast: float = 0.2
    """Augment: largest change of contrast, and half of it of brightness."""

    def check_disturbance(self) -> None:
        """Raises ValueError for values that leave nothing of an image."""
        if self.copies < 1:
            raise ValueError(f"--copies {self.copies}: must be at least 1")
        if (
            min(self.rotate_deg, self.shift, self.zoom, self.contrast) < 0
            or max(self.shift, self.zoom, self.contrast) > 0.9
        ):
            raise ValueError(
                f"--rotate-deg {self.rotate_deg}, --shift {self.shift}, --zoom {self.zoom}, --contrast {self.contrast}: 0 or "
                "more, the last three at most 0.9"
            )

    @property
    def examples_per_row(self) -> int:
        return self.copies

    @property
    def still(self) -> bool:
        return not (self.rotate_deg or self.shift or self.zoom)

    def pose(self, rng: np.random.Generator, rows: int, columns: int, mirror: bool = False) -> np.ndarray:
        """(2, 3) a random similarity about the middle of an image, x, y → x, y.

        Args:
            mirror: half of them are mirrored.
        """
        angle = np.deg2rad(rng.uniform(-self.rotate_deg, self.rotate_deg))
        scale = 1 + rng.uniform(-self.zoom, self.zoom)
        shift = rng.uniform(-self.shift, self.shift, 2) * [columns, rows]
        linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        if mirror and rng.random() < 0.5:
            linear = linear @ np.diag([-1.0, 1.0])
        middle = np.array([(columns - 1) / 2, (rows - 1) / 2])
        return np.column_stack([linear, middle + shift - linear @ middle])

    def exposure(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(rows, columns) uint8 with another contrast and brightness; what is black stays black: it is no film."""
        if not self.contrast:
            return image
        factor = 1 + rng.uniform(-self.contrast, self.contrast)
        offset = 255 * rng.uniform(-self.contrast, self.contrast) / 2
        grey = np.clip(np.arange(256) * factor + offset, 0, 255).round().astype(np.uint8)
        grey[0] = 0
        return grey[image]


def moved(image: np.ndarray, matrix: np.ndarray, nearest: bool = False) -> np.ndarray:
    """An image of the same size under a (2, 3) map of x, y; black where there was nothing.

    Args:
        nearest: for masks.
    """
    flags = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    return np.asarray(cv2.warpAffine(image, matrix, image.shape[1::-1], flags=flags, borderValue=0.0))


def moved_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(n, 2) x, y under the same map."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def check_sizes(channels: Sequence[int], dense: int, dropout: float) -> None:
    """Of a network's layers. Raises ValueError for sizes that there are not."""
    if not channels or min(channels) < 1 or dense < 1:
        raise ValueError(f"--channels {' '.join(map(str, channels))}, --dense {dense}: whole numbers, at least 1")
    if not 0 <= dropout < 1:
        raise ValueError(f"--dropout {dropout}: from 0 to below 1")
