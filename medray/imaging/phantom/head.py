"""Painting of a phantom head into a slice: scalp, vault, skull base and face around the brain."""

from __future__ import annotations

import numpy as np

from medray.imaging.phantom.anatomy import LAYER_MM, LOWEST_MM, Anatomy
from medray.imaging.phantom.brain import paint_brain
from medray.imaging.phantom.paint import Canvas, blend, blur_mm, covered, ellipsoid, look_up


def _layer(textures: np.ndarray, z_mm: float) -> np.ndarray:
    position = float(np.clip((z_mm - LOWEST_MM) / LAYER_MM, 0, len(textures) - 1.001))
    below = int(position)
    part = position - below
    return ((1 - part) * textures[below] + part * textures[below + 1]) / np.hypot(1 - part, part)


def paint_anatomy(canvas: Canvas, head: Anatomy) -> None:
    """Paint the healthy head into an empty canvas and leave the coverages there for what follows."""
    x, y, z = canvas.x, canvas.y, canvas.z
    sulci_texture = look_up(_layer(head.sulci, canvas.z_mm), x, y)
    canvas.texture = look_up(_layer(head.grain, canvas.z_mm), x, y)
    canvas.hu = np.full(x.shape, -1000, np.float32)

    # outline: signed distance to the inner table; below the origin the head narrows more slowly than an ellipsoid
    ax, ay, az = (np.float32(a) for a in head.axes_mm)
    u, v = x / ax, y / ay
    flat = u * u + v * v + np.float32(1e-4)
    w = head.wobble.astype(np.float32)
    c2, s2 = (u * u - v * v) / flat, 2 * u * v / flat
    stretch = 1 + w[0] * c2 + w[1] * s2 * 0.5 + w[2] * (2 * c2 * c2 - 1) + w[3] * c2 * v
    up = np.where(z > 0, z / az, z / np.float32(105))
    up_outer = np.where(z > 0, z / az, z / np.float32(150))
    q2 = flat * stretch * stretch
    gx2 = (u / ax) ** 2 + (v / ay) ** 2
    q = np.sqrt(q2 + up * up)
    gz = np.where(z > 0, up / az, up / np.float32(105))
    slope = np.sqrt(gx2 + gz * gz)
    inner = (q - 1) * q / slope
    upright = gz / slope
    q = np.sqrt(q2 + up_outer * up_outer)
    gz_outer = np.where(z > 0, up_outer / az, up_outer / np.float32(150))
    slope = np.sqrt(gx2 + gz_outer * gz_outer)
    outer = (q - 1) * q / slope
    upright_outer = gz_outer / slope
    width, width_outer = blur_mm(canvas, upright), blur_mm(canvas, upright_outer)
    skull = np.float32(head.skull_mm) * (1 + 0.25 * v + 0.1 * c2)
    canvas.vault_mm = canvas.depth_mm = -inner

    # scalp: skin over fat over muscle at the temples and the nape; the skin folds with the texture
    low = np.clip((8 - z) / 25, 0, 1)
    temple = low * np.exp(-(((np.abs(x) - 62) / 16) ** 2) - ((y + 18) / 26) ** 2)
    nape = np.clip((-18 - z) / 25, 0, 1) * np.clip((y - 15) / 30, 0, 1)
    scalp = skull + np.float32(head.scalp_mm) + 8 * temple + 16 * nape
    blend(canvas.hu, covered(outer - scalp, width_outer), np.float32(30))
    blend(canvas.hu, covered(outer - scalp + 2.2, width_outer), -85 + 8 * canvas.texture)
    muscle = np.clip(1.6 * np.maximum(temple, nape) - 0.2, 0, 1) * (canvas.texture > -0.6)
    blend(canvas.hu, covered(outer - scalp + 3.2, width_outer) * muscle, 56 + 3 * sulci_texture)
    if z.min() < 5:
        _face(canvas, head, outer - skull, sulci_texture)

    # vault: dense tables with the spongy bone between
    vault = covered(outer - skull, width_outer)
    above = np.clip((z + 42) / 16, 0, 1) if z.min() < -26 else 1.0
    middle = 1 - np.abs(inner - skull / 2) / (skull / 2)
    bone = head.bone_hu - 500 * np.clip(middle, 0, 1) + 60 * canvas.texture
    shell = np.maximum(above, np.clip((y - 5) / 15, 0, 1)) * covered(-inner, width)
    blend(canvas.hu, vault * shell, bone)

    cavity = covered(inner, width)
    if z.min() < 5:
        floor = look_up(head.floor_mm, x, y)
        thickness = np.float32(canvas.thickness_mm)
        roof = np.clip((z - floor) / thickness + 0.5, 0, 1)
        plate = np.clip((z - floor + 5) / thickness + 0.5, 0, 1)
        blend(canvas.hu, cavity * plate, head.bone_hu * 0.8 + 150 * canvas.texture)
        cavity = cavity * roof
        canvas.depth_mm = np.minimum(canvas.depth_mm, (z - floor) * 1.0)
    canvas.cavity = cavity
    canvas.folds = sulci_texture
    tissue = paint_brain(canvas, head, sulci_texture)
    blend(canvas.hu, cavity, tissue)
    canvas.hu += cavity * np.float32(head.cupping_hu) * np.exp(np.minimum(inner, 0) / 7)


def _face(canvas: Canvas, head: Anatomy, outside: np.ndarray, fine: np.ndarray) -> None:
    """What lies below the skull base: soft tissue, sinuses with thin walls, orbits, mastoid cells."""
    x, y, z = canvas.x, canvas.y, canvas.z
    inside = covered(outside, canvas.pixel_mm) * np.clip((2 - z) / 5, 0, 1)
    soft = np.where(canvas.texture > 0.5, np.float32(-70), 52 + 4 * fine)
    blend(canvas.hu, inside, soft)
    side = np.abs(x)
    sinus = ((side < 15) & (y < -28) & (y > -78) & (z < -14)) | ((side < 32) & (y < -48) & (z < -44) & (y > -78))
    mastoid = (side > 38) & (side < 60) & (y > 12) & (y < 36) & (z < -24)
    for region, cells in ((sinus, fine), (mastoid, canvas.texture)):
        if region.any():
            walls = np.clip(1.3 - np.abs(cells) / 0.35, 0, 1)
            blend(canvas.hu, inside * region, -950 + 1500 * walls)
    for sign in (-1, 1):
        orbit = ellipsoid(canvas, np.array([sign * 31.0, -62.0, -33.0]), np.array([19.0, 27.0, 17.0]))
        if orbit:
            box, cover, distance = orbit
            blend(canvas.hu[box], np.clip(-np.abs(distance - 1) / 1.5 + 1, 0, 1), np.float32(700))
            blend(canvas.hu[box], cover, np.float32(-80))
        for centre, axes, hu in (
            ([sign * 32.0, -76.0, -33.0], [12.0, 12.0, 12.0], 22.0),
            ([sign * 26.0, -52.0, -33.0], [3.0, 16.0, 3.0], 45.0),
            ([sign * 44.0, -58.0, -33.0], [3.0, 16.0, 6.0], 50.0),
        ):
            shape = ellipsoid(canvas, np.array(centre), np.array(axes))
            if shape:
                blend(canvas.hu[shape[0]], shape[1], np.float32(hu))
