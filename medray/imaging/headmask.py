"""The head without table, holder and other hardware, slice by slice."""

from __future__ import annotations

import cv2
import numpy as np

from medray.imaging.hounsfield import AIR_HU

SOLID_HU = -300  # between foam and padding (below -500) and skin and fat (above -150)

_COARSE_MM = 2.0  # the shape of a head is found at about this pixel size; only its edge needs the full one
_CORE_RADIUS_MM = 7.0  # what a disc this large does not fit into is no head: plates, shells, tubes, cables
_HARDWARE_RADIUS_MM = 3.0  # holder plates are up to 4 mm thick; a nose or the root of an ear is thicker
_REACH_MM = 4.0  # how far the head's edge may lie outside what survives the opening
_MARGIN_MM = 2.0  # how far the coarse edge may be off
_LEAST_CORE_MM2 = 300.0  # of a piece of head: less than the scalp at its very top, more than a plate's section
_LARGEST_CAVITY_MM2 = 2500.0  # a maxillary sinus has 1,500; the inside of a table or of a holder's ring far more

_Millimetres = tuple[float, float]  # size of a pixel: between rows, between columns


def head_mask(pixels_hu: np.ndarray, spacing_rc_mm: tuple[float, float]) -> np.ndarray:
    """Find the head, with skull, scalp and the air enclosed in it, in one axial slice.

    What is solid (above -300 HU) and thick is head; thin solid parts belong to it only where they lie close around
    the thick ones. Holder plates and table shells are thin, whether they stand free or touch the head. So is the rim
    of an ear, which goes with them. Everything that the head encloses is part of it: no value inside the skull
    depends on a threshold.

    Args:
        pixels_hu: (rows, columns), HU.
        spacing_rc_mm: distance between rows, between columns, in mm.

    Returns:
        (rows, columns) bool; all False where there is no head.
    """
    rows, columns = pixels_hu.shape
    solid = (pixels_hu > SOLID_HU).view(np.uint8)
    # A whole number of pixels to a coarse one: that makes the resizing four times as fast.
    coarse_shape = tuple(
        max(1, round(size / max(1, round(_COARSE_MM / spacing))))
        for size, spacing in zip((rows, columns), spacing_rc_mm, strict=True)
    )
    mm = (spacing_rc_mm[0] * rows / coarse_shape[0], spacing_rc_mm[1] * columns / coarse_shape[1])
    share = cv2.resize(solid * np.uint8(255), coarse_shape[::-1], interpolation=cv2.INTER_AREA)
    coarse = (share > 127).view(np.uint8)

    core = _large_components(_open(coarse, _CORE_RADIUS_MM, mm), _LEAST_CORE_MM2, mm)
    if not core.any():
        return np.zeros((rows, columns), dtype=bool)
    # Sinuses and the nose are thin walls around air: they count as solid, or the opening would tear them off.
    # Only now, and only where there is a core, because tubes and rails are thin walls around air as well.
    whole = _components_touching(coarse, core)
    cavities = _holes(whole)
    whole |= cavities & ~_large_components(cavities, _LARGEST_CAVITY_MM2, mm)
    thick = _components_touching(_open(whole, _HARDWARE_RADIUS_MM, mm) | core, core)
    head = cv2.dilate(thick, _disc(_REACH_MM, mm)) & whole
    head |= _holes(head)

    # Full resolution: well inside (2), the filled coarse shape as it is; along its edge (1), the solid pixels.
    margin = _disc(_MARGIN_MM, mm)
    certainty = cv2.erode(head, margin) + cv2.dilate(head, margin)
    mask = cv2.resize(certainty, (columns, rows), interpolation=cv2.INTER_NEAREST) + solid >= 2
    # Up here a plate may show its gap to the head that the coarse pixels had closed.
    return _drop_small_pieces(mask.view(np.uint8), _LEAST_CORE_MM2 / (spacing_rc_mm[0] * spacing_rc_mm[1])).view(bool)


def remove_hardware(pixels_hu: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Set everything outside the head to air (-1000 HU); inside, every pixel stays what it is.

    Args:
        pixels_hu: (rows, columns), HU.
        mask: (rows, columns) bool, from ``head_mask``.

    Returns:
        A new (rows, columns) array of the same type.
    """
    return cv2.copyTo(pixels_hu, mask.view(np.uint8), np.full_like(pixels_hu, AIR_HU))


def _disc(radius_mm: float, mm: _Millimetres) -> np.ndarray:
    rows, columns = (max(1, round(radius_mm / size)) for size in mm)
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * columns + 1, 2 * rows + 1))


def _open(mask: np.ndarray, radius_mm: float, mm: _Millimetres) -> np.ndarray:
    # Beyond the image's border lies air: a table shell that runs along the border must not count as thick. A head
    # that the border cuts off is thick enough without its other half.
    disc = _disc(radius_mm, mm)
    eroded = cv2.erode(mask, disc, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return cv2.dilate(eroded, disc) & mask


def _large_components(mask: np.ndarray, least_mm2: float, mm: _Millimetres) -> np.ndarray:
    least_pixels = least_mm2 / (mm[0] * mm[1])
    if cv2.countNonZero(mask) < least_pixels:
        return np.zeros_like(mask)
    labels = np.asarray(cv2.connectedComponents(mask, connectivity=4)[1], dtype=np.int32)
    keep = (np.bincount(labels.ravel()) >= least_pixels).view(np.uint8)
    keep[0] = 0
    return np.take(keep, labels)


def _components_touching(mask: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    labels = np.asarray(cv2.connectedComponents(mask, connectivity=4)[1], dtype=np.int32)
    keep = np.zeros(mask.size + 1, dtype=np.uint8)
    keep[labels[seeds.view(bool)]] = 1
    keep[0] = 0
    return np.take(keep, labels)


def _holes(mask: np.ndarray) -> np.ndarray:
    """What no path along the background connects with the world outside the image."""
    framed = np.pad(mask, 1)
    cv2.floodFill(framed, None, (0, 0), 1, flags=8)
    return framed[1:-1, 1:-1] ^ 1


def _drop_small_pieces(mask: np.ndarray, least_pixels: float) -> np.ndarray:
    """As ``_large_components``, in place, by outlines: at full resolution and with few pieces much the faster way."""
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    small = [outline for outline in outlines if cv2.contourArea(outline) < least_pixels]
    return cv2.drawContours(mask, small, -1, color=0, thickness=cv2.FILLED) if small else mask
