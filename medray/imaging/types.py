"""The images that flow through medray, with axes and units in the names of their fields."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


class Unreadable(ValueError):
    """A file (or frame) that cannot become a Slice. ``str(error)`` is the one-line reason, without patient data."""


@dataclass(frozen=True)
class Header:
    """What a DICOM header says of one slice, read without its pixels. Strings are the file's own, as they stand."""

    slice_id: str  # SOPInstanceUID; frames of a multi-frame image carry "/frame<k>" with k from 1
    patient_id: str
    study_id: str  # StudyInstanceUID
    series_id: str  # SeriesInstanceUID
    frame: int  # 0 in a single-frame file
    rows: int
    columns: int
    position_xyz_mm: tuple[float, float, float]  # ImagePositionPatient: centre of the first pixel, LPS
    orientation_rc: tuple[float, float, float, float, float, float]  # ImageOrientationPatient: row, then column cosines
    spacing_rc_mm: tuple[float, float]  # PixelSpacing: between rows, between columns
    # what tells slices of one series apart; "", () or None where the file does not say
    image_type: tuple[str, ...] = ()  # ImageType, FrameType of a frame
    frame_of_reference_id: str = ""
    series_number: float | None = None
    acquisition_number: float | None = None
    instance_number: float | None = None  # of a frame: its number in the file
    stack_name: str = ""  # StackID (PS3.3 C.7.6.16.2.2)
    temporal_index: float | None = None  # TemporalPositionIndex
    kernel: str = ""  # ConvolutionKernel
    peak_kv: float | None = None  # KVP
    thickness_mm: float | None = None  # SliceThickness
    slice_location_mm: float | None = None
    acquired: str = ""  # date and time of acquisition, as they stand
    created: str = ""  # ContentDate and ContentTime


@dataclass(frozen=True)
class Slice:
    """One axial CT image in Hounsfield units."""

    header: Header
    pixels_hu: np.ndarray  # (rows, columns), int16 where slope and intercept are whole, else float32; >= -1024
    repaired: str | None = None  # what was mended ("wrapped 12-bit"), None where nothing was


@dataclass(frozen=True, eq=False)
class VolumeHeader:
    """What a file says of its volume, read without its voxels. Of a DICOM file: of its one slice."""

    kind: str  # "nifti", "nrrd" or "dicom"
    shape_DHW: tuple[int, int, int]  # noqa: N815
    affine: np.ndarray  # (4, 4) float64: index (d, h, w) → RAS+ mm
    dtype: str  # of the stored voxels, as numpy names it
    series_id: str = ""  # DICOM only: SeriesInstanceUID
    slice_id: str = ""  # DICOM only: SOPInstanceUID
    patient_id: str = ""  # DICOM only
    modality: str = ""  # DICOM only: "CT", "MR" or "PT"
    frame_of_reference_id: str = ""  # DICOM only: FrameOfReferenceUID

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Between voxels along D, H, W."""
        return _spacing_mm(self.affine)


@dataclass(frozen=True, eq=False)
class Volume:
    """One image of three axes. The axes are the file's own, in its order: D, H, W name them, and no direction."""

    voxels: np.ndarray  # (D, H, W): integers as stored, or float32 where the file has floats or a scale
    affine: np.ndarray  # (4, 4) float64: index (d, h, w) → RAS+ mm
    kind: str = ""  # "nifti", "nrrd" or "dicom"; "" of one that was computed
    header: bytes | None = None  # NIfTI only: the 348 or 540 bytes, for an answer that keeps them
    order: tuple[
        tuple[int, int], ...
    ] = ()  # DICOM only: of each slice its file, as they were given, and its frame; from 0

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Between voxels along D, H, W."""
        return _spacing_mm(self.affine)

    @property
    def voxel_mm3(self) -> float:
        return float(abs(np.linalg.det(self.affine[:3, :3])))


def _spacing_mm(affine: np.ndarray) -> tuple[float, float, float]:
    d, h, w = np.linalg.norm(affine[:3, :3], axis=0)
    return float(d), float(h), float(w)
