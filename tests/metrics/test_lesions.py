from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medray.imaging.volume import read_volume
from medray.metrics.lesions import (
    Components,
    LesionMatch,
    Rules,
    free_response,
    match_lesions,
    recall_by_size,
    without_small,
)
from medray.metrics.overlap import Overlap
from medray.metrics.surface import SurfaceDistances

SHAPE = (12, 12, 12)


def mask(*boxes: tuple[slice, slice, slice]) -> np.ndarray:
    found = np.zeros(SHAPE, bool)
    for box in boxes:
        found[box] = True
    return found


def at(d: int, h: int, w: int, size: int = 1, deep: int = 1) -> tuple[slice, slice, slice]:
    return slice(d, d + deep), slice(h, h + size), slice(w, w + size)


def test_connectivity_is_over_faces_edges_or_corners() -> None:
    steps = mask(at(1, 1, 1), at(1, 1, 2), at(1, 2, 3), at(2, 3, 4))  # a face, an edge, a corner
    assert [len(Components.of(steps, 1.0, c)) for c in (6, 18, 26)] == [3, 2, 1]
    with pytest.raises(ValueError, match="6, 18 or 26"):
        Rules(connectivity=8)


def test_components_have_volumes_and_centres() -> None:
    found = Components.of(mask(at(1, 1, 1), at(5, 4, 4, size=3), at(9, 9, 9, size=2)), 2.0, least_mm3=3)
    assert found.mm3.tolist() == [18, 8]
    assert found.centres().tolist() == [[5, 5, 5], [9, 9.5, 9.5]]
    assert sorted(np.unique(found.labels).tolist()) == [0, 1, 2]
    assert without_small(mask(at(1, 1, 1), at(5, 4, 4, size=3)), 1.0, 2).sum() == 9
    assert not len(Components.of(np.zeros(SHAPE, bool), 1.0))


def test_the_site_of_a_lesion_is_where_most_of_it_lies() -> None:
    found = Components.of(mask(at(1, 1, 1, size=2), at(5, 1, 1, size=3), at(9, 9, 9)), 1.0)
    atlas = np.zeros(SHAPE, np.int16)
    atlas[:, 2:], atlas[5, 1:3], atlas[9] = 7, 3, 300
    assert found.sites(atlas).tolist() == [0, 3, 300]  # of the first half in 0 and half in 7
    assert len(Components.of(np.zeros(SHAPE, bool), 1.0).sites(atlas)) == 0
    with pytest.raises(ValueError, match="resample it"):
        found.sites(atlas[1:])


TRUTH = mask(at(1, 1, 1, size=2), at(5, 1, 1, size=4), at(9, 9, 9))  # of 4, 16 and 1 voxels
PREDICTED = mask(at(1, 2, 2, size=2), at(5, 1, 1, size=2), at(8, 1, 8, size=3))  # of 4, 4 and 9 voxels
# 1 of the first lesion's 4 voxels is met, 4 of the second's 16, none of the third


@pytest.mark.parametrize(
    ("rules", "found", "true"),
    [
        (Rules(), [True, True, False], [True, True, False]),
        (Rules(hit_voxels=2), [False, True, False], [False, True, False]),
        (Rules(hit_fraction=0.25), [True, True, False], [True, True, False]),
        (Rules(hit_fraction=0.3), [False, False, False], [False, True, False]),
        (Rules(least_truth_mm3=2), [True, True], [True, True, False]),
        (Rules(least_predicted_mm3=5), [False, False, False], [False]),
        (Rules(least_truth_mm3=5), [True], [True, False]),  # what lies over the dropped lesion is not counted
    ],
)
def test_what_a_hit_is_and_what_is_dropped_are_fields(rules: Rules, found: list[bool], true: list[bool]) -> None:
    match = match_lesions(TRUTH, PREDICTED, 1.0, rules)
    assert match.found.tolist() == found
    assert match.true.tolist() == true


def test_rates_by_hand() -> None:
    match = match_lesions(TRUTH, PREDICTED, 1.0)
    assert match.true_positive_rate == pytest.approx(2 / 3)
    assert match.false_positive_rate == pytest.approx(1 / 3)
    assert match.f1 == pytest.approx(2 / 3)
    assert match.truth_mm3.tolist() == [4, 16, 1]
    with pytest.raises(ValueError, match="a hit of 0 voxels"):
        Rules(hit_voxels=0)


@pytest.mark.parametrize(
    ("truth", "predicted", "rates"),
    [
        (False, False, [np.nan, np.nan, np.nan]),
        (True, False, [0, np.nan, 0]),
        (False, True, [np.nan, 1, 0]),
        (True, True, [1, 0, 1]),
    ],
)
def test_empty_masks(truth: bool, predicted: bool, rates: list[float]) -> None:
    match = match_lesions(TRUTH & truth, TRUTH & predicted, 1.0)
    assert [match.true_positive_rate, match.false_positive_rate, match.f1] == pytest.approx(rates, nan_ok=True)


def test_recall_by_size_over_scans() -> None:
    match = match_lesions(TRUTH, PREDICTED, 1.0)
    assert recall_by_size([match, match], (0, 4, 16, 100)) == [(0, 4, 2, 0), (4, 16, 2, 2), (16, 100, 2, 2)]
    assert recall_by_size([], (0, 10)) == [(0, 10, 0, 0)]


def test_free_response_by_hand() -> None:
    probability = np.zeros(SHAPE)
    probability[PREDICTED] = 0.5
    probability[1, 3, 3], probability[8, 2, 9] = 0.9, 0.7  # of the first finding, and of the false one
    match = match_lesions(TRUTH, PREDICTED, 1.0, probability=probability)
    assert match.predicted_score.tolist() == [0.9, 0.5, 0.7]
    assert match.truth_score.tolist() == [0.9, 0.5, -np.inf]
    empty = match_lesions(TRUTH & False, PREDICTED & False, 1.0)
    points = free_response([match, empty])
    assert points == pytest.approx(np.array([[0.9, 0, 1 / 3], [0.7, 0.5, 1 / 3], [0.5, 0.5, 2 / 3]]))
    assert len(free_response([empty])) == 0


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("patient", "ml", "counts"), [("patient26", 8.227, [27, 19, 19]), ("patient07", 1.300, [49, 38, 37])]
)
def test_real_lesions(ms_mri_dir: Path, patient: str, ml: float, counts: list[int]) -> None:
    volume = read_volume((ms_mri_dir / patient / "GOLD_STANDARD.nii.gz").read_bytes())
    truth = volume.voxels > 0
    assert round(truth.sum() * volume.voxel_mm3 / 1000, 3) == ml
    assert [len(Components.of(truth, volume.voxel_mm3, c)) for c in (6, 18, 26)] == counts
    match: LesionMatch = match_lesions(truth, truth, volume.voxel_mm3)
    assert [Overlap.of(truth, truth).dice, match.true_positive_rate, match.false_positive_rate] == [1, 1, 0]
    assert SurfaceDistances.of(truth, truth, volume.spacing_mm).hausdorff_mm == 0
    if patient == "patient07":
        small = Rules(least_truth_mm3=3, least_predicted_mm3=3)
        assert len(match_lesions(truth, truth, volume.voxel_mm3, small).found) == 38 - 7
