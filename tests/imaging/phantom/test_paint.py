"""Coverage of pixels by shapes: volumes come out right, whatever the slices' thickness."""

from __future__ import annotations

import numpy as np
import pytest

from medray.imaging.phantom.geometry import rotation
from medray.imaging.phantom.paint import Canvas, band, capsule, ellipsoid, smooth_noise


def plane(height_mm: float, thickness_mm: float, tilt_deg: float = 0.0, pixel_mm: float = 1.0) -> Canvas:
    turn = rotation(0, tilt_deg, 0)
    steps = np.stack([turn[:, 1], turn[:, 0]]) * pixel_mm
    rows, columns = np.mgrid[-50:50, -50:50].astype(np.float32)
    point = turn[:, 2] * height_mm
    x, y, z = (
        np.float32(point[i]) + rows * np.float32(steps[0, i]) + columns * np.float32(steps[1, i]) for i in range(3)
    )
    return Canvas(x, y, z, pixel_mm, thickness_mm, steps)


@pytest.mark.parametrize("thickness_mm", [1.0, 5.0])
@pytest.mark.parametrize("tilt_deg", [0.0, 12.0])
def test_slices_of_an_ellipsoid_add_up_to_its_volume(thickness_mm: float, tilt_deg: float) -> None:
    centre, axes = np.array([5.0, -8.0, 3.0]), np.array([18.0, 25.0, 22.0])
    total = 0.0
    for height in np.arange(-40, 46, thickness_mm):
        shape = ellipsoid(plane(height, thickness_mm, tilt_deg), centre, axes)
        total += float(shape[1].sum()) * thickness_mm if shape else 0.0
    assert total == pytest.approx(4 / 3 * np.pi * axes.prod(), rel=0.03)


def test_a_sheet_thinner_than_a_pixel_is_fainter_not_wider() -> None:
    canvas = plane(0, 5.0)
    everywhere = (slice(None), slice(None))
    for half in (0.1, 0.4, 2.0):
        cover = band(canvas, everywhere, canvas.x - 0.3, half, 0.0)
        assert cover.sum(axis=1) == pytest.approx(np.full(100, 2 * half), abs=1e-3)
        assert cover.max() <= min(1.0, 2 * half) + 1e-6


def test_a_rod_through_the_slice_covers_its_cross_section() -> None:
    rod = capsule(plane(0, 5.0), np.array([0, 0, -40.0]), np.array([0, 0, 40.0]), 6.0, 6.0)
    assert rod is not None
    assert float(rod[1].sum()) == pytest.approx(np.pi * 36, rel=0.03)


def test_a_shape_far_from_the_slice_is_not_there() -> None:
    assert ellipsoid(plane(60, 5.0), np.zeros(3), np.array([10.0, 10, 10])) is None


def test_noise_tables_have_unit_variance() -> None:
    table = smooth_noise(np.random.default_rng(0), 3, 12.0)
    assert table.std(axis=(1, 2)) == pytest.approx(np.ones(3), abs=1e-3)
