"""Human against human: one CT whose organs an oncologist and a radiographer have drawn (Nikolov et al., arXiv 1809.04430).

Computed by this project's own metrics, and held by tests/metrics/test_two_raters.py. n = 1 patient: a yardstick, no limit.
"""

from __future__ import annotations

from typing import NamedTuple


class Human(NamedTuple):
    """Of one organ, both contours against each other."""

    dice: float
    hd95_mm: float
    """The larger of the two directions' 95th percentiles."""
    apart_mm: float
    """What 95% of the voxels of both surfaces lie within."""


HUMAN = {
    "Brain": Human(0.992, 1.39, 0.98),
    "Brainstem": Human(0.904, 5.00, 2.77),
    "SpinalCord": Human(0.810, 2.77, 2.19),
    "SpinalCanal": Human(0.930, 5.00, 5.00),
    "Bone_Mandible": Human(0.956, 0.98, 0.98),
    "Parotid_L": Human(0.829, 5.50, 3.92),
    "Parotid_R": Human(0.843, 4.65, 2.94),
    "Glnd_Submand_L": Human(0.815, 4.33, 3.32),
    "Glnd_Submand_R": Human(0.784, 7.93, 6.30),
    "Glnd_Lacrimal_L": Human(0.834, 2.44, 1.39),
    "Glnd_Lacrimal_R": Human(0.786, 2.19, 1.96),
    "Eye_L": Human(0.927, 1.96, 1.96),
    "Eye_R": Human(0.952, 0.98, 0.98),
    "Lens_L": Human(0.898, 0.98, 0.98),
    "Lens_R": Human(0.905, 0.98, 0.98),
    "OpticNrv_L": Human(0.670, 7.19, 6.11),
    "OpticNrv_R": Human(0.730, 5.88, 5.46),
    "Cochlea_L": Human(0.791, 0.98, 0.98),
    "Cochlea_R": Human(0.714, 1.26, 0.98),
    "Lung_L": Human(0.991, 0.98, 0.98),
    "Lung_R": Human(0.990, 0.98, 0.98),
}
OTHERS_MM = 2.0
"""Tolerance of organs that the two have not drawn: about the median of those that they have."""


def tolerance_mm(organ: str) -> float:
    """Of the surface Dice, as Nikolov et al. set it: what two experts' contours lie within, for 95% of their surfaces. Both
    sides of a pair have one, the mean."""
    base = organ[:-2] if organ[-2:] in ("_L", "_R") else organ
    apart = [human.apart_mm for name, human in HUMAN.items() if name in (base, f"{base}_L", f"{base}_R")]
    return round(sum(apart) / len(apart), 2) if apart else OTHERS_MM
