"""What becomes of a CT and of what is drawn on it: masks, structure sets, and what is wrong with them."""

from __future__ import annotations

import copy
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from volume_files import as_bytes, mr_series, nifti

from medray.imaging.structure_set_write import structure_set_bytes
from medray.imaging.types import Unreadable
from medray.imaging.volume import read_volume
from medray.shards.files import Files
from medray.systems.headneck.source import BY_PROGRAM, CT, STRUCTURES, PlanningCT, source_of
from medray.tasks.ct_rows import AXES, NOT_HU
from medray.tasks.volume_rows import VolumeRow, mask_of

ORGANS = ("Brainstem", "Parotid_L", "Parotid_R")
SOURCE = PlanningCT(organs=ORGANS)
SHAPE = (10, 24, 20)
CT_HU = np.full(SHAPE, -1000, np.int16)
CT_HU[1:9, 3:21, 3:17] = 40
CT_HU[4, 10, 8] = 3000
LPS_UP = np.array([[0, 0, -1.5, 0], [0, -2.0, 0, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]], np.float64)
"""Slices towards the head, rows towards the back, columns towards the left: as AXES has it."""


def organ(first: tuple[int, int, int], stop: tuple[int, int, int]) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[tuple(slice(a, b) for a, b in zip(first, stop, strict=True))] = 1
    return mask


MASKS = {
    "Brainstem": organ((3, 8, 8), (7, 12, 12)),
    "Parotid_L": organ((3, 8, 11), (6, 12, 15)),  # it shares a column of voxels with the brainstem
}


def encoded(source: PlanningCT = SOURCE, **files: Any) -> tuple[dict[str, Any], str | None]:
    given = Files({name: data if isinstance(data, list) else [data] for name, data in files.items()})
    (one,) = source.encode(given, [{}])
    assert one.columns is not None
    return one.columns | {"scan_id": "s", "patient_id": "p", "visit": "1"}, one.note


def members(row: dict[str, Any], k: int) -> np.ndarray:
    return (np.asarray(row["sets"])[mask_of(row)] >> k) & 1 > 0


def from_masks(source: PlanningCT = SOURCE, **changes: Any) -> tuple[dict[str, Any], str | None]:
    masks = {name: nifti(mask, LPS_UP) for name, mask in MASKS.items()}
    return encoded(source, **({CT: nifti(CT_HU, LPS_UP)} | masks | changes))


def test_organs_that_overlap_are_both_and_one_that_nobody_has_drawn_is_unknown() -> None:
    row, note = from_masks()
    assert np.array_equal(members(row, 0), MASKS["Brainstem"] > 0)
    assert np.array_equal(members(row, 1), MASKS["Parotid_L"] > 0)
    assert row["drawn"] == [1, 1, 0]
    assert row["organs_ml"] == [pytest.approx(64 * 9 / 1000), pytest.approx(48 * 9 / 1000), None]
    assert note is None
    volume = VolumeRow.of(row, (0,))
    assert volume.whole()[0, 5, 12, 10] == pytest.approx(1.04)
    assert volume.whole()[0, 0, 0, 0] == 0
    assert volume.classes.tolist() == [1, 2]
    for number, name in enumerate(MASKS, 1):
        assert np.array_equal(np.sort(volume.places(number)), np.flatnonzero(MASKS[name]))


@pytest.mark.parametrize("codes", ["LPS", "RAS", "PLI"])
def test_axes_run_towards_head_back_and_left_however_the_file_has_them(codes: str) -> None:
    """OpenKBP's run towards the back, the left and the feet."""
    from medray.imaging.types import Volume
    from medray.imaging.volume_grid import reoriented

    def turned(voxels: np.ndarray) -> bytes:
        volume = reoriented(Volume(voxels, LPS_UP), codes)
        return nifti(volume.voxels, volume.affine)

    masks = {name: turned(mask) for name, mask in MASKS.items()}
    row, _ = encoded(**{CT: turned(CT_HU)}, **masks)
    straight, _ = from_masks()
    for name in ("mask", "voxels", "shape_DHW"):
        assert row[name] == straight[name], name
    np.testing.assert_allclose(row["affine"], straight["affine"])
    assert row["orientation"] == codes
    assert AXES == "SPL"


def structures(**masks: np.ndarray) -> tuple[list[bytes], bytes]:
    """A DICOM series and a structure set of it."""
    files = [as_bytes(one) for one in mr_series(CT_HU, Modality="CT", step_lps=(0, 0, 3.0), spacing_rc=(2.0, 1.5))]
    return files, by_hand(structure_set_bytes({n: m > 0 for n, m in masks.items()}, read_volume(files), files))


def by_hand(structure_set: bytes) -> bytes:
    """As a physician's: what our own writer says of its contours is that a program found them."""
    file = dcmread(io.BytesIO(structure_set))
    for one in file.StructureSetROISequence:
        one.ROIGenerationAlgorithm = "MANUAL"
    return as_bytes(file)


def test_contours_of_a_program_are_said_to_be_such() -> None:
    """A prediction's own structure set, or another vendor's, among those to learn from."""
    files, drawn = structures(Brainstem=MASKS["Brainstem"], PTV=MASKS["Brainstem"])
    for automatic, said in (({"PTV"}, None), ({"Brainstem", "PTV"}, BY_PROGRAM)):
        file = dcmread(io.BytesIO(drawn))
        for one in file.StructureSetROISequence:
            one.ROIGenerationAlgorithm = "AUTOMATIC" if one.ROIName in automatic else "SEMIAUTOMATIC"
        row, note = encoded(**{CT: files, STRUCTURES: as_bytes(file)})
        assert row["drawn"] == [1, 0, 0]
        assert note == said


def test_a_structure_set_gives_the_voxels_that_its_masks_had() -> None:
    files, drawn = structures(
        **{"brain stem": MASKS["Brainstem"], "Lt Parotid": MASKS["Parotid_L"], "PTV 70": MASKS["Brainstem"]}
    )
    row, note = encoded(**{CT: files, STRUCTURES: drawn})
    straight, _ = from_masks()
    assert row["mask"] == straight["mask"]
    assert row["drawn"] == [1, 1, 0]
    assert note is None
    (header,) = SOURCE.scan(io.BytesIO(drawn))
    source = dcmread(io.BytesIO(files[0]))
    assert (header["kind"], header["series_id"], header["patient"]) == (STRUCTURES, source.SeriesInstanceUID, "p1")
    assert header["drawn"] == ["brain stem", "Lt Parotid", "PTV 70"]
    (slice_header,) = SOURCE.scan(io.BytesIO(files[0]))
    assert (slice_header["kind"], slice_header["series_id"], slice_header["patient"]) == (
        "dicom",
        source.SeriesInstanceUID,
        "p1",
    )


def test_the_users_names_come_first() -> None:
    files, drawn = structures(**{"Stamm": MASKS["Brainstem"]})
    assert encoded(**{CT: files, STRUCTURES: drawn})[0]["drawn"] == [0, 0, 0]
    named = replace(SOURCE, names=("stamm=Brainstem",))
    assert encoded(named, **{CT: files, STRUCTURES: drawn})[0]["drawn"] == [1, 0, 0]


def test_a_structure_set_of_another_series_is_refused_and_one_that_names_an_organ_twice() -> None:
    files, _ = structures(Brainstem=MASKS["Brainstem"])
    elsewhere = [dcmread(io.BytesIO(one)) for one in files]
    for one in elsewhere:
        one.ImagePositionPatient = [x + dx for x, dx in zip(one.ImagePositionPatient, (0, 0, 1.4), strict=True)]
    moved = [as_bytes(one) for one in elsewhere]
    drawn = structure_set_bytes({"Brainstem": MASKS["Brainstem"] > 0}, read_volume(moved), moved)
    with pytest.raises(
        Unreadable, match="Brainstem: none of its contours lies on this CT .4 contours: between the slices"
    ):
        encoded(**{CT: files, STRUCTURES: drawn})
    _, twice = structures(**{"Brainstem": MASKS["Brainstem"], "brain_stem": MASKS["Brainstem"]})
    with pytest.raises(Unreadable, match="Brainstem: two structures of it"):
        encoded(**{CT: files, STRUCTURES: twice})


def test_a_structure_set_of_another_frame_of_reference_is_refused_though_its_contours_lie_on_the_slices() -> None:
    files, drawn = structures(Brainstem=MASKS["Brainstem"])
    other = [dcmread(io.BytesIO(one)) for one in files]
    for one in other:
        one.FrameOfReferenceUID = "1.2.826.0.1.3680043.8.498.77"
    with pytest.raises(
        Unreadable, match="^the structure set is of another frame of reference than the CT; give its own$"
    ):
        encoded(**{CT: [as_bytes(one) for one in other], STRUCTURES: drawn})
    for one in other:  # a series that does not say its frame is taken at its word
        del one.FrameOfReferenceUID
    row, _ = encoded(**{CT: [as_bytes(one) for one in other], STRUCTURES: drawn})
    assert row["drawn"] == [1, 0, 0]


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("SeriesInstanceUID", "1.2.826.0.1.3680043.8.498.78", "was drawn on another series than this CT"),
        ("PatientID", "somebody else", "names another patient than the CT"),
    ],
)
def test_a_structure_set_of_another_reconstruction_or_patient_is_refused_though_they_share_a_frame(
    name: str, value: str, why: str
) -> None:
    files, drawn = structures(Brainstem=MASKS["Brainstem"])
    other = [dcmread(io.BytesIO(one)) for one in files]
    for one in other:
        if not one.get("PatientID"):
            one.PatientID = "p"
        setattr(one, name, value)
    own = dcmread(io.BytesIO(drawn))
    own.PatientID = "p"
    with pytest.raises(Unreadable, match=f"^the structure set {why}; give its own$"):
        encoded(**{CT: [as_bytes(one) for one in other], STRUCTURES: as_bytes(own)})


def test_a_contour_that_is_there_twice_is_one_contour() -> None:
    files, drawn = structures(Brainstem=MASKS["Brainstem"])
    doubled = dcmread(io.BytesIO(drawn))
    (own,) = doubled.ROIContourSequence
    for some in ([1], [0, 2, 3]):  # one of them, then all
        own.ContourSequence.extend(copy.deepcopy(own.ContourSequence[i]) for i in some)
        row, note = encoded(**{CT: files, STRUCTURES: as_bytes(doubled)})
        assert np.array_equal(members(row, 0), MASKS["Brainstem"] > 0)
        assert note == f"Brainstem: {len(own.ContourSequence) - 4} contours: the same contour again"


def test_an_organ_that_is_drawn_in_part_is_unknown() -> None:
    files, drawn = structures(Brainstem=MASKS["Brainstem"])
    gaps, lines, lost = (dcmread(io.BytesIO(drawn)) for _ in range(3))
    del gaps.ROIContourSequence[0].ContourSequence[1]
    row, note = encoded(**{CT: files, STRUCTURES: as_bytes(gaps)})
    assert (row["drawn"], note) == ([0, 0, 0], "Brainstem: 1 slices between its contours have none; taken as not drawn")
    for contour in lines.ROIContourSequence[0].ContourSequence:
        contour.ContourGeometricType = "OPEN_PLANAR"
    row, note = encoded(**{CT: files, STRUCTURES: as_bytes(lines)})
    assert row["drawn"] == [0, 0, 0]
    assert note == "Brainstem: 4 contours: a point or a line, no closed contour; taken as not drawn"
    for contour in list(lost.ROIContourSequence[0].ContourSequence)[:2]:
        contour.ContourData = [x + 1.4 * (i % 3 == 2) for i, x in enumerate(map(float, contour.ContourData))]
    row, note = encoded(**{CT: files, STRUCTURES: as_bytes(lost)})
    assert row["drawn"] == [0, 0, 0]
    assert "2 of 4 contours are lost; taken as not drawn" in (note or "")


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.float64])
@pytest.mark.parametrize("spacing", [None, (3.0, 1.0, 1.0)])
def test_every_type_of_voxels_is_read_and_metal_stays_metal(kind: Any, spacing: Any) -> None:
    most = min(float(np.finfo(np.float32).max), 32767 if np.dtype(kind).kind == "f" else np.iinfo(kind).max)
    stored = np.zeros(SHAPE, kind)
    stored[2:6, 4:14, 4:12] = min(most, 32767)
    row, note = encoded(replace(SOURCE, spacing_mm=spacing), **{CT: nifti(stored, LPS_UP)})
    brightest = VolumeRow.of(row, (0,)).whole().max()
    assert brightest == pytest.approx(min(most, 1500) / 1000 + 1)
    assert ("metal" in (note or "")) == (most > 2500)


def test_an_organ_that_the_grid_cannot_hold_is_unknown_and_not_absent() -> None:
    tiny = np.zeros(SHAPE, np.uint8)
    tiny[4, 9, 9] = 1
    row, note = from_masks(replace(SOURCE, spacing_mm=(7.0, 7.0, 7.0)), Parotid_R=nifti(tiny, LPS_UP))
    assert row["organs_ml"][2] is None
    assert row["drawn"][2] == 0
    assert "Parotid_R: no voxel of the grid it was resampled to; taken as unknown" in (note or "")


def test_stray_points_cost_no_organ_its_contours() -> None:
    """As many scraps as contours: a lens on two slices, and two clicks beside it."""
    files, drawn = structures(Brainstem=MASKS["Brainstem"])
    scrappy = dcmread(io.BytesIO(drawn))
    (own,) = scrappy.ROIContourSequence
    for contour in list(own.ContourSequence):
        scrap = copy.deepcopy(contour)
        scrap.ContourData = list(contour.ContourData)[:6]
        scrap.NumberOfContourPoints = 2
        own.ContourSequence.append(scrap)
    row, note = encoded(**{CT: files, STRUCTURES: as_bytes(scrappy)})
    assert np.array_equal(members(row, 0), MASKS["Brainstem"] > 0)
    assert note == "Brainstem: 4 contours: fewer than three points"


def test_a_scout_in_the_series_is_left_out() -> None:
    files, drawn = structures(Brainstem=MASKS["Brainstem"])
    scout = dcmread(io.BytesIO(files[0]))
    scout.SOPInstanceUID = scout.file_meta.MediaStorageSOPInstanceUID = "1.2.826.0.1.3680043.8.498.7.99"
    scout.ImageType, scout.ImageOrientationPatient = ["ORIGINAL", "PRIMARY", "LOCALIZER"], [0, 1, 0, 0, 0, -1]
    row, _ = encoded(**{CT: [as_bytes(scout), *files], STRUCTURES: drawn})
    straight, _ = encoded(**{CT: files, STRUCTURES: drawn})
    assert all(row[name] == straight[name] for name in ("voxels", "mask", "affine", "drawn", "pixels_hash"))


def test_an_empty_mask_is_not_drawn_and_says_so() -> None:
    row, note = from_masks(Parotid_R=nifti(0 * MASKS["Brainstem"], LPS_UP))
    assert row["drawn"] == [1, 1, 0]
    assert note == "Parotid_R: an empty mask; taken as not drawn"
    nothing, _ = encoded(**{CT: nifti(CT_HU, LPS_UP)})
    assert (nothing["mask"], nothing["organs_drawn"], nothing["drawn"]) == (None, 0, [0, 0, 0])


def test_masks_that_do_not_fit_say_why() -> None:
    with pytest.raises(Unreadable, match="Brainstem: another grid than the CT: .*draw it on the CT itself"):
        from_masks(Brainstem=nifti(MASKS["Brainstem"][:9], LPS_UP))
    several = MASKS["Brainstem"] + 2 * MASKS["Parotid_L"]
    with pytest.raises(Unreadable, match=r"Brainstem: a mask with the values \[0, 1, 2, 3\]"):
        from_masks(Brainstem=nifti(several, LPS_UP))


def test_metal_is_noted() -> None:
    bright = CT_HU.copy()
    bright[4:6, 10:14, 8:10] = 3071
    assert from_masks(ct=nifti(bright, LPS_UP))[1] == "metal: 0.1 mL above 2500 HU"


def test_the_same_scan_of_another_type_and_with_other_axes_is_known_again() -> None:
    def known_as(voxels: np.ndarray, affine: np.ndarray = LPS_UP) -> str:
        return str(encoded(**{CT: nifti(voxels, affine)})[0]["pixels_hash"])

    own = known_as(CT_HU)
    assert known_as(CT_HU.astype(np.float32)) == own
    turned = LPS_UP @ np.array([[0, -1, 0, SHAPE[0] - 1], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], np.float64)
    assert known_as(CT_HU[::-1].transpose(1, 0, 2), turned) == own
    other = CT_HU.copy()
    other[5, 5, 5] += 1
    assert known_as(other) != own


@pytest.mark.parametrize("stored", [CT_HU + 1024, CT_HU.clip(0, 80), (CT_HU - CT_HU.min()) / np.ptp(CT_HU)])
def test_intensities_that_are_hardly_hounsfield_units_are_noted(stored: np.ndarray) -> None:
    assert NOT_HU in (from_masks(ct=nifti(stored, LPS_UP))[1] or "")
    assert NOT_HU not in (from_masks(ct=nifti(CT_HU, LPS_UP))[1] or "")


def test_resampled_to_a_spacing_the_organs_keep_their_volumes_and_places() -> None:
    fine = replace(SOURCE, spacing_mm=(1.5, 1.0, 1.0))
    row, _ = from_masks(fine)
    assert row["shape_DHW"] == [20, 48, 30]
    assert row["spacing_mm"] == pytest.approx([1.5, 1.0, 1.0])
    assert row["organs_ml"][:2] == [pytest.approx(64 * 9 / 1000, rel=0.01), pytest.approx(48 * 9 / 1000, rel=0.01)]
    affine = np.asarray(row["affine"]).reshape(4, 4)
    middle = affine @ [*np.argwhere(members(row, 0)).mean(axis=0), 1]
    np.testing.assert_allclose(middle[:3], (LPS_UP @ [4.5, 9.5, 9.5, 1])[:3], atol=0.3)
    volume = VolumeRow.of(row, (0,)).whole()[0]
    assert volume[10, 24, 15] == pytest.approx(1.04)
    assert volume.min() == 0


def test_the_source_is_known_again_by_its_identity() -> None:
    import json

    one = replace(SOURCE, names=("Stamm=Brainstem",), spacing_mm=(2.5, 1.0, 1.0))
    assert source_of(json.loads(json.dumps(one.identity()))) == one
    with pytest.raises(ValueError, match="version 0; train it again"):
        source_of(one.identity() | {"version": 0})
