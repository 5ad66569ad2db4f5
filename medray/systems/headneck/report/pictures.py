"""Slices of CTs with what was drawn and what was found of every organ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd

from medray.report.outlines import DRAWN, FOUND, outlined
from medray.shards.few_rows import Stored, few_rows
from medray.shards.store import Store
from medray.systems.headneck.scores.packed import unpacked
from medray.systems.headneck.source import AIR_HU
from medray.tasks.volume_rows import whole
from medray.tasks.volume_scores import Drawn

SCANS = 4
ZOOM_MM = 64.0
_TALL_PX = 440
_WINDOW_HU = (-160.0, 240.0)
Masks = Mapping[str, np.ndarray]
"""Organ → (D, H, W) bool."""


@dataclass(frozen=True)
class Slice:
    """An axial slice, seen from the feet: the patient's right is on the left."""

    image: np.ndarray  # (rows, columns, 3) uint8
    title: str
    lines: tuple[str, ...]


def collect(
    shards: Store,
    contours: Stored,
    scans: pd.DataFrame,
    organs: Sequence[str],
    small: Sequence[str],
) -> list[Slice]:
    """Of a few scans, from the worst to the best, the slice that shows most organs, the one with most that is wrong, and a small
    organ from near.

    Args:
        shards: of the scans. contours: rows of ``Contours``. scans: scan_id and dice, as in scans.csv.
        organs: of the masks, in their order.
    """
    known = scans.sort_values(["dice", "scan_id"])["scan_id"].tolist()
    places = np.linspace(0, len(known) - 1, min(SCANS, len(known))).astype(int).tolist()
    wanted = list(dict.fromkeys(known[i] for i in places))
    found = {
        row["scan_id"]: row
        for row in few_rows(contours.store, contours.files, "scan_id", wanted, ["scan_id", "shape_DHW", "organs"])
    }
    columns = ["scan_id", "shape_DHW", "spacing_mm", "voxels", "box_DHW", "mask", "sets", "drawn"]
    rows = {row["scan_id"]: row for row in few_rows(shards, shards.names(".parquet"), "scan_id", wanted, columns)}
    dice = dict(zip(scans["scan_id"], scans["dice"], strict=True))
    return [
        one
        for scan_id in wanted
        if scan_id in found and scan_id in rows
        for one in slices_of(
            whole(rows[scan_id])[0], drawn_of(rows[scan_id], organs),
            {o["organ"]: unpacked(o, found[scan_id]["shape_DHW"]) for o in found[scan_id]["organs"]},
            rows[scan_id]["spacing_mm"], small, f"{scan_id}, Dice {dice[scan_id]:.3f}",
        )
    ]  # fmt: skip


def drawn_of(row: Mapping[str, Any], organs: Sequence[str]) -> Masks:
    """What somebody has drawn in a row of shards."""
    if row["mask"] is None:
        return {}
    mask = np.frombuffer(row["mask"], np.uint8).reshape(tuple(row["shape_DHW"]))
    drawn = Drawn(mask, np.array(row["sets"], np.int64), np.array(row["drawn"]))
    return {organ: drawn.of(number)[0] for number, organ in enumerate(organs, 1) if row["drawn"][number - 1]}


def slices_of(
    image: np.ndarray, drawn: Masks, found: Masks, spacing_mm: Sequence[float], small: Sequence[str], title: str
) -> list[Slice]:
    """
    Args:
        image: (D, H, W) as the shards have it.
    """
    grey, shape = greys(image), image.shape
    shown = {organ: mask for organ, mask in found.items() if organ in drawn or not drawn}
    empty = np.zeros(shape, bool)
    pairs = [(organ, drawn.get(organ, empty), shown.get(organ, empty)) for organ in {**drawn, **shown}]
    crowd = sum((a | b).any((1, 2)).astype(int) for _, a, b in pairs)
    wrong = sum((a ^ b).sum((1, 2)) for _, a, b in pairs) if drawn else np.zeros(shape[0])
    places = {int(np.argmax(crowd)): "most organs"}
    if np.any(wrong):
        places.setdefault(int(np.argmax(wrong)), "most voxels that are wrong")
    out = []
    for place, why in places.items():
        there = [organ for organ, a, b in pairs if (a | b)[place].any()]
        out.append(
            Slice(
                draw(grey[place], [m[place] for _, m, _ in pairs], [m[place] for *_, m in pairs], spacing_mm),
                title,
                (f"slice {place + 1} of {shape[0]}: {why}", ", ".join(there)),
            )
        )
    near = [(organ, a, b) for organ, a, b in pairs if organ in small and (a | b).any()]
    if near:
        organ, a, b = max(near, key=lambda one: float((one[1] ^ one[2]).sum() / (one[1] | one[2]).sum()))
        place = int(np.argmax((a | b).sum((1, 2))))
        middle = np.argwhere((a | b)[place]).mean(0)
        box = tuple(
            slice(max(0, int(m - ZOOM_MM / 2 / mm)), int(m + ZOOM_MM / 2 / mm) + 1)
            for m, mm in zip(middle, spacing_mm[1:], strict=True)
        )
        picture = draw(
            grey[place][box], [m[place][box] for _, m, _ in pairs], [m[place][box] for *_, m in pairs], spacing_mm
        )
        out.append(Slice(picture, title, (f"slice {place + 1}, {ZOOM_MM:g} mm about {organ}", "its worst small organ")))
    return out


def greys(image: np.ndarray) -> np.ndarray:
    """From 0 to 1 over a window of soft tissue."""
    low, high = ((hu - AIR_HU) / 1000 for hu in _WINDOW_HU)
    return np.clip((image - low) / (high - low), 0, 1)


def draw(
    grey: np.ndarray, drawn: Sequence[np.ndarray], found: Sequence[np.ndarray], spacing_mm: Sequence[float]
) -> np.ndarray:
    """A slice (rows, columns) with outlines, organ by organ: two that touch keep a line between them."""
    width = max(1, round(_TALL_PX * grey.shape[1] * spacing_mm[2] / (grey.shape[0] * spacing_mm[1])))
    lines = [(mask, colour) for masks, colour in ((drawn, DRAWN), (found, FOUND)) for mask in masks if mask.any()]
    return outlined(grey, lines, (_TALL_PX, width))


def with_text(image: np.ndarray, text: str) -> np.ndarray:
    """With white letters in the upper left corner."""
    shown = text.encode("ascii", "replace").decode()
    return np.asarray(cv2.putText(image.copy(), shown, (8, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1))
