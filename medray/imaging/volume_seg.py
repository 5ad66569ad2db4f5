"""An answer as DICOM SEG (PS3.3 C.8.20), beside the series that it is of: highdicom writes it."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from medray.imaging.answer_dicom import SERIES_NUMBER, sources_of, time_of_study, uid_of
from medray.imaging.types import Volume

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription
    from pydicom.dataset import Dataset

Concept = tuple[str, str, str]
"""Value, scheme and meaning of a code."""


@dataclass(frozen=True)
class SegmentClass:
    """What the voxels of one class are, in coded concepts (SNOMED CT)."""

    label: str
    kind: Concept
    category: Concept = ("49755003", "SCT", "Morphologically Abnormal Structure")
    region: Concept = ("12738006", "SCT", "Brain")


MS_LESION = SegmentClass("Multiple sclerosis lesion", ("24700007", "SCT", "Multiple sclerosis"))


def dicom_seg(
    mask: np.ndarray, like: Volume, files: Sequence[bytes], classes: Sequence[SegmentClass] = (MS_LESION,)
) -> bytes:
    """A binary segmentation of a series, a segment a class; the same arguments give the same bytes.

    Args:
        mask: (D, H, W), 0 and the numbers of classes from 1; of classes that overlap (D, H, W, classes) bool.
        like: the volume as it was read from ``files``.
        files: of the series, in the order in which the volume was read from them.
    Raises:
        ValueError: another grid, a value that is no class, or files that lack what the standard wants of a SEG.
    """
    if mask.shape[:3] != like.voxels.shape or len(like.order) != len(mask):
        raise ValueError(f"a mask of shape {mask.shape} for a DICOM series of shape {like.voxels.shape}")
    values, most = np.unique(mask), len(classes) if mask.ndim == 3 else 1
    if values.min() < 0 or values.max() > most or mask.shape[3:] not in ((), (len(classes),)):
        raise ValueError(
            f"a mask of shape {mask.shape} with the values {values.tolist()}: {len(classes)} classes are 0 to {most}"
        )
    numbers = mask.astype(np.uint8)
    if len(files) > 1:
        wanted = [file for file, _ in like.order]
    else:  # highdicom takes the frames of one file in its own order
        wanted = [0]
        in_file = np.empty_like(numbers)
        in_file[[frame for _, frame in like.order]] = numbers
        numbers = in_file
    sources = sources_of(files, wanted)
    content = hashlib.sha256(
        b"".join([*(str(s.SOPInstanceUID).encode() for s in sources), numbers.tobytes()])
    ).hexdigest()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they quote the patient's name
        seg = _segmentation(sources, numbers, classes, content)
    return _bytes(seg, sources[0], content)


def _segmentation(
    sources: Sequence[Dataset], numbers: np.ndarray, classes: Sequence[SegmentClass], content: str
) -> Dataset:
    from highdicom.seg import Segmentation, SegmentationTypeValues

    try:
        return Segmentation(
            source_images=sources,
            pixel_array=numbers,
            segmentation_type=SegmentationTypeValues.BINARY,
            segment_descriptions=[_described(number, one) for number, one in enumerate(classes, 1)],
            series_instance_uid=uid_of("series", content),
            series_number=SERIES_NUMBER,
            sop_instance_uid=uid_of("image", content),
            instance_number=1,
            manufacturer="medray",
            manufacturer_model_name="medray",
            software_versions=version("medray"),
            device_serial_number="none",
            content_description="Found by a program, not seen by a physician",
        )
    except (AttributeError, KeyError) as error:  # these name an element that is not there
        why = " ".join(str(error).split())
        raise ValueError(f"no DICOM SEG of these files ({why}); take the mask in NIfTI") from None
    except (ValueError, TypeError):  # and these quote a value, such as a date of birth
        raise ValueError(
            "no DICOM SEG of these files (an element of theirs holds what the standard does not allow); take the mask in NIfTI"
        ) from None


def _described(number: int, one: SegmentClass) -> SegmentDescription:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
    from pydicom.sr.coding import Code

    return SegmentDescription(
        segment_number=number,
        segment_label=one.label,
        segmented_property_category=Code(*one.category),
        segmented_property_type=Code(*one.kind),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name="medray", family=Code("123110", "DCM", "Artificial Intelligence"), version=version("medray")
        ),
        anatomic_regions=[Code(*one.region)],
    )


def _bytes(seg: Dataset, source: Dataset, content: str) -> bytes:
    """The file, with the time of the study instead of the clock's and identifiers that follow from what is in it."""
    date, time = time_of_study(source)
    seg.InstanceCreationDate = seg.ContentDate = date
    seg.InstanceCreationTime = seg.ContentTime = time
    for equipment in seg.get("ContributingEquipmentSequence", ()):
        equipment.ContributionDateTime = date + time
    fresh = uid_of("dimensions", content)
    for item in (*seg.DimensionOrganizationSequence, *seg.DimensionIndexSequence):
        item.DimensionOrganizationUID = fresh
    stream = io.BytesIO()
    seg.save_as(stream)
    return stream.getvalue()
