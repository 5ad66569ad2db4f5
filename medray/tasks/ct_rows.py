"""CTs with organs as rows of shards: what sources that read such scans have in common."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import ndimage

from medray.imaging.types import Unreadable, Volume
from medray.imaging.volume_grid import axis_codes, difference, reoriented, resampled, same_grid
from medray.shards.leakage import pixels_hash
from medray.tasks.volume_rows import VolumeRow, in_box

AXES = "SPL"
"""Of the voxels: slices towards the head, rows towards the back, columns towards the left, as planning systems show them."""
AIR_HU, MOST_HU = -1000, 1500
METAL_HU = 2500
FAT_HU, LEAST_SHARE = -20, 1e-3
"""Everybody has fat, and air about him: a scan with fewer voxels below this was windowed, scaled or never rescaled."""
NO_SLICE = re.compile("neither NIfTI, NRRD nor DICOM|DICOM of modality .*, not CT")
"""Reasons of files that lie among a series' slices, and are none."""
LOST_ON_GRID = "no voxel of the grid it was resampled to; taken as unknown"
NOT_HU = "hardly Hounsfield units: it holds neither fat nor air"
DHW = {"axes": "D, H, W: towards head, back and left"}
PLACES = 2_000
"""Voxels of an organ that are kept, to cut crops around."""
BODY_HU = -400
"""What is denser is no air."""
_BODY_MARGIN_MM, _SEED = 5.0, 20160
_SLICES_AT_ONCE = 16

FIELDS = (
    pa.field("scan_id", pa.string(), nullable=False, metadata={"identifier": "scan"}),
    pa.field("patient_id", pa.string(), nullable=False, metadata={"identifier": "patient"}),
    pa.field("visit", pa.string()),
    pa.field("shape_DHW", pa.list_(pa.int32())),
    pa.field("spacing_mm", pa.list_(pa.float64()), metadata=DHW),
    pa.field("affine", pa.list_(pa.float64()), metadata={"meaning": "16, row by row: (d, h, w) → RAS+ mm"}),
    pa.field("orientation", pa.string(), metadata={"meaning": "axes of the file, such as LPS"}),
    pa.field(
        "voxels", pa.large_binary(),
        metadata={"axes": "1, D, H, W", "dtype": "float32", "of": "box_DHW", "unit": "HU / 1000 + 1; 0 is air"},
    ),
    pa.field("box_DHW", pa.list_(pa.int32()), metadata={"meaning": "first and after last of D, H, W: of the body"}),
    pa.field("brain", pa.binary(), metadata=DHW | {"dtype": "bits", "meaning": "the body"}),
    pa.field("foreground", pa.list_(pa.int32()), metadata={"meaning": "flat places of some voxels of organs"}),
    pa.field("foreground_class", pa.list_(pa.int8()), metadata={"meaning": "of each place its organ, from 1"}),
    pa.field("pixels_hash", pa.string(), metadata={"meaning": "of whole HU with AXES: of a scan in another format too"}),
)  # fmt: skip
"""Of the schema; masks are each system's own."""


def check_spacing(spacing_mm: Sequence[float] | None) -> None:
    """Raises ValueError for a grid that no scan can be resampled to."""
    if spacing_mm is not None and not all(0.1 <= side <= 50 for side in spacing_mm):
        raise ValueError(
            f"--spacing-mm {' '.join(f'{side:g}' for side in spacing_mm)}: slices, rows and columns, each from 0.1 to 50 mm"
        )


def on_grid_of(scan: Volume, mask: Volume, what: str) -> np.ndarray:
    """(D, H, W) of a mask with the axes of its scan.

    Args:
        what: begins the error.
    Raises:
        Unreadable: it lies on another grid.
    """
    if not same_grid(mask, scan):
        mask = reoriented(mask, axis_codes(scan))
    if not same_grid(mask, scan):
        raise Unreadable(f"{what}: another grid than the CT: {difference(mask, scan)}; draw it on the CT itself")
    return mask.voxels


def on_common_axes(
    given: Volume, masks: Mapping[str, np.ndarray], spacing_mm: Sequence[float] | None
) -> tuple[Volume, dict[str, np.ndarray]]:
    """A scan in HU and its masks with AXES, resampled where a spacing is given. A mask that has voxels, and none on the new grid,
    is left out: what it is of is unknown there, and not absent.

    Args:
        masks: (D, H, W) bool each, on the scan's own grid. spacing_mm: of slices, rows and columns.
    """
    # unsigned and narrow types overflow where air is taken off
    scan = reoriented(replace(given, voxels=given.voxels.astype(np.float32)), AXES)
    turned = {name: reoriented(Volume(mask, given.affine), AXES).voxels for name, mask in masks.items()}
    if spacing_mm is None:
        return scan, turned
    like = _on_spacing(scan, spacing_mm)
    there = {name for name, mask in turned.items() if mask.any()}
    turned = {
        name: resampled(Volume(mask.view(np.uint8), scan.affine), like, order=0).voxels > 0
        for name, mask in turned.items()
    }
    turned = {name: mask for name, mask in turned.items() if mask.any() or name not in there}
    # what the scan does not reach is air, and 0 is not
    hu = resampled(Volume(scan.voxels - AIR_HU, scan.affine), like, order=1).voxels + AIR_HU
    return Volume(hu, like.affine), turned


def columns_of(scan: Volume, given: Volume) -> tuple[dict[str, Any], list[str]]:
    """FIELDS that come from the voxels, but for places; and what is odd about the scan.

    Args:
        scan: as ``on_common_axes`` gives it. given: as its files have it.
    """
    notes = []
    metal = float((given.voxels > METAL_HU).sum()) * given.voxel_mm3 / 1000
    if metal > 0.05:
        notes.append(f"metal: {metal:.1f} mL above {METAL_HU} HU")
    if (scan.voxels < FAT_HU).mean() < LEAST_SHARE:
        notes.append(NOT_HU)
    body = body_of(scan)
    voxels = (np.clip(scan.voxels, AIR_HU, MOST_HU).astype(np.float32) - AIR_HU) / 1000
    return {
        "shape_DHW": list(body.shape), "spacing_mm": list(scan.spacing_mm), "affine": scan.affine.ravel().tolist(),
        "orientation": axis_codes(given), **in_box(voxels[None] * body, body), "brain": np.packbits(body).tobytes(),
        "pixels_hash": pixels_hash(np.rint(reoriented(given, AXES).voxels).clip(-32768, 32767).astype(np.int16)),
    }, notes  # fmt: skip


def places_of(masks: Mapping[int, np.ndarray]) -> dict[str, Any]:
    """Columns "foreground" and "foreground_class": some voxels of each organ; None where there is none.

    Args:
        masks: number of an organ, from 1 → (D, H, W) bool.
    """
    if not masks:
        return {"foreground": None, "foreground_class": None}
    places, classes = [], []
    random = np.random.default_rng(_SEED)
    for number, mask in masks.items():
        own = np.flatnonzero(mask)
        own = own if len(own) <= PLACES else np.sort(random.choice(own, PLACES, replace=False))
        places.append(own)
        classes.append(np.full(len(own), number, np.int8))
    return {"foreground": np.concatenate(places).astype(np.int32), "foreground_class": np.concatenate(classes)}


def windowed(volume: VolumeRow, window_hu: tuple[float, float]) -> VolumeRow:
    """0 to 1 over the window; outside of the body 0, as its lower end."""
    low, high = (np.float32((hu - AIR_HU) / 1000) for hu in window_hu)
    return replace(volume, voxels_CDHW=(volume.voxels_CDHW.clip(low, high) - low) / (high - low))


def body_of(scan: Volume) -> np.ndarray:
    """(D, H, W) bool: the largest connected part that is no air, without holes in its slices, and a margin around it."""
    dense = ndimage.binary_opening(scan.voxels > BODY_HU)
    parts, count = ndimage.label(dense)
    if not count:
        return np.ones(scan.voxels.shape, dtype=bool)
    body = parts == 1 + int(np.bincount(parts.ravel())[1:].argmax())
    body = np.stack([ndimage.binary_fill_holes(one) for one in body])
    return _within(body, _BODY_MARGIN_MM, scan.spacing_mm)


def _within(mask: np.ndarray, mm: float, spacing_mm: Sequence[float]) -> np.ndarray:
    """(D, H, W) bool: voxels at most so far from the mask. A few slices at a time: distances take 20 bytes a voxel, which of a whole
    planning CT is a gigabyte."""
    reach = int(mm / spacing_mm[0]) + 1
    out = np.zeros_like(mask)
    for first in range(0, len(mask), _SLICES_AT_ONCE):
        low, stop = max(0, first - reach), first + _SLICES_AT_ONCE
        part = mask[low : stop + reach]
        if part.any():  # of nothing there is no distance
            near = ndimage.distance_transform_edt(~part, sampling=spacing_mm) <= mm
            out[first:stop] = near[first - low : stop - low]
    return out


def largest_part(mask: np.ndarray) -> np.ndarray:
    """(D, H, W) bool of the largest part whose voxels touch by a corner or more; of equal ones the first."""
    found = ndimage.find_objects(mask.view(np.uint8), max_label=1)[0]
    if found is None:
        return mask
    parts, count = ndimage.label(mask[found], np.ones((3, 3, 3)))
    if count < 2:
        return mask
    out = np.zeros_like(mask)
    out[found] = parts == 1 + int(np.bincount(parts.ravel())[1:].argmax())
    return out


def _on_spacing(scan: Volume, spacing_mm: Sequence[float]) -> Volume:
    """A grid of this spacing over the extent of the scan; its voxels are of no account."""
    sides = np.array(scan.voxels.shape)
    steps = np.array(spacing_mm) / scan.spacing_mm
    shape = np.maximum(1, np.rint(sides / steps)).astype(int)
    affine = scan.affine.copy()
    affine[:3, :3] *= steps
    # the outer faces stay where they are, not the first centres
    affine[:3, 3] += scan.affine[:3, :3] @ ((steps - 1) / 2)
    return Volume(np.zeros(shape, np.uint8), affine)
