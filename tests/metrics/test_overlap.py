from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from medray.metrics.overlap import Overlap

NONE, SOME = np.zeros((4, 5, 6), bool), np.zeros((4, 5, 6), bool)
SOME[1:3, 2, 2:5] = True


def test_equal_to_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.random((9, 8, 7)) < 0.2, rng.random((9, 8, 7)) < 0.3
    found = Overlap.of(truth, predicted)
    t, p = truth.ravel(), predicted.ravel()
    assert found.dice == pytest.approx(f1_score(t, p), abs=1e-12)
    assert found.iou == pytest.approx(jaccard_score(t, p), abs=1e-12)
    assert found.predictive_value == pytest.approx(precision_score(t, p), abs=1e-12)
    assert found.sensitivity == pytest.approx(recall_score(t, p), abs=1e-12)
    assert found.volume_difference == pytest.approx((p.sum() - t.sum()) / t.sum())


def test_equal_to_monais() -> None:
    import torch
    from monai.metrics import compute_dice, compute_iou

    rng = np.random.default_rng(1)
    truth, predicted = rng.random((9, 8, 7)) < 0.2, rng.random((9, 8, 7)) < 0.3
    theirs = [torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (predicted, truth)]
    found = Overlap.of(truth, predicted)
    assert found.dice == pytest.approx(float(compute_dice(*theirs)), abs=1e-6)
    assert found.iou == pytest.approx(float(compute_iou(*theirs)), abs=1e-6)


@pytest.mark.parametrize(
    ("truth", "predicted", "scores"),
    [
        (NONE, NONE, [np.nan] * 5),
        (SOME, NONE, [0, 0, 0, 0, -1]),
        (NONE, SOME, [0, 0, 0, np.nan, np.nan]),
        (SOME, SOME, [1, 1, 1, 1, 0]),
    ],
)
def test_empty_masks(truth: np.ndarray, predicted: np.ndarray, scores: list[float]) -> None:
    o = Overlap.of(truth, predicted)
    found = [o.dice, o.iou, o.predictive_value, o.sensitivity, o.volume_difference]
    assert found == pytest.approx(scores, nan_ok=True)


def test_masks_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="resample one"):
        Overlap.of(SOME, SOME[1:])
    with pytest.raises(ValueError, match="a class at a time"):
        Overlap.of(SOME.astype(np.uint8), SOME)
