"""Dense or odd things that are not bleeding, drawn for every study by the same dice whether it bleeds or not.

They are why counting bright pixels does not work: calcified falx, pineal gland and choroid plexus, dense venous sinuses
and tentorium, streaks between the petrous bones, a metal clip with its own streaks, an infarct.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medray.imaging.phantom.anatomy import Anatomy
from medray.imaging.phantom.brain import falx_edge, tent_height
from medray.imaging.phantom.paint import Box, Canvas, band, blend, capsule, covered, ellipsoid


@dataclass(frozen=True)
class Lookalikes:
    """What one patient carries. Densities in HU, lengths in mm; None or 0 where it is absent."""

    sinus_hu: float  # venous blood of the sagittal, straight, transverse and sigmoid sinuses
    sinus_mm: float
    falx_hu: float  # a dense falx, and half its thickness
    falx_mm: float
    falx_plaques: np.ndarray  # (n, 4): y, z, half length, HU
    pineal_hu: float | None
    choroid_hu: float | None
    choroid_mm: float
    tent_hu: float
    streak_hu: float  # height of the dark and bright bands at the petrous bones
    pallidum_hu: float | None  # calcium of both basal ganglia, always symmetrical
    clip: np.ndarray | None  # (3,) a metal clip's place
    infarct: np.ndarray | None  # (6,) centre and half axes


def draw_lookalikes(rng: np.random.Generator) -> Lookalikes:
    """A patient's look-alikes. Takes no label: the caller cannot make them depend on one."""
    side = float(rng.choice([-1, 1]))
    plaques = int(rng.integers(0, 4))
    return Lookalikes(
        sinus_hu=float(rng.uniform(60, 70)),
        sinus_mm=float(rng.uniform(4.5, 9)),
        falx_hu=float(rng.uniform(58, 75)),
        falx_mm=float(rng.uniform(0.9, 3.0)),
        falx_plaques=rng.uniform([-60, 20, 4, 150], [50, 60, 14, 500], (plaques, 4)),
        pineal_hu=float(rng.uniform(90, 300)) if rng.uniform() < 0.6 else None,
        choroid_hu=float(rng.uniform(80, 260)) if rng.uniform() < 0.6 else None,
        choroid_mm=float(rng.uniform(2.5, 5)),
        tent_hu=float(rng.uniform(58, 68)),
        streak_hu=float(rng.uniform(6, 18)),
        pallidum_hu=float(rng.uniform(58, 85)) if rng.uniform() < 0.08 else None,
        clip=np.array([side * rng.uniform(4, 40), rng.uniform(-20, 0), rng.uniform(-24, 0)])
        if rng.uniform() < 0.08
        else None,
        infarct=np.array(
            [side * rng.uniform(34, 46), rng.uniform(-30, 30), rng.uniform(5, 35), *rng.uniform(14, 30, 3)]
        )
        if rng.uniform() < 0.15
        else None,
    )


def paint_infarct(canvas: Canvas, head: Anatomy, found: Lookalikes) -> None:
    """A region where the brain is darker: painted before any bleed."""
    if found.infarct is None:
        return
    shape = ellipsoid(canvas, found.infarct[:3], found.infarct[3:], rough=0.1)
    if shape:
        box, _, distance = shape
        soft = np.clip(0.5 - distance / 6, 0, 1) * canvas.cavity[box] * (1 - canvas.ventricles[box])
        canvas.hu[box] -= soft * np.clip(canvas.hu[box] - (head.white_hu - 10), 0, 14)


def paint_lookalikes(canvas: Canvas, head: Anatomy, found: Lookalikes) -> None:
    """Everything else, painted after the bleeds: it is dense and stays on top."""
    x, y, z = canvas.x, canvas.y, canvas.z
    everywhere: Box = (slice(None), slice(None))
    falx_here = np.clip((z - falx_edge(y)) / canvas.thickness_mm + 0.5, 0, 1) * canvas.cavity
    blend(canvas.hu, band(canvas, everywhere, x, found.falx_mm, 0.0) * falx_here, np.float32(found.falx_hu))
    for at_y, at_z, half, hu in found.falx_plaques:
        plaque = ellipsoid(canvas, np.array([0, at_y, at_z]), np.array([1.6, half, 4.0]))
        if plaque:
            blend(canvas.hu[plaque[0]], plaque[1] * canvas.cavity[plaque[0]], np.float32(hu))
    if float(z.min()) < 5:
        tent = band(canvas, everywhere, (z - tent_height(x, y)) / 1.3, 1.8, 0.75) * np.clip((y - 14) / 4, 0, 1)
        blend(canvas.hu, tent * canvas.cavity, np.float32(found.tent_hu))
    _sinuses(canvas, head, found)
    spots = []
    if found.pineal_hu is not None:
        spots.append((np.array([0.0, 24.0, 0.0]), np.array([2.8, 3.2, 4.0]), found.pineal_hu))
    if found.choroid_hu is not None:
        for sign in (-1.0, 1.0):
            axes = np.array([0.8, 1.6, 1.3]) * found.choroid_mm
            spots.append((np.array([sign * 23, 32.0, 7.0]), axes, found.choroid_hu))
    if found.pallidum_hu is not None:
        for sign in (-1.0, 1.0):
            spots.append((np.array([sign * 21, -5.0, 3.0]), np.array([5.0, 11.0, 9.0]), found.pallidum_hu))
    for centre, axes, hu in spots:
        spot = ellipsoid(canvas, centre, axes, rough=0.2)
        if spot:
            blend(canvas.hu[spot[0]], spot[1] * canvas.cavity[spot[0]], np.float32(hu))
    if -62 < canvas.z_mm < -6:
        fade = np.exp(-(((canvas.z_mm + 34) / 14) ** 2)) * found.streak_hu
        bands = np.sin(0.42 * y + 0.12 * np.abs(x)) * np.clip((66 - np.abs(x)) / 12, 0, 1)
        canvas.hu += np.float32(fade) * bands * np.exp(-(((y - 18) / 40) ** 2)) * canvas.cavity
    if found.clip is not None:
        _clip(canvas, found.clip)


def _sinuses(canvas: Canvas, head: Anatomy, found: Lookalikes) -> None:
    """Venous sinuses along the inner table: sagittal in the midline, straight, transverse and sigmoid behind."""
    x, y = canvas.x, canvas.y
    radius = found.sinus_mm
    inside = canvas.cavity
    if canvas.z_mm > -15:  # the sagittal sinus is a wedge between the skull and the falx
        wedge = radius * 0.9 * np.clip(1 - (canvas.depth_mm - 1) / (2.2 * radius), 0, 1)
        cover = covered(np.abs(x) - wedge, canvas.pixel_mm) * (wedge > 0.3)
        blend(canvas.hu, cover * np.where(y > 0, 1.0, 0.6) * inside, np.float32(found.sinus_hu))
    _, ay, _ = head.axes_mm
    torcular = np.array([0.0, ay * 0.955, -16.0])
    rods = [(np.array([0, 38.0, -5.0]), torcular, 1.6, radius * 0.7)]
    for sign in (-1, 1):
        turn = np.array([sign * head.axes_mm[0] * 0.66, ay * 0.66, -20.0])
        rods.append((torcular, turn, radius, radius))
        rods.append((turn, np.array([sign * head.axes_mm[0] * 0.8, ay * 0.32, -26.0]), radius, radius))
        rods.append(
            (np.array([sign * head.axes_mm[0] * 0.8, ay * 0.32, -26.0]), np.array([sign * 44, 20.0, -48]), radius, 4.0)
        )
    for start, end, r0, r1 in rods:
        rod = capsule(canvas, start, end, float(r0), float(r1))
        if rod:
            blend(canvas.hu[rod[0]], rod[1] * inside[rod[0]], np.float32(found.sinus_hu))


def _clip(canvas: Canvas, place_mm: np.ndarray) -> None:
    """A metal clip: saturated, with streaks that fan out from it in its own slices."""
    metal = ellipsoid(canvas, place_mm, np.array([1.5, 4.0, 2.0]))
    if metal is None:
        return
    x, y = canvas.x - place_mm[0], canvas.y - place_mm[1]
    strength = float(metal[1].max())
    distance = np.sqrt(x**2 + y**2) + 3
    fan = np.cos(7 * np.arctan2(y, x)) * 260 / distance * strength
    canvas.hu += np.float32(1) * fan * (canvas.hu > -500) * np.clip((60 - distance) / 30, 0, 1)
    blend(canvas.hu[metal[0]], metal[1], np.float32(3000))
