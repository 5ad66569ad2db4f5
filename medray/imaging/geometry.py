"""Where a slice lies: PS3.3 C.7.6.2.1.1 (Image Position and Image Orientation).

A slice's place in its stack is its position along the normal of its plane. Raw z coordinates overstate the spacing of
a tilted gantry (by 1 / cos of the tilt), and InstanceNumber and file names promise nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_LEFT, _POSTERIOR, _HEAD = range(3)  # DICOM's patient axes; an axial stack counts up towards the head

MOST_TILT_DEGREES = 45.0
"""An axial slice's normal is this near to the patient's long axis. Gantries tilt by up to 30 degrees, a head in its
holder and reformats along the skull's base by a little more; beyond the half of a right angle another axis is nearer."""


def slice_normal(orientation_rc: Sequence[float]) -> np.ndarray:
    """The unit normal of a slice's plane.

    It points towards the patient's head; that of a plane that is nowhere near axial points towards left or posterior,
    whichever it is closest to. The direction thus depends on the patient, not on how rows and columns run.

    Args:
        orientation_rc: ImageOrientationPatient, the cosines of a row and of a column.
    Returns:
        (3,) float64, LPS axes.
    """
    orientation = np.asarray(orientation_rc, dtype=np.float64)
    normal = np.cross(orientation[:3], orientation[3:])
    normal /= np.linalg.norm(normal)
    axis = _HEAD if abs(normal[_HEAD]) >= 0.5 else int(np.argmax(np.abs(normal)))
    return normal if normal[axis] > 0 else -normal


def tilt_degrees(orientation_rc: Sequence[float]) -> float:
    """Angle between a slice's normal and the patient's long axis (z): of an axial slice the gantry's tilt, 0 to 90."""
    return float(np.degrees(np.arccos(min(1.0, abs(float(slice_normal(orientation_rc)[_HEAD]))))))


def plane_name(orientation_rc: Sequence[float]) -> str:
    """ "axial", "coronal" or "sagittal": axial up to MOST_TILT_DEGREES, else by the axis that the normal is closest to."""
    if tilt_degrees(orientation_rc) <= MOST_TILT_DEGREES:
        return "axial"
    normal = np.abs(slice_normal(orientation_rc))
    return "sagittal" if normal[_LEFT] > normal[_POSTERIOR] else "coronal"


def positions_along_mm(normal: np.ndarray, positions_xyz_mm: np.ndarray) -> np.ndarray:
    """How far each slice lies along the normal.

    A sheared stack (a tilted gantry over a table that moves along z) needs no correction: the dot product ignores the
    sideways part of each step.

    Args:
        normal: (3,), as ``slice_normal``. positions_xyz_mm: (n, 3), ImagePositionPatient.
    Returns:
        (n,) float64, mm, larger towards the head.
    """
    return np.asarray(positions_xyz_mm, dtype=np.float64) @ normal
