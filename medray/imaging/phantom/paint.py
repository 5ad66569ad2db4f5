"""Painting solids onto one slice: coverage of a pixel by a shape, averaged over the slice's thickness.

A shape is given by an approximate signed distance in mm (negative inside). Its coverage of a pixel runs linearly from 1
to 0 over the pixel's width where the surface stands upright on the slice, and over the slice's thickness where the
surface lies flat in it: that is the partial volume effect, in one formula, without drawing anything twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

Box = tuple[slice, slice]
Density = np.ndarray | np.floating | float  # HU, of each pixel or of all
TEXTURE_MM = 2.0  # pixel size of the texture tables
TEXTURE_PX = 128  # so that a table spans 256 mm, centred on the head


@dataclass
class Canvas:
    """The rectangle of one slice that holds the head, in head coordinates (x left, y back, z up; mm), and its image.

    ``hu`` is painted in place. The coverages are left behind by the anatomy for bleeds and look-alikes to follow.
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    pixel_mm: float
    thickness_mm: float
    rows_xyz: np.ndarray  # (2, 3): step of one pixel down / to the right, in head coordinates
    hu: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    vault_mm: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))  # depth below the vault's inner table
    depth_mm: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))  # below vault or base
    cavity: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    cisterns: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    ventricles: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    folds: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))  # the brain folds along its zero lines
    texture: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))  # about unit variance, 10 mm grain

    @property
    def z_mm(self) -> float:
        """Height of the rectangle's centre above the head's origin."""
        return float(self.z[self.z.shape[0] // 2, self.z.shape[1] // 2])

    def box(self, centre_mm: np.ndarray, reach_mm: float) -> Box | None:
        """The pixels within ``reach_mm`` of a point, or None where the slice passes it by."""
        steps = self.rows_xyz / self.pixel_mm**2
        offset = centre_mm - self.origin
        row, col = steps @ offset
        away = offset - self.rows_xyz.T @ np.array([row, col])
        reach_mm += self.thickness_mm
        if float(away @ away) > reach_mm**2:
            return None
        half = reach_mm / self.pixel_mm + 1
        r0, r1 = max(0, int(row - half)), min(self.x.shape[0], int(row + half) + 1)
        c0, c1 = max(0, int(col - half)), min(self.x.shape[1], int(col + half) + 1)
        return None if r0 >= r1 or c0 >= c1 else (slice(r0, r1), slice(c0, c1))

    @property
    def origin(self) -> np.ndarray:
        """Head coordinates of the rectangle's first pixel."""
        return np.array([self.x[0, 0], self.y[0, 0], self.z[0, 0]], np.float64)


def covered(distance_mm: np.ndarray, width_mm: np.ndarray | float) -> np.ndarray:
    """Coverage 0..1 of a pixel at ``distance_mm`` from a surface that blurs over ``width_mm``."""
    out = 0.5 - distance_mm / width_mm
    return np.clip(out, 0.0, 1.0, out=out)


def blur_mm(canvas: Canvas, upright: np.ndarray | float) -> np.ndarray | float:
    """Width of an edge whose unit normal has the component ``upright`` along the head's axis."""
    return np.sqrt(canvas.pixel_mm**2 + (canvas.thickness_mm * upright) ** 2)


def blend(image: np.ndarray, coverage: np.ndarray, hu: Density) -> None:
    """Mix ``hu`` into the image by coverage, in place."""
    image += coverage * (hu - image)


def ellipsoid(
    canvas: Canvas, centre: np.ndarray, axes: np.ndarray, turn: np.ndarray | None = None, rough: float = 0.0
) -> tuple[Box, np.ndarray, np.ndarray] | None:
    """Coverage of an ellipsoid: (pixels concerned, coverage, signed distance in mm), or None if off the slice.

    ``turn`` (3, 3) takes head coordinates to the ellipsoid's own; ``rough`` moves its surface by the canvas's texture,
    as a fraction of its smallest axis.
    """
    box = canvas.box(centre, float(axes.max()) * (1 + rough) + 6)
    if box is None:
        return None
    v = [canvas.x[box] - centre[0], canvas.y[box] - centre[1], canvas.z[box] - centre[2]]
    if turn is not None:
        v = [turn[i, 0] * v[0] + turn[i, 1] * v[1] + turn[i, 2] * v[2] for i in range(3)]
    u = [v[i] / np.float32(axes[i]) for i in range(3)]
    g = [u[i] / np.float32(axes[i]) for i in range(3)]
    q = np.sqrt(u[0] ** 2 + u[1] ** 2 + u[2] ** 2)
    slope = np.sqrt(g[0] ** 2 + g[1] ** 2 + g[2] ** 2) + np.float32(1e-6)
    distance = (q - 1) * q / slope
    upright = g[2] if turn is None else turn[0, 2] * g[0] + turn[1, 2] * g[1] + turn[2, 2] * g[2]
    width = blur_mm(canvas, upright / slope)
    if rough:
        distance += np.float32(rough * axes.min()) * canvas.texture[box]
    return box, covered(distance, width), distance


def capsule(
    canvas: Canvas, start: np.ndarray, end: np.ndarray, radius_start: float, radius_end: float
) -> tuple[Box, np.ndarray] | None:
    """Coverage of a tapered round rod between two points, or None where it does not touch the slice."""
    middle = (start + end) / 2
    along = end - start
    length2 = float(along @ along) + 1e-6
    box = canvas.box(middle, np.sqrt(length2) / 2 + max(radius_start, radius_end))
    if box is None:
        return None
    vx, vy, vz = canvas.x[box] - start[0], canvas.y[box] - start[1], canvas.z[box] - start[2]
    t = np.clip((vx * along[0] + vy * along[1] + vz * along[2]) / length2, 0, 1)
    vx -= t * along[0]
    vy -= t * along[1]
    vz -= t * along[2]
    far = np.sqrt(vx**2 + vy**2 + vz**2) + np.float32(1e-6)
    width = blur_mm(canvas, vz / far)
    return box, covered(far - (radius_start + (radius_end - radius_start) * t), width)


def band(canvas: Canvas, box: Box, distance_mm: np.ndarray, half_mm: float, upright: np.ndarray | float) -> np.ndarray:
    """Coverage by a sheet of half thickness ``half_mm`` around the surface ``distance_mm`` = 0: the exact overlap of
    the sheet with the blurred pixel, so that a sheet thinner than a pixel is fainter and not wider."""
    width = blur_mm(canvas, upright)
    return np.clip((distance_mm + half_mm) / width + 0.5, 0, 1) - np.clip((distance_mm - half_mm) / width + 0.5, 0, 1)


def smooth_noise(rng: np.random.Generator, layers: int, grain_mm: float) -> np.ndarray:
    """(layers, 128, 128) tables of smooth noise of unit variance at 2 mm a pixel."""
    out = rng.standard_normal((layers, TEXTURE_PX, TEXTURE_PX), dtype=np.float32)
    sigma = grain_mm / TEXTURE_MM / 2.5
    for layer in out:
        fine = cv2.GaussianBlur(layer, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
        coarse = cv2.GaussianBlur(layer, (0, 0), 2 * sigma, borderType=cv2.BORDER_REFLECT)
        layer[...] = fine - coarse  # band-passed: its zero lines are evenly spaced, as sulci are
        layer /= layer.std()
    return out


def look_up(table: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A texture table at head coordinates, linearly interpolated."""
    scale, shift = np.float32(1 / TEXTURE_MM), np.float32(TEXTURE_PX / 2)
    return cv2.remap(table, x * scale + shift, y * scale + shift, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
