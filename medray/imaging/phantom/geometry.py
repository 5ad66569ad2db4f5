"""How a phantom is scanned: the stack's planes, spacing and tilt, and the oddities of real series.

Everything here is drawn without a look at the labels. Positions and directions are DICOM's: LPS, in mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LOWEST_MM = (-47.0, -32.0)  # head coordinates that the first and the last plane lie between
HIGHEST_MM = (66.0, 84.0)


@dataclass(frozen=True)
class Stack:
    """The planes of one series, in the order of the scan, and what its files say of them."""

    kind: (
        str  # "upright", "sheared" (gantry tilt: planes tilted, stack along the table) or "oblique" (along the normal)
    )
    positions_mm: np.ndarray  # (n, 3) ImagePositionPatient
    orientation: np.ndarray  # (6,) ImageOrientationPatient: row cosines, column cosines
    pixel_mm: float
    spacing_mm: float  # between planes, along their normal
    head_to_patient: np.ndarray  # (3, 3): columns are the head's axes
    head_origin_mm: np.ndarray  # (3,) where the head's origin lies in the patient's coordinates
    instance_numbers: tuple[int | None, ...]
    gap_before: int | None  # index of the plane that follows a missing one
    duplicate_of: int | None  # the last file repeats this plane
    says_thickness: bool

    @property
    def normal(self) -> np.ndarray:
        """Unit normal of the planes."""
        return np.cross(self.orientation[:3], self.orientation[3:])


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """(3, 3) rotation: nod by ``pitch`` about x, tilt by ``roll`` about y, turn by ``yaw`` about z; degrees."""
    a, b, c = np.deg2rad([pitch, roll, yaw])
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return np.asarray(rz @ ry @ rx)


def draw_stack(rng: np.random.Generator, slices: tuple[int, int], matrix_px: int) -> Stack:
    """A series of ``slices`` (least, most) planes that runs from the skull base past the vertex."""
    kind = str(rng.choice(["upright", "sheared", "oblique"], p=[0.4, 0.3, 0.3]))
    count = int(rng.integers(slices[0], slices[1] + 1))
    planes_turn = np.eye(3)
    pitch = 0.0
    if kind == "sheared":
        pitch = float(rng.choice([-1, 1]) * rng.uniform(5, 14))
        planes_turn = rotation(0, pitch, 0)
    elif kind == "oblique":
        pitch = float(rng.uniform(-12, 12))
        planes_turn = rotation(rng.uniform(-4, 4), pitch, rng.uniform(-4, 4))
    normal = planes_turn[:, 2]
    # the gantry is tilted to follow the head, more or less
    head = rotation(rng.normal(0, 6), 0.8 * pitch + rng.normal(0, 3), rng.normal(0, 2))

    pixel_mm = float(np.round(rng.uniform(222, 245) / matrix_px, 6))
    lowest, highest = rng.uniform(*LOWEST_MM), rng.uniform(*HIGHEST_MM)
    has_gap, has_duplicate = rng.uniform() < 0.12, rng.uniform() < 0.1
    planes = count + int(has_gap) - int(has_duplicate)
    spacing = float(np.round((highest - lowest) / (planes - 1), 3))
    heights = lowest + spacing * np.arange(planes)
    half = matrix_px / 2 * pixel_mm
    centre = np.array([0.0, 0.0, np.round(rng.uniform(0, 60), 3)])
    corner = centre - half * planes_turn[:, 0] - half * planes_turn[:, 1]
    along = np.array([0, 0, 1.0]) / normal[2] if kind == "sheared" else normal
    positions = corner + heights[:, None] * along
    gap_before = None
    if has_gap:
        gap_before = int(rng.integers(2, planes - 2))
        positions = np.delete(positions, gap_before, axis=0)
    if rng.uniform() < 0.5:
        positions = positions[::-1].copy()
        gap_before = len(positions) - gap_before if gap_before is not None else None
    duplicate_of = int(rng.integers(0, len(positions))) if has_duplicate else None
    if duplicate_of is not None:
        positions = np.concatenate([positions, positions[duplicate_of : duplicate_of + 1]])
    return Stack(
        kind=kind,
        positions_mm=positions,
        orientation=np.concatenate([planes_turn[:, 0], planes_turn[:, 1]]),
        pixel_mm=pixel_mm,
        spacing_mm=spacing,
        head_to_patient=head,
        head_origin_mm=centre + np.array([*rng.normal(0, 4, 2), 0.0]),
        instance_numbers=_numbers(rng, len(positions)),
        gap_before=gap_before,
        duplicate_of=duplicate_of,
        says_thickness=bool(rng.uniform() < 0.3),
    )


def _numbers(rng: np.random.Generator, count: int) -> tuple[int | None, ...]:
    """InstanceNumber of each file: mostly absent (as in the challenge's data), right, or wrong."""
    choice = rng.uniform()
    if choice < 0.5:
        return (None,) * count
    if choice < 0.75:
        return tuple(range(1, count + 1))
    return tuple(int(k) for k in rng.permutation(count) + 1)
