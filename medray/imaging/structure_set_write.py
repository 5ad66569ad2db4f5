"""Masks → an RT structure set (PS3.3 A.19) beside the series that they are of, as planning systems open it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from medray.imaging.answer_dicom import SERIES_NUMBER, sources_of, time_of_study, uid_of
from medray.imaging.contours import Slices, contours_of
from medray.imaging.structure_set import RT_STRUCTURE_SET
from medray.imaging.types import Volume

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_STUDY = "1.2.840.10008.3.1.2.3.1"  # Detached Study Management: retired, and what the module wants here
_COLOURS = (
    (230, 25, 75), (60, 180, 75), (255, 225, 25), (0, 130, 200), (245, 130, 48), (145, 30, 180), (70, 240, 240),
    (240, 50, 230), (210, 245, 60), (250, 190, 212), (0, 128, 128), (220, 190, 255), (170, 110, 40), (255, 250, 200),
    (128, 0, 0), (170, 255, 195), (128, 128, 0), (255, 215, 180), (0, 0, 128), (128, 128, 128),
)  # fmt: skip
_OF_PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
_OF_STUDY = ("StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber")
MOST_NAME = 64  # characters of an ROI name (LO); TG-263 names have 16 at most


def structure_set_bytes(masks: Mapping[str, np.ndarray], like: Volume, files: Sequence[bytes]) -> bytes:
    """The contours of masks; the same arguments give the same bytes. A mask without a voxel is not written.

    Numbers have four digits behind the point, and so at most 16 characters (DS); the file is in implicit VR, since the
    length of a long contour does not fit the explicit one.

    Args:
        masks: name → (D, H, W) bool. Names of TG-263 are what planning systems take.
        like: the volume as it was read from ``files``.
        files: of the series, in the order in which the volume was read from them.
    Raises:
        ValueError: another grid, a name that is too long, no mask with a voxel, or files that lack what a structure set
            names (a frame of reference).
    """
    from pydicom import Dataset
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, ImplicitVRLittleEndian

    for name, mask in masks.items():
        if mask.shape != like.voxels.shape or len(like.order) != len(mask):
            raise ValueError(f"{name}: a mask of shape {mask.shape} for a DICOM series of shape {like.voxels.shape}")
        if not 0 < len(name) <= MOST_NAME:
            raise ValueError(f"{name[:80]!r}: a name of {len(name)} characters; 1 to {MOST_NAME} fit a structure set")
    there = {name: mask.astype(bool) for name, mask in masks.items() if mask.any()}
    if not there:
        raise ValueError("no structure has a voxel: there is nothing to write")
    sources = sources_of(files, [file for file, _ in like.order])
    first = sources[0]
    missing = [name for name in ("FrameOfReferenceUID", "SeriesInstanceUID", "StudyInstanceUID") if not first.get(name)]
    if missing:
        raise ValueError(f"no structure set of these files: they have no {', '.join(missing)}; take the masks in NIfTI")
    content = hashlib.sha256()
    for source in sources:
        content.update(str(source.SOPInstanceUID).encode())
    for name, mask in there.items():
        content.update(name.encode() + np.packbits(mask).tobytes())
    digest = content.hexdigest()

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(RT_STRUCTURE_SET), UID(uid_of("image", digest))
    meta.TransferSyntaxUID = ImplicitVRLittleEndian
    file = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))  # type: ignore[arg-type]
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    for name in (*_OF_PATIENT, *_OF_STUDY, "SpecificCharacterSet"):
        if name in first:
            file[name] = first[name]
    date, time = time_of_study(first)
    file.Modality, file.SeriesInstanceUID, file.SeriesNumber = "RTSTRUCT", uid_of("series", digest), SERIES_NUMBER
    file.SeriesDescription = "Found by a program, not seen by a physician"
    file.OperatorsName = ""
    file.Manufacturer = file.ManufacturerModelName = "medray"
    file.SoftwareVersions = version("medray")
    file.StructureSetLabel = "medray"
    file.StructureSetDate = file.InstanceCreationDate = date
    file.StructureSetTime = file.InstanceCreationTime = time
    file.FrameOfReferenceUID = first.FrameOfReferenceUID
    file.PositionReferenceIndicator = first.get("PositionReferenceIndicator", "")
    file.ApprovalStatus = "UNAPPROVED"
    images = [_image(source, frame, len(files) == 1) for source, (_, frame) in zip(sources, like.order, strict=True)]
    file.ReferencedFrameOfReferenceSequence = [_reference(first, images)]
    file.StructureSetROISequence, file.ROIContourSequence, file.RTROIObservationsSequence = [], [], []
    slices = Slices.of(like)
    for number, (name, mask) in enumerate(there.items(), 1):
        roi = Dataset()
        roi.ROINumber, roi.ROIName, roi.ROIGenerationAlgorithm = number, name, "AUTOMATIC"
        roi.ReferencedFrameOfReferenceUID = first.FrameOfReferenceUID
        drawn = Dataset()
        drawn.ROIDisplayColor = list(_COLOURS[(number - 1) % len(_COLOURS)])
        drawn.ReferencedROINumber = number
        drawn.ContourSequence = [_contour(points, images[k]) for k, points in contours_of(mask, slices)]
        seen = Dataset()
        seen.ObservationNumber = seen.ReferencedROINumber = number
        seen.RTROIInterpretedType, seen.ROIInterpreter = "ORGAN", ""
        file.StructureSetROISequence.append(roi)
        file.ROIContourSequence.append(drawn)
        file.RTROIObservationsSequence.append(seen)
    stream = io.BytesIO()
    file.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _image(source: Dataset, frame: int, of_many: bool) -> Dataset:
    from pydicom import Dataset

    image = Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    if of_many:
        image.ReferencedFrameNumber = frame + 1
    return image


def _reference(first: Dataset, images: Sequence[Dataset]) -> Dataset:
    """The frame of reference, the study and the series that the contours are drawn on."""
    from pydicom import Dataset

    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID, series.ContourImageSequence = first.SeriesInstanceUID, list(images)
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = _STUDY, first.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = first.FrameOfReferenceUID, [study]
    return frame


def _contour(points_mm: np.ndarray, image: Dataset) -> Dataset:
    from pydicom import Dataset

    contour = Dataset()
    contour.ContourImageSequence = [image]
    contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(points_mm)
    contour.ContourData = [f"{value:.4f}" for value in points_mm.reshape(-1)]
    return contour
