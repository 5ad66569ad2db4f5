"""Slices of held-out scans for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from medray.report.organ_slices import Masks, Slice, slices_of
from medray.shards.few_rows import Stored, few_rows
from medray.shards.store import Store
from medray.tasks.packed_masks import unpacked
from medray.tasks.volume_rows import whole
from medray.tasks.volume_scores import Drawn

SCANS = 4


def collect(
    shards: Store,
    contours: Stored,
    scans: pd.DataFrame,
    organs: Sequence[str],
    small: Sequence[str],
) -> list[Slice]:
    """Of a few scans, from the worst to the best, the slices of ``slices_of``.

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
