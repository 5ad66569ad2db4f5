from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medray.metrics.surface import SurfaceDistances

NONE = np.zeros((20, 22, 24), bool)


def blobs(seed: int, threshold: float = 0.05) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=NONE.shape), 2)
    return noise > threshold


def block(d: slice, h: slice, w: slice) -> np.ndarray:
    mask = NONE.copy()
    mask[d, h, w] = True
    return mask


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 1.3, 3.0)])
@pytest.mark.parametrize("seeds", [(0, 1), (2, 3)])
def test_equal_to_monais(seeds: tuple[int, int], spacing: tuple[float, ...]) -> None:
    import torch
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

    truth, predicted = map(blobs, seeds)
    p, t = (torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (predicted, truth))
    found = SurfaceDistances.of(truth, predicted, spacing)
    space = list(spacing)
    assert found.hausdorff_mm == pytest.approx(float(compute_hausdorff_distance(p, t, spacing=space)), abs=1e-5)
    their95 = compute_hausdorff_distance(p, t, spacing=space, percentile=95)
    assert found.hausdorff95_mm == pytest.approx(float(their95), abs=1e-5)
    mean = compute_average_surface_distance(p, t, spacing=space, symmetric=True)
    assert found.average_mm == pytest.approx(float(mean), abs=1e-5)
    for tolerance in (0.5, 1.5):
        theirs = float(compute_surface_dice(p, t, [tolerance], spacing=space))
        assert found.dice(tolerance) == pytest.approx(theirs, abs=1e-6)
        assert 0 < theirs < 1


def test_two_blocks_by_hand() -> None:
    """Plates of one voxel, three steps apart along an axis of 2 mm: 6 mm between all voxels."""
    found = SurfaceDistances.of(
        block(slice(4, 5), slice(3, 9), slice(3, 9)), block(slice(7, 8), slice(3, 9), slice(3, 9)), (2, 1, 1)
    )
    assert found.hausdorff_mm == found.hausdorff95_mm == found.average_mm == 6
    assert (found.dice(5.9), found.dice(6)) == (0, 1)


def test_empty_masks() -> None:
    one = block(slice(2, 5), slice(2, 5), slice(2, 5))
    diagonal = np.sqrt((19 * 1.0) ** 2 + (21 * 2.0) ** 2 + (23 * 3.0) ** 2)
    for truth, predicted in [(one, NONE), (NONE, one)]:
        found = SurfaceDistances.of(truth, predicted, (1, 2, 3))
        assert [found.hausdorff_mm, found.hausdorff95_mm, found.average_mm] == pytest.approx([diagonal] * 3)
        assert found.dice(2) == 0
    both = SurfaceDistances.of(NONE, NONE, (1, 2, 3))
    assert np.isnan([both.hausdorff_mm, both.hausdorff95_mm, both.average_mm, both.dice(2)]).all()
    same = SurfaceDistances.of(one, one, (1, 2, 3))
    assert [same.hausdorff_mm, same.hausdorff95_mm, same.average_mm, same.dice(0)] == [0, 0, 0, 1]


def test_a_mask_at_the_border_has_its_surface_there() -> None:
    whole = np.ones((3, 3, 3), bool)
    assert len(SurfaceDistances.of(whole, whole, (1, 1, 1)).from_truth_mm) == 26
