"""21 organs of one head-and-neck CT, drawn by an oncologist and a radiographer (Nikolov et al.): our figures of the same masks.

The yardstick of contours by a program: figures of other definitions differ (the larger of two percentiles, not the
percentile of both, and voxels' centres, not the surface between them).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medray.imaging.volume_nrrd import read
from medray.metrics.overlap import Overlap
from medray.metrics.surface import SurfaceDistances
from medray.systems.headneck.names import organ_of
from medray.systems.headneck.yardstick import HUMAN

pytestmark = [pytest.mark.real_data, pytest.mark.slow]


def test_human_against_human(two_raters_dir: Path) -> None:
    dice, hd95, apart = {}, {}, {}
    for path in sorted((two_raters_dir / "oncologist").rglob("*.nrrd")):
        other = two_raters_dir / "radiographer" / path.relative_to(two_raters_dir / "oncologist")
        one, two = read(path.read_bytes()), read(other.read_bytes())
        dice[path.stem] = Overlap.of(one.voxels > 0, two.voxels > 0).dice
        surfaces = SurfaceDistances.of(one.voxels > 0, two.voxels > 0, one.spacing_mm)
        hd95[path.stem] = surfaces.hausdorff95_mm
        apart[path.stem] = float(
            np.percentile(np.concatenate([surfaces.from_truth_mm, surfaces.from_predicted_mm]), 95)
        )
    assert len(dice) == 21
    assert np.mean([*dice.values()]) == pytest.approx(0.860, abs=5e-4)
    assert np.mean([*hd95.values()]) == pytest.approx(3.06, abs=5e-3)
    eyes = {"Orbit-Lt": "Eye_L", "Orbit-Rt": "Eye_R"}  # what the two have drawn under that name
    assert {organ_of(name, eyes) for name in dice} == {*HUMAN}
    for name in dice:
        human = HUMAN[organ_of(name, eyes) or ""]
        assert dice[name] == pytest.approx(human.dice, abs=5e-4), name
        assert hd95[name] == pytest.approx(human.hd95_mm, abs=5e-3), name
        assert apart[name] == pytest.approx(human.apart_mm, abs=5e-3), name
