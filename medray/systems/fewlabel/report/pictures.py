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
from medray.tasks.volume_rows import mask_of, whole

SCANS = 4


def collect(
    shards: Store, contours: Sequence[Stored], organs_csv: pd.DataFrame, organs: Sequence[str], small: Sequence[str]
) -> list[Slice]:
    """Of a few scans, from the worst to the best.

    Args:
        shards: of the scans. contours: rows of ``tasks.contours``. organs_csv: of the final network. organs: in their order.
    """
    dice = (
        organs_csv.groupby(["scan_id", "origin"])["dice"].mean().dropna().reset_index().sort_values(["dice", "scan_id"])
    )
    places = np.linspace(0, len(dice) - 1, min(SCANS, len(dice))).astype(int)
    chosen = dice.iloc[list(dict.fromkeys(places.tolist()))]
    wanted = chosen["scan_id"].tolist()
    found = {
        row["scan_id"]: row
        for stored in contours
        for row in few_rows(stored.store, stored.files, "scan_id", wanted, ["scan_id", "shape_DHW", "organs"])
    }
    columns = ["scan_id", "shape_DHW", "spacing_mm", "voxels", "box_DHW", "scored", "scored_organs"]
    rows = {row["scan_id"]: row for row in few_rows(shards, shards.names(".parquet"), "scan_id", wanted, columns)}
    slices = []
    for scan in chosen.to_dict("records"):
        row, answer = rows[scan["scan_id"]], found[scan["scan_id"]]
        masks = {one["organ"]: unpacked(one, answer["shape_DHW"]) for one in answer["organs"]}
        title = f"{scan['scan_id']}, source {scan['origin']}, Dice {scan['dice']:.3f}"
        slices += slices_of(whole(row)[0], known_of(row, organs), masks, row["spacing_mm"], small, title)
    return slices


def known_of(row: Mapping[str, Any], organs: Sequence[str]) -> Masks:
    """What is known of a row of shards, for scores."""
    if row["scored"] is None:
        return {}
    mask = mask_of(row, "scored")
    return {organ: mask == k for k, organ in enumerate(organs, 1) if row["scored_organs"][k - 1]}
