from __future__ import annotations

import numpy as np
import pytest

from medray.metrics.lesions import Rules
from medray.systems.lesion.masks import SCORES, scores
from medray.systems.lesion.scores import match_of

SHAPE = (12, 12, 12)
SPACING = np.array([1.0, 1.0, 2.0])


def boxes(*starts: tuple[int, int, int, int]) -> np.ndarray:
    """uint8, cubes of 1: where each starts, and its edge."""
    mask = np.zeros(SHAPE, np.uint8)
    for d, h, w, edge in starts:
        mask[d : d + edge, h : h + edge, w : w + edge] = 1
    return mask


TRUTH = boxes((1, 1, 1, 2), (8, 8, 8, 3))  # 8 and 27 voxels of 2 mm³
FOUND = boxes((8, 8, 8, 2), (1, 8, 1, 2))  # 8 of the 27, and 8 of nothing


def scored(mask: np.ndarray, truth: np.ndarray | None, **rules: float) -> dict:
    return scores(mask, (mask * 204).astype(np.uint8), truth, SPACING, Rules(**rules))


def test_scores_by_hand() -> None:
    row = scored(FOUND, TRUTH)
    assert (row["ml"], row["true_ml"]) == (pytest.approx(0.032), pytest.approx(0.070))
    assert row["dice"] == pytest.approx(2 * 8 / (35 + 16))
    assert row["ppv"] == pytest.approx(8 / 16)
    assert row["sensitivity"] == pytest.approx(8 / 35)
    assert row["iou"] == pytest.approx(8 / 43)
    assert [(one["mm3"], one["found"]) for one in row["lesions"]] == [(16, False), (54, True)]
    assert [(one["mm3"], one["true"], one["centre_DHW"]) for one in row["findings"]] == [
        (16, False, [1.5, 8.5, 1.5]), (16, True, [8.5, 8.5, 8.5]),
    ]  # fmt: skip
    assert [one["score"] for one in row["findings"]] == [pytest.approx(0.8)] * 2
    assert row["lesions"][0]["score"] is None
    assert row["lesions"][1]["score"] == pytest.approx(0.8)


def test_a_finding_is_of_the_class_that_most_of_it_has() -> None:
    mask = boxes((1, 1, 1, 2), (8, 8, 8, 3))
    mask[8:11, 8:11, 8:10] = 2  # 18 of 27
    assert [one["class_number"] for one in scored(mask, None)["findings"]] == [1, 2]


def test_a_truth_against_itself_is_perfect() -> None:
    row = scored(TRUTH, TRUTH)
    assert [row[name] for name in SCORES] == [1, 1, 1, 1, 0, 0, 0]
    assert all(one["found"] for one in row["lesions"])
    assert all(one["true"] for one in row["findings"])


def test_what_makes_a_hit_is_one_rule_for_lesions_and_findings() -> None:
    far = boxes((8, 8, 8, 3))
    wide = boxes((7, 7, 7, 2))  # one of its 8 voxels is in the lesion's 27
    assert [one["true"] for one in scored(wide, far)["findings"]] == [True]
    strict = scored(wide, far, hit_voxels=2)
    assert [one["found"] for one in strict["lesions"]] == [False]
    assert [one["true"] for one in strict["findings"]] == [False]
    match = match_of(strict)
    assert (match.true_positive_rate, match.false_positive_rate) == (0, 1)


def test_a_finding_over_a_lesion_that_is_dropped_counts_neither_way() -> None:
    row = scored(boxes((1, 1, 1, 2), (8, 8, 8, 3)), TRUTH, least_truth_mm3=20)
    assert [one["mm3"] for one in row["lesions"]] == [54]
    assert [one["true"] for one in row["findings"]] == [None, True]
    match = match_of(row)
    assert match.true.tolist() == [True]
    assert match.false_positive_rate == 0


def test_small_findings_are_dropped_from_the_counts_by_rule() -> None:
    assert [
        one["mm3"] for one in scored(boxes((2, 2, 2, 1), (8, 8, 8, 3)), TRUTH, least_predicted_mm3=4)["findings"]
    ] == [54]


def test_what_is_unknown_is_out_of_every_figure() -> None:
    truth = TRUTH.copy()
    truth[:6] = 255  # the small lesion, and the false finding
    row = scored(FOUND, truth)
    assert row["ml"] == pytest.approx(0.016)
    assert row["true_ml"] == pytest.approx(0.054)
    assert row["dice"] == pytest.approx(2 * 8 / (27 + 8))
    assert [one["true"] for one in row["findings"]] == [True]


def test_without_a_truth_there_are_findings_and_no_scores() -> None:
    for nothing in (None, np.full(SHAPE, 255, np.uint8)):
        row = scored(FOUND, nothing)
        assert [row[name] for name in ("true_ml", "lesions", *SCORES)] == [None] * (2 + len(SCORES))
        assert row["ml"] == pytest.approx(0.032)
        assert [one["true"] for one in row["findings"]] == [None, None]


def test_empty_masks() -> None:
    empty = np.zeros(SHAPE, np.uint8)
    both = scored(empty, empty)
    assert np.isnan(both["dice"])
    assert both["hd95_mm"] == 0 or np.isnan(both["hd95_mm"])
    assert (both["lesions"], both["findings"], both["ml"], both["true_ml"]) == ([], [], 0, 0)
    missed = scored(empty, TRUTH)
    assert missed["dice"] == 0
    assert missed["hd95_mm"] == pytest.approx(np.linalg.norm(np.array(SHAPE) * SPACING), rel=0.15)  # the diagonal
    assert scored(FOUND, empty)["dice"] == 0
