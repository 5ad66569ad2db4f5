"""What lies between the networks, without networks: each stage on rows as the one before it leaves them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from medray.engine.derive.outputs import outputs_of
from medray.systems.boneage.phantoms.hand import Hand, Pose, draw_hand
from medray.systems.boneage.stages.between import (
    LEAST_SHARE,
    TWO_HANDS,
    Hands,
    How,
    Masks,
    Points,
    Region,
    equalised,
    hand_of,
    registration,
)
from medray.systems.boneage.stages.canvas import cut, on_canvas, points_of, register, whole_film
from medray.systems.boneage.stages.mask_task import MaskTask
from medray.systems.boneage.stages.point_task import COORDINATES

ROWS, COLUMNS = 104, 80
ABOUT = {"film_id": "a", "patient_id": "p", "age_months": 90.0, "sex": "F", "calendar_months": None}
Row = dict[str, Any]


def drawn(mirrored: bool = False) -> Hand:
    pose = Pose(8.0, 0.8, mirrored=mirrored)
    return draw_hand(np.random.default_rng(0), 120, "M", ROWS, COLUMNS, pose=pose)


def film(image: np.ndarray, **more: Any) -> Row:
    """A row of the films' shards."""
    rows, columns = image.shape
    own = {"rows": rows, "columns": columns, "image": image.tobytes(), "points": None, "has_points": 0, "mask": None}
    return ABOUT | own | more


def found(mask: np.ndarray) -> Row:
    """As a network that is sure of this mask leaves it."""
    return {"found_rows": mask.shape[0], "found_columns": mask.shape[1], "found": (mask * np.uint8(255)).tobytes()}


def shown(row: Mapping[str, Any], column: str = "image") -> np.ndarray:
    return np.frombuffer(row[column], np.uint8).reshape(row["rows"], row["columns"])


def box(top: int, left: int, rows: int, columns: int, shape: tuple[int, int] = (ROWS, COLUMNS)) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[top : top + rows, left : left + columns] = 1
    return mask


# ---- masks ----------------------------------------------------------------------------------------------------------


class Left(torch.nn.Module):
    """The hand is the left half of the square."""

    def __init__(self) -> None:
        super().__init__()
        self.sure = torch.nn.Parameter(torch.tensor(30.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        columns = torch.arange(images.shape[-1])
        return (self.sure - 2 * self.sure * (columns >= images.shape[-1] // 2)).expand(images.shape).clone()


def test_what_the_network_finds_is_kept_for_the_films_part_of_its_square() -> None:
    task = MaskTask(side_px=64, width=4)
    high, wide = np.full((128, 96), 9, np.uint8), np.full((48, 96), 9, np.uint8)
    left = box(0, 0, 128, 64, (128, 96))
    given = [film(high, mask=left.tobytes()), film(wide, film_id="b")]
    table = outputs_of(task, Left(), given, partial(Masks().outputs, task))
    packed = Masks().pack(table)
    assert packed.schema.equals(Masks.schema)
    first, second = packed.to_pylist()
    assert [(row["found_rows"], row["found_columns"]) for row in (first, second)] == [(64, 48), (32, 64)]
    maps = [np.frombuffer(r["found"], np.uint8).reshape(r["found_rows"], r["found_columns"]) for r in (first, second)]
    for made in maps:  # of the square's 64 columns the first 32
        assert (made[:, :32] == 255).all()
        assert not made[:, 32:].any()
    assert first["iou"] == 1.0
    assert second["iou"] is None  # nobody has drawn on it


# ---- hands ----------------------------------------------------------------------------------------------------------


def test_the_background_goes_and_what_belongs_to_the_film_stays() -> None:
    one = drawn()
    image = np.maximum(one.image, 60)  # a background that is no black
    image[2:12, 2:12] = 255  # a letter of lead
    with_letter = one.mask | box(2, 2, 10, 10)
    with_hole = with_letter.copy()
    inside = tuple(np.argwhere(cv2.erode(one.mask, np.ones((9, 9), np.uint8)))[0])
    with_hole[inside[0] - 1 : inside[0] + 2, inside[1] - 1 : inside[1] + 2] = 0
    row = film(image, points=one.points.ravel().tolist(), has_points=1) | found(with_hole)
    assert {*Hands().columns} <= {*row}
    (made,) = Hands().rows(row)
    assert {*made} == {*Hands.schema.names}
    assert pa.Table.from_pylist([made], schema=Hands.schema).num_rows == 1
    assert {name: made[name] for name in ABOUT} == ABOUT
    assert made["points"] == one.points.ravel().tolist()  # nothing was moved
    assert np.array_equal(shown(made, "mask"), one.mask)  # the largest part, its hole filled
    assert not shown(made)[one.mask == 0].any()
    assert np.array_equal(shown(made), equalised(image, one.mask == 1, 2.0))


def test_a_map_of_fewer_pixels_than_the_film_is_enlarged() -> None:
    small = box(4, 4, 16, 12, (26, 20))
    (made,) = Hands().rows(film(np.full((ROWS, COLUMNS), 99, np.uint8)) | found(small))
    inside = shown(made, "mask")
    assert np.abs(inside.astype(int) - box(16, 16, 64, 48)).sum() < 64 + 48  # but for its edge
    assert inside[20:76, 20:60].all()


def test_without_masks_the_whole_film_is_kept() -> None:
    one, hands = drawn(), Hands(masked=False)
    assert not {"found", "found_rows", "found_columns"} & {*hands.columns}
    (made,) = hands.rows(film(one.image))
    assert shown(made, "mask").all()
    assert np.array_equal(shown(made), equalised(one.image, np.ones((ROWS, COLUMNS), bool), 2.0))
    assert (made["points"], made["has_points"]) == (None, 0)


@pytest.mark.parametrize(
    ("map_of", "reason"),
    [
        (box(0, 0, 0, 0), "no hand was found on it"),
        (box(50, 40, 12, 13), "no hand was found on it"),  # 156 of 8,320 pixels: less than 2 percent
        (box(2, 2, 60, 30) | box(2, 40, 60, 30), "two hands"),
        (box(2, 2, 60, 30) | box(2, 40, 60, 13), "two hands"),  # a part of one
    ],
)
def test_no_hand_and_two_hands_are_refused(map_of: np.ndarray, reason: str) -> None:
    row = film(drawn().image) | found(map_of)
    with pytest.raises(ValueError, match=reason) as refused:
        Hands().rows(row)
    assert "\n" not in str(refused.value)


def test_where_no_hand_begins_and_another_one() -> None:
    side = 100
    least = round(LEAST_SHARE * side)
    assert hand_of(box(0, 0, least, side, (side, side)).astype(np.float32)).sum() == least * side
    with pytest.raises(ValueError, match="no hand"):
        hand_of(box(0, 0, least, side - 1, (side, side)).astype(np.float32))
    beside = round(TWO_HANDS * 50)
    large = box(0, 0, 50, 40, (side, side))
    with pytest.raises(ValueError, match="two hands"):
        hand_of((large | box(0, 60, beside, 40, (side, side))).astype(np.float32))
    hand = hand_of((large | box(0, 60, beside - 1, 40, (side, side))).astype(np.float32))
    assert np.array_equal(hand, large == 1)
    assert not hand_of(np.where(large, 0.5, 0.49))[60:].any()  # half is hand, less is none


# ---- contrast -------------------------------------------------------------------------------------------------------


def test_contrast_is_equalised_within_the_hand_whatever_the_exposure() -> None:
    one = drawn()
    hand = one.mask == 1
    pale = (one.image // 4 + 100).astype(np.uint8)
    before, after = pale[hand], equalised(pale, hand, 2.0)[hand]
    assert np.ptp(np.percentile(before, [5, 95])) < 60
    assert np.ptp(np.percentile(after, [5, 95])) > 120
    strong = one.image // 4 * np.uint8(4)  # the same grey values, four times as far apart
    assert np.array_equal(equalised(strong, hand, 2.0)[hand], after)


def test_what_is_outside_counts_for_nothing_and_the_clip_limit_does() -> None:
    one = drawn()
    hand = one.mask == 1
    marked = np.where(hand, one.image, 255).astype(np.uint8)
    made = equalised(one.image, hand, 2.0)
    assert np.array_equal(equalised(marked, hand, 2.0), made)
    assert not made[~hand].any()
    assert not np.array_equal(equalised(one.image, hand, 4.0), made)


def test_a_hand_of_one_grey_value_is_no_error() -> None:
    made = equalised(np.full((ROWS, COLUMNS), 77, np.uint8), box(10, 10, 50, 50) == 1, 2.0)
    assert made.shape == (ROWS, COLUMNS)
    assert not made[:10].any()


# ---- points ---------------------------------------------------------------------------------------------------------


def test_points_are_kept_as_six_numbers_and_no_error_where_nobody_has_marked_them() -> None:
    numbers = dict(
        zip(COORDINATES, ([1.0, 7.0], [2.0, 8.0], [3.0, 9.0], [4.0, 1.5], [5.0, 2.5], [6.0, 3.5]), strict=True)
    )
    about = {
        "film_id": ["a", "b"],
        "patient_id": ["p", "q"],
        "error_px": [2.0, np.nan],
        "error_part": [0.1, np.nan],
        "thumb_right": [1.0, np.nan],
    }
    packed = Points().pack(pd.DataFrame(numbers | about))
    assert packed.schema.equals(Points.schema)
    first, second = packed.to_pylist()
    assert first["found_points"] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]  # x and y of the tip, of the thumb, of the capitate
    assert points_of(second["found_points"]).tolist() == [[7.0, 8.0], [9.0, 1.5], [2.5, 3.5]]
    assert (first["error_px"], second["error_px"], second["error_part"]) == (2.0, None, None)


# ---- regions --------------------------------------------------------------------------------------------------------


def region_of(region: Region, row: Row) -> Row:
    assert {*region.columns} <= {*row}
    (made,) = region.rows(row)
    assert {*made} == {*Region.schema.names}
    assert pa.Table.from_pylist([made], schema=Region.schema).num_rows == 1
    assert {name: made[name] for name in ABOUT} == ABOUT
    return made


@pytest.mark.parametrize("name", ["A", "B", "C"])
def test_a_region_is_cut_by_the_points_that_were_found(name: Any) -> None:
    one = drawn()
    elsewhere = (one.points + 9).ravel().tolist()
    row = film(one.image, points=elsewhere, found_points=one.points.ravel().tolist())
    made = region_of(Region(name, 0.1, "points"), row)
    assert np.array_equal(shown(made), cut(one.image, register(one.points, ROWS, COLUMNS), name, 0.1))
    assert made["mirrored"] == 0
    by_hand = region_of(Region(name, 0.1, "marked"), row | {"points": row["found_points"], "found_points": elsewhere})
    assert by_hand == made


def test_a_mirrored_hand_gives_the_region_of_its_twin() -> None:
    one, other = drawn(), drawn(mirrored=True)
    mirrored = film(other.image, found_points=other.points.ravel().tolist())
    made = region_of(Region("A", 0.05, "points"), mirrored)
    twin = region_of(Region("A", 0.05, "points"), film(one.image, found_points=one.points.ravel().tolist()))
    assert (made["mirrored"], twin["mirrored"]) == (1, 0)
    # its own noise, but the same hand: other than what the mirrored film itself shows
    alike = np.corrcoef(shown(made).ravel(), shown(twin).ravel())[0, 1]
    assert alike > 0.9
    assert alike > np.corrcoef(shown(made)[:, ::-1].ravel(), shown(twin).ravel())[0, 1] + 0.1


@pytest.mark.parametrize(("how", "place"), [("canvas", on_canvas), ("film", whole_film)])
def test_regions_without_points(how: How, place: Any) -> None:
    one = drawn()
    region = Region("A", 0.1, how)
    assert not {"points", "found_points"} & {*region.columns}
    made = region_of(region, film(one.image))
    assert np.array_equal(shown(made), cut(one.image, place(ROWS, COLUMNS), "A", 0.1))
    assert made["mirrored"] == 0


HAND = [40.0, 8.0, 66.0, 40.0, 40.0, 80.0]


@pytest.mark.parametrize(
    ("how", "points", "shape", "reason"),
    [
        ("points", [*HAND[:2], 95.0, 40.0, *HAND[4:]], (ROWS, COLUMNS), "the thumb lies outside of the film"),
        ("points", [40.0, -3.0, *HAND[2:]], (ROWS, COLUMNS), "the fingertip lies outside of the film"),
        ("points", [*HAND[:4], 40.0, 104.0], (ROWS, COLUMNS), "the wrist lies outside of the film"),
        ("points", [*HAND[:2], 42.0, 40.0, *HAND[4:]], (ROWS, COLUMNS), "on the axis of the hand"),
        ("points", [*HAND[:4], 40.0, 20.0], (ROWS, COLUMNS), "12 pixels apart: no hand, or a very small one"),
        ("points", [np.nan] * 6, (ROWS, COLUMNS), "a point is missing"),
        ("marked", [*HAND[:2], None, None, *HAND[4:]], (ROWS, COLUMNS), "a point is missing"),
        ("marked", None, (ROWS, COLUMNS), "nobody has marked its points"),
        ("canvas", None, (ROWS, 104), "104 × 104 pixels are not the canvas's proportions"),
    ],
)
def test_what_cannot_be_registered_says_why_in_a_line(
    how: How, points: Any, shape: tuple[int, int], reason: str
) -> None:
    image = np.full(shape, 9, np.uint8)
    row = film(image, points=points if how == "marked" else HAND, found_points=HAND if how == "marked" else points)
    with pytest.raises(ValueError, match=reason) as refused:
        Region("A", 0.1, how).rows(row)
    assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match=reason):
        registration(how, image, points)


def test_what_makes_other_shards_makes_other_names() -> None:
    every: list[Any] = [Hands(), Hands(masked=False), Hands(clip=3.0), Masks(), Points(), Region("A", 0.1, "points")]
    every += [Region("B", 0.1, "points"), Region("A", 0.2, "points"), Region("A", 0.1, "marked")]
    identities = [str(sorted(stage.identity().items())) for stage in every]
    assert len({*identities}) == len(every)
    assert replace(Hands(), clip=2.0).identity() == Hands().identity()


def test_the_frame_of_a_film_is_no_hand() -> None:
    """A network that takes a bright frame, its corner mark and the hand for hand: the hand alone is kept."""
    found = np.zeros((100, 80), np.float32)
    found[:2], found[-2:], found[:, :2], found[:, -2:] = 1, 1, 1, 1
    found[5:9, 5:12] = 1
    found[20:90, 25:60] = 1
    kept = hand_of(found)
    assert kept[20:90, 25:60].all()
    assert kept.sum() == 70 * 35


def test_nearly_all_of_a_film_is_no_hand_and_points_must_lie_on_it() -> None:
    with pytest.raises(ValueError, match="nearly all of the film was taken for one"):
        hand_of(np.ones((50, 40), np.float32))
    hand = np.zeros((ROWS, COLUMNS), np.uint8)
    hand[5:95, 25:72] = 9
    assert not registration("points", hand, HAND).mirrored
    hand[30:50, 55:72] = 0  # where the thumb would be
    with pytest.raises(ValueError, match="the point of the thumb lies off the hand"):
        registration("points", hand, HAND)
    hand[30:50, 72:] = 9  # a thumb that is cut off by the edge of the film: its tip lies a little beyond
    assert not registration("points", hand, [*HAND[:2], float(COLUMNS), 40.0, *HAND[4:]]).mirrored
