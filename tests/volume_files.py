"""Volumes in files as a test wants them: NIfTI written by nibabel, MR series by pydicom."""

from __future__ import annotations

import copy
import io

import numpy as np
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

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


AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def mr_series(
    voxels: np.ndarray,
    *,
    orientation: tuple[float, ...] = AXIAL,
    step_lps: tuple[float, float, float] = (0.0, 0.0, 3.0),
    origin_lps: tuple[float, float, float] = (-30.0, -40.0, 10.0),
    spacing_rc: tuple[float, float] = (1.5, 0.75),
    **tags: object,
) -> list[Dataset]:
    """MR images of (slices, rows, columns) integers, the first slice at ``origin_lps``; further tags in each."""
    made = []
    for i, pixels in enumerate(voxels):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = MRImageStorage
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = f"1.2.826.0.1.3680043.8.498.7.{i + 1}"
        ds.PatientID, ds.PatientName, ds.PatientBirthDate, ds.PatientSex = "p1", "One", "", "O"
        ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.5", "1.2.826.0.1.3680043.8.498.6"
        ds.FrameOfReferenceUID = "1.2.826.0.1.3680043.8.498.8"
        ds.StudyID, ds.StudyDate, ds.StudyTime, ds.AccessionNumber = "1", "20200101", "120000", ""
        ds.ReferringPhysicianName = ""
        ds.Modality, ds.SeriesNumber, ds.InstanceNumber = "MR", 3, i + 1
        ds.ImageOrientationPatient = list(orientation)
        ds.ImagePositionPatient = [float(o + i * s) for o, s in zip(origin_lps, step_lps, strict=True)]
        ds.PixelSpacing, ds.SliceThickness = list(spacing_rc), 3.0
        ds.Rows, ds.Columns = pixels.shape
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 1
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
        ds.PixelData = pixels.astype("<i2").tobytes()
        for name, value in tags.items():
            setattr(ds, name, value)
        made.append(ds)
    return made


def enhanced(voxels: np.ndarray, order: list[int]) -> Dataset:
    """``mr_series`` as one image of many frames: which slice each frame is."""
    series = mr_series(voxels)
    made = copy.deepcopy(series[0])
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(made, name)
    made.NumberOfFrames = len(order)
    made.PixelData = voxels[order].astype("<i2").tobytes()
    plane, measures, shared = Dataset(), Dataset(), Dataset()
    plane.ImageOrientationPatient = series[0].ImageOrientationPatient
    measures.PixelSpacing, measures.SliceThickness = series[0].PixelSpacing, 3.0
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [plane], [measures]
    made.SharedFunctionalGroupsSequence = [shared]
    made.PerFrameFunctionalGroupsSequence = [Dataset() for _ in order]
    for frame, i in zip(made.PerFrameFunctionalGroupsSequence, order, strict=True):
        place = Dataset()
        place.ImagePositionPatient = series[i].ImagePositionPatient
        frame.PlanePositionSequence = [place]
    return made


def as_bytes(dataset: Dataset) -> bytes:
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
