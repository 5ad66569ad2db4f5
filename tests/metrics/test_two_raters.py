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

pytestmark = [pytest.mark.real_data, pytest.mark.slow]
PINNED = {  # Dice, HD95 in mm
    "Brainstem": (0.904, 5.00), "Spinal-Cord": (0.810, 2.77), "Parotid-Lt": (0.829, 5.50), "Parotid-Rt": (0.843, 4.65),
    "Mandible": (0.956, 0.98), "Lens-Lt": (0.898, 0.98), "Lens-Rt": (0.905, 0.98), "Optic-Nerve-Lt": (0.670, 7.19),
    "Optic-Nerve-Rt": (0.730, 5.88), "Cochlea-Lt": (0.791, 0.98), "Cochlea-Rt": (0.714, 1.26),
}  # fmt: skip


def test_human_against_human(two_raters_dir: Path) -> None:
    dice, hd95 = {}, {}
    for path in sorted((two_raters_dir / "oncologist").rglob("*.nrrd")):
        other = two_raters_dir / "radiographer" / path.relative_to(two_raters_dir / "oncologist")
        one, two = read(path.read_bytes()), read(other.read_bytes())
        dice[path.stem] = Overlap.of(one.voxels > 0, two.voxels > 0).dice
        hd95[path.stem] = SurfaceDistances.of(one.voxels > 0, two.voxels > 0, one.spacing_mm).hausdorff95_mm
    assert len(dice) == 21
    assert np.mean([*dice.values()]) == pytest.approx(0.860, abs=5e-4)
    assert np.mean([*hd95.values()]) == pytest.approx(3.06, abs=5e-3)
    for organ, (overlap, distance) in PINNED.items():
        assert dice[organ] == pytest.approx(overlap, abs=5e-4), organ
        assert hd95[organ] == pytest.approx(distance, abs=5e-3), organ
