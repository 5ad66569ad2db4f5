"""Slices of scans with the outlines of what was drawn and of what was found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from scipy import ndimage

from medray.shards.store import Store
from medray.tasks.volume_rows import UNKNOWN, whole

DRAWN, FOUND = (80, 220, 100), (255, 70, 70)  # green, red
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
        for row in rows_of(store, own, wanted, ["scan_id", "shape_DHW", "mask"])
    }
    names = ["scan_id", "shape_DHW", "spacing_mm", "voxels", "box_DHW", "mask"]
    scans = {row["scan_id"]: row for row in rows_of(shards, shards.names(".parquet"), wanted, names)}
    dice = dict(zip(table["scan_id"], table["dice"], strict=True))
    return [one for scan_id in wanted if scan_id in scans and scan_id in masks for one in slices_of(whole(scans[scan_id])[0], scans[scan_id], masks[scan_id], dice[scan_id])]  # fmt: skip


def rows_of(store: Store, names: Sequence[str], wanted: Sequence[str], columns: list[str]) -> Iterator[dict[str, Any]]:
    """Rows of a few scans; others' voxels are not read."""
    for name in names:
        file = pq.ParquetFile(store.filesystem.open_input_file(store.path(name)))
        for group in range(file.num_row_groups):
            ids = file.read_row_group(group, columns=["scan_id"])["scan_id"].to_pylist()
            if {*ids} & {*wanted}:
                table = file.read_row_group(group, columns=columns)
                yield from (row for row in table.to_pylist() if row["scan_id"] in wanted)


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

    def upright(plane: np.ndarray, how: int) -> np.ndarray:
        turned = np.ascontiguousarray(plane.T[::-1, ::-1])
        return cv2.resize(turned, (width, height), interpolation=how)

    picture = np.repeat((upright(grey.astype(np.float32), cv2.INTER_LINEAR) * 255).astype(np.uint8)[..., None], 3, 2)
    for mask, colour in ((drawn, DRAWN), (found, FOUND)):
        large = upright(mask.astype(np.uint8), cv2.INTER_NEAREST) > 0
        picture[large & ~ndimage.binary_erosion(large)] = colour
    return picture
