"""The five kinds of bleeding, each where it belongs, and the rule that makes a slice positive.

- epidural: a lens against the inner table, 10-60 mL;
- subdural: a crescent along the inner table, sometimes nearly as dense as brain and thin, so that only a wide window
  shows it;
- subarachnoid: blood in the sulci of one region, or in the cisterns at the base;
- intraparenchymal: a rough-edged clot inside the brain with a rim of oedema, from 1 mL up;
- intraventricular: a level in the back of the lateral ventricles, or a cast of some of them.

**The rule.** Blood is visible in a pixel where it raises the density by at least ``VISIBLE_HU`` over what would be
there without it, before noise. A slice is positive for a type when the visible area of that type in it reaches
``VISIBLE_MM2[type]``; ``any`` is the OR of the five.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medray.imaging.phantom.anatomy import Anatomy
from medray.imaging.phantom.paint import Box, Canvas, blend, blur_mm, covered, ellipsoid

BLEED_TYPES = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural")
BIT = {name: 1 << k for k, name in enumerate(BLEED_TYPES)}  # of the true masks
VISIBLE_HU = 10.0
DENSITY_HU = {  # of a bleed
    "epidural": (52.0, 72.0),
    "intraparenchymal": (52.0, 76.0),
    "intraventricular": (56.0, 74.0),
    "subarachnoid": (50.0, 66.0),
    "subdural": (51.0, 68.0),
}
VISIBLE_MM2 = {
    "epidural": 80.0,
    "intraparenchymal": 60.0,
    "intraventricular": 80.0,
    "subarachnoid": 120.0,
    "subdural": 100.0,
}
# where clots inside the brain lie (left side, mm): basal ganglia, thalamus, the lobes, temporal pole, cerebellum, pons
LOBES = (
    (25, -4, 4),
    (12, 10, 6),
    (38, -30, 28),
    (40, 20, 26),
    (26, 48, 14),
    (25, -48, 8),
    (28, -14, 54),
    (24, 26, 56),
    (20, 0, 62),
    (38, -20, -26),
    (24, 46, -38),
    (16, 50, -30),
    (3, 14, -30),
)


@dataclass(frozen=True)
class Bleed:
    """One bleed of a patient. Lengths in mm, in head coordinates; what they mean depends on ``kind``."""

    kind: str
    hu: float
    centre_mm: np.ndarray  # (3,)
    size_mm: np.ndarray  # (3,) half axes; subdural: (thickest, half height, half width in rad)
    style: str = ""


def draw_bleed(rng: np.random.Generator, kind: str, head: Anatomy, z_mm: float | None = None) -> Bleed:
    """A bleed of the given kind. ``z_mm`` asks for a height, so that a study's several bleeds lie close together."""
    side = float(rng.choice([-1, 1]))
    low, high = DENSITY_HU[kind]
    hu = float(rng.uniform(low, high))
    if kind == "epidural":
        angle = rng.uniform(-0.9, 0.8) + (0 if side > 0 else np.pi)
        centre = _on_inner_table(head, angle, rng.uniform(-28, 58) if z_mm is None else np.clip(z_mm, -28, 58))
        size = np.array([rng.uniform(10, 20), rng.uniform(26, 38), rng.uniform(28, 44)])
        return Bleed(kind, hu, centre, size)
    if kind == "subdural":
        thin = rng.uniform() < 0.2
        angle = rng.uniform(-0.7, 0.7) + (0 if side > 0 else np.pi)
        centre = np.array(
            [np.cos(angle), np.sin(angle), rng.uniform(-5, 58) if z_mm is None else np.clip(z_mm, -5, 58)]
        )
        size = np.array(
            [rng.uniform(5, 7.5) if thin else rng.uniform(7, 15), rng.uniform(32, 54), rng.uniform(0.7, 1.2)]
        )
        return Bleed(kind, float(rng.uniform(45, 52)) if thin else hu, centre, size, "thin" if thin else "")
    if kind == "subarachnoid":
        base = rng.uniform() < 0.5 if z_mm is None else z_mm < -5
        size = rng.uniform(34, 52, 3)
        if base:
            return Bleed(kind, hu, np.array([0.0, -4.0, -18.0]), np.array([64, 60, rng.uniform(22, 34)]), "base")
        angle = rng.uniform(-1.4, 1.4) + (0 if side > 0 else np.pi)
        centre = _on_inner_table(head, angle, rng.uniform(5, 66) if z_mm is None else np.clip(z_mm, 5, 66))
        return Bleed(kind, hu, centre * [0.9, 0.9, 1], size, "convexity")
    if kind == "intraventricular":
        style = str(rng.choice(["level", "cast"])) if z_mm is None or z_mm > -20 else "cast"
        y = rng.uniform(8, 26) if style == "level" else 0.0
        low = rng.uniform() < 0.1 if z_mm is None else z_mm < -20
        z = -36.0 if low and style == "cast" else rng.uniform(-8, 14)
        return Bleed(kind, hu, np.array([side * 14, y, z]), np.array([80, 80, rng.uniform(30, 48)]), style)
    if kind != "intraparenchymal":
        raise ValueError(f"no such bleed: {kind}")
    if z_mm is not None:
        near = sorted(LOBES, key=lambda p: abs(p[2] - z_mm))[:4]
        place = np.array(near[int(rng.integers(len(near)))], float)
    else:
        place = np.array(LOBES[int(rng.integers(len(LOBES)))], float)
    radius = float(np.clip(rng.lognormal(np.log(17.5), 0.36), 6.3, 26))  # 6.3 mm is 1 mL
    size = radius * np.exp(rng.normal(0, 0.12, 3))
    return Bleed(kind, hu, place * [side, 1, 1] + rng.normal(0, 4, 3), size)


def _on_inner_table(head: Anatomy, angle: float, z_mm: float) -> np.ndarray:
    ax, ay, az = head.axes_mm
    ring = np.sqrt(max(0.05, 1 - (z_mm / (az if z_mm > 0 else 105)) ** 2))
    return np.array([ax * ring * np.cos(angle), ay * ring * np.sin(angle), z_mm])


def paint_bleed(canvas: Canvas, head: Anatomy, bleed: Bleed) -> tuple[Box, np.ndarray] | None:
    """Paint a bleed in place; returns the pixels concerned and where the blood is visible, or None."""
    everywhere: Box = (slice(None), slice(None))
    x, y, z = canvas.x, canvas.y, canvas.z
    box = everywhere
    if bleed.kind in ("epidural", "intraparenchymal"):
        solid = bleed.kind == "intraparenchymal"
        turn = None if solid else _facing(bleed.centre_mm, head)
        shape = ellipsoid(canvas, bleed.centre_mm, bleed.size_mm, turn, rough=0.14 if solid else 0.03)
        if shape is None:
            return None
        box, cover, distance = shape
        cover = cover * canvas.cavity[box]
        if solid:
            rim = np.clip(1 - distance / (3 + 0.25 * bleed.size_mm.min()), 0, 1) * canvas.cavity[box]
            blend(canvas.hu[box], np.clip(rim, 0, 0.8) * (1 - cover), np.float32(head.white_hu - 9))
    elif bleed.kind == "subdural":
        _, half_height, half_width = bleed.size_mm
        if abs(canvas.z_mm - bleed.centre_mm[2]) > half_height + 25:
            return None
        away = np.arctan2(
            y * bleed.centre_mm[0] - x * bleed.centre_mm[1], x * bleed.centre_mm[0] + y * bleed.centre_mm[1]
        )
        u2 = (away / half_width) ** 2 + ((z - bleed.centre_mm[2]) / half_height) ** 2
        thick = bleed.size_mm[0] * np.sqrt(np.clip(1 - u2, 0, 1))
        cover = covered(canvas.vault_mm - thick, blur_mm(canvas, 0.35)) * canvas.cavity * np.clip(thick / 2, 0, 1)
    else:
        if abs(canvas.z_mm - bleed.centre_mm[2]) > bleed.size_mm[2] + 15:
            return None
        near = [((a - c) / s) ** 2 for a, c, s in zip((x, y, z), bleed.centre_mm, bleed.size_mm, strict=True)]
        within = np.clip((1 - (near[0] + near[1] + near[2])) * 3, 0, 1)
        if bleed.kind == "subarachnoid":
            # blood distends the sulci that it fills, and the space over them
            filled = np.clip((head.sulcus + 0.24 - np.abs(canvas.folds) - 0.008 * canvas.depth_mm) * 5 + 0.5, 0, 1)
            filled *= np.clip((26 - canvas.depth_mm) / 8, 0, 1) * canvas.cavity
            filled = np.maximum(filled, np.clip(3.5 - canvas.depth_mm, 0, 1) * canvas.cavity)
            spaces = canvas.cisterns if bleed.style == "base" else np.maximum(filled, canvas.cisterns)
            cover = np.clip(spaces * 1.25, 0, 0.95) * within
            if bleed.style == "base":
                cover = np.maximum(cover, 0.8 * filled * within * np.clip((8 - z) / 10, 0, 1))
        else:
            below = np.clip((y - bleed.centre_mm[1]) / 2, 0, 1) if bleed.style == "level" else 1.0
            cover = canvas.ventricles * within * below
    before = canvas.hu[box].copy()
    blend(canvas.hu[box], cover, np.float32(bleed.hu) + 2.5 * canvas.texture[box])
    return box, (canvas.hu[box] - before >= VISIBLE_HU) & (canvas.cavity[box] > 0.5)


def _facing(centre_mm: np.ndarray, head: Anatomy) -> np.ndarray:
    """Rotation whose first axis is the inner table's normal at a point, so that a lens lies flat against it."""
    normal = centre_mm / head.axes_mm**2
    normal = normal / np.linalg.norm(normal)
    across = np.cross([0, 0, 1.0], normal)
    across /= np.linalg.norm(across)
    return np.stack([normal, across, np.cross(normal, across)])
