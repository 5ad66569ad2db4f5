"""Mask → contours → the same mask, voxel for voxel, whatever the mask and however the slices lie."""

from __future__ import annotations

import numpy as np
import pytest

from medray.imaging.contours import NEAR_SLICE, Slices, contours_of, filled, outlines
from medray.imaging.types import Volume

CIRCLE = np.hypot(*np.ogrid[-20:20, -25:15]) < 11
RING = CIRCLE & ~(np.hypot(*np.ogrid[-20:20, -25:15]) < 6)


def on(slices: Slices, mask: np.ndarray) -> np.ndarray:
    """The mask of its own contours."""
    found = np.zeros_like(mask)
    by_slice: dict[int, list[np.ndarray]] = {}
    for number, points in contours_of(mask, slices):
        there, why = slices.slice_of(points)
        assert there == number, why
        by_slice.setdefault(number, []).append(slices.on_slice(np.round(points, 4), number))  # as a file holds them
    for number, own in by_slice.items():
        found[number] = filled(own, slices.shape_HW)
    return found


def stack(
    shape: tuple[int, int, int], row: np.ndarray, column: np.ndarray, step: np.ndarray, at: list[float] | None = None
) -> Slices:
    depth, *plane = shape
    numbers = np.arange(depth) if at is None else np.array(at)
    return Slices(np.array([-120.0, 40, 700]) + numbers[:, None] * step, row, column, (plane[0], plane[1]))


def turned(degrees: float) -> np.ndarray:
    """(3, 3) rows of a rotation about an axis that is none of the patient's."""
    axis = np.array([1.0, 2, 3]) / np.sqrt(14)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


ROW, COLUMN, STEP = np.array([0, 0.7, 0]), np.array([1.3, 0, 0]), np.array([0, 0, 2.5])
TURN = turned(25)
STACKS = {
    "axial, pixels that are not square": (ROW, COLUMN, STEP, None),
    "upside down": (ROW, COLUMN, -STEP, None),
    "oblique": (TURN @ ROW, TURN @ COLUMN, TURN @ STEP, None),
    "sagittal": (np.array([0, 0, -0.9]), np.array([0, 0.9, 0]), np.array([3.0, 0, 0]), None),
    "coronal": (np.array([0, 0, -0.9]), np.array([1.1, 0, 0]), np.array([0, 2.0, 0]), None),
    "a tilted gantry": (ROW, COLUMN, np.array([0, 0.8, 2.4]), None),
    "uneven distances": (ROW, COLUMN, STEP, [0.0, 1.0, 1.8, 4.5, 5.0]),
    "a row that runs to the right": (ROW, -COLUMN, STEP, None),
}


@pytest.mark.parametrize("name", STACKS)
def test_every_voxel_comes_back(name: str) -> None:
    """Random voxels are holes, islands, single voxels and corners that touch; more rows than columns."""
    row, column, step, at = STACKS[name]
    rng = np.random.default_rng(0)
    for share in (0.03, 0.5, 0.95):
        mask = rng.random((5, 17, 11)) < share
        assert np.array_equal(on(stack(mask.shape, row, column, step, at), mask), mask)
    round_mask = np.stack([CIRCLE, RING, CIRCLE & False, RING, CIRCLE])
    assert np.array_equal(on(stack(round_mask.shape, row, column, step, at), round_mask), round_mask)


def test_a_contour_has_four_points_or_more_and_none_within_a_straight_line() -> None:
    (single,) = outlines(np.ones((1, 1), dtype=bool))
    assert sorted(map(tuple, single.tolist())) == [(-0.5, 0), (0, -0.5), (0, 0.5), (0.5, 0)]
    (bar,) = outlines(np.ones((1, 9), dtype=bool))
    assert len(bar) == 6  # two voxels' ends of a point each, and where the long sides turn to them
    outer, inner = outlines(RING)
    assert 8 < len(outer) < 40
    assert len(inner) == 8  # an octagon
    assert outlines(np.zeros((3, 3), dtype=bool)) == []


def test_the_area_within_is_about_that_of_the_voxels() -> None:
    (outline,) = outlines(np.hypot(*np.ogrid[-50:50, -50:50]) < 40)
    y, x = outline.T
    area = abs((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2
    assert area == pytest.approx(np.pi * 40**2, rel=0.01)


def test_a_keyhole_is_a_hole_and_a_contour_in_a_hole_an_island() -> None:
    outer = np.array([[1.5, 1.5], [1.5, 12.5], [12.5, 12.5], [12.5, 1.5]])
    hole = np.array([[4.5, 4.5], [4.5, 9.5], [9.5, 9.5], [9.5, 4.5]])
    island = np.array([[6.5, 6.5], [6.5, 7.5], [7.5, 7.5], [7.5, 6.5]])
    nested = filled([outer, hole, island], (14, 14))
    assert nested.sum() == 11 * 11 - 25 + 1
    assert nested[7, 7]
    keyhole = np.vstack([outer, outer[:1], hole[::-1][-1:], hole[::-1], outer[:1]])
    assert np.array_equal(filled([keyhole], (14, 14)), filled([outer, hole], (14, 14)))


def test_what_lies_outside_the_image_is_cut_off() -> None:
    wide = np.array([[-30.5, 3.5], [-30.5, 60.5], [4.5, 60.5], [4.5, 3.5]])
    found = filled([wide], (8, 9))
    assert found[:5, 4:].all()
    assert found.sum() == 5 * 5


def test_a_contour_off_the_slices_says_why() -> None:
    slices = stack((4, 9, 9), ROW, COLUMN, STEP)
    square = np.array([[2.0, 2], [2, 5], [5, 5], [5, 2]])
    points = slices.in_mm(square, 2)
    assert slices.slice_of(points) == (2, "")
    assert slices.slice_of(points + 0.9 * NEAR_SLICE * STEP) == (2, "")
    assert slices.slice_of(points + 0.4 * STEP) == (None, "between the slices")
    assert slices.slice_of(points + 3 * STEP) == (None, "beyond the slices")
    assert slices.slice_of(points + np.linspace(0, 2, 4)[:, None] * STEP) == (None, "not parallel to the slices")


def test_on_uneven_slices_each_contour_lies_on_the_nearest_by_millimetres_and_not_by_number() -> None:
    slices = stack((5, 9, 9), ROW, COLUMN, STEP, [0.0, 1.0, 1.8, 4.5, 5.0])
    square = np.array([[2.0, 2], [2, 5], [5, 5], [5, 2]])
    assert [slices.slice_of(slices.in_mm(square, number))[0] for number in range(5)] == [0, 1, 2, 3, 4]
    assert slices.slice_of(slices.in_mm(square, 2) + 1.3 * STEP) == (None, "between the slices")


def test_the_slices_of_a_volume_are_its_first_axis() -> None:
    affine = np.array([[0, 0, -1.3, 9], [0, -0.7, 0, 8], [2.5, 0, 0, 7], [0, 0, 0, 1]], dtype=np.float64)
    slices = Slices.of(Volume(np.zeros((3, 4, 5), np.int16), affine))
    place = slices.in_mm(np.array([[2.0, 4.0]]), 1)[0]
    np.testing.assert_allclose(place, (affine @ [1, 2, 4, 1])[:3] * [-1, -1, 1])
    np.testing.assert_allclose(slices.on_slice(place[None], 1), [[2, 4]])
    np.testing.assert_allclose(np.abs(np.diff(slices.depths_mm)), 2.5)
