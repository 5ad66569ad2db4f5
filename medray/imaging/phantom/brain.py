"""The brain of a phantom: cortex and white matter, deep nuclei, spaces of CSF, falx and tentorium.

The tables give places in head coordinates (mm), left side where a structure is paired.
"""

from __future__ import annotations

import numpy as np

from medray.imaging.phantom.anatomy import Anatomy
from medray.imaging.phantom.paint import Canvas, band, blend, capsule, ellipsoid

Rod = tuple[tuple[float, float, float], tuple[float, float, float], float, float]
# (x, y, z) of both ends and the radii there, left side; the right is its mirror
LATERAL: tuple[Rod, ...] = (
    ((7, -30, 4), (6, -8, 14), 5.5, 5.0),
    ((6, -8, 14), (12, 14, 19), 5.0, 6.0),
    ((12, 14, 19), (23, 34, 5), 6.0, 7.5),
    ((23, 34, 5), (20, 54, 0), 7.0, 2.5),
    ((23, 34, 5), (30, 8, -16), 5.0, 2.0),
)
SYLVIAN: tuple[Rod, ...] = (
    ((28, -22, -16), (44, -14, -6), 2.4, 2.2),
    ((44, -14, -6), (57, -8, 0), 2.2, 3.2),
    ((46, -16, 0), (50, 6, 12), 2.4, 1.6),
)
# (x, y, z) centres and half axes in mm
MIDLINE = (
    ((0.0, 2.0, -2.0), (2.6, 14.0, 9.0)),
    ((0.0, 32.0, -40.0), (7.0, 6.0, 9.0)),
)
CISTERNS = (
    ((0.0, -8.0, -22.0), (15.0, 12.0, 8.0)),
    ((0.0, 16.0, -24.0), (21.0, 18.0, 7.0)),
    ((0.0, 29.0, -10.0), (12.0, 5.0, 8.0)),
    ((0.0, 8.0, -46.0), (17.0, 7.0, 12.0)),
)
# and HU above the cortex
NUCLEI = (
    ((13.0, -18.0, 8.0), (4.5, 9.0, 9.0), 0.0),
    ((25.0, -6.0, 4.0), (6.0, 15.0, 11.0), 0.0),
    ((11.0, 10.0, 6.0), (8.0, 12.0, 9.0), -1.0),
)


def paint_brain(canvas: Canvas, head: Anatomy, folds: np.ndarray) -> np.ndarray:
    """Densities inside the skull: cortex, white matter, deep nuclei, CSF spaces, falx and tentorium, as (rows, columns) HU."""
    x, y, z = canvas.x, canvas.y, canvas.z
    depth = canvas.depth_mm
    cerebellum = np.clip((tent_height(x, y) - z) / canvas.thickness_mm + 0.5, 0, 1) * (y > 12)
    crease = np.abs(folds) + np.abs(depth) * 0.012
    open_mm = np.float32(head.sulcus) * (1 - 0.75 * cerebellum)
    sulci = np.clip((open_mm - crease) * 7 + 0.5, 0, 1) * np.clip((24 - depth) / 8, 0, 1) * np.clip(depth / 2, 0, 1)
    cortex = np.maximum(
        0.7 * np.clip((0.5 - crease) * 4, 0, 1) * np.clip((28 - depth) / 8, 0, 1), np.clip(6 - depth, 0, 1)
    )
    tissue = head.white_hu + (head.grey_hu - head.white_hu) * np.maximum(cortex, 0.6 * cerebellum)
    tissue += 0.8 * canvas.texture
    everywhere = (slice(None), slice(None))
    rim = band(canvas, everywhere, depth, head.csf_rim_mm, 0.0)
    cisterns = np.zeros_like(tissue)
    ventricles = np.zeros_like(tissue)
    for sign in (-1, 1):
        for centre, axes, lift in NUCLEI:
            shape = ellipsoid(canvas, np.array([sign * centre[0], centre[1], centre[2]]), np.array(axes), rough=0.08)
            if shape:
                blend(tissue[shape[0]], shape[1], np.float32(head.grey_hu + lift))
    blend(tissue, sulci, np.float32(head.csf_hu + 3))
    for sign in (-1, 1):
        for start, end, r0, r1 in SYLVIAN:
            rod = capsule(canvas, _mirror(start, sign), _mirror(end, sign), r0, r1)
            if rod:
                np.maximum(cisterns[rod[0]], rod[1], out=cisterns[rod[0]])
        for start, end, r0, r1 in LATERAL:
            s = head.ventricle
            rod = capsule(canvas, _mirror(start, sign), _mirror(end, sign), r0 * s, r1 * s)
            if rod:
                np.maximum(ventricles[rod[0]], rod[1], out=ventricles[rod[0]])
    for centre, axes in CISTERNS:
        shape = ellipsoid(canvas, np.array(centre), np.array(axes), rough=0.3)
        if shape:
            np.maximum(cisterns[shape[0]], shape[1], out=cisterns[shape[0]])
    stem = ellipsoid(canvas, np.array([0.0, 14.0, -32.0]), np.array([14.0, 13.0, 34.0]))
    if stem:
        cisterns[stem[0]] *= 1 - stem[1]
        blend(tissue[stem[0]], stem[1], np.float32(head.white_hu + 3))
    for centre, axes in MIDLINE:
        shape = ellipsoid(canvas, np.array(centre), np.array(axes) * np.array([head.ventricle, 1, 1]))
        if shape:
            np.maximum(ventricles[shape[0]], shape[1], out=ventricles[shape[0]])
    blend(tissue, np.maximum(rim, cisterns), np.float32(head.csf_hu + 2))
    blend(tissue, ventricles, np.float32(head.csf_hu))
    cleft = band(canvas, everywhere, x - 1.5 * folds * 0.4, 0.7 + 4 * head.sulcus, 0.0)
    split = np.clip((z - falx_edge(y)) / canvas.thickness_mm + 0.5, 0, 1)
    blend(tissue, cleft * split * 0.7, np.float32(head.csf_hu + 4))
    blend(tissue, band(canvas, everywhere, x, 0.8, 0.0) * split, np.float32(head.falx_hu))
    if z.min() < 5:
        sheet = (z - tent_height(x, y)) / 1.3
        tent = band(canvas, everywhere, sheet, 0.9, 0.75) * np.clip((y - 14) / 4, 0, 1)
        blend(tissue, tent, np.float32(head.falx_hu))
    canvas.cisterns = cisterns * canvas.cavity
    canvas.ventricles = ventricles * canvas.cavity
    return tissue


def _mirror(point: tuple[float, float, float], sign: int) -> np.ndarray:
    return np.array([sign * point[0], point[1], point[2]])


def tent_height(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The tentorium: a tent whose ridge runs back along the midline and whose sides fall to the petrous bones."""
    return -2 - 0.5 * np.abs(x) - 0.18 * (y - 20)


def falx_edge(y: np.ndarray) -> np.ndarray:
    """Lower edge of the falx: above the corpus callosum in the middle, down to the base in front and the tent behind."""
    return 34 - 0.012 * (y - 5) ** 2
