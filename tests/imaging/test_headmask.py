"""The head mask on drawn heads with drawn hardware, and on the real series."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from medray.imaging.dicom import read_slices
from medray.imaging.headmask import head_mask, remove_hardware
from medray.imaging.stacks import stacks_of
from medray.imaging.types import Slice

SPACING = (0.5, 0.5)


def drawn_head(center_xy: tuple[int, int] = (256, 240), radii_xy: tuple[int, int] = (140, 180)) -> np.ndarray:
    """(512, 512) int16 HU: scalp, skull, brain with noise, a bleed, a sinus full of air."""
    hu = np.full((512, 512), -1000, np.int16)
    for shrink, value in ((0, 20), (8, 900), (22, 32)):
        axes = (radii_xy[0] - shrink, radii_xy[1] - shrink)
        cv2.ellipse(hu, center_xy, axes, 0, 0, 360, value, cv2.FILLED)
    cv2.circle(hu, (center_xy[0] + 40, center_xy[1]), 15, 70, cv2.FILLED)
    cv2.circle(hu, (center_xy[0], center_xy[1] - radii_xy[1] + 30), 12, -1000, cv2.FILLED)
    return hu + np.random.default_rng(0).normal(0, 8, hu.shape).round().astype(np.int16)


def outline(hu: np.ndarray) -> np.ndarray:
    """What a drawn head really covers: every pixel inside its outer edge."""
    solid = (hu > -300).astype(np.uint8)
    edges, _ = cv2.findContours(solid, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros_like(solid), [max(edges, key=cv2.contourArea)], -1, 1, cv2.FILLED).astype(bool)


def test_a_head_alone_is_kept_whole() -> None:
    hu = drawn_head()
    mask = head_mask(hu, SPACING)
    assert mask.dtype == bool
    assert mask.shape == hu.shape
    assert np.array_equal(mask, outline(hu))
    assert mask[72, 256], "the air in the sinus belongs to the head"


@pytest.mark.parametrize("gap_mm", [0, 2, 10])
def test_plates_beside_the_head_go(gap_mm: int) -> None:
    """3.5 mm thick and 45 mm long, upright beside the head. With a gap they go whole; where they touch the scalp, it
    is the head that must not suffer, and the plate's far ends go."""
    hu = drawn_head()
    plates = np.zeros_like(hu, dtype=bool)
    for side in (-1, 1):
        edge = 256 + side * (141 + 2 * gap_mm)
        plates[200:290, min(edge, edge + 7 * side) : max(edge, edge + 7 * side) + 1] = True
    with_plates = np.where(plates & ~outline(hu), np.int16(1200), hu)
    mask = head_mask(with_plates, SPACING)
    assert mask[outline(hu)].all(), "no pixel of the head may be lost"
    left = np.count_nonzero(mask & plates & ~outline(hu))
    assert left == 0 if gap_mm else left < np.count_nonzero(plates)


def test_a_table_shell_under_the_head_goes() -> None:
    """Two 2 mm walls with foam between them, as wide as the image, 3 mm below the head."""
    hu = drawn_head(center_xy=(256, 220))
    table = np.zeros_like(hu, dtype=bool)
    table[406:410], table[440:444], table[406:444, 2:6], table[406:444, 506:510] = True, True, True, True
    with_table = hu.copy()
    with_table[410:440] = -950
    with_table[table] = 100
    mask = head_mask(with_table, SPACING)
    assert np.array_equal(mask, outline(hu))


def test_a_holder_around_the_head_is_not_filled_into_it() -> None:
    """A closed ring, 3 mm thick, that the head rests on: the air between them is no part of the head."""
    hu = drawn_head(center_xy=(256, 300), radii_xy=(120, 150))
    ring = cv2.circle(np.zeros((512, 512), np.uint8), (256, 240), 214, 1, 6).astype(bool) & ~outline(hu)
    mask = head_mask(np.where(ring, np.int16(300), hu), SPACING)
    assert mask[outline(hu)].all()
    extra = np.count_nonzero(mask & ~outline(hu))
    assert extra < 0.02 * np.count_nonzero(outline(hu))
    assert not mask[60, 256]


def test_cables_tubes_and_noise_are_no_head() -> None:
    hu = np.full((512, 512), -1000, np.int16)
    cv2.circle(hu, (100, 100), 6, 3000, cv2.FILLED)
    cv2.circle(hu, (300, 300), 20, 200, 4)
    cv2.rectangle(hu, (50, 400), (460, 406), 1200, cv2.FILLED)
    cv2.rectangle(hu, (50, 440), (460, 459), 100, cv2.FILLED)  # 10 mm: as thick as a board gets
    hu[-24:] = 100  # 12 mm of the board of a table that the image cuts off
    assert not head_mask(hu, SPACING).any()
    assert not head_mask(np.full((512, 512), -1024, np.int16), SPACING).any()


def test_a_head_cut_off_by_the_image_is_kept() -> None:
    hu = drawn_head(center_xy=(256, 60))
    assert np.array_equal(head_mask(hu, SPACING), outline(hu))


@pytest.mark.parametrize("shape", [(512, 512), (400, 300), (333, 501), (128, 128)])
def test_other_sizes_and_pixel_shapes(shape: tuple[int, int]) -> None:
    """The same head, sampled otherwise, keeps its place: at least 97% of both agree."""
    hu = cv2.resize(drawn_head(), shape[::-1], interpolation=cv2.INTER_NEAREST)
    spacing = (256 / shape[0], 256 / shape[1])
    mask, truth = head_mask(hu, spacing), outline(hu)
    assert np.count_nonzero(mask & truth) > 0.97 * np.count_nonzero(mask | truth)


def test_float_images_have_the_same_mask() -> None:
    hu = drawn_head()
    assert np.array_equal(head_mask(hu.astype(np.float32), SPACING), head_mask(hu, SPACING))


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_remove_hardware_touches_nothing_inside(dtype: type) -> None:
    hu: np.ndarray = drawn_head().astype(dtype)
    before = hu.copy()
    mask = outline(hu)
    cleaned = remove_hardware(hu, mask)
    assert cleaned.dtype == dtype
    assert np.array_equal(cleaned[mask], before[mask])
    assert (cleaned[~mask] == -1000).all()
    assert np.array_equal(hu, before)


@pytest.mark.real_data
class TestTheRealSeries:
    def test_the_end_slice_holds_no_head(self, stack: list[Slice]) -> None:
        end = stack[35]
        assert component_sizes(end.pixels_hu > -300)[:2] == [618, 617]
        assert not mask_of(end).any()
        assert (remove_hardware(end.pixels_hu, mask_of(end)) == -1000).all()

    def test_its_neighbour_keeps_only_scalp(self, stack: list[Slice]) -> None:
        mask = mask_of(stack[34])
        assert np.count_nonzero(mask) == pytest.approx(2700, rel=0.02)
        assert len(component_sizes(mask)) == 1
        assert stack[34].pixels_hu[mask].max() < 200  # no bone yet

    @pytest.mark.parametrize("index", [0, 1, 2, 3, 5, 6, 7, 26, 27, 28, 29, 30, 31, 32, 33, 34])
    def test_free_standing_plates_go(self, stack: list[Slice], index: int) -> None:
        """Every solid piece of 300 px or more but the largest is a plate here, and none of its pixels remains."""
        _, labels, stats, _ = cv2.connectedComponentsWithStats((stack[index].pixels_hu > -300).astype(np.uint8))
        plates = [i for i in np.argsort(-stats[1:, cv2.CC_STAT_AREA])[1:] + 1 if stats[i, cv2.CC_STAT_AREA] >= 300]
        assert plates
        assert not mask_of(stack[index])[np.isin(labels, plates)].any()

    @pytest.mark.parametrize("index", range(13, 24))
    def test_nothing_inside_the_skull_changes(self, stack: list[Slice], index: int) -> None:
        hu = stack[index].pixels_hu
        skull = cv2.morphologyEx((hu > 250).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
        edges, _ = cv2.findContours(skull, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        inside = cv2.drawContours(np.zeros_like(skull), [max(edges, key=cv2.contourArea)], -1, 1, cv2.FILLED) > 0
        assert np.count_nonzero(inside) > 90_000
        cleaned = remove_hardware(hu, mask_of(stack[index]))
        assert cleaned[inside].tobytes() == hu[inside].tobytes()

    def test_the_face_is_kept_too(self, stack: list[Slice]) -> None:
        """On the slices with a nose, at least 97% of the head's own solid pixels remain (ears lose their rims)."""
        for index in range(0, 12):
            _, labels, stats, _ = cv2.connectedComponentsWithStats((stack[index].pixels_hu > -300).astype(np.uint8))
            head = labels == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])
            assert np.count_nonzero(mask_of(stack[index]) & head) > 0.97 * np.count_nonzero(head)


@pytest.fixture(scope="module")
def stack(head_ct_dir: Path) -> list[Slice]:
    slices = [read_slices(path.read_bytes())[0] for path in (head_ct_dir / "rsna2019_series").glob("*.dcm")]
    return [slices[i] for i in stacks_of([one.header for one in slices])[0].members]


def mask_of(one: Slice) -> np.ndarray:
    return head_mask(one.pixels_hu, one.header.spacing_rc_mm)


def component_sizes(mask: np.ndarray) -> list[int]:
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    return sorted(stats[1:, cv2.CC_STAT_AREA].tolist(), reverse=True)
