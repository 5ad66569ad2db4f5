"""NIfTI files as a test wants them, written by nibabel."""

from __future__ import annotations

import numpy as np
from nibabel.nifti1 import Nifti1Header, Nifti1Image

OBLIQUE = np.array(
    [[-0.98, 0.1, 0.05, 40], [0.1, 1.9, -0.3, -50], [0.06, 0.25, 2.9, -20], [0, 0, 0, 1]], dtype=np.float64
)
"""Axes towards left, front and head, none along an axis of the patient, of 1, 1.9 and 2.9 mm."""


def nifti(voxels: np.ndarray, affine: np.ndarray = OBLIQUE, sform: int = 1, qform: int = 0) -> bytes:
    """A plain .nii with the given codes; the form of a code 0 is left as zeros."""
    header = Nifti1Header()
    header.set_data_dtype(voxels.dtype)
    image = Nifti1Image(voxels, None, header)
    image.set_sform(affine if sform else None, code=sform)
    image.set_qform(affine if qform else None, code=qform)
    return image.to_bytes()
