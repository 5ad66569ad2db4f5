"""Which slice is shown, and what of it."""

from __future__ import annotations

import numpy as np

from medray.systems.lesion.report.pictures import greys, place_of, slices_of

SHAPE = (6, 6, 8)


def ball(at: int, of: int = 2) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[:of, :of, at] = 1
    return mask


def test_the_slice_with_most_of_the_first_that_is_not_empty() -> None:
    nothing, image = np.zeros(SHAPE), ball(5, 6).astype(np.float32)
    assert place_of(ball(2), ball(3), image) == 2
    assert place_of(nothing, ball(3), image) == 3
    assert place_of(nothing, nothing, image) == 5  # brain, and not an empty slice
    assert place_of(nothing) == 4


def test_a_scan_in_which_nothing_was_found_shows_brain() -> None:
    image = ball(5, 6) * np.arange(1, 37, dtype=np.float32).reshape(6, 6, 1)
    scan = {"scan_id": "a", "shape_DHW": list(SHAPE), "spacing_mm": [1.0] * 3, "mask": None}
    (one,) = slices_of(image, scan, {"mask": np.zeros(SHAPE, np.uint8).tobytes()}, None)
    assert one.about == "slice 6 of 8: most brain"
    assert one.image.any()


def test_what_is_drawn_and_what_is_wrong_are_one_slice_where_they_fall_together() -> None:
    image = np.ones(SHAPE, np.float32)
    scan = {"scan_id": "a", "shape_DHW": list(SHAPE), "spacing_mm": [1.0] * 3, "mask": ball(2).tobytes()}
    assert [one.about for one in slices_of(image, scan, {"mask": ball(6, 1).tobytes()}, 0.0)] == [
        "slice 3 of 8: most lesion"
    ]
    found = slices_of(image, scan, {"mask": (ball(2) | ball(6, 4)).tobytes()}, 0.5)
    assert [one.about for one in found] == ["slice 3 of 8: most lesion", "slice 7 of 8: most that is wrong"]


def test_air_is_black_and_brain_goes_from_black_to_white() -> None:
    image = np.linspace(-2, 3, 6 * 6 * 8, dtype=np.float32).reshape(SHAPE)
    image[0] = 0
    grey = greys(image)
    assert not grey[0].any()
    assert (grey.min(), grey.max()) == (0, 1)
    assert not greys(np.zeros(SHAPE, np.float32)).any()  # of a channel that is missing
