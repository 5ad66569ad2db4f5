"""Where the slices of one series lie: PS3.3 C.7.6.2.1.1 (Image Position and Image Orientation).

A slice's place in the stack is its position along the normal of its plane. Raw z coordinates overstate the spacing of
a tilted gantry (by 1 / cos of the tilt), and InstanceNumber and file names promise nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medray.imaging.types import Header

_FOOT_TO_HEAD = 2  # DICOM's patient axes are Left, Posterior, Superior; an axial stack counts up towards Superior


def slice_normal(headers: Sequence[Header]) -> np.ndarray:
    """The unit normal that the slices of one series share.

    It points towards the patient's head; a stack that is not axial at all points towards left or posterior,
    whichever its normal is closest to. The direction thus depends on the patient, not on how rows and columns run.

    Returns:
        (3,) float64, LPS axes.

    Raises:
        ValueError: no headers, several series, or orientations that differ by more than a degree.
    """
    if not headers:
        raise ValueError("no headers, no geometry")
    if len({header.series_id for header in headers}) > 1:
        raise ValueError("headers of more than one series: a stack is one series")
    orientation = np.array([header.orientation_rc for header in headers], dtype=np.float64)
    normals = np.cross(orientation[:, :3], orientation[:, 3:])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    normal = _pointing_up(normals[0])
    if (np.abs(normals @ normal) < np.cos(np.deg2rad(1.0))).any():
        raise ValueError("the slices of this series are not parallel")
    return normal


def _pointing_up(normal: np.ndarray) -> np.ndarray:
    axis = _FOOT_TO_HEAD if abs(normal[_FOOT_TO_HEAD]) >= 0.5 else int(np.argmax(np.abs(normal)))
    return normal if normal[axis] > 0 else -normal


def positions_along_normal_mm(headers: Sequence[Header]) -> np.ndarray:
    """How far each slice lies along the stack's normal, in the order of ``headers``.

    A sheared stack (a tilted gantry over a table that moves along z) needs no correction: the dot product ignores the
    sideways part of each step.

    Returns:
        (n,) float64, mm, larger towards the head.

    Raises:
        ValueError: as ``slice_normal``.
    """
    return np.array([header.position_xyz_mm for header in headers], dtype=np.float64) @ slice_normal(headers)


def stack_order(headers: Sequence[Header]) -> np.ndarray:
    """The order of the slices of one series, foot to head.

    It depends on nothing but the headers: not on their order, file names or instance numbers. Slices at one and the
    same place (to a micrometre) follow their ``slice_id``.

    Returns:
        (n,) indices into ``headers``, lowest slice first.

    Raises:
        ValueError: as ``slice_normal``.
    """
    micrometres = np.round(positions_along_normal_mm(headers) * 1000).astype(np.int64)
    order = sorted(range(len(headers)), key=lambda i: (micrometres[i], headers[i].slice_id))
    return np.array(order, dtype=np.int64)


def spacing_mm(headers: Sequence[Header]) -> float:
    """Median distance between neighbouring slices along the normal, in mm; 0 for a single slice.

    The median, because one missing slice must not change it. Repeated positions do not count as steps.
    """
    steps = np.diff(np.sort(positions_along_normal_mm(headers)))
    steps = steps[steps > 0.01]
    return float(np.median(steps)) if steps.size else 0.0


def tilt_degrees(headers: Sequence[Header]) -> float:
    """Angle between the slices' normal and the patient's long axis (z): the gantry's tilt, 0 to 90 degrees."""
    return float(np.degrees(np.arccos(min(1.0, abs(float(slice_normal(headers)[_FOOT_TO_HEAD]))))))


def duplicate_positions(headers: Sequence[Header], tolerance_mm: float = 0.01) -> np.ndarray:
    """Which slices share their place with a slice before them in stack order.

    Returns:
        (k,) indices into ``headers``, in stack order; empty where every slice has its own place.
    """
    order = stack_order(headers)
    along = positions_along_normal_mm(headers)[order]
    return order[1:][np.diff(along) <= tolerance_mm]
