"""Slices of CTs with what was drawn and what was found of every organ."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy import ndimage

from medray.report.outlines import DRAWN, FOUND, outlined
from medray.tasks.ct_rows import AIR_HU

ZOOM_MM = 64.0
MOST = 3
"""Slices that show the organs of a scan."""
_TALL_PX = 440
_SOLID = 0.6
"""As the shards have it: -400 HU."""
_WINDOW_HU = (-160.0, 240.0)
Masks = Mapping[str, np.ndarray]
"""Organ → (D, H, W) bool."""
Pair = tuple[str, np.ndarray, np.ndarray]
"""An organ, what was drawn of it, what was found; (D, H, W) bool."""


@dataclass(frozen=True)
class Slice:
    """An axial slice, seen from the feet: the patient's right is on the left."""

    image: np.ndarray  # (rows, columns, 3) uint8
    title: str
    lines: tuple[str, ...]


def slices_of(
    image: np.ndarray, drawn: Masks, found: Masks, spacing_mm: Sequence[float], small: Sequence[str], title: str
) -> list[Slice]:
    """A few slices with as many organs as they can show, the one with most that is wrong; from near a small organ, and those that
    no slice meets.

    Args:
        image: (D, H, W) as the shards have it.
    """
    grey, shape = greys(image), image.shape
    shown = {organ: mask for organ, mask in found.items() if organ in drawn or not drawn}
    empty = np.zeros(shape, bool)
    pairs = [(organ, drawn.get(organ, empty), shown.get(organ, empty)) for organ in {**drawn, **shown}]
    pairs = [pair for pair in pairs if (pair[1] | pair[2]).any()]
    places = {place: "organs" for place in levels([(a if a.any() else b).sum((1, 2)) for _, a, b in pairs])}
    wrong = sum((a ^ b).sum((1, 2)) for _, a, b in pairs) if drawn else np.zeros(shape[0])
    if np.any(wrong) and all(abs(int(np.argmax(wrong)) - place) > 1 for place in places):
        places[int(np.argmax(wrong))] = "most voxels that are wrong"
    numbers = {organ: str(number) for number, (organ, _, _) in enumerate(pairs, 1)}  # alike in every slice of a scan
    out = []
    for place, why in (places or {shape[0] // 2: "the middle"}).items():
        box = _body(image[place])
        there = [(organ, a[place][box], b[place][box]) for organ, a, b in pairs if (a | b)[place][box].any()]
        picture = draw(grey[place][box], [(numbers[organ], a, b) for organ, a, b in there], spacing_mm)
        told = ", ".join(f"{numbers[organ]} {organ}" for organ, _, _ in there)
        out.append(Slice(picture, title, (f"slice {place + 1} of {shape[0]} from the feet: {why}", told)))
    for (organ, a, b), why in _from_near(pairs, places, small, bool(drawn)):
        place = int(np.argmax((a | b).sum((1, 2))))
        near = _about(np.argwhere((a | b)[place]).mean(0), shape[1:], spacing_mm)
        alone = [("", a[place][near], b[place][near])]  # neighbours' lines would cover its own
        picture = draw(grey[place][near], alone, spacing_mm)
        missed = ", which was not found" if drawn and not b.any() else ""
        out.append(
            Slice(picture, title, (f"slice {place + 1}, about {ZOOM_MM:g} mm around {organ} alone, {why}{missed}",))
        )
    return out


def _from_near(
    pairs: Sequence[Pair], places: Collection[int], small: Sequence[str], known: bool
) -> list[tuple[Pair, str]]:
    """What is worth a look from near, and why: the worst small organ, and those that no slice of ``places`` meets.

    Args:
        known: whether somebody has drawn.
    """
    near = [pair for pair in pairs if pair[0] in small]
    found = []
    if near:
        worst = max(near, key=lambda one: _worth_a_look(*one[1:]))
        found.append((worst, "its worst small organ" if known else "its smallest organ"))
    unmet = [pair for pair in pairs if not any((pair[1] | pair[2])[place].any() for place in places)]
    return found + [(pair, "in no slice before") for pair in unmet if not found or pair[0] != found[0][0][0]][:MOST]


def levels(areas: Sequence[np.ndarray]) -> list[int]:
    """A few slices, from the feet, of which each organ is in one with half of its largest area or more, as far as MOST allows.

    Args:
        areas: of each organ its voxels by slice.
    """
    left, places = list(range(len(areas))), list[int]()
    while left and len(places) < MOST:
        shows = np.array([areas[k] >= 0.5 * areas[k].max() for k in left])
        rank = (
            shows.sum(0) + np.mean([areas[k] / max(1, areas[k].max()) for k in left], 0) / 2
        )  # of equal ones the fullest
        place = int(np.argmax(rank))
        places.append(place)
        left = [k for k, there in zip(left, shows[:, place], strict=True) if not there]
    return sorted(places)


def _worth_a_look(drawn: np.ndarray, found: np.ndarray) -> float:
    """Of a small organ: the share that is wrong; where nobody has drawn, how small it is."""
    if not drawn.any():
        return -float(found.sum())
    return float((drawn ^ found).sum() / (drawn | found).sum())


def _body(image: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of the largest thing in a slice that is no air, and a margin."""
    count, _, stats, _ = cv2.connectedComponentsWithStats((image > _SOLID).astype(np.uint8))
    if count < 2:
        return slice(0, image.shape[0]), slice(0, image.shape[1])
    left, top, width, height = stats[1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())][:4]
    margin = 2 + max(width, height) // 16
    return slice(max(0, top - margin), top + height + margin), slice(max(0, left - margin), left + width + margin)


def _about(middle: np.ndarray, shape: Sequence[int], spacing_mm: Sequence[float]) -> tuple[slice, ...]:
    """Rows and columns of ZOOM_MM around a place, moved into the image where it would leave it."""
    sides = [min(n, max(2, round(ZOOM_MM / mm))) for n, mm in zip(shape, spacing_mm[1:], strict=True)]
    starts = [int(np.clip(m - side / 2, 0, n - side)) for m, side, n in zip(middle, sides, shape, strict=True)]
    return tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))


def greys(image: np.ndarray) -> np.ndarray:
    """From 0 to 1 over a window of soft tissue."""
    low, high = ((hu - AIR_HU) / 1000 for hu in _WINDOW_HU)
    return np.clip((image - low) / (high - low), 0, 1)


def draw(
    grey: np.ndarray, organs: Sequence[tuple[str, np.ndarray, np.ndarray]], spacing_mm: Sequence[float]
) -> np.ndarray:
    """A slice (rows, columns) with outlines of each organ, and a short text in it; two that touch keep a line between them.

    Args:
        organs: text, what was drawn, what was found.
    """
    width = max(1, round(_TALL_PX * grey.shape[1] * spacing_mm[2] / (grey.shape[0] * spacing_mm[1])))
    lines = [(one[1], DRAWN) for one in organs if one[1].any()] + [(one[2], FOUND) for one in organs if one[2].any()]
    picture = outlined(grey, lines, (_TALL_PX, width))
    for text, drawn, found in organs:
        mask, colour = (found, FOUND) if found.any() else (drawn, DRAWN)
        inside = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
        row, column = np.unravel_index(int(inside.argmax()), mask.shape)
        at = (int((column + 0.5) * width / mask.shape[1]) - 5, int((row + 0.5) * _TALL_PX / mask.shape[0]) + 5)
        for thick, shade in ((3, (0, 0, 0)), (1, colour)):
            cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, shade, thick, cv2.LINE_AA)
    return picture


def with_text(image: np.ndarray, text: str) -> np.ndarray:
    """With white letters in the upper left corner."""
    shown = text.encode("ascii", "replace").decode()
    return np.asarray(cv2.putText(image.copy(), shown, (8, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1))
