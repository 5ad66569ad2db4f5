"""Stored pixel values to Hounsfield units: PS3.3 C.11.1.1.2 (Modality LUT, rescale) and C.8.2.1.1.2 (CT image)."""

from __future__ import annotations

import numpy as np

from medray.imaging.padding import Range, at_the_border
from medray.imaging.types import Unreadable

LOWEST_HU = -1024  # everything below lies outside the reconstruction circle
AIR_HU = -1000
WRAPPED = "wrapped 12-bit"
PADDED = "a value beyond 32767 HU around the image taken for padding"

_AIR_TOLERANCE_HU = 60
_LEAST_AIR = 0.05  # of the image; a head never fills its field of view
_LEAST_TISSUE = 0.02
_INT16 = np.iinfo(np.int16)


def to_hounsfield(
    stored: np.ndarray,
    *,
    bits_stored: int,
    pixel_representation: int,
    slope: float,
    intercept: float,
    padding: Range | None = None,
) -> tuple[np.ndarray, str | None]:
    """Turn stored values into Hounsfield units.

    Args:
        stored: (rows, columns) integers as they lie in the file, lowest bit of the value in bit 0.
        bits_stored: how many low bits carry the value; higher bits may hold garbage (PS3.5 8.1.1) and are ignored.
        pixel_representation: 0 unsigned, 1 two's complement.
        slope, intercept: HU = stored * slope + intercept.
        padding: the lowest and the highest value that stand for no image (``medray.imaging.padding``), as numbers of
            ``pixel_representation``; None where the file names none.

    Padding becomes -1024 HU, below every window, whatever value it is written as (PS3.3 C.7.5.1.1.2):

    * values that the rescale puts at or below -1024 HU are there already;
    * those beyond 32767 HU are no tissue's: padding wherever they lie. Where the file does not name it, one such value in
      all four corners (-2000 in an unsigned file) is padding with what of it is joined to the border; any other
      saturates, as metal does;
    * any other value (0 in a file where 0 HU is water; 4095, which metal has too) is padding where it is joined to the
      image's border, and stays what it is inside the patient.

    Returns:
        ``(pixels_hu, repaired)``. ``pixels_hu`` is a new (rows, columns) array, nowhere below -1024: int16, saturating,
        where slope and intercept are whole numbers, else float32. ``repaired`` is "wrapped 12-bit", PADDED or None.

    Raises:
        Unreadable: an unsigned 12-bit file with an intercept near 0 in which neither the stored values nor their
            unwrapped form look like a CT image (see ``_unwrap_12_bit``).
        ValueError: ``stored`` is not an integer array, or ``bits_stored`` does not fit it.
    """
    if stored.dtype.kind not in "iu":
        raise ValueError(f"stored pixel values must be integers, not {stored.dtype}")
    if not 1 <= bits_stored <= 8 * stored.dtype.itemsize:
        raise ValueError(f"bits_stored {bits_stored} does not fit {stored.dtype}")

    values = _value_bits(stored, bits_stored, signed=pixel_representation == 1)
    outside, note = _outside(stored, values, bits_stored, pixel_representation, slope, intercept, padding)
    pixels_hu, wrapped = _in_hounsfield(values, bits_stored, pixel_representation, slope, intercept)
    if outside is not None:
        pixels_hu[outside] = LOWEST_HU
    return pixels_hu, wrapped or note


def _in_hounsfield(
    values: np.ndarray, bits_stored: int, pixel_representation: int, slope: float, intercept: float
) -> tuple[np.ndarray, str | None]:
    if bits_stored == 12 and pixel_representation == 0 and intercept > -100:
        unwrapped = _unwrap_12_bit(values, slope, intercept)
        if unwrapped is not None:
            return _rescale(unwrapped, 1, AIR_HU), WRAPPED
    return _rescale(values, slope, intercept), None


def _outside(
    stored: np.ndarray,
    values: np.ndarray,
    bits_stored: int,
    pixel_representation: int,
    slope: float,
    intercept: float,
    padding: Range | None,
) -> tuple[np.ndarray | None, str | None]:
    """Where padding lies that the rescale does not put at or below -1024 HU, and what was assumed to find it."""
    signed = pixel_representation == 1
    if padding is not None:
        low, high = padding
        half = 1 << (bits_stored - 1)
        lowest, highest = (-half, half - 1) if signed else (0, 2 * half - 1)
        ends_hu = sorted(end * slope + intercept for end in padding)
        if low < lowest or high > highest:
            # not a number of so many bits: it fills the whole word, and its low bits alone may be tissue's
            words = _value_bits(stored, 8 * stored.dtype.itemsize, signed=signed)
            found = at_the_border(words, low, high)
        elif ends_hu[1] <= LOWEST_HU:
            found = None
        elif ends_hu[0] > _INT16.max:
            inside = (values >= low) & (values <= high)
            found = inside if inside.any() else None
        else:
            found = at_the_border(values, low, high)
        if found is not None:
            return found, None
    if signed or bits_stored != 16 or slope != 1:
        return None, None
    corner = int(values[0, 0])
    if corner + intercept <= _INT16.max or any(values[at] != corner for at in ((0, -1), (-1, 0), (-1, -1))):
        return None, None
    return at_the_border(values, corner, corner), PADDED


def _value_bits(stored: np.ndarray, bits_stored: int, *, signed: bool) -> np.ndarray:
    """Reread the low ``bits_stored`` bits of each value as signed or unsigned, in the machine's byte order."""
    itemsize = stored.dtype.itemsize
    native = np.ascontiguousarray(stored, dtype=stored.dtype.newbyteorder("="))
    values = native.view(f"{'i' if signed else 'u'}{itemsize}")
    unused = 8 * itemsize - bits_stored
    # Up to the top and back down: the garbage falls off, and a signed shift brings the sign along.
    return (values << unused) >> unused if unused else values


def _rescale(values: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """values * slope + intercept, clamped: (rows, columns) int16 or float32."""
    if not (float(slope).is_integer() and float(intercept).is_integer()):
        return np.maximum(values.astype(np.float32) * np.float32(slope) + np.float32(intercept), np.float32(LOWEST_HU))
    if slope == 1 and values.dtype.itemsize == 2:
        # The bulk of all CT. Clipping before adding keeps two passes of 16-bit arithmetic; the addition may pass
        # through a wrap, but it lands in range, because everything that would not has been clipped away.
        limits = np.iinfo(values.dtype)
        lowest, highest = (
            int(np.clip(bound - intercept, limits.min, limits.max)) for bound in (LOWEST_HU, int(_INT16.max))
        )
        if lowest + intercept >= LOWEST_HU and highest + intercept <= _INT16.max:
            clipped = np.clip(values, values.dtype.type(lowest), values.dtype.type(highest)).view(np.uint16)
            clipped += np.uint16(int(intercept) & 0xFFFF)
            return clipped.view(np.int16)
    # float64 is exact for every integer that 32 stored bits and a sane slope can make
    hu = values.astype(np.float64) * slope + intercept
    return np.clip(hu, LOWEST_HU, _INT16.max).astype(np.int16)


def _unwrap_12_bit(values: np.ndarray, slope: float, intercept: float) -> np.ndarray | None:
    """Decide whether unsigned 12-bit values are Hounsfield units that went around, and unwrap them if so.

    Some writers put signed Hounsfield units into an unsigned 12-bit field: water stays 0, air at -1000 becomes 3096.
    Adding 1000 modulo 4096 gives HU + 1000 again. Three kinds of file meet the outer conditions:

    1. wrapped: after unwrapping there is air where air must be. Air is everything below -500 HU; it must fill at
       least 5% of the image (around any head there is far more) and its median, which neither the skin's edge nor a
       few sinuses can move, must lie at -1000 +- 60;
    2. genuine, for instance an image cut off at 0 HU or one whose background was set to 0. Three things must hold
       as it stands: soft tissue (0 < HU <= 100) fills at least 2% of the image; the rim of the field of view, which
       is air around nearly every head, is not above 0; and there is more of 150 to 850 HU, where bone is, than of
       900 to 1150, where brain would be if the file had merely lost its intercept of -1000 or -1024;
    3. neither: then no reading can be trusted.

    Returns:
        (rows, columns) uint16 HU + 1000 of a wrapped file; None where the file is genuine and must stay as it is.

    Raises:
        Unreadable: neither reading is plausible.
    """
    plus_1000 = (values.astype(np.uint16) + np.uint16(1000)) & np.uint16(0x0FFF)
    air = plus_1000[plus_1000 < 500]
    if air.size >= _LEAST_AIR * values.size and abs(float(np.median(air))) <= _AIR_TOLERANCE_HU:
        return plus_1000

    hu = values.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    tissue = np.count_nonzero((hu > 0) & (hu <= 100)) >= _LEAST_TISSUE * hu.size
    bone_or_lost = np.count_nonzero((hu > 150) & (hu < 850)) - np.count_nonzero((hu > 900) & (hu < 1150))
    if tissue and bone_or_lost >= 0 and np.median(hu[_rim(hu.shape)]) <= 0:
        return None
    raise Unreadable(
        f"unsigned 12-bit values with intercept {intercept:g}: air is not at -1000 +- 60 HU after unwrapping, "
        "and they are no head as they stand"
    )


def _rim(shape: tuple[int, ...]) -> np.ndarray:
    """(rows, columns) bool: just inside the reconstruction circle, whose outside may be padded with anything."""
    y, x = (np.linspace(-1, 1, size) for size in shape)
    radius = np.hypot(y[:, None], x[None, :])
    return (radius > 0.9) & (radius < 0.97)
