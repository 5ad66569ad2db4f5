from __future__ import annotations

import copy
import io
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import EnhancedMRImageStorage
from volume_files import as_bytes, enhanced, mr_series

from medray.imaging.types import Volume
from medray.imaging.volume import read_volume
from medray.imaging.volume_nifti import nifti_bytes
from medray.imaging.volume_seg import MS_LESION, SegmentClass, dicom_seg

VOXELS = np.random.default_rng(0).integers(0, 900, (5, 6, 7)).astype(np.int16)
MASK = np.zeros(VOXELS.shape, np.uint8)
MASK[1:4, 2:4, 3] = 1
MASK[3, 5, 1:6] = 2
GREY = SegmentClass("Black hole", ("52988006", "SCT", "Lesion"))


def series() -> tuple[list[bytes], Volume]:
    """Files in an order that is not the slices', and their volume."""
    files = [as_bytes(dataset) for dataset in mr_series(VOXELS)]
    files = [files[i] for i in (3, 0, 4, 2, 1)]
    return files, read_volume(files)


def test_it_is_read_back_as_it_was_on_the_slices_of_the_series() -> None:
    files, volume = series()
    data = dicom_seg(MASK, volume, files, [MS_LESION, GREY])
    seg = hd.seg.segread(io.BytesIO(data))
    uids = [dcmread(io.BytesIO(files[file])).SOPInstanceUID for file, _ in volume.order]
    found = seg.get_pixels_by_source_instance(uids, combine_segments=True, assert_missing_frames_are_empty=True)
    assert np.array_equal(found, MASK)
    geometry = seg.get_volume(combine_segments=True)
    place = geometry.affine @ [*np.argwhere(geometry.array == 2)[0], 1]
    ours = volume.affine @ [*np.argwhere(MASK == 2)[0], 1]
    assert np.allclose(place[:3] * [-1, -1, 1], ours[:3])
    first, other = (seg.get_segment_description(number) for number in (1, 2))
    assert (first.segment_label, other.segment_label) == ("Multiple sclerosis lesion", "Black hole")
    assert first.segmented_property_type.value == "24700007"
    assert first.segmented_property_type.scheme_designator == "SCT"
    assert first.segmented_property_category.value == "49755003"
    assert first.anatomic_regions[0].value == "12738006"
    assert first.algorithm_type.value == "AUTOMATIC"
    source = dcmread(io.BytesIO(files[0]))
    for name in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert getattr(seg, name) == getattr(source, name)
    assert seg.SeriesInstanceUID != source.SeriesInstanceUID


def test_the_same_arguments_give_the_same_bytes() -> None:
    files, volume = series()
    first = dicom_seg(MASK > 0, volume, files)
    assert dicom_seg(MASK > 0, volume, files) == first
    other = copy.copy(MASK)
    other[0, 0, 0] = 1
    assert (
        hd.seg.segread(io.BytesIO(dicom_seg(other > 0, volume, files))).SOPInstanceUID
        != hd.seg.segread(io.BytesIO(first)).SOPInstanceUID
    )


def test_the_frames_of_one_file_are_met_in_its_own_order() -> None:
    source = enhanced(VOXELS, [3, 0, 4, 2, 1])
    source.file_meta.MediaStorageSOPClassUID = source.SOPClassUID = EnhancedMRImageStorage
    files = [as_bytes(source)]
    volume = read_volume(files)
    geometry = hd.seg.segread(io.BytesIO(dicom_seg(MASK > 0, volume, files))).get_volume(combine_segments=True)
    places = {tuple(np.round((geometry.affine @ [*i, 1])[:3] * [-1, -1, 1], 3)) for i in np.argwhere(geometry.array)}
    assert places == {tuple(np.round((volume.affine @ [*i, 1])[:3], 3)) for i in np.argwhere(MASK)}


def test_no_lesion_is_an_answer_too() -> None:
    files, volume = series()
    seg = hd.seg.segread(io.BytesIO(dicom_seg(np.zeros_like(MASK), volume, files)))
    assert not seg.pixel_array.any()
    assert seg.get_segment_description(1).segment_label == "Multiple sclerosis lesion"


def test_an_anonymised_series_that_has_lost_what_may_be_empty() -> None:
    bare = []
    for dataset in mr_series(VOXELS):
        for name in ("PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime"):
            delattr(dataset, name)
        bare.append(as_bytes(dataset))
    seg = hd.seg.segread(io.BytesIO(dicom_seg(MASK > 0, read_volume(bare), bare)))
    assert seg.PatientName == ""
    assert seg.get_volume(combine_segments=True).array.sum() == (MASK > 0).sum()


@pytest.mark.real_data
@pytest.mark.filterwarnings("ignore")
def test_a_real_series_without_frame_of_reference_has_its_mask_in_nifti(head_ct_dir: Path) -> None:
    """The challenge's files lack SOPClassUID and FrameOfReferenceUID, which a SEG must name."""
    files = [path.read_bytes() for path in sorted((head_ct_dir / "rsna2019_series").iterdir())]
    volume = read_volume(files)
    with pytest.raises(ValueError, match="no DICOM SEG of these files .*SOPClassUID.*; take the mask in NIfTI"):
        dicom_seg(volume.voxels > 60, volume, files)
    assert len(nifti_bytes(volume.voxels > 60, volume)) > 1000


def test_what_does_not_fit_says_why() -> None:
    files, volume = series()
    with pytest.raises(ValueError, match=r"the values \[0, 1, 2\]: 1 classes are 0 to 1"):
        dicom_seg(MASK, volume, files)
    with pytest.raises(ValueError, match="a mask of shape"):
        dicom_seg(MASK[1:], volume, files)
    with pytest.raises(ValueError, match="for a DICOM series"):
        dicom_seg(MASK, Volume(VOXELS, np.eye(4), "nifti"), files)
    bare = []
    for data in files:
        dataset = dcmread(io.BytesIO(data))
        del dataset.FrameOfReferenceUID
        bare.append(as_bytes(dataset))
    with pytest.raises(ValueError, match="no DICOM SEG of these files .*; take the mask in NIfTI") as error:
        dicom_seg(MASK > 0, volume, bare)
    assert "\n" not in str(error.value)


def test_nothing_that_is_said_holds_a_patients_name_or_birth_date(recwarn: pytest.WarningsRecorder) -> None:
    """highdicom warns of a name of one part, and pydicom quotes a date that is none."""
    files, volume = series()
    named = [dcmread(io.BytesIO(one)) for one in files]
    for one in named:
        one.PatientName = "SECRETNAME"
    assert dicom_seg(MASK > 0, volume, [as_bytes(one) for one in named])
    assert not [one for one in recwarn if "SECRETNAME" in str(one.message)]
    for one in named:
        one._dict[0x00100030] = RawDataElement(
            Tag(0x00100030), "DA", 10, b"03.05.1950", 0, one.is_implicit_VR or False, True
        )
    with pytest.raises(ValueError, match="no DICOM SEG of these files") as error:
        dicom_seg(MASK > 0, volume, [as_bytes(one) for one in named])
    assert "1950" not in str(error.value)
