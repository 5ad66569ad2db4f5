"""Registration of the 40 real films, whose points were marked by eye. 40 films: no claim of accuracy."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from medray.imaging.radiograph import read_film
from medray.systems.boneage.stages.canvas import CAPITATE_XY, COLUMNS_PX, ROWS_PX, TIP_XY, cut, register

MARKED = pd.read_csv(Path(__file__).with_name("real_points.csv"), dtype={"film": str}).set_index("film")
NAMES = [f"{point}_{axis}" for point in ("tip", "thumb", "capitate") for axis in "xy"]
WHOLE = MARKED[MARKED[NAMES].notna().all(axis=1)]  # on the others the thumb's tip is not on the film


def points_of(film: str) -> np.ndarray:
    return WHOLE.loc[film, NAMES].to_numpy(dtype=np.float64).reshape(3, 2)


def disturbance(seed: int) -> np.ndarray:
    """(3, 3) a rotation by ±30°, a scale of .7 to 1.3, a shift, and for every second film a mirror image, onto a larger film."""
    rng = np.random.default_rng(seed)
    angle, scale = np.deg2rad(rng.uniform(-30, 30)), rng.uniform(0.7, 1.3)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if seed % 2:
        linear = linear @ np.diag([-1.0, 1.0])
    middle = np.array([COLUMNS_PX / 2, ROWS_PX / 2])
    shift = np.array([1500.0, 1500.0]) + rng.uniform(-50, 50, 2) - linear @ middle
    return np.vstack([np.column_stack([linear, shift]), [0, 0, 1]])


def test_most_films_show_all_three_points() -> None:
    assert len(MARKED) == 40
    assert len(WHOLE) == 28


@pytest.mark.parametrize("film", WHOLE.index)
def test_a_disturbance_is_undone_to_a_pixel_and_the_thumbs_side_is_found(film: str) -> None:
    points, seed = points_of(film), int(film)
    plain = register(points, ROWS_PX, COLUMNS_PX)
    assert plain.mirrored == (film == "2838")  # the one film that is mirrored on the source's own canvas
    matrix = disturbance(seed)
    moved = points @ matrix[:2, :2].T + matrix[:2, 2]
    found = register(moved, 3000, 3000)
    assert np.abs(found.to_canvas(moved) - plain.to_canvas(points)).max() <= 1.0
    assert np.abs(found.to_canvas(moved)[[0, 2]] - [TIP_XY, CAPITATE_XY]).max() <= 1.0
    assert found.to_canvas(moved)[1, 0] > COLUMNS_PX / 2  # the thumb is on the right, wherever it was
    assert found.mirrored == (plain.mirrored != bool(seed % 2))
    linear = found.matrix[:, :2]
    assert np.allclose(linear @ linear.T, np.eye(2) * found.scale**2)  # aspect kept


@pytest.mark.real_data
@pytest.mark.parametrize("film", ["1437", "2838"])
def test_the_pixels_of_a_disturbed_film_come_back(film: str, hand_dir: Path) -> None:
    image = read_film((hand_dir / "images" / f"{film}.png").read_bytes()).grey
    points, matrix = points_of(film), disturbance(int(film))
    moved = cv2.warpAffine(image, matrix[:2], (3000, 3000))
    there = points @ matrix[:2, :2].T + matrix[:2, 2]
    before = cut(image, register(points, *image.shape), "A", 0.25)
    after = cut(moved, register(there, *moved.shape), "A", 0.25)
    shown = (before > 0) & (after > 0)
    assert shown.mean() > 0.2
    assert np.corrcoef(before[shown], after[shown])[0, 1] > 0.99
