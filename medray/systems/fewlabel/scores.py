"""Scores of held-out scans by organ and by network; organs that a case's own source labels apart from those that it does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from medray.metrics import organs as of_organs
from medray.metrics.intervals import Figure, intervals, mean
from medray.systems.fewlabel.methods import SECOND

SCORES = ("dice", "hd95_mm")
"""Overlap; larger of both directions' 95th percentiles of the distance between surfaces, in mm."""
GROUPS = ("all", "own", "other", "small")
"""All organs; those that the source of a scan labels, and those that it does not; the smaller half of the organs."""
AGAINST = (
    ("marginal", "background"), ("exclusion", "marginal"), ("conditional", "marginal"), ("marginal", "apart"),
    ("self", "marginal"), ("cotraining", "marginal"), ("cotraining", "self"), ("cotraining", "apart"),
)  # fmt: skip
"""A rung, and one that it is compared with, where both were trained."""


def organ_table(
    predictions: pd.DataFrame,
    organs: Sequence[str],
    origin_of: Mapping[str, str],
    labelled: Mapping[str, Sequence[str]],
) -> pd.DataFrame:
    """One row a scan and organ: ml, drawn_ml (NaN where it is not known), SCORES, and whether its own source labels the organ.

    Args:
        predictions: of one network, with the columns of its outputs and fold. origin_of: scan_id → its source.
        labelled: source → organs that it labels by themselves.
    """
    about = predictions[["scan_id", "patient_id", "fold"]]
    about = about.assign(origin=about["scan_id"].map(dict(origin_of)))
    parts = []
    for organ in organs:
        own = {name: predictions[f"{name}_{organ}"].to_numpy(float) for name in ("ml", "true_ml", *SCORES)}
        parts.append(about.assign(organ=organ, own=[organ in labelled[o] for o in about["origin"]], **own))
    return pd.concat(parts, ignore_index=True).rename(columns={"true_ml": "drawn_ml"})


@dataclass(frozen=True)
class Chosen:
    """Which of two running means answers, and what told so."""

    answer: str
    """first or second."""
    scans: int = 0
    organs: tuple[str, ...] = ()


def chosen(
    inner: pd.DataFrame | None,
    organs: Sequence[str],
    origin_of: Mapping[str, str],
    labelled: Mapping[str, Sequence[str]],
) -> Chosen:
    """Which of two running means answers: the one with the better mean Dice over organs on inner scans, each on those whose own
    source labels it, as masks for scores alone choose nothing; of equal ones, and where there are none, the first.

    Args:
        inner: outputs of ``CoTrainingTask`` for the inner scans of a fold. origin_of, labelled: as for ``organ_table``.
    """
    if inner is None:
        return Chosen("first")
    origins = inner["scan_id"].map(dict(origin_of))
    own = {organ: np.array([organ in labelled[origin] for origin in origins]) for organ in organs}
    first, second = (
        np.nansum([inner.loc[own[organ], f"{prefix}dice_{organ}"].astype(float).mean() for organ in organs])
        for prefix in ("", SECOND)
    )
    told = tuple(organ for organ in organs if inner.loc[own[organ], f"dice_{organ}"].notna().any())
    return Chosen("second" if second > first else "first", len(inner), told)


def of_answer(outputs: pd.DataFrame, answer: str) -> pd.DataFrame:
    """Outputs of ``CoTrainingTask`` with the columns of the mean that answers."""
    seconds = [str(name) for name in outputs if str(name).startswith(SECOND)]
    if answer == "second":
        return outputs.assign(**{name.removeprefix(SECOND): outputs[name] for name in seconds}).drop(columns=seconds)
    return outputs.drop(columns=seconds)


def small_ones(table: pd.DataFrame) -> list[str]:
    """The smaller half of the organs, by the mean of what was drawn."""
    volumes = table.groupby("organ", sort=False)["drawn_ml"].mean().dropna().sort_values(kind="stable")
    return volumes.index[: len(volumes) // 2].tolist()


def means(tables: Mapping[str, pd.DataFrame], small: Sequence[str]) -> dict[str, dict[str, dict[str, Figure]]]:
    """Rung → group → score → its mean over organs, with its interval over patients."""
    return of_organs.means(tables, SCORES, partial(_grouped, small=small))


def ladder(tables: Mapping[str, pd.DataFrame], small: Sequence[str]) -> list[dict[str, Any]]:
    """AGAINST: the difference of each score on the same scans, paired, by group; of all pairs that were trained."""
    return of_organs.differences(tables, AGAINST, SCORES, partial(_grouped, small=small))


def by_organ(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Organ → its scores with intervals over patients, of all scans, and of those whose source labels it and does not."""
    found = {}
    for organ, rows in table.groupby("organ", sort=False):
        known = rows[rows["drawn_ml"].notna()]
        parts = {"all": rows, "own": rows[rows["own"]], "other": rows[~rows["own"]]}
        found[str(organ)] = {
            "scans": len(known),
            "drawn_ml": float(known["drawn_ml"].mean()) if len(known) else None,
            "not_found": int(((known["ml"] == 0) & (known["drawn_ml"] > 0)).sum()),
            "scores": {
                group: intervals(
                    {n: mean(part[n].to_numpy(), within=of_organs.range_of(n)) for n in SCORES},
                    part["patient_id"].to_numpy(),
                )
                for group, part in parts.items()
                if part["dice"].notna().any()
            },
        }
    return found


def _grouped(table: pd.DataFrame, small: Sequence[str]) -> list[tuple[str, pd.DataFrame]]:
    parts = (table, table[table["own"]], table[~table["own"]], table[table["organ"].isin(small)])
    return [(group, part) for group, part in zip(GROUPS, parts, strict=True) if part["dice"].notna().any()]
