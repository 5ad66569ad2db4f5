"""Planes with known answers: tilted gantries, reformats, and which of them is still axial."""

from __future__ import annotations

import numpy as np
import pytest

from medray.imaging.geometry import plane_name, positions_along_mm, slice_normal, tilt_degrees

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def tilted(degrees: float) -> tuple[float, ...]:
    """A gantry that is tilted by so much: the columns of its slices run towards the feet."""
    angle = np.deg2rad(degrees)
    return (1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), -float(np.sin(angle)))


def turned_sideways(degrees: float) -> tuple[float, ...]:
    """A plane on its way from axial to sagittal."""
    angle = np.deg2rad(degrees)
    return (float(np.cos(angle)), 0.0, -float(np.sin(angle)), 0.0, 1.0, 0.0)


@pytest.mark.parametrize("tilt", [0.0, 8.0, -25.0])
def test_tilt_and_distance_of_a_sheared_stack(tilt: float) -> None:
    """The table moves along z, by more than the slices lie apart."""
    steps = [(-125.0, -120.0, k * 5.0 / np.cos(np.deg2rad(tilt))) for k in range(9)]
    assert tilt_degrees(tilted(tilt)) == pytest.approx(abs(tilt), abs=1e-6)
    assert np.diff(positions_along_mm(slice_normal(tilted(tilt)), np.array(steps))) == pytest.approx(np.full(8, 5.0))


def test_normals_point_to_the_head_however_rows_and_columns_run() -> None:
    # turned upside down in the image plane's axes, the cross product points to the feet: the normal must not
    flipped = (-1.0, 0.0, 0.0, *tilted(8)[3:])
    assert np.cross(flipped[:3], flipped[3:])[2] < 0
    assert slice_normal(flipped) == pytest.approx(slice_normal(tilted(8)))
    assert slice_normal(AXIAL).tolist() == [0, 0, 1]
    assert slice_normal(SAGITTAL).tolist() == [1, 0, 0]  # towards the patient's left
    assert slice_normal(CORONAL).tolist() == [0, 1, 0]  # towards the back


@pytest.mark.parametrize(
    ("orientation", "plane", "degrees"),
    [
        (AXIAL, "axial", 0),
        (tilted(30), "axial", 30),
        (tilted(-30), "axial", 30),
        (tilted(44), "axial", 44),
        (tilted(46), "coronal", 46),
        (CORONAL, "coronal", 90),
        (turned_sideways(44), "axial", 44),
        (turned_sideways(-60), "sagittal", 60),
        (SAGITTAL, "sagittal", 90),
    ],
)
def test_what_is_still_axial(orientation: tuple[float, ...], plane: str, degrees: float) -> None:
    assert plane_name(orientation) == plane
    assert tilt_degrees(orientation) == pytest.approx(degrees, abs=1e-6)
