"""Scores of several organs in several scans, as one figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from medray.metrics.clustered import ANY, Range, jackknife
from medray.metrics.intervals import Figure, Score, intervals

Groups = Callable[[pd.DataFrame], Sequence[tuple[str, pd.DataFrame]]]
"""Rows of a scan and organ each → groups of them that are shown apart, by name."""


def over_organs(values: np.ndarray, organs: np.ndarray, within: Range = ANY) -> Score:
    """The mean over organs of each one's mean over scans; organs that nobody has drawn are not among them. Without a patient who
    alone has an organ it is undefined, and has no interval: a mean over fewer organs is another figure.

    Args:
        values: (rows,) of a scan and organ each; NaN does not count. organs: (rows,) names.
    """
    counted = ~np.isnan(values)
    kept, codes = values[counted], pd.factorize(organs[counted])[0]

    def statistic(weights: np.ndarray) -> float:
        total, weight = (np.bincount(codes, part, minlength=1) for part in (weights * kept, weights))
        return float((total / weight).mean()) if weight.all() else float("nan")

    return Score(
        statistic, np.where(counted, 0.0, np.nan), (), own=lambda patients: jackknife(statistic, patients, within)
    )


def range_of(score: str) -> Range:
    """What a score can be: mm, or a share."""
    return (0.0, np.inf) if score.endswith("_mm") else (0.0, 1.0)


def figures(
    table: pd.DataFrame, values: Mapping[str, np.ndarray], within: Mapping[str, Range] | None = None
) -> dict[str, Figure]:
    """Name → mean over organs, with its interval over patients.

    Args:
        table: a row a scan and organ, with organ and patient_id. values: name → (rows,).
        within: name → what it can be; anything where not given.
    """
    organs = table["organ"].to_numpy()
    scores = {name: over_organs(v, organs, (within or {}).get(name, ANY)) for name, v in values.items()}
    return intervals(scores, table["patient_id"].to_numpy())


def means(tables: Mapping[str, pd.DataFrame], scores: Sequence[str], groups: Groups) -> dict[str, Any]:
    """Network → group → score → its mean over organs."""
    return {
        network: {
            group: figures(part, {s: part[s].to_numpy() for s in scores}, {s: range_of(s) for s in scores})
            for group, part in groups(table)
        }
        for network, table in tables.items()
    }


def flat(found: Mapping[str, Mapping[str, Mapping[str, Figure]]], final: str) -> dict[str, float | None]:
    """``means`` under names like "oof/dice_small" for the final network, and "oof_unet/dice_small" for others, as MLflow takes them."""
    return {
        f"{'oof' if network == final else f'oof_{network}'}/{score}_{group}": one["value"]
        for network, groups in found.items()
        for group, scores in groups.items()
        for score, one in scores.items()
    }


def differences(
    tables: Mapping[str, pd.DataFrame], against: Sequence[tuple[str, str]], scores: Sequence[str], groups: Groups
) -> list[dict[str, Any]]:
    """Of each pair that is there: the difference of each score on the same scans and organs, paired, by group.

    Args:
        tables: network → a row a scan_id and organ. against: a network, and one that it is compared with.
    """
    found = []
    for rung, other in against:
        if rung not in tables or other not in tables:
            continue
        both = tables[rung].merge(
            tables[other][["scan_id", "organ", *scores]], on=["scan_id", "organ"], suffixes=("", "_of_other")
        )
        parts = {
            group: figures(part, {s: (part[s] - part[f"{s}_of_other"]).to_numpy() for s in scores})
            for group, part in groups(both)
        }
        found.append({"rung": rung, "against": other, "groups": parts})
    return found
