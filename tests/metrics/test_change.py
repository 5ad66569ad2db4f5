from __future__ import annotations

import numpy as np
import pytest

from medray.metrics.change import ChangeRules, changes


def mask(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """Boxes of (d, h, w, length along w)."""
    found = np.zeros((12, 12, 20), bool)
    for d, h, w, length in boxes:
        found[d, h, w : w + length] = True
    return found


def kinds(before: np.ndarray, after: np.ndarray, **rules: float) -> list[str]:
    return [change.kind for change in changes(before, after, 1.0, ChangeRules(**rules))]  # type: ignore[arg-type]


def test_each_kind() -> None:
    before = mask((1, 1, 1, 8), (3, 1, 1, 8), (5, 1, 1, 8), (7, 1, 1, 8))
    after = mask((1, 1, 1, 9), (3, 1, 1, 12), (5, 1, 1, 4), (9, 1, 2, 5))
    found = changes(before, after, 2.0)
    assert [change.kind for change in found] == ["stable", "enlarged", "shrunk", "vanished", "new"]
    assert [(change.before_mm3, change.after_mm3) for change in found] == [
        (16, 18),
        (16, 24),
        (16, 8),
        (16, 0),
        (0, 10),
    ]
    assert found[-1].centre == (9, 1, 4)
    assert found[3].centre == (7, 1, 4.5)


def test_the_same_mask_has_no_change_and_nothing_none() -> None:
    one = mask((1, 1, 1, 8), (3, 1, 1, 4))
    assert kinds(one, one) == ["stable", "stable"]
    assert kinds(one, one, enlarged_share=0, enlarged_mm3=0) == ["stable", "stable"]
    assert changes(one & False, one & False, 1.0) == []
    assert kinds(one & False, one, reach_voxels=2) == ["new", "new"]


def test_growth_counts_by_share_and_by_volume() -> None:
    before, after = mask((1, 1, 1, 4)), mask((1, 1, 1, 6))
    assert kinds(before, after) == ["stable"]  # half as much again, and 2 mm³
    assert kinds(before, after, enlarged_mm3=2) == ["enlarged"]
    assert kinds(before, after, enlarged_mm3=2, enlarged_share=0.6) == ["stable"]


def test_small_ones_are_left_out_where_they_are_small_at_both_visits() -> None:
    assert kinds(mask((1, 1, 1, 2)), mask((1, 1, 1, 2), (5, 5, 5, 2))) == []
    assert kinds(mask((1, 1, 1, 2)), mask((1, 1, 1, 9))) == ["enlarged"]
    assert kinds(mask(), mask((5, 5, 5, 2)), least_mm3=2) == ["new"]


def test_one_that_came_apart_is_one() -> None:
    before, after = mask((1, 1, 1, 12)), mask((1, 1, 1, 5), (1, 1, 8, 5))
    (change,) = changes(before, after, 1.0)
    assert (change.kind, change.before_mm3, change.after_mm3) == ("stable", 12, 10)
    assert kinds(after, before) == ["stable"]


def test_reach_joins_what_a_poor_fit_has_moved_apart() -> None:
    before, after = mask((1, 1, 1, 6)), mask((1, 3, 1, 6))
    assert kinds(before, after) == ["vanished", "new"]
    assert kinds(before, after, reach_voxels=1) == ["vanished", "new"]
    assert kinds(before, after, reach_voxels=2) == ["stable"]


def test_rules_and_masks_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="6, 18 or 26"):
        ChangeRules(connectivity=4)
    with pytest.raises(ValueError, match="not below 0"):
        ChangeRules(least_mm3=-1)
    with pytest.raises(ValueError, match="resample one"):
        changes(mask(), mask()[1:], 1.0)
