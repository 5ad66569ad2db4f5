"""What each step of the method added, on the same slices and with the same draws of patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from medray.metrics.binary import log_losses
from medray.metrics.intervals import Score, auc, average_precision, intervals, log_loss, mean
from medray.systems.ich.blend import logits
from medray.systems.ich.classes import CLASSES, PROBABILITIES
from medray.systems.ich.scores import count_patients, mean_or_none, slice_losses, weighted_loss
from medray.systems.ich.study import running_mean

_SCORES = ("weighted_log_loss", "change", "auc_any", "average_precision_epidural", "log_loss_epidural")


@dataclass(frozen=True)
class Rung:
    """One step: its predictions of held-out slices."""

    name: str
    adds: str  # what this step has that the one before had not, in a few words
    predictions: pd.DataFrame
    """One row a slice: slice_id, patient_id, PROBABILITIES, CLASSES (NaN where unknown), and fold where known."""


def ladder(rungs: Sequence[Rung], samples: int = 1000, seed: int = 0) -> list[dict[str, Any]]:
    """Scores of each rung, and its change against the rung before.

    Only labelled slices that every rung has count. Both ends of a change are drawn together: its statistic is the
    mean over slices of the difference of two losses, so what makes a patient hard for both does not blur it.

    Args:
        samples: draws of patients, see ``medray.metrics.intervals``.
    Returns:
        One dict a rung, ready for JSON; an interval is of
        ``medray.metrics.intervals``:
        name, adds: str;
        weighted_log_loss, auc_any, average_precision_epidural, log_loss_epidural: interval;
        change: interval of the weighted log loss less that of the rung before (below 0 is better), None at first;
        mean_probability_epidural, observed_rate_epidural: float, None where no label of it is known;
        slices, patients: int, those that count; own_slices: int, labelled slices of the rung itself;
        folds: sorted list of int among the slices that count, None where the rung has no fold column.
    """
    common, tables = _common(rungs)
    scores: dict[str, Score] = {}
    losses = []
    for i, table in enumerate(tables):
        probabilities, labels = _arrays(table)
        losses.append(slice_losses(probabilities, labels))
        rare = _column(table, "epidural")
        scores |= {
            f"{i}/weighted_log_loss": weighted_loss(losses[i], labels),
            f"{i}/auc_any": auc(*_column(table, "any")),
            f"{i}/average_precision_epidural": average_precision(*rare),
            f"{i}/log_loss_epidural": log_loss(*rare),
        }
        if i:
            scores[f"{i}/change"] = weighted_loss(losses[i] - losses[i - 1], labels)
    # one call for all: every score sees the same draws
    found = intervals(scores, common["patient_id"].to_numpy(), samples, seed)
    rows = []
    for i, (rung, table) in enumerate(zip(rungs, tables, strict=True)):
        known = table.dropna(subset=["epidural"])
        rows.append(
            {"name": rung.name, "adds": rung.adds}
            | {name: found.get(f"{i}/{name}") for name in _SCORES}
            | {
                "mean_probability_epidural": mean_or_none(known["p_epidural"].to_numpy(np.float64)),
                "observed_rate_epidural": mean_or_none(known["epidural"].to_numpy(np.float64)),
                "slices": len(common),
                "patients": int(common["patient_id"].nunique()),
                "own_slices": len(rung.predictions.dropna(subset=list(CLASSES), how="all")),
                "folds": sorted(int(f) for f in table["fold"].unique()) if "fold" in table else None,
            }
        )
    return rows


def rare_class(
    rungs: Sequence[Rung], name: str = "epidural", samples: int = 1000, seed: int = 0
) -> list[dict[str, Any]]:
    """What each remedy did to one class, on the slices that every rung has and whose label of it is known.

    Returns:
        One dict a rung, ready for JSON; intervals as in ``ladder``:
        name, adds, class: str;
        log_loss, average_precision: interval;
        change: interval of the log loss less that of the first rung, paired; None at first;
        mean_probability, observed_rate: float, None where no label is known; ratio: the one by the other, None without
        positives;
        slices, patients, positives, positive_patients: int.
    """
    _, tables = _common(rungs)
    tables = [table.dropna(subset=[name]) for table in tables]
    common = tables[0]
    patients = common["patient_id"].to_numpy()
    scores: dict[str, Score] = {}
    losses = []
    for i, table in enumerate(tables):
        probabilities, labels = _column(table, name)
        losses.append(log_losses(probabilities, labels))
        scores |= {
            f"{i}/log_loss": mean(losses[i], labels),
            f"{i}/average_precision": average_precision(probabilities, labels),
        }
        if i:
            scores[f"{i}/change"] = mean(losses[i] - losses[0], labels)
    found = intervals(scores, patients, samples, seed)
    rows = []
    for i, (rung, table) in enumerate(zip(rungs, tables, strict=True)):
        probabilities, labels = _column(table, name)
        predicted, observed = mean_or_none(probabilities), mean_or_none(labels)
        rows.append(
            {"name": rung.name, "adds": rung.adds, "class": name}
            | {key: found.get(f"{i}/{key}") for key in ("log_loss", "change", "average_precision")}
            | {
                "mean_probability": predicted,
                "observed_rate": observed,
                "ratio": predicted / observed if predicted is not None and observed else None,
                "slices": len(common),
                "patients": int(common["patient_id"].nunique()),
                "positives": int(table[name].sum()),
                "positive_patients": count_patients(patients, labels),
            }
        )
    return rows


def mean_over_neighbours(slices: pd.DataFrame) -> pd.DataFrame:
    """Each slice's probabilities become the mean of its own and its neighbours' in its stack, in logit space.

    Neighbours are the previous and the next slice that exist, by ``index``; what a label is plays no part.

    Args:
        slices: stack_id, index, PROBABILITIES, and whatever else.
    Returns:
        The same rows in the same order, with other probabilities.
    """
    stacks, _ = pd.factorize(slices["stack_id"])
    order = np.lexsort((slices["index"].to_numpy(), stacks))
    given = logits(slices[list(PROBABILITIES)].to_numpy(dtype=np.float64))
    smooth = np.empty_like(given)
    for places in np.split(order, np.flatnonzero(np.diff(stacks[order])) + 1):
        smooth[places] = running_mean(given[places])
    return slices.assign(**dict(zip(PROBABILITIES, expit(smooth).T, strict=True)))


def _common(rungs: Sequence[Rung]) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    """The labelled slices that all rungs have, in the first one's order: of the first rung, and of each."""
    if not rungs:
        raise ValueError("a ladder needs at least one rung")
    tables = []
    for rung in rungs:
        known = rung.predictions.dropna(subset=list(CLASSES), how="all").set_index("slice_id")
        if known.index.has_duplicates:
            raise ValueError(f"{rung.name}: {known.index.duplicated().sum():,} rows repeat a slice")
        empty = known[list(PROBABILITIES)].isna().any(axis=1)
        if empty.any():
            raise ValueError(f"{rung.name}: {empty.sum():,} slices have no prediction, the first is {empty.idxmax()}")
        tables.append(known)
    ids = tables[0].index
    for table in tables[1:]:
        ids = ids[table.index.get_indexer(ids) >= 0]  # isin compares Arrow's strings one by one
    if not len(ids):
        raise ValueError(f"no labelled slice is common to {', '.join(rung.name for rung in rungs)}")
    tables = [table.loc[ids] for table in tables]
    first = tables[0]
    for rung, table in zip(rungs, tables, strict=True):
        for what, columns in (("labels", list(CLASSES)), ("patients", ["patient_id"])):
            own, others = table[columns], first[columns]
            differ = ((own != others) & (own.notna() | others.notna())).to_numpy().any(axis=1)
            if differ.any():
                raise ValueError(
                    f"{rung.name}: {differ.sum():,} slices have other {what} than in {rungs[0].name}, "
                    f"the first is {ids[differ.argmax()]}"
                )
    return first, tables


def _arrays(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """(n, 6) probabilities and (n, 6) labels."""
    return table[list(PROBABILITIES)].to_numpy(dtype=np.float64), table[list(CLASSES)].to_numpy(dtype=np.float64)


def _column(table: pd.DataFrame, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(n,) probabilities and labels of a class."""
    return table[f"p_{name}"].to_numpy(np.float64), table[name].to_numpy(np.float64)
