"""Slices of scans with the outlines of what was drawn and of what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from medray.report.outlines import DRAWN, FOUND, outlined
from medray.shards.few_rows import few_rows
from medray.shards.store import Store
from medray.tasks.volume_rows import UNKNOWN, whole

SCANS = 6
_TALL_PX = 420
Parts = Sequence[tuple[Store, Mapping[int, Sequence[str]]]]


@dataclass(frozen=True)
class Slice:
    """An axial slice with outlines, seen from the feet, right on the left as radiologists have it."""

    image: np.ndarray  # (rows, columns, 3) uint8
    scan_id: str
    about: str
    dice: float | None


def collect(shards: Store, parts: Parts, table: pd.DataFrame) -> list[Slice]:
    """Two slices of each of a few scans, from the worst to the best: the one with most lesion, and the one with most that is
    wrong.

    Args:
        shards: of the scans. parts: where rows of ``masks`` are. table: their small columns.
    """
    wanted = _chosen(table)
    masks = {
        row["scan_id"]: row
        for store, of_fold in parts
        for own in of_fold.values()
        for row in few_rows(store, own, "scan_id", wanted, ["scan_id", "shape_DHW", "mask"])
    }
    names = ["scan_id", "shape_DHW", "spacing_mm", "voxels", "box_DHW", "mask"]
    scans = {row["scan_id"]: row for row in few_rows(shards, shards.names(".parquet"), "scan_id", wanted, names)}
    dice = dict(zip(table["scan_id"], table["dice"], strict=True))
    return [one for scan_id in wanted if scan_id in scans and scan_id in masks for one in slices_of(whole(scans[scan_id])[0], scans[scan_id], masks[scan_id], dice[scan_id])]  # fmt: skip


def _chosen(table: pd.DataFrame) -> list[str]:
    """Scans with a mask from the worst Dice to the best, evenly; then others."""
    known = table[table["dice"].notna()].sort_values(["dice", "scan_id"])["scan_id"].tolist()
    places = np.linspace(0, len(known) - 1, min(SCANS, len(known))).astype(int).tolist()
    return list(dict.fromkeys(known[i] for i in places)) or table["scan_id"].head(SCANS).tolist()


def slices_of(image: np.ndarray, scan: Mapping[str, Any], answer: Mapping[str, Any], dice: float | None) -> list[Slice]:
    shape = tuple(scan["shape_DHW"])
    found = np.frombuffer(answer["mask"], np.uint8).reshape(shape) != 0
    truth = None if scan["mask"] is None else np.frombuffer(scan["mask"], np.uint8).reshape(shape)
    drawn = np.zeros(shape, bool) if truth is None else (truth != 0) & (truth != UNKNOWN)
    wrong = found ^ drawn if truth is not None else found
    places = {place_of(drawn, found, image): "most lesion" if drawn.any() or found.any() else "most brain"}
    if wrong.any():
        places.setdefault(int(wrong.sum((0, 1)).argmax()), "most that is wrong")
    grey = greys(image)
    pictures = []
    for place, about in places.items():
        picture = draw(grey[:, :, place], drawn[:, :, place], found[:, :, place], scan["spacing_mm"])
        pictures.append(Slice(picture, str(scan["scan_id"]), f"slice {place + 1} of {shape[2]}: {about}", dice))
    return pictures


def place_of(*told: np.ndarray) -> int:
    """The axial slice with most of the first that is not empty, of (D, H, W) arrays: what was drawn, what was found, brain."""
    return next((int((one != 0).sum((0, 1)).argmax()) for one in told if one.any()), told[0].shape[2] // 2)


def greys(image: np.ndarray) -> np.ndarray:
    """(D, H, W) from 0 to 1, black outside of the brain."""
    inside = image[image != 0]
    low, high = np.percentile(inside, [1, 99.5]) if inside.size else (0.0, 1.0)
    return np.where(image == 0, 0, np.clip((image - low) / max(1e-6, float(high - low)), 0, 1))


def draw(grey: np.ndarray, drawn: np.ndarray, found: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """(rows, columns, 3) uint8 of a (D, H) slice, front at the top, right on the left, one mm as long both ways."""
    height = _TALL_PX
    width = max(1, round(height * grey.shape[0] * spacing_mm[0] / (grey.shape[1] * spacing_mm[1])))
    upright = [np.ascontiguousarray(plane.T[::-1, ::-1]) for plane in (grey, drawn, found)]
    return outlined(upright[0], [(upright[1], DRAWN), (upright[2], FOUND)], (height, width))
