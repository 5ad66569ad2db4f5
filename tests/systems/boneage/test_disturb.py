from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from medray.systems.boneage.stages.disturb import Disturbed, moved, moved_points
from medray.systems.boneage.stages.mask_task import MaskTask, largest_part
from medray.systems.boneage.stages.point_task import COORDINATES, PointTask
from medray.systems.boneage.stages.rows import in_square, points_in_square, points_of_film, scale_of

SPOTS = np.array([[20.0, 15.0], [44.0, 30.0], [25.0, 50.0]])


def film(rows: int = 64, columns: int = 56) -> np.ndarray:
    """Three round spots of different brightness."""
    image = np.zeros((rows, columns), np.uint8)
    for (x, y), grey in zip(SPOTS, (250, 170, 90), strict=True):
        cv2.circle(image, (int(x), int(y)), 3, grey, -1)
    return image


def centres(image: np.ndarray) -> list[np.ndarray]:
    """Of the bright spots, x and y, by brightness."""
    _, labels, _, places = cv2.connectedComponentsWithStats((image > 40).astype(np.uint8))
    greys = [image[labels == i].max() for i in range(1, len(places))]
    return [places[1 + i] for i in np.argsort(greys)[::-1]]


@pytest.mark.parametrize("seed", range(6))
def test_points_go_where_pixels_go(seed: int) -> None:
    task = Disturbed(rotate_deg=25.0, shift=0.05, zoom=0.1)
    matrix = task.pose(np.random.default_rng(seed), 64, 56, mirror=True)
    found = centres(moved(film(), matrix))
    for x, y in zip(found, moved_points(SPOTS, matrix), strict=False):
        assert np.abs(x - y).max() < 1.0


def test_half_of_the_poses_are_mirrored_where_they_may_be() -> None:
    task = Disturbed()
    turned = [np.linalg.det(task.pose(np.random.default_rng(s), 10, 10, mirror=True)[:, :2]) < 0 for s in range(400)]
    assert 150 < sum(turned) < 250
    assert all(np.linalg.det(task.pose(np.random.default_rng(s), 10, 10)[:, :2]) > 0 for s in range(100))


def test_what_is_black_stays_black() -> None:
    task = replace(Disturbed(), contrast=0.5)
    for seed in range(20):
        out = task.exposure(film(), np.random.default_rng(seed))
        assert not out[film() == 0].any()


@pytest.mark.parametrize("shape", [(64, 56), (40, 120), (300, 200)])
def test_points_of_a_square_find_back_to_the_film(shape: tuple[int, int]) -> None:
    scale = scale_of(*shape, 96)
    assert points_of_film(points_in_square(SPOTS, scale), scale) == pytest.approx(SPOTS)
    square = in_square(cv2.resize(film(), shape[::-1], interpolation=cv2.INTER_NEAREST), 96)
    assert square.shape == (96, 96)
    rows, columns = (round(n * scale) for n in shape)
    assert not square[rows:].any()
    assert not square[:, columns:].any()


def test_a_pixel_of_the_film_is_where_its_point_is_in_the_square() -> None:
    large = cv2.resize(film(), (560, 640), interpolation=cv2.INTER_NEAREST)
    scale = scale_of(640, 560, 64)
    for found, point in zip(
        centres(in_square(large, 64)), points_in_square((SPOTS + 0.5) * 10 - 0.5, scale), strict=True
    ):
        assert np.abs(found - point).max() < 0.6


def test_a_point_that_left_the_square_is_unknown() -> None:
    task = PointTask(side_px=64, channels=(4,), shift=0.9, rotate_deg=0.0, zoom=0.0, flip=False)
    row = {
        "film_id": "a",
        "patient_id": "p",
        "rows": 64,
        "columns": 56,
        "image": film().tobytes(),
        "points": SPOTS.ravel().tolist(),
    }
    lost = [np.isnan(task.train_example(row, np.random.default_rng(s))["points"]).any() for s in range(20)]
    assert any(lost)
    for seed in range(20):
        points = task.train_example(row, np.random.default_rng(seed))["points"]
        assert (np.abs(points[~np.isnan(points)]) <= 1).all()


def test_points_that_are_marked_in_part_are_learned_in_part() -> None:
    task = PointTask(side_px=64, channels=(4,))
    row = {"film_id": "a", "patient_id": "p", "rows": 64, "columns": 56, "image": film().tobytes()}
    some = task.example(row | {"points": [20.0, 15.0, None, None, 25.0, 50.0]})["points"]
    assert np.isnan(some).tolist() == [False, False, True, True, False, False]
    assert np.isnan(task.example(row | {"points": None})["points"]).all()


def test_the_mirrored_view_of_a_film_gives_the_same_points_again() -> None:
    """A network that answers with the middle of the brightest spot, whichever way the film lies."""
    import torch

    task = PointTask(side_px=64, channels=(4,))
    row = {
        "film_id": "a",
        "patient_id": "p",
        "rows": 64,
        "columns": 56,
        "image": film().tobytes(),
        "points": SPOTS.ravel().tolist(),
    }
    batch = {k: torch.from_numpy(v) if v.dtype != object else v for k, v in task.collate([task.example(row)]).items()}

    class Seeing(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            found = [np.concatenate(centres(image[0].numpy())) for image in images]
            return torch.tensor(np.array([task._parts(one.reshape(3, 2)) for one in found]))

    out = task.outputs(Seeing(), batch)
    assert [out[name][0] for name in COORDINATES] == pytest.approx(SPOTS.ravel(), abs=0.5)
    assert out["error_px"][0] < 0.5


def test_the_largest_part_counts_and_its_holes_are_filled() -> None:
    probability = np.zeros((40, 40))
    probability[5:30, 5:25] = 0.9
    probability[15:18, 10:13] = 0.1
    probability[32:38, 30:38] = 0.8
    hand, share, second = largest_part(probability)
    assert hand.sum() == 25 * 20
    assert share == pytest.approx(500 / 1600)
    assert second == pytest.approx(48 / (500 - 9))
    assert largest_part(np.zeros((4, 4)))[1:] == (0.0, 0.0)


def test_a_mask_follows_its_film() -> None:
    task = MaskTask(side_px=64, width=2, rotate_deg=30.0, contrast=0.0)
    mask = (film() > 0).astype(np.uint8)
    row = {
        "film_id": "a",
        "patient_id": "p",
        "rows": 64,
        "columns": 56,
        "image": film().tobytes(),
        "mask": mask.tobytes(),
    }
    for seed in range(10):
        made = task.train_example(row, np.random.default_rng(seed))
        bright = made["image"][0] > 45
        drawn = made["mask"][0] == 1
        assert (bright & drawn).sum() / (bright | drawn).sum() > 0.7
