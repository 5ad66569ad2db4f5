"""A drawn abdomen on CT: organs from a liver of a litre to a gallbladder of 20 millilitres, in a pose of its own.

Millimetres run towards head, back and left from the middle, as ``tasks.ct_rows.AXES`` has them. It teaches that machinery
learns; it is no atlas.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from medray.imaging.phantom.shapes import Ball, Inside, Rod, affine_of, posed

SPACING_MM = (5.0, 4.5, 4.5)
SHAPE = (40, 56, 72)
AFFINE = affine_of(SHAPE, SPACING_MM)
"""Index (d, h, w) → RAS+ mm, 0 in the middle of the image."""

BODY, SPINE = Ball((0, 0, 0), (260, 112, 145)), Rod((-160, 62, 0), (160, 62, 0), 20.0)
FAT = Ball((0, 0, 0), (250, 98, 130))
ORGANS: dict[str, tuple[Inside, float]] = {
    "Liver": (Ball((35, -15, -62), (58, 62, 58)), 110.0),
    "Spleen": (Ball((40, 38, 92), (42, 28, 22)), 125.0),
    "Stomach": (Ball((30, -38, 48), (34, 28, 38)), 20.0),
    "Kidney_L": (Ball((-25, 48, 58), (48, 22, 22)), 165.0),
    "Kidney_R": (Ball((-35, 48, -58), (48, 22, 22)), 165.0),
    "Pancreas": (Rod((-5, 8, -22), (18, 18, 66), 11.0), 85.0),
    "Aorta": (Rod((-160, 34, 8), (160, 34, 8), 10.0), 190.0),
    "Gallbladder": (Ball((-22, -42, -48), (20, 14, 14)), 5.0),
}
"""Name → where it is, and its HU; later ones are drawn over earlier ones."""
SMALL = ("Pancreas", "Gallbladder")


@dataclass(frozen=True)
class Scanner:
    """What differs between hospitals: a phase of contrast, noise and sharpness. It is why pseudo-labels are worse than labels."""

    contrast: float = 1.0
    """Factor of what organs have above 40 HU."""
    noise_hu: float = 12.0
    blur_voxels: float = 0.5


def draw(rng: np.random.Generator, scanner: Scanner) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A patient's CT in HU, int16, and its organs, bool: (D, H, W) of SHAPE; no voxel is of two."""
    at = posed(SHAPE, SPACING_MM, (0.0, 0.0, 0.0), rng)
    hu = np.full(SHAPE, -1000.0)
    hu[BODY(at)] = 50.0
    hu[FAT(at)] = -60.0 + rng.normal(0, 15)
    hu[SPINE(at)] = 350.0
    classes = np.zeros(SHAPE, np.uint8)
    for number, (inside, value) in enumerate(ORGANS.values(), 1):
        mask = inside((at - rng.normal(0, 4, 3)) / rng.normal(1, 0.06, 3).clip(0.85, 1.15))
        hu[mask] = 40 + (value - 40) * scanner.contrast + rng.normal(0, 6)
        classes[mask] = number
    hu = ndimage.gaussian_filter(hu, scanner.blur_voxels) + rng.normal(0, scanner.noise_hu, SHAPE)
    masks = {name: classes == number for number, name in enumerate(ORGANS, 1)}
    return np.clip(np.rint(hu), -1000, 3000).astype(np.int16), masks
