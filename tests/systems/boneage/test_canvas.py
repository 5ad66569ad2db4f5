from __future__ import annotations

import numpy as np
import pytest

from medray.systems.boneage.stages.canvas import (
    CAPITATE_XY,
    COLUMNS_PX,
    REGIONS,
    ROWS_PX,
    TIP_XY,
    cut,
    on_canvas,
    register,
    size_px,
    whole_film,
)

HAND = np.array([TIP_XY, (1450.0, 900.0), CAPITATE_XY])  # as on the canvas


def similarity(angle_deg: float, scale: float, shift: tuple[float, float], mirror: bool) -> np.ndarray:
    """(2, 3), about the middle of the canvas."""
    angle = np.deg2rad(angle_deg)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = linear @ np.diag([-1.0 if mirror else 1.0, 1.0])
    middle = np.array([800.0, 1040.0])
    return np.column_stack([linear, middle + np.array(shift) - linear @ middle])


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("angle_deg", [-30.0, 0.0, 17.0, 30.0])
@pytest.mark.parametrize("scale", [0.7, 1.0, 1.3])
def test_a_disturbance_is_undone(angle_deg: float, scale: float, mirror: bool) -> None:
    matrix = similarity(angle_deg, scale, (40.0, -60.0), mirror)
    disturbed = HAND @ matrix[:, :2].T + matrix[:, 2] + 1000  # on a larger film
    found = register(disturbed, 4000, 4000)
    assert np.abs(found.to_canvas(disturbed) - HAND).max() < 1e-6
    assert found.mirrored == mirror
    assert found.scale == pytest.approx(1 / scale)
    linear = found.matrix[:, :2]
    assert np.allclose(linear @ linear.T, np.eye(2) / scale**2)  # aspect kept: rotation, reflection and one scale


def test_pixels_land_where_points_do() -> None:
    """A bright spot at each point of a turned, mirrored film is at the point's place on the canvas."""
    matrix = similarity(20.0, 0.8, (10.0, 20.0), True)
    points = HAND @ matrix[:, :2].T + matrix[:, 2]
    film = np.zeros((ROWS_PX, COLUMNS_PX), np.uint8)
    ys, xs = np.mgrid[0:ROWS_PX, 0:COLUMNS_PX]
    for x, y in points:
        film = np.maximum(film, (255 * np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / 200)).astype(np.uint8))
    found = register(points, *film.shape)
    for scale in (0.25, 0.5, 1.0):
        image = cut(film, found, "A", scale)
        assert image.shape == size_px("A", scale)
        box = REGIONS["A"]
        for x, y in HAND:
            row, column = ((y - box.top + 0.5) * scale - 0.5, (x - box.left + 0.5) * scale - 0.5)
            around = image[round(row) - 8 : round(row) + 9, round(column) - 8 : round(column) + 9].astype(float)
            places = np.mgrid[-8:9, -8:9]
            centre = [(around * axis).sum() / around.sum() for axis in places]
            assert abs(round(row) + centre[0] - row) < 0.6
            assert abs(round(column) + centre[1] - column) < 0.6


def test_what_lies_on_the_canvas_is_cut_as_it_is() -> None:
    film = np.random.default_rng(0).integers(0, 255, (ROWS_PX, COLUMNS_PX), np.uint8)
    box = REGIONS["B"]
    expected = film[box.top : box.top + box.rows, box.left : box.left + box.columns]
    assert np.array_equal(cut(film, on_canvas(ROWS_PX, COLUMNS_PX), "B", 1.0), expected)
    assert np.array_equal(cut(film, register(HAND, ROWS_PX, COLUMNS_PX), "B", 1.0), expected)
    assert cut(film[:1040, :800], on_canvas(1040, 800), "C", 0.5).shape == (300, 700)
    with pytest.raises(ValueError, match="proportions"):
        on_canvas(800, 800)


def test_a_film_that_nobody_registered_lies_whole_in_the_middle() -> None:
    film = np.full((300, 400), 200, np.uint8)
    image = cut(film, whole_film(300, 400), "A", 0.25)
    rows = np.flatnonzero(image.max(axis=1) > 100)
    assert image.shape == (500, 375)
    assert (rows[0] + rows[-1]) / 2 == pytest.approx(249.5, abs=1)
    assert len(rows) == pytest.approx(375 * 300 / 400, abs=2)


def test_a_thumb_a_little_beyond_the_film_still_tells_its_side() -> None:
    assert not register(np.array([TIP_XY, (1640.0, 900.0), CAPITATE_XY]), ROWS_PX, COLUMNS_PX).mirrored


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        ([TIP_XY, (1800.0, 900.0), CAPITATE_XY], "the thumb lies outside of the film"),
        ([TIP_XY, (1450.0, 900.0), (800.0, 2100.0)], "the wrist lies outside of the film"),
        ([(800.0, 1500.0), (900.0, 1550.0), CAPITATE_XY], "100 pixels apart"),
        ([TIP_XY, (850.0, 900.0), CAPITATE_XY], "axis of the hand"),
        ([(800.0, 100.0), (1500.0, 2050.0), (800.0, 900.0)], "nowhere near the hand"),
        ([TIP_XY, (np.nan, np.nan), CAPITATE_XY], "a point is missing"),
    ],
)
def test_points_of_no_hand_are_refused(points: list[tuple[float, float]], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        register(np.array(points), ROWS_PX, COLUMNS_PX)
