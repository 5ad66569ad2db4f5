from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from nibabel.nifti2 import Nifti2Image
from volume_files import OBLIQUE, nifti

from medray.imaging.types import Unreadable, Volume
from medray.imaging.volume import read_volume, read_volume_header
from medray.imaging.volume_grid import axis_codes, same_grid
from medray.imaging.volume_nifti import nifti_bytes

VOXELS = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6) - 40


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, ">i2", np.int32, np.float32, np.float64])
def test_voxels_and_affine_are_nibabels(dtype: str, packed: bool) -> None:
    data = nifti(np.abs(VOXELS).astype(dtype))
    volume = read_volume(gzip.compress(data) if packed else data)
    theirs = Nifti1Image.from_bytes(data)
    assert np.array_equal(volume.voxels, np.asanyarray(theirs.dataobj))
    assert np.array_equal(volume.affine, theirs.affine)
    assert volume.voxels.flags.c_contiguous
    assert volume.voxels.dtype.isnative
    assert volume.voxels.dtype.kind == np.dtype(dtype).kind
    assert volume.spacing_mm == pytest.approx(np.linalg.norm(OBLIQUE[:3, :3], axis=0))
    assert volume.voxel_mm3 == pytest.approx(abs(np.linalg.det(OBLIQUE[:3, :3])))


def test_a_scale_is_applied() -> None:
    image = Nifti1Image(VOXELS, OBLIQUE)
    image.header.set_slope_inter(0.5, -3)
    volume = read_volume(image.to_bytes())
    assert volume.voxels.dtype == np.float32
    assert np.array_equal(volume.voxels, np.asarray(Nifti1Image.from_bytes(image.to_bytes()).dataobj, dtype=np.float32))


def test_the_header_alone_says_the_grid_without_the_voxels() -> None:
    data = nifti(VOXELS)
    for stream in (io.BytesIO(data[:352]), io.BytesIO(gzip.compress(data))):
        header = read_volume_header(stream)
        assert (header.kind, header.shape_DHW, header.dtype) == ("nifti", (4, 5, 6), "int16")
        assert same_grid(header, read_volume(data))


def test_version_2_and_units_other_than_mm() -> None:
    image = Nifti2Image(VOXELS, OBLIQUE / [[1000], [1000], [1000], [1]])
    image.header.set_xyzt_units("meter")
    volume = read_volume(image.to_bytes())
    assert np.allclose(volume.affine, OBLIQUE)
    answer = Nifti2Image.from_bytes(gzip.decompress(nifti_bytes(VOXELS > 0, volume)))
    assert np.array_equal(answer.affine, image.affine)


def test_qform_alone_and_no_form() -> None:
    turned = np.array([[-2.0, 0, 0, 9], [0, 2, 0, 8], [0, 0, 3, 7], [0, 0, 0, 1]])
    volume = read_volume(nifti(VOXELS, turned, sform=0, qform=1))
    assert np.allclose(volume.affine, turned)
    assert axis_codes(volume) == "LAS"
    assert np.array_equal(read_volume(nifti(VOXELS, OBLIQUE, sform=2, qform=0)).affine, OBLIQUE.astype(np.float32))


def test_a_fourth_axis_of_one_is_none() -> None:
    assert read_volume(nifti(VOXELS[..., None])).voxels.shape == (4, 5, 6)


def _changed(**fields: object) -> bytes:
    data = nifti(VOXELS)
    header = Nifti1Header.from_fileobj(io.BytesIO(data[:348]))
    for name, value in fields.items():
        header[name] = value
    return header.binaryblock + data[348:]


def _holes(*values: float) -> bytes:
    voxels = VOXELS.astype(np.float32)
    voxels.ravel()[: len(values)] = values
    return nifti(voxels)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "an empty file; copy it anew"),
        (gzip.compress(b"", mtime=0), "an empty file; copy it anew"),
        (b"\x89PNG and more", "neither NIfTI, NRRD nor DICOM"),
        (nifti(np.zeros((4, 5, 6, 3), np.int16)), r"shape \(4 × 5 × 6 × 3\): 4D, not 3D; split it"),
        (nifti(VOXELS)[:200], "a header of 348 bytes, 200 found"),
        (nifti(VOXELS)[:-1], "cut short: 592 bytes expected, 591 found"),
        (gzip.compress(nifti(VOXELS), mtime=0)[:-30], "gzip file that is cut short"),
        (gzip.compress(nifti(VOXELS), mtime=0)[:-8] + bytes(8), "gzip file that is damaged"),
        (gzip.compress(nifti(VOXELS)[:-1], mtime=0), "cut short: 592 bytes expected, 591 found"),
        (_holes(np.nan, np.inf, -np.inf), "^3 of 120 voxels are NaN or infinite; give them the value"),
        (_changed(srow_x=[1, 1, 0, 0], srow_y=[1, 1, 0, 0]), "singular affine"),
        (_changed(srow_x=[0] * 4, srow_y=[0] * 4, srow_z=[0] * 4), "spacing of 0 × 0 × 0 mm"),
        (_changed(srow_x=[np.nan] * 4), "NaN or infinite numbers"),
        (_changed(dim=[3, 32767, 32767, 32767, 1, 1, 1, 1]), "more than 536,870,912 voxels"),
        (_changed(dim=[2, 4, 5, 1, 1, 1, 1, 1]), "not a volume"),
        (_changed(dim=[3, 4, 0, 6, 1, 1, 1, 1]), "none of them empty"),
        (_changed(dim=[99, 4, 5, 6, 1, 1, 1, 1]), "99 axes|no header's size|header is damaged"),
        (_changed(datatype=128), "colours or complex"),
        (_changed(datatype=77), "unknown type 77"),
        (_changed(magic=b"ni1"), "NIfTI pair"),
        (_changed(magic=b""), "Analyze"),
        (_changed(vox_offset=1e12), "voxels begin at byte"),
        (_changed(vox_offset=np.nan), "a damaged header \\(ValueError\\); copy the file anew"),
        (_changed(scl_slope=1, scl_inter=np.inf), "a damaged header \\(HeaderDataError\\)"),
    ],
)
def test_what_cannot_be_read_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason) as error:
        read_volume(data)
    assert "\n" not in str(error.value)
    with pytest.raises(Unreadable, match="^flair: "):
        read_volume(data, "flair")


def test_a_bomb_is_unpacked_no_further_than_its_header_says(monkeypatch: pytest.MonkeyPatch) -> None:
    data = gzip.compress(nifti(VOXELS) + bytes(1 << 26))
    sizes: list[int] = []
    read = gzip.GzipFile.read
    monkeypatch.setattr(
        gzip.GzipFile,
        "read",
        lambda self, size=-1: sizes.append(size) or read(self, size),  # type: ignore[func-returns-value]
    )
    assert np.array_equal(read_volume(data).voxels, VOXELS)
    assert sizes
    assert 0 < min(sizes) <= max(sizes) == 352 + VOXELS.nbytes + 1


def test_two_files_are_no_volume() -> None:
    with pytest.raises(Unreadable, match="2 files for one volume"):
        read_volume([nifti(VOXELS)] * 2)
    with pytest.raises(Unreadable, match="an empty file"):
        read_volume([])


@pytest.mark.parametrize(("sform", "qform"), [(0, 1), (2, 0), (4, 1)])
def test_an_answer_has_the_inputs_header(sform: int, qform: int) -> None:
    image = Nifti1Image.from_bytes(nifti(VOXELS, np.diag([-1.0, 2, 3, 1]), sform, qform))
    for name in ("descrip", "db_name", "aux_file"):
        image.header[name] = b"SMITH^JOHN"
    image.header.set_slope_inter(0.5, 7)
    image.header["cal_max"] = 99
    volume = read_volume(gzip.compress(image.to_bytes()))
    probability = np.linspace(0, 1, VOXELS.size, dtype=np.float32).reshape(VOXELS.shape)
    for answer in (VOXELS > 0, probability):
        found = Nifti1Image.from_bytes(gzip.decompress(nifti_bytes(answer, volume)))
        assert np.array_equal(np.asanyarray(found.dataobj), answer)
        assert found.get_data_dtype() == (np.uint8 if answer.dtype == bool else np.float32)
        kept = (
            "sform_code qform_code srow_x srow_y srow_z quatern_b quatern_c quatern_d qoffset_x qoffset_y qoffset_z "
            "pixdim xyzt_units"
        )
        for name in kept.split():
            assert np.array_equal(found.header[name], image.header[name]), name
        assert float(found.header["cal_max"]) == 0
        assert b"SMITH" not in found.to_bytes()  # free text is where some programs put the name
    with pytest.raises(ValueError, match="an answer of shape"):
        nifti_bytes(VOXELS[1:], volume)


def test_the_bytes_of_an_answer_depend_on_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = read_volume(nifti(VOXELS))
    first = nifti_bytes(VOXELS > 0, volume)
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert nifti_bytes(VOXELS > 0, volume) == first


def test_an_answer_for_a_volume_of_another_kind_has_its_affine() -> None:
    volume = Volume(VOXELS, OBLIQUE, "nrrd")
    found = read_volume(nifti_bytes(VOXELS > 0, volume))
    assert np.allclose(found.affine, OBLIQUE, atol=1e-5)
    assert np.array_equal(found.voxels, VOXELS > 0)


@pytest.mark.real_data
def test_real_patients_keep_their_header(ms_mri_dir: Path) -> None:
    path = ms_mri_dir / "patient07" / "FLAIR.nii.gz"
    with path.open("rb") as stream:
        header = read_volume_header(stream)
    volume = read_volume(path.read_bytes())
    assert header.shape_DHW == volume.voxels.shape == (182, 218, 182)
    assert axis_codes(volume) == "LAS"
    assert volume.voxels.dtype == np.float32
    assert (volume.voxels < 0).sum() > 1000  # brain, in a skull-stripped file
    truth = read_volume((path.parent / "GOLD_STANDARD.nii.gz").read_bytes())
    assert same_grid(truth, volume)
    answer = Nifti1Image.from_bytes(gzip.decompress(nifti_bytes(truth.voxels > 0, volume)))
    own = Nifti1Image.from_bytes(gzip.decompress(path.read_bytes()))
    assert (int(answer.header["sform_code"]), int(answer.header["qform_code"])) == (0, 1)
    assert np.array_equal(answer.affine, own.affine)
    assert np.array_equal(answer.header["pixdim"], own.header["pixdim"])
