from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from volume_files import OBLIQUE

from medray.imaging.types import Volume, VolumeHeader
from medray.imaging.volume_grid import (
    axis_codes,
    canonical,
    difference,
    reoriented,
    resampled,
    same_grid,
)

VOXELS = np.random.default_rng(0).normal(size=(7, 9, 11)).astype(np.float32)
VOLUME = Volume(VOXELS, OBLIQUE)
CODES = ["".join(ends) for axes in permutations(["RL", "AP", "SI"]) for ends in product(*axes)]


def moved(**changes: object) -> Volume:
    affine = OBLIQUE.copy()
    for place, value in changes.items():
        affine[int(place[1]), int(place[2])] += value  # type: ignore[operator]
    return Volume(VOXELS, affine)


def test_one_grid_within_a_twentieth_of_a_voxel() -> None:
    assert same_grid(VOLUME, VOLUME)
    assert difference(VOLUME, VOLUME) == ""
    assert same_grid(VOLUME, moved(a03=0.04))
    assert not same_grid(VOLUME, moved(a03=0.06))
    assert same_grid(VOLUME, moved(a03=0.06), tolerance=0.1)
    assert same_grid(VOLUME, VolumeHeader("nifti", (7, 9, 11), OBLIQUE, "float32"))


def test_what_differs_is_said() -> None:
    assert difference(moved(a03=1.0), VOLUME) == "origin (41.00, -50.00, -20.00) mm, not (40.00, -50.00, -20.00)"
    assert difference(Volume(VOXELS[1:], OBLIQUE), VOLUME) == "shape 6 × 9 × 11, not 7 × 9 × 11"
    larger = Volume(VOXELS, OBLIQUE @ np.diag([1, 1, 2, 1]))
    assert "spacing 0.98691 × 1.919 × 5.8318 mm, not 0.98691 × 1.919 × 2.9159" in difference(larger, VOLUME)
    assert "orientation RAS, not LAS" in difference(canonical(VOLUME), VOLUME)
    assert "turned by" in difference(moved(a01=0.1), VOLUME)
    assert difference(Volume(VOXELS, OBLIQUE @ np.diag([1, 1, 1.003, 1])), VOLUME) != ""
    assert "far corner" in difference(Volume(VOXELS, OBLIQUE @ np.diag([1, 1, 1.0009, 1])), VOLUME, tolerance=0.01)


@pytest.mark.parametrize("codes", CODES)
def test_another_orientation_moves_no_voxel_and_leads_back(codes: str) -> None:
    turned = reoriented(VOLUME, codes)
    assert axis_codes(turned) == codes
    for index in [(0, 0, 0), (6, 2, 10), (3, 8, 1)]:
        place = OBLIQUE @ [*index, 1]
        there = np.rint(np.linalg.solve(turned.affine, place)[:3]).astype(int)
        assert np.allclose(turned.affine @ [*there, 1], place)
        assert turned.voxels[tuple(there)] == VOXELS[index]
    back = reoriented(turned, "LAS")
    assert np.array_equal(back.voxels, VOXELS)
    assert np.allclose(back.affine, OBLIQUE, atol=1e-12)


@pytest.mark.parametrize("codes", ["RAA", "RA", "RASS", "XYZ", ""])
def test_codes_that_are_none(codes: str) -> None:
    with pytest.raises(ValueError, match="one of each"):
        reoriented(VOLUME, codes)


def test_resampling_is_trilinear_in_the_patients_space() -> None:
    """A linear function of the place in mm is met exactly, whatever grids lie in between."""
    index = np.stack(np.meshgrid(*map(np.arange, (20, 20, 20)), indexing="ij"), axis=-1)
    source = Volume((index @ [1.0, 2, 3]).astype(np.float32), np.diag([2.0, 2, 2, 1]))
    fine = np.array([[0, 0.9, 0.1, 4], [-0.8, 0, 0, 30], [0, 0.1, 1.1, 6], [0, 0, 0, 1]])
    like = VolumeHeader("nifti", (12, 10, 9), fine, "uint8")
    found = resampled(source, like, order=1)
    assert found.voxels.shape == (12, 10, 9)
    assert found.voxels.dtype == np.float32
    inner = np.stack(np.meshgrid(*map(np.arange, (12, 10, 9)), indexing="ij"), axis=-1)
    places = inner @ fine[:3, :3].T + fine[:3, 3]
    assert np.allclose(found.voxels, places / 2 @ [1.0, 2, 3], atol=1e-3)


def test_labels_keep_their_values_and_orientation_alone_loses_nothing() -> None:
    labels = Volume(np.random.default_rng(1).integers(0, 4, VOXELS.shape).astype(np.uint8), OBLIQUE)
    turned = reoriented(labels, "PIR")
    back = resampled(turned, labels, order=0)
    assert back.voxels.dtype == np.uint8
    assert np.array_equal(back.voxels, labels.voxels)
    assert np.array_equal(resampled(labels, VOLUME, order=0).voxels, labels.voxels)
    assert not resampled(labels, moved(a03=1000), order=0).voxels.any()
    with pytest.raises(ValueError, match="order 3"):
        resampled(labels, VOLUME, order=3)
