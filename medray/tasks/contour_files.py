"""Contours of a scan as files: a NIfTI mask an organ; of a DICOM series also an RT structure set and a DICOM SEG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from medray.imaging.structure_set_write import structure_set_bytes
from medray.imaging.types import Volume
from medray.imaging.volume_grid import reoriented, resampled, same_grid, turned_back
from medray.imaging.volume_nifti import nifti_bytes
from medray.shards.store import Store, reason
from medray.tasks.ct_rows import AXES
from medray.tasks.organ_codes import segment_class


def on_grid_of_file(found: np.ndarray, grid: Volume, like: Volume) -> np.ndarray:
    """(D, H, W) on the scan's own grid, with AXES: as it was given where the grids are the same, else float32.

    Args:
        found: (D, H, W) from 0 to 1, or bool. grid: its own, with AXES; its voxels are of no account. like: as the file has it.
    """
    upright = reoriented(like, AXES)
    if same_grid(grid, upright):
        return found
    return resampled(Volume(found.astype(np.float32), grid.affine), upright, order=1).voxels


def on_file_grid(mask: np.ndarray, grid: Volume, like: Volume) -> np.ndarray:
    """A mask (D, H, W) bool with AXES → bool with the axes of the scan's file, on its grid. ``grid``, ``like``: as above."""
    return turned_back(on_grid_of_file(mask, grid, like) >= 0.5, like, AXES)


def write_contours(
    to: Store, name: str, masks: Mapping[str, np.ndarray], like: Volume, files: Sequence[bytes], named: bool = True
) -> list[str]:
    """<name>/<organ>.nii.gz of every organ with a voxel; of a DICOM series <name>_rtstruct.dcm and <name>_seg.dcm.

    Args:
        masks: organ → (D, H, W) bool with the axes of ``like``, which was read from ``files``.
        named: write DICOM too, which carries the patient's name and identifiers, as a planning system wants them.
    Returns:
        Why a file could not be written, a line each.
    """
    there = {organ: mask for organ, mask in masks.items() if mask.any()}
    for organ, mask in there.items():
        to.write_bytes(f"{name}/{organ}.nii.gz", nifti_bytes(mask.astype(np.uint8), like))
    if like.kind != "dicom" or not there or not named:
        return []
    from medray.imaging.volume_seg import dicom_seg  # highdicom takes seconds

    notes = []
    try:
        to.write_bytes(f"{name}_rtstruct.dcm", structure_set_bytes(there, like, files))
    except ValueError as error:
        notes.append(f"no structure set: {reason(error)}")
    try:
        stacked, classes = np.stack([*there.values()], -1), [segment_class(organ) for organ in there]
        to.write_bytes(f"{name}_seg.dcm", dicom_seg(stacked, like, files, classes))
    except ValueError as error:
        notes.append(f"no DICOM SEG: {reason(error)}")
    return notes
