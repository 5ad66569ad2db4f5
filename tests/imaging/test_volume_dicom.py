from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from volume_files import as_bytes, enhanced, mr_series

from medray.imaging.dicom import read_headers, read_slices
from medray.imaging.types import Unreadable
from medray.imaging.volume import read_volume, read_volume_header
from medray.imaging.volume_grid import axis_codes, same_grid

VOXELS = np.random.default_rng(0).integers(-50, 900, (5, 6, 7)).astype(np.int16)
SHUFFLED = [3, 0, 4, 2, 1]


def test_slices_in_any_order_are_a_volume_in_ras() -> None:
    files = [as_bytes(dataset) for dataset in mr_series(VOXELS)]
    volume = read_volume([files[i] for i in SHUFFLED])
    assert np.array_equal(volume.voxels, VOXELS)
    assert volume.voxels.dtype.kind == "i"
    assert [SHUFFLED[file] for file, _ in volume.order] == [0, 1, 2, 3, 4]
    assert volume.spacing_mm == (3, 1.5, 0.75)
    # by hand: slice 1, row 2, column 3 is at LPS (-30 + 3 · 0.75, -40 + 2 · 1.5, 10 + 3)
    assert np.allclose(volume.affine @ [1, 2, 3, 1], [27.75, 37, 13, 1])
    assert axis_codes(volume) == "SPL"
    header = read_volume_header(io.BytesIO(files[0]))
    assert (header.kind, header.shape_DHW) == ("dicom", (1, 6, 7))
    assert header.series_id.endswith(".6")
    assert np.allclose(header.affine, volume.affine)


def test_sagittal_slices_written_from_right_to_left_and_a_sheared_stack() -> None:
    sagittal = mr_series(VOXELS, orientation=(0, 1, 0, 0, 0, -1), step_lps=(-2.0, 0, 0), origin_lps=(10.0, 0, 50))
    volume = read_volume([as_bytes(dataset) for dataset in sagittal])
    assert np.array_equal(volume.voxels, VOXELS[::-1])  # the slices count towards the left
    assert axis_codes(volume) == "LIP"
    assert np.allclose(volume.affine @ [4, 0, 0, 1], [-10, 0, 50, 1])
    sheared = read_volume([as_bytes(dataset) for dataset in mr_series(VOXELS, step_lps=(0, 1.0, 3.0))])
    assert np.allclose(sheared.affine @ [4, 0, 0, 1], [30, 36, 22, 1])


def test_a_rescale_by_slice_is_applied() -> None:
    series = mr_series(VOXELS)
    for i, dataset in enumerate(series):
        dataset.RescaleSlope, dataset.RescaleIntercept = 0.5 + i, -7
    volume = read_volume([as_bytes(dataset) for dataset in series])
    assert volume.voxels.dtype == np.float32
    assert np.allclose(volume.voxels, VOXELS * (0.5 + np.arange(5))[:, None, None] - 7)
    whole = [as_bytes(dataset) for dataset in mr_series(VOXELS, RescaleSlope=2, RescaleIntercept=-1024)]
    assert np.array_equal(read_volume(whole).voxels, VOXELS.astype(int) * 2 - 1024)


def second(series: list[Dataset], **tags: object) -> list[Dataset]:
    """The series once more under other UIDs of its images."""
    more = copy.deepcopy(series)
    for i, dataset in enumerate(more):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.3680043.8.498.9.{i + 1}"
        for name, value in tags.items():
            setattr(dataset, name, value)
    return more


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda s: s[:2] + s[3:],
            r"a gap between slices 2 and 3 of 4: 6.00 mm, where others are 3.00 mm apart \(1 such\)",
        ),
        (lambda s: s[:1], "one slice, not a volume"),
        (lambda s: [*s, s[2]], "two or more slices at 1 of the positions"),
        (lambda s: s + second(s), "two or more slices at 5 of the positions"),
        (lambda s: s + second(s, SeriesInstanceUID="1.2.3"), "2 series among the 10 slices"),
        (lambda s: s + second(s, AcquisitionNumber=2), r"2 stacks \(5, 5 slices\)"),
        (lambda s: s + second(s, ImageOrientationPatient=[1, 0, 0, 0, 0, -1]), "2 stacks"),
        (lambda s: second(s, ImagePositionPatient=[0, 0, 0]), "at one position"),
        (lambda s: second(s, Modality="SR"), "modality SR, not MR, CT, PT"),
        (lambda s: second(s, PhotometricInterpretation="RGB"), "in colour"),
        (lambda s: second(s, PixelData=b"\0\0"), "truncated pixels: 84 bytes expected, 2 found"),
        (lambda s: second(s, RescaleSlope=0, RescaleIntercept=0), "slope 0"),
        (lambda s: second(s, RescaleSlope="1e300", RescaleIntercept=0.5), "NaN or infinite"),
    ],
)
def test_what_is_no_volume_says_why(change: Callable[[list[Dataset]], list[Dataset]], reason: str) -> None:
    with pytest.raises(Unreadable, match=reason) as error:
        read_volume([as_bytes(dataset) for dataset in change(mr_series(VOXELS))])
    assert "\n" not in str(error.value)


def test_steps_that_grow_little_by_little_are_no_even_slices() -> None:
    """Each is within the tolerance of the usual one; in the middle slices lie 2 mm from where even steps have them."""
    series = mr_series(np.zeros((81, 6, 7), np.int16))
    steps = np.linspace(2.9, 3.1, 80)
    for dataset, z in zip(series, [0, *np.cumsum(steps)], strict=True):
        dataset.ImagePositionPatient = [0, 0, float(z)]
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    assert read_volume([as_bytes(dataset) for dataset in series[:20]]).voxels.shape[0] == 20
    with pytest.raises(Unreadable, match=r"uneven slices: steps of 2.90 to 3.10 mm, so that slice 41 of 81 lies .* mm"):
        read_volume([as_bytes(dataset) for dataset in series])


def test_an_enhanced_file_holds_all_slices() -> None:
    data = as_bytes(enhanced(VOXELS, SHUFFLED))
    volume = read_volume(data)
    plain = read_volume([as_bytes(dataset) for dataset in mr_series(VOXELS)])
    assert np.array_equal(volume.voxels, VOXELS)
    assert np.allclose(volume.affine, plain.affine)
    assert [SHUFFLED[frame] for _, frame in volume.order] == [0, 1, 2, 3, 4]
    header = read_volume_header(io.BytesIO(data))
    assert same_grid(header, volume)


@pytest.mark.real_data
def test_the_real_head_is_what_its_slices_are(head_ct_dir: Path) -> None:
    files = [path.read_bytes() for path in sorted((head_ct_dir / "rsna2019_series").iterdir())]
    volume = read_volume(files)
    assert volume.voxels.shape == (36, 512, 512)
    assert volume.spacing_mm[0] == pytest.approx(5 / np.cos(np.deg2rad(_tilt(files[0]))), rel=0.01)
    for index in (0, 17, 35):
        slice_ = read_slices(files[volume.order[index][0]])[0]
        assert np.array_equal(np.maximum(volume.voxels[index], -1024), slice_.pixels_hu)
        x, y, z = slice_.header.position_xyz_mm
        assert np.allclose((volume.affine @ [index, 0, 0, 1])[:3], [-x, -y, z], atol=0.1)


def _tilt(data: bytes) -> float:
    from medray.imaging.geometry import tilt_degrees

    return tilt_degrees(read_headers(data)[0].orientation_rc)
