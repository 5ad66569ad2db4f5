"""Structure sets out and in: the faults that other writers and readers have are not ours."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from volume_files import as_bytes, enhanced, mr_series

from medray.imaging.contours import Slices, contours_of
from medray.imaging.structure_set import Structure, StructureSet, is_structure_set, read_structure_set
from medray.imaging.structure_set_write import structure_set_bytes
from medray.imaging.types import Unreadable, Volume
from medray.imaging.volume import read_volume
from medray.imaging.volume_nrrd import read as read_nrrd

VOXELS = np.zeros((6, 32, 40), np.int16)
RNG = np.random.default_rng(0)
MASKS = {
    "Parotid_L": np.hypot(*np.ogrid[-9:23, -12:28])[None].repeat(6, axis=0)
    < np.array([2, 5, 7, 6, 3, 0])[:, None, None],
    "Speckle": RNG.random(VOXELS.shape) < 0.2,
    "Mandible": np.zeros(VOXELS.shape, dtype=bool),
    "Lens_R": np.zeros(VOXELS.shape, dtype=bool),
}
MASKS["Mandible"][2:4, 5:30, 5:35] = True
MASKS["Mandible"][2:4, 9:25, 9:30] = False
MASKS["Mandible"][3, 12, 12] = True
MASKS["Lens_R"][4, 31, 39] = True
OBLIQUE = (0.98, 0.17, 0.0985, -0.1736, 0.9848, 0.0)  # rounded, as headers have it
PLANES = {
    "axial": ((1.0, 0, 0, 0, 1.0, 0), (0.0, 0, 2.5)),
    "sagittal": ((0.0, 1.0, 0, 0, 0, -1.0), (3.0, 0, 0)),
    "oblique": (OBLIQUE, tuple(2.5 * np.cross(OBLIQUE[:3], OBLIQUE[3:]))),
    "a tilted gantry": ((1.0, 0, 0, 0, 0.9848, -0.1736), (0.0, 0, 2.5)),
}


def series(plane: str = "axial") -> tuple[list[bytes], Volume]:
    """Files in an order that is not the slices', of pixels that are not square; and their volume."""
    orientation, step = PLANES[plane]
    datasets = mr_series(
        VOXELS, orientation=orientation, step_lps=step, spacing_rc=(1.953125, 0.9765625), Modality="CT"
    )
    files = [as_bytes(datasets[i]) for i in (3, 0, 5, 4, 2, 1)]
    return files, read_volume(files)


def masks_in(found: StructureSet, like: Volume) -> dict[str, np.ndarray]:
    return {one.name: one.mask(Slices.of(like))[0] for one in found.structures}


@pytest.mark.parametrize("plane", PLANES)
def test_every_voxel_comes_back(plane: str) -> None:
    files, volume = series(plane)
    found = masks_in(read_structure_set(structure_set_bytes(MASKS, volume, files)), volume)
    assert [*found] == [*MASKS]
    for name, mask in MASKS.items():
        assert np.array_equal(found[name], mask), name


@pytest.mark.real_data
@pytest.mark.slow
def test_real_organs_come_back_drawn_by_both_raters(two_raters_dir: Path) -> None:
    """42 masks, planning CT of 0.98 × 0.98 × 2.5 mm: as contours of four digits, and again as voxels."""
    files = sorted(two_raters_dir.rglob("*.nrrd"))
    assert len(files) == 42
    for path in files:
        volume = read_nrrd(path.read_bytes())  # its axes run along columns, rows and slices
        mask = volume.voxels.transpose(2, 1, 0) > 0
        slices = Slices.of(Volume(mask, volume.affine[:, [2, 1, 0, 3]]))
        contours = tuple(np.round(points, 4) for _, points in contours_of(mask, slices))
        back, why = Structure(path.stem, contours).mask(slices)
        assert not why
        assert np.array_equal(back, mask), path.name


def test_what_a_planning_system_wants() -> None:
    """No number over 16 characters, no contour under three points, the series' own identifiers, organs found by a program."""
    files, volume = series("oblique")
    data = structure_set_bytes(MASKS | {"Chiasm": MASKS["Lens_R"] & False}, volume, files)
    file, source = dcmread(io.BytesIO(data)), dcmread(io.BytesIO(files[0]))
    assert is_structure_set(data[:1000])
    assert file.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2"
    for name in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert getattr(file, name) == getattr(source, name)
    assert file.SeriesInstanceUID != source.SeriesInstanceUID
    assert [roi.ROIName for roi in file.StructureSetROISequence] == [*MASKS]  # what was not found is not written empty
    assert {roi.ROIGenerationAlgorithm for roi in file.StructureSetROISequence} == {"AUTOMATIC"}
    assert {roi.ReferencedFrameOfReferenceUID for roi in file.StructureSetROISequence} == {source.FrameOfReferenceUID}
    assert {one.RTROIInterpretedType for one in file.RTROIObservationsSequence} == {"ORGAN"}
    assert file.ApprovalStatus == "UNAPPROVED"
    (study,) = file.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence
    (of_series,) = study.RTReferencedSeriesSequence
    uids = {dcmread(io.BytesIO(one)).SOPInstanceUID for one in files}
    assert of_series.SeriesInstanceUID == source.SeriesInstanceUID
    assert {image.ReferencedSOPInstanceUID for image in of_series.ContourImageSequence} == uids
    slices = Slices.of(volume)
    ordered = [dcmread(io.BytesIO(files[k])).SOPInstanceUID for k, _ in volume.order]
    for drawn in file.ROIContourSequence:
        for contour in drawn.ContourSequence:
            texts = [value.original_string for value in contour.ContourData]
            assert max(map(len, texts)) <= 16
            assert contour.NumberOfContourPoints == len(texts) / 3 >= 3
            number, _ = slices.slice_of(np.array(texts, dtype=float).reshape(-1, 3))
            assert number is not None
            assert contour.ContourImageSequence[0].ReferencedSOPInstanceUID == ordered[number]


def test_the_same_arguments_give_the_same_bytes() -> None:
    files, volume = series()
    assert structure_set_bytes(MASKS, volume, files) == structure_set_bytes(MASKS, volume, files)
    other = structure_set_bytes({"Mandible": MASKS["Mandible"]}, volume, files)
    assert (
        dcmread(io.BytesIO(other)).SOPInstanceUID
        != dcmread(io.BytesIO(structure_set_bytes(MASKS, volume, files))).SOPInstanceUID
    )


def test_a_long_contour_is_whole() -> None:
    """Ten thousand points do not fit the length of an explicit VR."""
    voxels = np.zeros((3, 128, 256), np.int16)
    files = [as_bytes(one) for one in mr_series(voxels, step_lps=(0, 0, 2.0))]
    volume = read_volume(files)
    comb = np.zeros(voxels.shape, dtype=bool)
    comb[1, :, ::2] = True
    comb[1, 64] = True
    data = structure_set_bytes({"Comb": comb}, volume, files)
    assert np.array_equal(masks_in(read_structure_set(data), volume)["Comb"], comb)


def test_frames_of_one_file_are_named_by_their_numbers() -> None:
    voxels = np.zeros((4, 5, 6), np.int16)
    file = as_bytes(enhanced(voxels, [2, 0, 3, 1]))
    volume = read_volume([file])
    mask = np.zeros(voxels.shape, dtype=bool)
    mask[1, 2, 3] = True
    data = structure_set_bytes({"Lens_L": mask}, volume, [file])
    assert np.array_equal(masks_in(read_structure_set(data), volume)["Lens_L"], mask)
    (contour,) = dcmread(io.BytesIO(data)).ROIContourSequence[0].ContourSequence
    assert contour.ContourImageSequence[0].ReferencedFrameNumber == volume.order[1][1] + 1


def changed(change: object) -> bytes:
    """A structure set of which ``change`` has changed something."""
    files, volume = series()
    file = dcmread(io.BytesIO(structure_set_bytes(MASKS, volume, files)))
    change(file)  # type: ignore[operator]
    return as_bytes(file)


def contour(kind: str, points: list[list[float]]) -> Dataset:
    one = Dataset()
    one.ContourGeometricType, one.NumberOfContourPoints = kind, len(points)
    one.ContourData = [f"{value:g}" for point in points for value in point]
    return one


def test_what_is_no_contour_is_left_out_and_counted() -> None:
    _, volume = series()

    def add(file: Dataset) -> None:
        square = [[-20.0, -20, 12.5], [-10, -20, 12.5], [-10, -10, 12.5], [-20, -10, 12.5]]
        file.ROIContourSequence[0].ContourSequence.extend([
            contour("POINT", [[0, 0, 12.5]]), contour("CLOSED_PLANAR", [[0, 0, 12.5], [9, 9, 12.5]]),
            contour("CLOSED_PLANAR", [[0, 0, 12.5], [9, 9, 12.5], [0, 0, 12.5]]),
            contour("OPEN_PLANAR", square), contour("CLOSED_PLANAR", [[x, y, z + 1.2] for x, y, z in square]),
            contour("CLOSED_PLANAR", [[x, y, z + 400] for x, y, z in square]),
            contour("CLOSED_PLANAR", [[x + 900, y, z] for x, y, z in square]),
            contour("CLOSED_PLANAR", [[x, y, z + i * 2] for i, (x, y, z) in enumerate(square)]),
        ])  # fmt: skip

    found = read_structure_set(changed(add))
    mask, why = found.structures[0].mask(Slices.of(volume))
    assert np.array_equal(mask, MASKS["Parotid_L"])
    assert why == {
        "a point or a line, no closed contour": 2, "fewer than three points": 2, "between the slices": 1,
        "beyond the slices": 1, "outside the image": 1, "not parallel to the slices": 1,
    }  # fmt: skip
    assert found.structures[1].mask(Slices.of(volume))[1] == {}


def test_a_contour_that_leaves_the_image_is_cut_and_counted() -> None:
    files, volume = series()
    wide = [[-90.0, -60, 12.5], [-20, -60, 12.5], [-20, 0, 12.5], [-90, 0, 12.5]]
    data = changed(lambda file: file.ROIContourSequence[3].ContourSequence.append(contour("CLOSED_PLANAR", wide)))
    mask, why = read_structure_set(data).structures[3].mask(Slices.of(volume))
    assert why == {"cut by the edge of the image": 1}
    assert mask[1].any() or mask.sum() > 1
    assert files


def test_the_first_point_may_be_repeated_and_holes_may_be_xor() -> None:
    _, volume = series()

    def close(file: Dataset) -> None:
        for drawn in file.ROIContourSequence:
            for one in drawn.ContourSequence:
                one.ContourData = [*one.ContourData, *one.ContourData[:3]]
                one.ContourGeometricType = "CLOSEDPLANAR_XOR"

    found = masks_in(read_structure_set(changed(close)), volume)
    for name, mask in MASKS.items():
        assert np.array_equal(found[name], mask), name


def test_a_structure_that_nobody_has_drawn_is_there_without_contours() -> None:
    def remove(file: Dataset) -> None:
        del file.ROIContourSequence[1]  # no item
        del file.ROIContourSequence[1].ContourSequence  # an item without contours

    found = read_structure_set(changed(remove))
    assert [one.name for one in found.structures] == [*MASKS]
    assert [bool(one.contours_mm) for one in found.structures] == [True, False, False, True]


def test_it_says_which_series_it_was_drawn_on() -> None:
    files, volume = series()
    found = read_structure_set(structure_set_bytes(MASKS, volume, files))
    source = dcmread(io.BytesIO(files[0]))
    assert found.series_ids == {source.SeriesInstanceUID}
    assert found.frame_of_reference_ids == {source.FrameOfReferenceUID}
    assert len(found.image_ids) == len(files)
    assert found.patient_id == source.PatientID


def test_what_is_no_structure_set_says_so() -> None:
    files, volume = series()
    data = structure_set_bytes(MASKS, volume, files)
    with pytest.raises(Unreadable, match="no RT structure set: a file of CT; give the structure set of the plan"):
        read_structure_set(files[0])
    with pytest.raises(Unreadable, match="RT structure set"):
        read_structure_set(b"nothing of the kind")
    for end in (600, len(data) // 2):
        with pytest.raises(Unreadable, match="RT structure set"):
            read_structure_set(data[:end])

    def empty(file: Dataset) -> None:
        file.StructureSetROISequence = []

    with pytest.raises(Unreadable, match="without structures"):
        read_structure_set(changed(empty))

    def odd(file: Dataset) -> None:
        file.ROIContourSequence[0].ContourSequence[0].ContourData = ["1", "2", "3", "4"]

    with pytest.raises(Unreadable, match="a contour of 4 numbers, not three a point"):
        read_structure_set(changed(odd))


def test_what_cannot_be_written_says_why() -> None:
    files, volume = series()
    with pytest.raises(
        ValueError, match=r"Lens_R: a mask of shape \(6, 40, 32\) for a DICOM series of shape \(6, 32, 40\)"
    ):
        structure_set_bytes({"Lens_R": MASKS["Lens_R"].transpose(0, 2, 1)}, volume, files)
    with pytest.raises(ValueError, match="no structure has a voxel"):
        structure_set_bytes({"Lens_R": MASKS["Lens_R"] & False}, volume, files)
    with pytest.raises(ValueError, match="a name of 65 characters"):
        structure_set_bytes({"x" * 65: MASKS["Lens_R"]}, volume, files)
    without = [dcmread(io.BytesIO(one)) for one in files]
    for one in without:
        del one.FrameOfReferenceUID
    with pytest.raises(ValueError, match="they have no FrameOfReferenceUID; take the masks in NIfTI"):
        structure_set_bytes(MASKS, volume, [as_bytes(one) for one in without])
