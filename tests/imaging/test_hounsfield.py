"""Stored values to Hounsfield units: every expected number worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medray.imaging.dicom import read_slices
from medray.imaging.hounsfield import to_hounsfield
from medray.imaging.stacks import stacks_of
from medray.imaging.types import Unreadable


def convert(values: list[int], dtype: str, **how: float) -> np.ndarray:
    """One row of stored values; returns the row in HU."""
    settings: dict[str, Any] = {"bits_stored": 16, "pixel_representation": 1, "slope": 1.0, "intercept": 0.0, **how}
    hu, repaired = to_hounsfield(np.array([values], dtype=dtype), **settings)
    assert repaired is None
    return hu[0]


UNSIGNED_12: dict[str, Any] = {"bits_stored": 12, "pixel_representation": 0, "slope": 1.0}


def head_like(rows: int = 128) -> np.ndarray:
    """(rows, rows) int16: air at -1000, a skull of 300 to 1500, brain at 35 with 5 HU of noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:rows, :rows] - (rows - 1) / 2
    radius = np.hypot(y, x) / rows
    hu = np.full((rows, rows), -1000)
    hu[radius < 0.40] = rng.integers(300, 1500, np.count_nonzero(radius < 0.40))
    hu[radius < 0.36] = 35
    return (hu + np.where(hu == 35, rng.normal(0, 5, hu.shape).round(), 0)).astype(np.int16)


def test_signed_16_bit_with_the_usual_intercept() -> None:
    hu = convert([-2000, -1, 0, 1024, 1064, 4095], "i2", intercept=-1024)
    assert hu.dtype == np.int16
    assert hu.tolist() == [-1024, -1024, -1024, 0, 40, 3071]


def test_unsigned_16_bit() -> None:
    assert convert([0, 24, 1064, 65535], "u2", pixel_representation=0, intercept=-1024).tolist() == [
        -1024, -1000, 40, 32767,
    ]  # fmt: skip


def test_the_representation_decides_not_the_dtype() -> None:
    assert convert([65535, 64512], "u2", pixel_representation=1).tolist() == [-1, -1024]


def test_big_endian_values_mean_the_same() -> None:
    assert convert([-5, 300], ">i2").tolist() == [-5, 300]


def test_garbage_above_bits_stored_is_ignored() -> None:
    # 12 of 16 bits: 0xF7D0 and 0x07D0 are both 2000
    how = {"bits_stored": 12, "pixel_representation": 0, "intercept": -1024}
    assert convert([0xF7D0, 0x07D0, 0x8000], "u2", **how).tolist() == [976, 976, -1024]


def test_the_sign_comes_from_the_highest_stored_bit() -> None:
    # 12 bits two's complement: 0xFFF is -1, 0x800 is -2048, 0x7FF is 2047, whatever the upper four say
    how = {"bits_stored": 12, "pixel_representation": 1, "intercept": 1000}
    assert convert([0x0FFF, 0xAFFF, 0x0800, 0x07FF], "u2", **how).tolist() == [999, 999, -1024, 3047]


def test_padding_far_below_cannot_wrap_around() -> None:
    assert convert([-32768, -31745, -31744], "i2", intercept=-1024).tolist() == [-1024, -1024, -1024]


def test_saturates_at_the_top_of_int16() -> None:
    assert convert([32767, 31767, 31768], "i2", intercept=1000).tolist() == [32767, 32767, 32767]
    assert convert([20000], "i2", slope=3).tolist() == [32767]


def test_a_fractional_rescale_gives_float32() -> None:
    hu = convert([0, 1, 3, -9000], "i2", slope=0.5, intercept=-10)
    assert hu.dtype == np.float32
    assert hu.tolist() == [-10.0, -9.5, -8.5, -1024.0]
    assert convert([7], "i2", intercept=0.25).tolist() == [7.25]


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4"])
@pytest.mark.parametrize("slope", [1.0, 2.0, -1.0])
@pytest.mark.parametrize("intercept", [-40000.0, -1024.0, 0.0, 37.0, 40000.0])
def test_every_path_agrees_with_exact_arithmetic(dtype: str, slope: float, intercept: float) -> None:
    limits = np.iinfo(dtype)
    stored = np.linspace(limits.min, limits.max, 999).astype(dtype).reshape(27, 37)
    hu, _ = to_hounsfield(
        stored,
        bits_stored=limits.bits,
        pixel_representation=int(limits.min < 0),
        slope=slope,
        intercept=intercept,
    )
    exact = [max(-1024, min(32767, int(v) * int(slope) + int(intercept))) for v in stored.ravel()]
    assert hu.dtype == np.int16
    assert hu.shape == stored.shape
    assert hu.ravel().tolist() == exact


def test_the_stored_values_stay_as_they_were() -> None:
    stored = np.array([[-2000, 5]], np.int16)
    hu, _ = to_hounsfield(stored, bits_stored=16, pixel_representation=1, slope=1, intercept=-1024)
    hu[:] = 0
    assert stored.tolist() == [[-2000, 5]]


class TestUnsigned12Bit:
    def test_a_wrapped_file_is_repaired(self) -> None:
        truth = head_like()
        stored = (truth & 0x0FFF).astype(np.uint16)  # -1000 becomes 3096
        assert stored[0, 0] == 3096
        hu, repaired = to_hounsfield(stored, intercept=0.0, **UNSIGNED_12)
        assert repaired == "wrapped 12-bit"
        assert hu.dtype == np.int16
        assert np.array_equal(hu, truth)

    def test_an_intercept_that_is_only_about_0_does_not_shift_the_repair(self) -> None:
        stored = (head_like() & 0x0FFF).astype(np.uint16)
        hu, repaired = to_hounsfield(stored, intercept=-1.0, **UNSIGNED_12)
        assert repaired
        assert np.array_equal(hu, head_like())

    @pytest.mark.parametrize("air", [-1000, -941])
    def test_air_may_be_60_off(self, air: int) -> None:
        truth = head_like()
        truth[truth == -1000] = air
        hu, repaired = to_hounsfield((truth & 0xFFF).astype(np.uint16), intercept=0.0, **UNSIGNED_12)
        assert repaired
        assert np.array_equal(hu, truth)

    def test_air_further_off_sets_the_file_aside(self) -> None:
        truth = head_like() + np.int16(1400)
        truth[truth == 400] = -900  # lands 100 HU too high, and no tissue as it stands
        with pytest.raises(Unreadable, match="12-bit"):
            to_hounsfield((truth & 0xFFF).astype(np.uint16), intercept=0.0, **UNSIGNED_12)

    @pytest.mark.parametrize("intercept", [-1000.0, -1024.0])
    def test_a_genuine_file_with_its_intercept_stays(self, intercept: float) -> None:
        truth = head_like()
        stored = (truth - np.int16(intercept)).astype(np.uint16)
        hu, repaired = to_hounsfield(stored, intercept=intercept, **UNSIGNED_12)
        assert repaired is None
        assert np.array_equal(hu, truth)

    def test_a_genuine_file_cut_off_at_0_stays(self) -> None:
        truth = np.maximum(head_like(), 0)
        hu, repaired = to_hounsfield(truth.astype(np.uint16), intercept=0.0, **UNSIGNED_12)
        assert repaired is None
        assert np.array_equal(hu, truth)

    @pytest.mark.parametrize("lost", [1000, 1024])
    def test_a_file_that_lost_its_intercept_is_set_aside(self, lost: int) -> None:
        stored = (head_like() + np.int16(lost)).astype(np.uint16)
        with pytest.raises(Unreadable, match="intercept 0"):
            to_hounsfield(stored, intercept=0.0, **UNSIGNED_12)

    def test_a_lost_intercept_shows_even_where_noisy_air_looks_like_tissue(self) -> None:
        truth = head_like()
        truth[np.random.default_rng(1).random(truth.shape) < 0.3 * (truth == -1000)] = -980
        stored = (truth + np.int16(1000)).astype(np.uint16)  # air at 0 and 20, brain at 1035
        with pytest.raises(Unreadable, match="intercept 0"):
            to_hounsfield(stored, intercept=0.0, **UNSIGNED_12)

    def test_a_signed_file_is_never_repaired(self) -> None:
        stored = (head_like() & 0x0FFF).astype(np.uint16)
        hu, repaired = to_hounsfield(stored, bits_stored=12, pixel_representation=1, slope=1.0, intercept=0.0)
        assert repaired is None
        assert np.array_equal(hu, head_like())

    def test_16_bits_are_never_repaired(self) -> None:
        stored = (head_like() & 0x0FFF).astype(np.uint16)
        hu, repaired = to_hounsfield(stored, bits_stored=16, pixel_representation=0, slope=1.0, intercept=0.0)
        assert repaired is None
        assert hu[0, 0] == 3096

    @pytest.mark.real_data
    def test_the_real_slices_in_all_four_guises(self, head_ct_dir: Path) -> None:
        """Wrapped, cut off at 0, without their intercept of -1024 or -1000. The four slices at the top of the head
        hold too little to tell the second from the last and are left out there."""
        slices = [read_slices(path.read_bytes())[0] for path in (head_ct_dir / "rsna2019_series").glob("*.dcm")]
        slices = [slices[i] for i in stacks_of([one.header for one in slices])[0].members]
        for k, one in enumerate(slices):
            truth = np.clip(one.pixels_hu, -1000, 3095)
            hu, repaired = to_hounsfield((truth & 0xFFF).astype(np.uint16), intercept=0.0, **UNSIGNED_12)
            assert repaired
            assert np.array_equal(hu, truth)
            lost_1024 = (one.pixels_hu + np.int16(1024)).astype(np.uint16)
            with pytest.raises(Unreadable):
                to_hounsfield(lost_1024, intercept=0.0, **UNSIGNED_12)
            if k < 32:
                cut = np.maximum(truth, 0)
                hu, repaired = to_hounsfield(cut.astype(np.uint16), intercept=0.0, **UNSIGNED_12)
                assert repaired is None
                assert np.array_equal(hu, cut)
                lost_1000 = np.maximum(one.pixels_hu + np.int16(1000), 0).astype(np.uint16)
                with pytest.raises(Unreadable):
                    to_hounsfield(lost_1000, intercept=0.0, **UNSIGNED_12)


@pytest.mark.real_data
def test_a_known_share_of_every_real_slice_lies_outside_the_circle(head_ct_dir: Path) -> None:
    """21.2753% of each slice's pixels lie below -1024 HU before clamping, none after."""
    for path in (head_ct_dir / "rsna2019_series").glob("*.dcm"):
        stored = np.frombuffer(path.read_bytes()[-512 * 512 * 2 :], "<i2").reshape(512, 512)
        below = stored.astype(np.int32) - 1024 < -1024
        assert 100 * below.mean() == pytest.approx(21.2753, abs=5e-5)
        hu = read_slices(path.read_bytes())[0].pixels_hu
        assert (hu[below] == -1024).all()
        assert hu.min() == -1024
        assert np.array_equal(hu[~below], stored[~below] - 1024)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="integers"):
        to_hounsfield(np.zeros((1, 1)), bits_stored=16, pixel_representation=0, slope=1, intercept=0)
    with pytest.raises(ValueError, match="bits_stored 16"):
        to_hounsfield(np.zeros((1, 1), np.uint8), bits_stored=16, pixel_representation=0, slope=1, intercept=0)
