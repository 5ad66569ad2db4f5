"""A phantom head: skull, scalp, brain, ventricles, falx and tentorium, drawn once per patient.

``head.py`` paints it, slice by slice.

Head coordinates in mm: x to the patient's left, y to the back, z up; the origin lies between the lateral ventricles.
Sizes are those of textbooks, made to look like a head CT at a glance and to vary between patients; nothing here is
measured anatomy, and a score on phantoms only says that machinery learns. It is never a clinical result.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from medray.imaging.phantom.paint import TEXTURE_MM, TEXTURE_PX, smooth_noise

LAYER_MM = 9.0  # textures change over this height
LOWEST_MM = -90.0


@dataclass(frozen=True)
class Anatomy:
    """One patient's head. Lengths in mm, densities in HU."""

    axes_mm: np.ndarray  # (3,) half axes of the space inside the skull, above the base
    wobble: np.ndarray  # (4,) how the outline departs from an ellipse
    skull_mm: float
    scalp_mm: float
    bone_hu: float
    grey_hu: float
    white_hu: float
    csf_hu: float
    csf_rim_mm: float  # space between brain and skull
    sulcus: float  # width of the sulci
    ventricle: float  # scale of the ventricles' calibre
    falx_hu: float
    floor_mm: np.ndarray  # (128, 128) height of the skull base, a table as the textures are
    cupping_hu: float  # beam hardening: how much brighter the brain is next to bone
    sulci: np.ndarray  # (layers, 128, 128) textures; the brain's folds lie along their zero lines
    grain: np.ndarray  # (layers, 128, 128) coarser, for air cells and uneven densities


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """A patient's head, all of it from one generator."""
    age = rng.uniform(0, 1)  # wider sulci and ventricles go together
    density = rng.uniform(-3, 4)  # of the whole brain: blood count and water vary, so that no fixed HU means blood
    layers = int(200 / LAYER_MM) + 2
    return Anatomy(
        axes_mm=np.array([rng.uniform(64, 71), rng.uniform(78, 89), rng.uniform(70, 78)]),
        wobble=rng.normal(0, [0.012, 0.02, 0.012, 0.02]),
        skull_mm=rng.uniform(5.5, 8.5),
        scalp_mm=rng.uniform(4.5, 8),
        bone_hu=rng.uniform(950, 1350),
        grey_hu=rng.uniform(33.5, 36.5) + density,
        white_hu=rng.uniform(27, 29.5) + density,
        csf_hu=rng.uniform(4, 10),
        csf_rim_mm=0.6 + 2.2 * age + rng.uniform(0, 0.5),
        sulcus=0.06 + 0.16 * age + rng.uniform(0, 0.05),
        ventricle=0.75 + 0.6 * age + rng.uniform(-0.1, 0.15),
        falx_hu=rng.uniform(56, 66),
        floor_mm=_skull_base(rng),
        cupping_hu=rng.uniform(5, 13),
        sulci=smooth_noise(rng, layers, 15.0),
        grain=smooth_noise(rng, layers, 9.0),
    )


def _skull_base(rng: np.random.Generator) -> np.ndarray:
    """Height of the floor of the skull over (x, y): three fossae a side, petrous ridges, the hole for the cord."""
    line = (np.arange(TEXTURE_PX, dtype=np.float32) - TEXTURE_PX / 2) * TEXTURE_MM
    x, y = np.abs(line)[None, :], line[:, None]
    front, middle, back = rng.uniform(-24, -15), rng.uniform(-46, -38), rng.uniform(-70, -62)

    def rise(distance: np.ndarray, soft: float) -> np.ndarray:
        return 1 / (1 + np.exp(-np.clip(distance / soft, -30, 30)))

    ridge_y = rng.uniform(2, 6) + 0.55 * (x - 12)  # the petrous bone runs backward and outward
    floor = front + (middle - front) * rise(y + 30 - 0.35 * np.clip(x - 30, 0, 30), 3.0)
    floor = floor + (back - floor) * rise(y - ridge_y, 3.0)
    sella = np.exp(-((x / 11) ** 2) - ((y + 6) / 13) ** 2)
    floor = floor + (rng.uniform(-34, -29) - floor) * np.clip(1.3 * sella, 0, 1)
    ridge = np.exp(-(((y - ridge_y) / 7) ** 2)) * rise(x - 10, 2.0) * rise(66 - x, 2.0)
    floor = floor + (rng.uniform(-27, -20) - floor) * np.clip(1.2 * ridge, 0, 1)
    hole = np.exp(-((x / 14) ** 4) - ((y - 26) / 17) ** 4)
    floor = floor - 60 * hole
    floor = (
        floor - 0.1 * np.clip(-30 - y, 0, 60) + 6 * np.exp(-((x - 24) ** 2 / 130) - (y + 50) ** 2 / 500)
    )  # roofs of the orbits
    return cv2.GaussianBlur(floor.astype(np.float32), (0, 0), 0.8)
