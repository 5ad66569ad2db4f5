"""Windows: hand-computed edges, and pydicom's own arithmetic as the yardstick for the standard's three functions."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import apply_windowing

from medray.imaging.dicom import read_slices
from medray.imaging.headmask import head_mask
from medray.imaging.stacks import stacks_of
from medray.imaging.window import WINDOWS, Window, apply_file_window, apply_window, apply_windows, parse_window


def test_the_named_windows_are_the_literatures() -> None:
    assert {name: (window.level, window.width) for name, window in WINDOWS.items()} == {
        "brain": (40, 80),
        "subdural": (75, 215),
        "bone": (600, 2800),
        "soft": (40, 375),
    }


def test_parse_by_name_and_by_numbers() -> None:
    assert parse_window("brain") == parse_window(" Brain ") == parse_window("40/80") == Window(40, 80)
    assert parse_window("-600.5/1500") == Window(-600.5, 1500)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("brian", "did you mean brain"),
        ("subdual", "did you mean subdural"),
        ("lung", "there are brain, subdural, bone, soft"),
        ("40/0", "not a window"),
        ("40/-80", "not a window"),
        ("40/wide", "not a window"),
        ("nan/80", "not a window"),
        ("", "unknown window"),
    ],
)
def test_parse_names_what_is_near(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_window(text)


def test_brain_edges_by_hand() -> None:
    # 255 / 80 = 3.1875 grey values a HU; 0.5 and above rounds up
    hu = np.array([-1024, -1, 0, 1, 2, 20, 40, 79, 80, 81, 3071], np.int16)
    assert apply_window(hu, WINDOWS["brain"]).tolist() == [0, 0, 0, 3, 6, 64, 128, 252, 255, 255, 255]


def test_halves_go_up() -> None:
    # width 510: half a grey value a HU
    hu = np.arange(-255, -249, dtype=np.int16)
    assert apply_window(hu, Window(0, 510)).tolist() == [0, 1, 1, 2, 2, 3]


@pytest.mark.parametrize("window", [*WINDOWS.values(), Window(-600.5, 1500.25), Window(0, 1)])
def test_table_and_arithmetic_agree_for_every_int16(window: Window) -> None:
    every = np.arange(-32768, 32768).astype(np.int16)
    assert np.array_equal(apply_window(every, window), apply_window(every.astype(np.float64), window))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_channels_are_the_single_windows_side_by_side(count: int, dtype: type) -> None:
    hu: np.ndarray = np.random.default_rng(count).integers(-1024, 3000, (37, 23)).astype(dtype)
    windows = list(WINDOWS.values())[:count]
    grey = apply_windows(hu, windows)
    assert grey.shape == (37, 23, count)
    assert grey.dtype == np.uint8
    assert grey.flags.c_contiguous
    for channel, window in enumerate(windows):
        assert np.array_equal(grey[..., channel], apply_window(hu, window))


def test_a_strided_view_is_read_right() -> None:
    hu = np.random.default_rng(0).integers(-1024, 3000, (40, 40)).astype(np.int16)
    grey = apply_windows(hu, [WINDOWS["bone"]])
    assert np.array_equal(apply_windows(hu[::2, ::-1], [WINDOWS["bone"]]), grey[::2, ::-1])


def test_no_window_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one"):
        apply_windows(np.zeros((2, 2), np.int16), [])


def by_pydicom(hu: np.ndarray, center: float, width: float, function: str | None) -> np.ndarray:
    """pydicom scales to the range of the stored type: 8 bits unsigned give 0 to 255."""
    ds = Dataset()
    ds.PhotometricInterpretation, ds.BitsStored, ds.BitsAllocated, ds.PixelRepresentation = "MONOCHROME2", 8, 8, 0
    ds.WindowCenter, ds.WindowWidth = center, width
    if function:
        ds.VOILUTFunction = function
    return apply_windowing(hu, ds)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("center", "width"), [(40, 80), (40.5, 150.5), (600, 2800), (0, 2), (50, 1)])
def test_each_function_is_pydicoms(function: str, center: float, width: float) -> None:
    hu = np.arange(-1100, 3200, dtype=np.int16)
    with np.errstate(over="ignore"):  # pydicom's exponential far below a narrow window
        exact = by_pydicom(hu.astype(np.float64), center, width, function)
    ours = apply_file_window(hu, center, width, function)
    assert ours.dtype == np.uint8
    # pydicom divides first, and so misses a half by a rounding error: halves are pinned by hand below and above
    half = np.abs(exact % 1 - 0.5) < 1e-9
    assert np.array_equal(ours[~half], np.floor(exact[~half] + 0.5).astype(np.uint8))
    assert np.array_equal(ours[half], np.ceil(exact[half].round(1)).astype(np.uint8))


def test_linear_is_what_the_standard_means_by_default() -> None:
    hu = np.arange(-20, 100, dtype=np.int16)
    assert np.array_equal(apply_file_window(hu, 40, 80), apply_file_window(hu, 40, 80, "LINEAR"))
    assert np.array_equal(by_pydicom(hu.astype(float), 40, 80, None), by_pydicom(hu.astype(float), 40, 80, "LINEAR"))


def test_linear_edges_lie_half_a_unit_inwards() -> None:
    # PS3.3 C.11.2.1.2.1 with c=40, w=80: black up to 0, white above 79; LINEAR_EXACT is white from 80 on
    hu = np.array([0, 1, 78, 79, 80], np.int16)
    assert apply_file_window(hu, 40, 80, "LINEAR").tolist() == [0, 3, 252, 255, 255]
    assert apply_file_window(hu, 40, 80, "LINEAR_EXACT").tolist() == [0, 3, 249, 252, 255]
    assert np.array_equal(apply_file_window(hu, 40, 80, "LINEAR_EXACT"), apply_window(hu, WINDOWS["brain"]))


def test_sigmoid_by_hand() -> None:
    # half of 255 at the centre; 255 / (1 + e^-2) = 224.6 at the window's upper edge
    hu = np.array([40, 80, -32768, 32767], np.int16)
    assert apply_file_window(hu, 40, 80, "SIGMOID").tolist() == [128, 225, 0, 255]


@pytest.mark.parametrize(
    ("width", "function"), [(0, "LINEAR"), (0.5, "LINEAR"), (0, "SIGMOID"), (-3, "LINEAR_EXACT"), (80, "CUBIC")]
)
def test_what_the_standard_forbids(width: float, function: str) -> None:
    with pytest.raises(ValueError, match=r"does not allow a window|unknown VOI LUT function"):
        apply_file_window(np.zeros(3, np.int16), 40, width, function)


@pytest.mark.real_data
def test_the_bleed_shows_in_the_brain_window_at_three_neighbouring_slices(head_ct_dir: Path) -> None:
    """Measured: the largest area inside the skull, 6 mm away from bone, whose 4.4 mm mean is at least 30 grey values
    (9.4 HU) above the brain's median and below 95 HU. On the three slices that show the bleed best it is 409 to 655
    mm2; nowhere else above 205 mm2."""
    slices = [read_slices(path.read_bytes())[0] for path in (head_ct_dir / "rsna2019_series").glob("*.dcm")]
    slices = [slices[i] for i in stacks_of([one.header for one in slices])[0].members]
    areas = [bright_area_mm2(one.pixels_hu, one.header.spacing_rc_mm) for one in slices[13:30]]
    shown = [13 + i for i, area in enumerate(areas) if area > 300]
    assert shown == [18, 19, 20]


def bright_area_mm2(pixels_hu: np.ndarray, spacing_rc_mm: tuple[float, float]) -> float:
    bone = cv2.morphologyEx((pixels_hu > 250).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(
        (head_mask(pixels_hu, spacing_rc_mm) & (bone == 0)).astype(np.uint8), connectivity=4
    )
    brain = (labels == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])).astype(np.uint8)
    brain = cv2.erode(brain, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (25, 25))).astype(bool)
    grey = cv2.blur(apply_window(pixels_hu, WINDOWS["brain"]), (9, 9))
    bright = brain & (grey >= np.median(grey[brain]) + 30) & (cv2.blur(pixels_hu, (9, 9)) < 95)
    _, _, stats, _ = cv2.connectedComponentsWithStats(bright.astype(np.uint8))
    return float(stats[1:, cv2.CC_STAT_AREA].max(initial=0)) * spacing_rc_mm[0] * spacing_rc_mm[1]
