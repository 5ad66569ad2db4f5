from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
from lesion_files import LAS, PERMUTED, SHAPE, brain, files, las, lesion
from volume_files import as_bytes, mr_series, nifti

from medray.imaging.types import Unreadable, Volume
from medray.imaging.volume import read_volume
from medray.imaging.volume_grid import canonical, reoriented
from medray.imaging.volume_nifti import nifti_bytes
from medray.systems.lesion.source import PLACES, BrainMR, source_of
from medray.tasks.volume_rows import whole

TWO = BrainMR(channels=("flair", "t1"))
FLAIR, T1 = las(brain(1)), las(brain(2))


def row(source: BrainMR, **named: bytes | list[bytes]) -> tuple[dict, str | None]:
    (encoded,) = source.encode(files(**named), [{"scan_id": "s"}])
    assert encoded.columns is not None
    return encoded.columns, encoded.note


def refused(source: BrainMR, message: str, **named: bytes | list[bytes]) -> None:
    with pytest.raises(Unreadable, match=message) as error:
        source.encode(files(**named), [{}])
    assert "\n" not in str(error.value)


def voxels(columns: dict) -> np.ndarray:
    return whole(columns)


def test_a_case_becomes_a_row_turned_to_ras_and_whitened_in_the_brain() -> None:
    columns, note = row(TWO, flair=FLAIR, t1=T1, mask=las(lesion()))
    assert note is None
    assert (columns["orientation"], columns["shape_DHW"], columns["spacing_mm"]) == ("LAS", list(SHAPE), [1, 1, 2])
    found = voxels(columns)
    inside = brain(1)[::-1] != 0  # L → R; values below 0 are brain
    assert np.array_equal(
        np.unpackbits(np.frombuffer(columns["brain"], np.uint8), count=inside.size).reshape(SHAPE), inside
    )
    for channel, number in zip(found, (1, 2), strict=True):
        own = brain(number)[::-1]
        expected = np.where(inside, (own - own[inside].mean()) / own[inside].std(), 0)
        assert np.allclose(channel, expected, atol=1e-5)
    mask = np.frombuffer(columns["mask"], np.uint8).reshape(SHAPE)
    assert np.array_equal(mask, lesion()[::-1])
    assert columns["foreground"].tolist() == np.flatnonzero(mask).tolist()
    assert columns["lesion_ml"] == pytest.approx(8 * 2 / 1000)
    table = pa.Table.from_pylist([columns | {"scan_id": "s", "patient_id": "p"}], schema=TWO.shard_schema)
    assert table["channels_there"].to_pylist() == [[1, 1]]


def test_channels_that_differ_in_orientation_only_are_turned_exactly() -> None:
    turned = reoriented(Volume(brain(2), LAS), "PIR")
    assert turned.voxels.shape != SHAPE
    other = nifti(turned.voxels, turned.affine)
    columns, note = row(TWO, flair=FLAIR, t1=other)
    assert note is None
    assert columns["voxels"] == row(TWO, flair=FLAIR, t1=T1)[0]["voxels"]


@pytest.mark.parametrize(
    ("shape", "affine", "said"),
    [
        ((16, 18, 19), LAS, "shape 16 × 18 × 19, not 16 × 18 × 20"),
        (SHAPE, np.diag([-1.0, 1, 2.5, 1]) + np.pad(LAS[:3, 3:], ((0, 1), (3, 0))), "spacing 1 × 1 × 2.5 mm, not 1 × 1 × 2"),
        (SHAPE, LAS + np.array([[0, 0, 0, 0]] * 2 + [[0, 0, 0, 7]] + [[0] * 4]), r"origin \(.*-65\.00\) mm, not \(.*-72\.00\)"),
    ],
)  # fmt: skip
def test_another_grid_is_refused_with_what_differs_or_resampled_and_said(
    shape: tuple[int, ...], affine: np.ndarray, said: str
) -> None:
    other = nifti(brain(2, shape), affine)
    message = f"t1: another grid than flair: .*{said}.*; register it to flair, or --other-grids resample"
    refused(TWO, message, flair=FLAIR, t1=other)
    resampling = BrainMR(channels=("flair", "t1"), other_grids="resample")
    columns, note = row(resampling, flair=FLAIR, t1=other)
    assert note is not None
    assert note.startswith("t1: another grid than flair")
    assert note.endswith("; resampled")
    assert np.array_equal(voxels(columns)[0].shape, SHAPE)
    refused(resampling, "mask: another grid than the scan: .*; draw it on the scan itself", flair=FLAIR, t1=T1,
            mask=nifti(lesion(shape=shape), affine))  # fmt: skip


def test_a_channel_that_is_missing_is_refused_or_0_and_said() -> None:
    refused(TWO, "t1 is missing; give it, or --missing-channels zeros", flair=FLAIR)
    lenient = BrainMR(channels=("flair", "t1"), missing_channels="zeros")
    columns, note = row(lenient, t1=T1)
    assert note == "flair is missing: 0 is taken for it"
    assert columns["channels_there"] == [0, 1]
    assert not voxels(columns)[0].any()
    assert voxels(columns)[1].any()
    refused(lenient, "none of flair, t1 is there", mask=las(lesion()))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinite_voxels_are_counted(value: float) -> None:
    bad = brain(1)
    bad[3, 4, 5:7] = value
    refused(TWO, "flair: 2 of 5,760 voxels are NaN or infinite; give them the value", flair=las(bad), t1=T1)


def test_files_that_are_no_volume_say_so() -> None:
    refused(
        TWO, r"t1: NIfTI of shape \(4 × 4 × 4 × 2\): 4D, not 3D", flair=FLAIR, t1=las(np.ones((4, 4, 4, 2), np.float32))
    )
    refused(TWO, "t1: NIfTI that is cut short: .* bytes expected", flair=FLAIR, t1=T1[:-100])
    packed = nifti_bytes(brain(2), read_volume(T1))
    refused(TWO, "t1: a gzip file that is cut short; copy it anew", flair=FLAIR, t1=packed[:-100])
    refused(TWO, "t1: an empty file", flair=FLAIR, t1=b"")
    refused(TWO, "t1: 2 files for one volume", flair=FLAIR, t1=[T1, T1])
    with pytest.raises(Unreadable, match="4D, not 3D"):  # before any voxel is read
        TWO.scan(io.BytesIO(las(np.ones((4, 4, 4, 2), np.float32))))


def test_an_empty_brain() -> None:
    nothing = las(np.zeros(SHAPE, np.float32))
    refused(TWO, "an empty brain: every voxel of every channel is 0", flair=nothing, t1=nothing)
    assert not voxels(row(TWO, flair=FLAIR, t1=nothing)[0])[1].any()


def test_a_mask_with_values_that_are_no_class() -> None:
    odd = lesion()
    odd[0, 0, :3] = 2, 3, 7
    refused(
        TWO,
        r"mask: values that are no class \(2, 3, 7\); .*\(--classes names them\)",
        flair=FLAIR,
        t1=T1,
        mask=las(odd),
    )
    refused(TWO, r"values that are no class \(0\.5\)", flair=FLAIR, t1=T1, mask=las(lesion() * np.float32(0.5)))
    odd[0, 0, 2] = 255
    three = BrainMR(channels=("flair", "t1"), classes=("a", "b", "c"))
    columns, _ = row(three, flair=FLAIR, t1=T1, mask=las(odd))
    assert sorted({*columns["mask"]}) == [0, 1, 2, 3, 255]
    assert columns["lesion_ml"] == pytest.approx((8 + 2) * 2 / 1000)  # what is unknown is no lesion


def test_nobody_has_drawn_is_not_an_empty_mask() -> None:
    columns, _ = row(TWO, flair=FLAIR, t1=T1)
    assert [columns[name] for name in ("mask", "foreground", "lesion_ml")] == [None, None, None]
    drawn, _ = row(TWO, flair=FLAIR, t1=T1, mask=las(lesion() * 0))
    assert (drawn["lesion_ml"], drawn["foreground"].tolist(), set(drawn["mask"])) == (0, [], {0})


def test_of_large_lesions_the_same_places_are_kept() -> None:
    large = lesion((2, 2, 2), 22, (26, 26, 26))
    one = BrainMR(channels=("flair",))
    places = [row(one, flair=las(brain(1, (26, 26, 26))), mask=las(large))[0]["foreground"].tolist() for _ in range(2)]
    assert places[0] == places[1] == sorted({*places[0]})
    assert len(places[0]) == PLACES < large.sum()


def test_a_mask_that_knows_nothing_is_none() -> None:
    columns, _ = row(BrainMR(channels=("flair",)), flair=FLAIR, mask=las(np.full(SHAPE, 255, np.uint8)))
    assert [columns[name] for name in ("mask", "foreground", "lesion_ml")] == [None] * 3


def test_a_channel_that_is_0_everywhere_is_said() -> None:
    assert row(TWO, flair=FLAIR, t1=las(np.zeros(SHAPE, np.float32)))[1] == "t1 is 0 everywhere"


def test_copies_and_intensities_by_choice() -> None:
    source = BrainMR(channels=("flair", "t1"), smooth=True, high_pass=True, intensities="percentiles")
    assert source.stored_channels == ("flair", "t1", "flair-smooth", "t1-smooth", "flair-highpass", "t1-highpass")
    found = voxels(row(source, flair=FLAIR, t1=T1)[0])
    assert len(found) == 6
    assert (found[:2].min(), found[:2].max()) == (0, 1)
    inside = brain(1)[::-1] != 0
    assert np.allclose((found[2:4] + found[4:])[:, inside], found[:2, inside], atol=1e-5)
    assert not found[:, ~inside].any()


def test_only_the_box_of_the_brain_is_kept_and_no_voxel_is_lost() -> None:
    image = np.zeros(SHAPE, np.float32)
    image[3:7, 8:13, 10:19] = np.random.default_rng(0).normal(100, 10, (4, 5, 9))
    columns, _ = row(BrainMR(channels=("flair",)), flair=nifti(image, np.eye(4)))
    assert columns["box_DHW"] == [3, 7, 8, 13, 10, 19]
    assert len(columns["voxels"]) == 4 * 4 * 5 * 9
    part = image[image != 0]
    assert np.allclose(voxels(columns)[0], np.where(image != 0, (image - part.mean()) / part.std(), 0), atol=1e-5)


def test_a_dicom_series_is_a_channel() -> None:
    stored = np.random.default_rng(0).integers(1, 900, (6, 8, 10)).astype(np.int16)
    data = [as_bytes(dataset) for dataset in mr_series(stored)]
    columns, _ = row(BrainMR(channels=("flair",)), flair=data[::-1])
    assert (columns["orientation"], sorted(columns["shape_DHW"])) == ("SPL", [6, 8, 10])
    same = canonical(read_volume(data))
    assert np.allclose(np.array(columns["affine"]).reshape(4, 4), same.affine)
    (header,) = TWO.scan(io.BytesIO(data[0]))
    assert (header["kind"], header["item_id"]) == ("dicom", "1.2.826.0.1.3680043.8.498.7.1")


def test_a_run_knows_the_source_that_wrote_its_scans() -> None:
    source = BrainMR(channels=("flair", "t1"), smooth=True, missing_channels="zeros")
    assert source_of(source.identity()) == source
    with pytest.raises(ValueError, match="trained on scans of version 0; train it again"):
        source_of(source.identity() | {"version": 0})


def test_permuted_axes_lose_nothing() -> None:
    columns, _ = row(
        BrainMR(channels=("flair",)), flair=nifti(brain(1), PERMUTED), mask=nifti(lesion((0, 0, 0)), PERMUTED)
    )
    assert columns["orientation"] == "PSR"
    mask = np.frombuffer(columns["mask"], np.uint8).reshape(columns["shape_DHW"])
    place = np.array(columns["affine"]).reshape(4, 4) @ [*np.argwhere(mask).mean(0), 1]
    assert np.allclose(place, PERMUTED @ [0.5, 0.5, 0.5, 1])
