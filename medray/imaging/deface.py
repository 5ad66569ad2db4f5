"""A head without its face, slice by slice: what lies outside the skull goes."""

from __future__ import annotations

import cv2
import numpy as np

from medray.imaging.hounsfield import AIR_HU

BONE_HU = 200  # thin bone of children and of slices 5 mm thick is below the 700 of a grown skull
_LEAST_BONE_MM2 = 30.0  # of a piece: streaks, calcified vessels and ear-rings are smaller


def deface(pixels_hu: np.ndarray, spacing_rc_mm: tuple[float, float]) -> np.ndarray:
    """Set everything outside the convex hull of the bones to air (-1000 HU); inside, every pixel stays what it is.

    Nose, lips, ears, chin, hair and the skin over the skull go; a scalp hematoma goes with them. Convex, so that no gap in the
    bone, as a foramen, a fontanelle or a fracture, opens the inside of the skull. What lies between the bones of the face stays: eyes,
    and cheeks in part. Where half of the skull is missing after surgery, brain outside the rest of it goes.

    Args:
        pixels_hu: (rows, columns), HU, of one axial slice without table and holder (``headmask.remove_hardware``): a holder's
            metal would count as bone.
        spacing_rc_mm: distance between rows, between columns, in mm.

    Returns:
        A new (rows, columns) array of the same type; all air where there is no bone.
    """
    bone = (pixels_hu >= BONE_HU).view(np.uint8)
    outlines, _ = cv2.findContours(bone, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    least_px = _LEAST_BONE_MM2 / (spacing_rc_mm[0] * spacing_rc_mm[1])
    large = [outline for outline in outlines if cv2.contourArea(outline) >= least_px]
    inside = np.zeros(pixels_hu.shape, np.uint8)
    if large:
        cv2.fillConvexPoly(inside, cv2.convexHull(np.concatenate(large)), 1)
    return cv2.copyTo(pixels_hu, inside, np.full_like(pixels_hu, AIR_HU))
