from __future__ import annotations

import numpy as np
import pytest

from medray.imaging.deface import deface
from medray.systems.ich.new_studies import source_for
from medray.systems.ich.source import HeadCT
from medray.systems.ich.task import SliceTask

MM = (1.0, 1.0)
SIDE = 200


def head(gap: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(200, 200) int16 HU of 200 mm: brain, skull, skin, a nose; and what lies inside the skull's outer side."""
    y, x = np.mgrid[:SIDE, :SIDE]
    radius = np.hypot(y - 110, x - 100)
    hu = np.full((SIDE, SIDE), -1000, np.int16)
    hu[radius < 75] = 40  # skin
    hu[20:40, 92:108] = 40  # a nose
    hu[radius < 68] = 900
    inner = radius < 62
    hu[inner] = np.random.default_rng(0).integers(25, 45, int(inner.sum()))
    hu[(radius >= 62) & (radius < 68) & (abs(x - 100) < gap)] = 30
    return hu, radius < 67


@pytest.mark.parametrize("gap", [0, 12])
def test_nose_and_skin_go_and_nothing_within_the_skull_changes(gap: int) -> None:
    hu, inside = head(gap)
    before = hu.copy()
    found = deface(hu, MM)
    assert (hu == before).all()
    assert found.dtype == hu.dtype
    y, x = np.mgrid[:SIDE, :SIDE]
    radius = np.hypot(y - 110, x - 100)
    within = inside & ~((abs(x - 100) < gap + 12) & (radius > 64))  # a hull is straight over a gap
    np.testing.assert_array_equal(found[within], hu[within])
    assert (found[radius > 69] == -1000).all()
    assert (hu[radius > 69] > -1000).sum() > 2000


def test_what_is_too_small_for_bone_keeps_no_skin() -> None:
    hu, _ = head()
    hu[21:25, 98:102] = 3000  # a ring in the nose
    assert (deface(hu, MM)[:40] == -1000).all()
    assert (deface(hu, (3.0, 3.0))[:40] > -1000).any()  # the same pixels are 144 mm² here


def test_a_slice_without_bone_is_air() -> None:
    assert (deface(np.full((8, 8), 40, np.int16), MM) == -1000).all()
    assert deface(np.full((8, 8), 40.5, np.float32), MM).dtype == np.float32


def test_shards_of_before_are_the_same_and_defaced_ones_are_others() -> None:
    plain, without = HeadCT(), HeadCT(deface=True)
    assert "deface" not in plain.identity() | plain.settings()
    assert without.identity() == plain.identity() | {"deface": True}
    assert without.settings() == plain.settings() | {"deface": True}
    hu, _ = head()
    assert (without.prepared(hu, MM)[:42] == -1000).all()
    assert (plain.prepared(hu, MM)[30:40, 95:105] == 40).all()
    with pytest.raises(ValueError, match="--no-remove-hardware --deface: a head holder would pass for bone"):
        HeadCT(remove_hardware=False, deface=True)


def test_new_studies_are_prepared_as_the_run_was(tiny_task: SliceTask) -> None:
    for prepared in (
        {"remove_hardware": True},
        {"remove_hardware": True, "deface": True},
        {"remove_hardware": False},
    ):
        assert source_for([tiny_task], prepared | {"folds": 5}).settings() == prepared
