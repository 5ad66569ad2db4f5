"""Which slices of a scan are shown, and which of its organs from near."""

from __future__ import annotations

import numpy as np

from medray.report.organ_slices import slices_of
from medray.report.outlines import DRAWN

SHAPE = (24, 40, 40)
IMAGE = np.full(SHAPE, 1.04, np.float32)
SPACING_MM = (3.0, 2.5, 2.5)
ORGANS = ("A", "B", "C", "D", "E")


def at(slices: slice, place: int, side: int = 4) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[slices, place : place + side, place : place + side] = True
    return mask


MASKS = {organ: at(slice(4 * k, 4 * k + 2), 5 * k + 4) for k, organ in enumerate(ORGANS)}
"""No slice shows two of them."""


def test_an_organ_that_no_slice_meets_is_shown_from_near() -> None:
    shown = slices_of(IMAGE, {}, MASKS, SPACING_MM, ("A",), "scan")
    in_slices = {word for one in shown if len(one.lines) == 2 for word in one.lines[1].split() if word in ORGANS}
    near = [one.lines[0] for one in shown if len(one.lines) == 1]
    assert len(in_slices) == 3
    assert any("around A alone, its smallest organ" in line for line in near)
    missing = [organ for organ in ORGANS if organ not in in_slices and organ != "A"]
    assert missing
    for organ in missing:
        assert sum(f"around {organ} alone, in no slice before" in line for line in near) == 1


def test_an_organs_number_is_the_same_in_every_slice() -> None:
    tall = MASKS | {"F": at(slice(0, 24), 30)}
    told = [one.lines[1] for one in slices_of(IMAGE, tall, tall, SPACING_MM, (), "scan") if len(one.lines) == 2]
    assert len(told) > 1
    assert all("6 F" in line for line in told)


def test_from_near_no_neighbours_line_covers_what_was_missed() -> None:
    """A lens of three voxels of which one was missed: the eye's outline would lie on it."""
    lens, eye = at(slice(8, 9), 20, 3), at(slice(6, 12), 23, 8)
    found = lens.copy()
    found[8, 22, 22] = False
    drawn = {"Lens_L": lens, "Eye_L": eye}
    *_, near = slices_of(IMAGE, drawn, {"Lens_L": found, "Eye_L": eye}, SPACING_MM, ("Lens_L",), "scan")
    assert near.lines == ("slice 9, about 64 mm around Lens_L alone, its worst small organ",)
    assert (near.image == DRAWN).all(-1).any()
