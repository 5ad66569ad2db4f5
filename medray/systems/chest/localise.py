"""Heatmaps against radiologists' boxes: IoU, IoBB and the pointing game (Wang et al., CVPR 2017, section 4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd

from medray.shards.films import image_keys
from medray.shards.packed import read_unpacked
from medray.systems.chest.classes import finding_named, unknown_findings
from medray.systems.chest.table import image_column, read_rows

BOX_SPACE_PX = 1024
"""Side of the images that the published boxes were drawn on."""
OVERLAPS = (0.1, 0.25, 0.5, 0.75, 0.9)


@dataclass(frozen=True)
class Boxes:
    """The boxes that can be used, and why the others cannot."""

    table: pd.DataFrame  # image (without extension), finding, x, y, w, h in pixels of BOX_SPACE_PX, from the top left
    left_out: dict[str, int]  # reason → how many


def read_boxes(uri: str) -> Boxes:
    """BBox_List_2017.csv, plain or gzip, by path or URI: a column of images, "Finding Label", and x, y, w, h.

    The published header is broken ("Bbox [x", "y", "w", "h]"): the four columns are found by their last letter, w and h
    also as width and height. A box that leaves the image by less than half of itself is cut to it.

    Raises:
        ValueError: no such file, a column is missing, or no box is usable.
    """
    data, shown = read_unpacked(uri, "--boxes")
    table = read_rows(data, shown, "--boxes")
    image = image_column(table)
    label = next((c for c in table.columns if "finding" in c.lower() or c.lower() in {"label", "class"}), None)
    plain = {c: "".join(filter(str.isalpha, c.lower())).removeprefix("bbox") for c in table.columns}
    places = {k: next((c for c, name in plain.items() if name in names), None) for k, *names in
              (("x", "x"), ("y", "y"), ("w", "w", "width"), ("h", "h", "height"))}  # fmt: skip
    missing = [k for k, c in {"image": image, "finding": label, **places}.items() if c is None]
    if missing:
        raise ValueError(
            f"--boxes {shown}: no column for {', '.join(missing)}; its columns are {', '.join(table.columns)[:160]}"
        )
    names = {name: finding_named(name) for name in table[label].unique()}
    unknown = [name for name, found in names.items() if found is None]
    if unknown:
        raise ValueError(f"--boxes {shown}: {unknown_findings(unknown)}")
    boxes = pd.DataFrame({"image": image_keys(table[image]), "finding": table[label].map(names)})
    for k, column in places.items():
        boxes[k] = pd.to_numeric(table[column], errors="coerce").to_numpy()
    numbers = boxes[["x", "y", "w", "h"]].to_numpy(dtype=float)
    low, high = numbers[:, :2].clip(0, BOX_SPACE_PX), (numbers[:, :2] + numbers[:, 2:]).clip(0, BOX_SPACE_PX)
    area, inside = numbers[:, 2] * numbers[:, 3], (high - low).clip(0).prod(axis=1)
    reasons = {
        "no number, or no area": ~(np.isfinite(numbers).all(axis=1) & (numbers[:, 2:] > 0).all(axis=1)),
        f"more than half outside the image of {BOX_SPACE_PX} pixels": inside < area / 2,
    }
    used, left_out = np.ones(len(boxes), dtype=bool), {}
    for reason, bad in reasons.items():
        if (bad & used).any():
            left_out[reason] = int((bad & used).sum())
        used &= ~bad
    if not used.any():
        raise ValueError(
            f"--boxes {shown}: none of {len(boxes)} boxes is usable; first reason: {next(iter(left_out), 'there is none')}"
        )
    boxes[["x", "y"]], boxes[["w", "h"]] = low, high - low
    return Boxes(boxes[used].reset_index(drop=True), left_out)


def compare(heat: np.ndarray, box_xywh: tuple[float, float, float, float], threshold: float = 0.5) -> dict[str, float]:
    """One heatmap against one box of the same film.

    The found region is the upright box around each connected part of the heat at or above ``threshold`` (Wang et al. draw
    theirs so); of several, the one with the highest IoU, and of IoBB the highest, is taken as they do.

    Args:
        heat: (rows, columns), 0 to 1, NaN where the network did not look.
        box_xywh: in pixels of BOX_SPACE_PX a side; it is scaled to the film.
    Returns:
        iou: intersection over union. iobb: intersection over the found box. pointing: 1 where the strongest place lies
        in the box (Zhang et al. 2018), else 0. All 0 for a map without any heat.
    """
    rows, columns = heat.shape
    x, y, w, h = (v * s / BOX_SPACE_PX for v, s in zip(box_xywh, (columns, rows, columns, rows), strict=True))
    hot = np.nan_to_num(heat)
    if not hot.max() > 0:
        return {"iou": 0.0, "iobb": 0.0, "pointing": 0.0}
    row, column = np.unravel_index(int(hot.argmax()), hot.shape)
    pointing = float(x <= column + 0.5 <= x + w and y <= row + 0.5 <= y + h)
    _, _, parts, _ = cv2.connectedComponentsWithStats((hot >= threshold).astype(np.uint8), connectivity=8)
    iou, iobb = [], []
    for left, top, width, height, _ in parts[1:]:
        across = max(0.0, min(x + w, left + width) - max(x, left)) * max(0.0, min(y + h, top + height) - max(y, top))
        iobb.append(across / (width * height))
        iou.append(across / (width * height + w * h - across))
    return {"iou": max(iou), "iobb": max(iobb), "pointing": pointing}


def with_boxes(picture: np.ndarray, boxes_xywh: Sequence[tuple[float, float, float, float]]) -> np.ndarray:
    """(rows, columns, 3) with the outline of each box, in pixels of BOX_SPACE_PX a side."""
    rows, columns = picture.shape[:2]
    out = np.ascontiguousarray(picture)
    for x, y, w, h in boxes_xywh:
        first, last = (
            (round(a * columns / BOX_SPACE_PX), round(b * rows / BOX_SPACE_PX)) for a, b in ((x, y), (x + w, y + h))
        )
        cv2.rectangle(out, first, last, (255, 255, 255), max(1, rows // 256))
    return out


def by_finding(found: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Hit rates of each finding, and of "all".

    Args:
        found: one row a box: finding, iou, iobb, pointing.
    Returns:
        finding → boxes, pointing, and "iou" and "iobb": threshold as text → share of the boxes at or above it.
    """
    groups = [("all", found), *found.groupby("finding", sort=True)]
    return {
        str(name): {
            "boxes": len(rows),
            "pointing": float(rows["pointing"].mean()),
            **{kind: {f"{t:g}": float((rows[kind] >= t).mean()) for t in OVERLAPS} for kind in ("iou", "iobb")},
        }
        for name, rows in groups
    }
