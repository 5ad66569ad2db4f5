"""A small brain with lesions of multiple sclerosis in four MR channels, drawn from numbers.

An ellipsoid of white matter with a folded rim of grey matter, two ventricles, and what is easily taken for a lesion:
choroid plexus and artefacts of flow, bright in FLAIR as lesions are, and vessels, bright with contrast as some lesions
are. Only the channels together tell them apart. Lengths in mm, in coordinates of the head: x left to right, y back to front, z up, 0 in its middle.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import ndimage

CHANNELS = ("flair", "t1", "t1c", "t2")
SHAPE_DHW = (64, 72, 64)
SPACING_MM = 2.0
AFFINE = np.array(
    [[-2.0, 0, 0, 63], [0, 2, 0, -71], [0, 0, 2, -63], [0, 0, 0, 1]]
)  # axes left, front, head: as in MNI files

# what a channel shows, in units of the scanner: CSF, grey matter, white matter, lesion, choroid plexus
_TISSUE = {
    "flair": (12.0, 62.0, 48.0, 104.0, 104.0),
    "t1": (14.0, 60.0, 86.0, 44.0, 62.0),
    "t1c": (14.0, 60.0, 86.0, 46.0, 62.0),
    "t2": (130.0, 72.0, 56.0, 116.0, 66.0),
}
_ENHANCED = 130.0  # vessels and active lesions in T1 with contrast
_OFFSET = 20.0  # subtracted: what a program that corrects the bias leaves is often below 0 within the brain
_NOISE = 4.0
_HALF_AXES_MM = np.array([52.0, 62.0, 50.0])
_RIM_MM = 5.0
_VENTRICLE_MM = np.array([6.0, 22.0, 9.0])  # half axes, of each side

Fate = Literal["stays", "grows", "vanishes", "new"]
_GROWTH = 1.4  # of the radius: 2.7 times the volume


@dataclass(frozen=True)
class Lesion:
    """An ellipsoid in the white matter."""

    centre_mm: tuple[float, float, float]
    half_axes_mm: tuple[float, float, float]
    enhances: bool  # in T1 with contrast, at the first visit that it is seen at
    fate: Fate  # at a second visit
    strength: float = 1.0  # of its contrast to the brain around it

    def at(self, visit: int) -> Lesion | None:
        """What is there of it at a visit (1 or 2)."""
        if (visit == 1 and self.fate == "new") or (visit == 2 and self.fate == "vanishes"):
            return None
        if visit == 1:
            return self
        d, h, w = self.half_axes_mm
        grown = (d * _GROWTH, h * _GROWTH, w * _GROWTH) if self.fate == "grows" else (d, h, w)
        return replace(self, half_axes_mm=grown, enhances=self.enhances and self.fate == "new")


@dataclass(frozen=True)
class Brain:
    """The anatomy of a patient, the same at each visit."""

    csf: np.ndarray  # (D, H, W) float32, shares of a voxel; csf + grey + white is 1 in the head
    grey: np.ndarray
    white: np.ndarray
    plexus: np.ndarray  # share, within the ventricles
    vessels: np.ndarray  # share
    artefacts: np.ndarray  # share, in the white matter
    head: np.ndarray  # bool


def draw_brain(rng: np.random.Generator) -> Brain:
    x, y, z = _millimetres()
    scale = rng.uniform(0.92, 1.0, 3)
    wave = _smooth(rng, 9.0)
    depth = (1 - np.sqrt(sum((c / (a * s)) ** 2 for c, a, s in zip((x, y, z), _HALF_AXES_MM, scale, strict=True)))) * 50
    depth = depth + 2.0 * _smooth(rng, 14.0)  # mm below the surface of the brain, roughly
    head = depth > 0
    grey = head * _share(_RIM_MM + 2.0 * wave - depth)
    wide = rng.uniform(0.8, 1.3)
    side = rng.uniform(9.0, 12.0)
    ventricle = np.zeros(SHAPE_DHW, dtype=np.float32)
    plexus = np.zeros(SHAPE_DHW, dtype=np.float32)
    for sign in (-1, 1):
        ventricle = np.maximum(ventricle, _ellipsoid((sign * side, -4, 4), _VENTRICLE_MM * wide))
        plexus = np.maximum(
            plexus, _ellipsoid((sign * side, rng.uniform(-20, -12), rng.uniform(0, 5)), (3.5, 5.0, 3.5))
        )
    csf = ventricle * head
    grey = grey * (1 - csf)
    vessels = np.zeros(SHAPE_DHW, dtype=np.float32)
    for _ in range(3):
        places = np.array([rng.uniform(-30, 30), rng.uniform(-40, 40), rng.uniform(-25, 35)])
        vessels = np.maximum(vessels, _ellipsoid(places, (1.8, 1.8, rng.uniform(6, 10))))
    artefacts = np.zeros(SHAPE_DHW, dtype=np.float32)
    for _ in range(3):
        places = np.array([rng.uniform(-32, 32), rng.uniform(-40, 40), rng.uniform(-28, 30)])
        artefacts = np.maximum(artefacts, _ellipsoid(places, rng.uniform(2.6, 5.0, 3)))
    white = head - csf - grey
    return Brain(csf, grey, white, plexus * csf, vessels * head, artefacts * white, head)


def draw_lesions(rng: np.random.Generator, brain: Brain, count: int, new: int) -> list[Lesion]:
    """Lesions apart from each other, half of them around the ventricles: ``count`` at the first visit, of which the first
    three stay, grow and vanish and the others as it comes, and ``new`` at the second. Fewer where there is no room."""
    distance = ndimage.distance_transform_edt(brain.csf < 0.5, sampling=SPACING_MM)
    inside = ndimage.distance_transform_edt(brain.white > 0.9, sampling=SPACING_MM)
    lesions: list[Lesion] = []
    taken: list[tuple[np.ndarray, float]] = []
    fates: list[Fate] = ["stays", "grows", "vanishes"]
    while len(fates) < count:
        fates.append(("stays", "stays", "grows", "vanishes")[int(rng.integers(4))])  # type: ignore[arg-type]
    for fate in [*fates[:count], *["new"] * new]:
        for _ in range(200):
            radius = float(np.clip(rng.lognormal(np.log(3.6), 0.4), 2.6, 7.5))
            axes = radius * rng.uniform(0.8, 1.25, 3)
            reach = float(axes.max()) * (_GROWTH if fate == "grows" else 1)
            near = rng.uniform() < 0.5
            room = (inside > min(reach, 5.0)) & ((distance < reach + 8) == near)
            places = np.argwhere(room)
            if not len(places):
                continue
            centre = (AFFINE @ [*places[rng.integers(len(places))], 1])[:3] + rng.uniform(-0.5, 0.5, 3)
            if all(np.linalg.norm(centre - other) > reach + size + 3 * SPACING_MM for other, size in taken):
                taken.append((centre, reach))
                where, half = (tuple(float(v) for v in values) for values in (centre, axes))
                lesions.append(Lesion(where, half, bool(rng.uniform() < 0.3), fate, float(rng.uniform(0.6, 1))))  # type: ignore[arg-type]
                break
    return lesions


def scan(rng: np.random.Generator, brain: Brain, lesions: list[Lesion]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """One visit: what the scanner makes of a brain and the lesions that are there.

    Returns:
        Channel → (D, H, W) float32, not 0 in the head and 0 outside; and the mask, (D, H, W) uint8, 1 where at least half
        of a voxel is lesion.
    """
    mask = np.zeros(SHAPE_DHW, dtype=np.uint8)
    share = np.zeros(SHAPE_DHW, dtype=np.float32)
    active = np.zeros(SHAPE_DHW, dtype=np.float32)
    for lesion in lesions:
        solid = _ellipsoid(lesion.centre_mm, lesion.half_axes_mm) * (brain.head * (1 - brain.csf))
        mask[solid >= 0.5] = 1
        share = np.maximum(share, solid * lesion.strength)
        active = np.maximum(active, solid * lesion.enhances)
    channels = {}
    for name in CHANNELS:
        csf, grey, white, lesion_value, plexus = _TISSUE[name]
        image = csf * brain.csf + grey * brain.grey + white * brain.white
        image = image + brain.plexus * (plexus - csf)
        if name == "flair":
            image = image * (1 - brain.artefacts) + lesion_value * brain.artefacts
        image = image * (1 - share) + lesion_value * share
        if name == "t1c":
            bright = np.maximum(brain.vessels, active)
            image = image * (1 - bright) + _ENHANCED * bright
        image = ndimage.gaussian_filter(image, 0.5) * (1 + 0.08 * _smooth(rng, 20.0)) * rng.uniform(0.9, 1.1)
        image = image + rng.normal(0, _NOISE, SHAPE_DHW) - _OFFSET
        inside = image[brain.head]
        inside[inside == 0] = 1e-3  # 0 is what lies outside
        channels[name] = np.zeros(SHAPE_DHW, dtype=np.float32)
        channels[name][brain.head] = inside
    return channels, mask


def _millimetres() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y, z of each voxel, as arrays that broadcast to (D, H, W)."""
    d, h, w = np.ogrid[: SHAPE_DHW[0], : SHAPE_DHW[1], : SHAPE_DHW[2]]
    return AFFINE[0, 0] * d + AFFINE[0, 3], AFFINE[1, 1] * h + AFFINE[1, 3], AFFINE[2, 2] * w + AFFINE[2, 3]


def _ellipsoid(centre_mm: np.ndarray | tuple[float, ...], half_axes_mm: np.ndarray | tuple[float, ...]) -> np.ndarray:
    """(D, H, W) float32: the share of each voxel that it fills."""
    along = zip(_millimetres(), centre_mm, half_axes_mm, strict=True)
    radius = np.sqrt(sum(((c - middle) / half) ** 2 for c, middle, half in along))
    return _share((1 - radius) * float(np.min(half_axes_mm)))


def _share(depth_mm: np.ndarray) -> np.ndarray:
    """The share of a voxel that lies inside, from the depth of its centre below the surface."""
    return np.clip(depth_mm / SPACING_MM + 0.5, 0, 1).astype(np.float32)


def _smooth(rng: np.random.Generator, grain_mm: float) -> np.ndarray:
    """(D, H, W) noise of mean 0 and deviation 1."""
    noise = ndimage.gaussian_filter(rng.normal(size=SHAPE_DHW), grain_mm / SPACING_MM, mode="wrap")
    return (noise - noise.mean()) / noise.std()
