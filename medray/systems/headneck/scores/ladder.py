"""Scores of held-out scans by organ and by network, and each rung of the ladder against the one that it stands on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

from medray.metrics import organs
from medray.metrics.intervals import Figure, intervals, mean
from medray.systems.headneck.yardstick import HUMAN, tolerance_mm

AGAINST = (
    ("weighted", "unet"), ("four", "unet"), ("snet", "unet"), ("snet", "weighted"), ("snet", "four"), ("no-ct", "snet"),
    ("outlines", "snet"), ("outlines", "no-ct"), ("large", "outlines"), ("joint", "outlines"), ("joint", "snet"),
    ("joint", "unet"),
)  # fmt: skip
"""A rung, and one that it is compared with, where both were trained."""
SCORES = ("dice", "surface_dice", "hd95_mm")
"""Overlap; share of both surfaces within the organ's tolerance; larger of both directions' 95th percentiles, in mm."""
NEAR_MM = 8.0
"""A peak within it of an organ's middle has found the organ."""
GROUPS = ("all", "small", "large")


def organ_table(predictions: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """One row a scan and organ: ml, drawn_ml (NaN where nobody has drawn it), SCORES, and of small organs peak and peak_mm.

    Args:
        predictions: of one network, with the columns of ``OrganTask.outputs`` and fold.
    """
    columns = ("ml", "true_ml", *SCORES, "peak", "peak_mm")
    about = predictions[["scan_id", "patient_id", "visit", "fold"]]
    parts = []
    for organ in names:
        own = {
            name: predictions[f"{name}_{organ}"].to_numpy(float) for name in columns if f"{name}_{organ}" in predictions
        }
        parts.append(about.assign(organ=organ, **own))
    table = pd.concat(parts, ignore_index=True).rename(columns={"true_ml": "drawn_ml"})
    return table.reindex(columns=[*about.columns, "organ", "ml", "drawn_ml", *SCORES, "peak", "peak_mm"])


def means(tables: Mapping[str, pd.DataFrame], small: Sequence[str]) -> dict[str, dict[str, dict[str, Figure]]]:
    """Rung → group of organs → score → its mean over organs, with its interval over patients."""
    return organs.means(tables, SCORES, partial(_grouped, small=small))


def ladder(tables: Mapping[str, pd.DataFrame], small: Sequence[str]) -> list[dict[str, Any]]:
    """AGAINST: the difference of each score on the same scans, paired, by group; of all pairs that were trained."""
    return organs.differences(tables, AGAINST, SCORES, partial(_grouped, small=small))


def by_organ(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Organ → its scores with intervals over patients, in how many scans it was drawn, its volumes, and human against human."""
    found = {}
    for organ, own in table.groupby("organ", sort=False):
        drawn = own[own["drawn_ml"].notna()]
        scores = intervals(
            {n: mean(own[n].to_numpy(), within=organs.range_of(n)) for n in SCORES}, own["patient_id"].to_numpy()
        )
        human = HUMAN.get(str(organ))
        found[str(organ)] = {
            **scores,
            "scans": len(drawn),
            "empty": int((drawn["ml"] == 0).sum()),
            "drawn_ml": float(drawn["drawn_ml"].mean()) if len(drawn) else None,
            "ml": float(drawn["ml"].mean()) if len(drawn) else None,
            "tolerance_mm": tolerance_mm(str(organ)),
            "human": None if human is None else {"dice": human.dice, "hd95_mm": human.hd95_mm},
        }
    return found


def peaks(table: pd.DataFrame, gate: float) -> dict[str, dict[str, Any]]:
    """Small organ → in how many of the scans in which it was drawn its heatmap has a confident peak, how
    many of these lie near, and the median distance
    of the peak from the middle of what was drawn."""
    own = table[table["peak"].notna() & table["drawn_ml"].notna()]
    return {
        str(organ): {
            "scans": len(one),
            "confident": int((one["peak"] >= gate).sum()),
            "near": int(((one["peak"] >= gate) & (one["peak_mm"] <= NEAR_MM)).sum()),
            "median_mm": float(one["peak_mm"].median()) if one["peak_mm"].notna().any() else None,
        }
        for organ, one in own.groupby("organ", sort=False)
    }


def _grouped(table: pd.DataFrame, small: Sequence[str]) -> list[tuple[str, pd.DataFrame]]:
    is_small = table["organ"].isin(small)
    parts = zip(GROUPS, (table, table[is_small], table[~is_small]), strict=True)
    return [(group, part) for group, part in parts if len(part) and (group == "all" or len(part) < len(table))]
