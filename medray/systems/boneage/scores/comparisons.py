"""What differs between methods on the same films, and the table laid out as the source's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from medray.metrics.intervals import Figure, undefined
from medray.systems.boneage.scores.ensemble import SEXES_OF, Ensemble, Member, groups_of, predictions_of, present_mean
from medray.systems.boneage.scores.means import means
from medray.systems.boneage.scores.nesting import nested_ages


def best_member(rows: pd.DataFrame, names: Sequence[str]) -> str | None:
    """Of the films that all of these models have read, whose mean absolute error is least; None without such films."""
    predictions = predictions_of(rows, names)
    whole = np.isfinite(predictions).all(axis=0)
    if not len(names) or not whole.any():
        return None
    truth = rows["age_months"].to_numpy(dtype=np.float64)[whole]
    return names[int(np.abs(predictions[:, whole] - truth).mean(axis=1).argmin())]


def members_of(rows: pd.DataFrame, members: Mapping[str, Member], sexes: Sequence[str]) -> list[str]:
    """The models of these sexes that have read one of the films."""
    return [name for name, member in members.items() if member.sexes in sexes and rows[name].notna().any()]


def pairs(scored: pd.DataFrame, members: Mapping[str, Member], answer: str) -> list[dict[str, Any]]:
    """Differences of absolute errors film by film, months: below 0 the first is better.

    Args:
        scored: of ``scores.film_table``, with a known error. answer: "ensemble" or "corrected".
    Returns:
        For each: of ("ensemble − best member"), first, second, lead (it belongs to the headline), and the mean
            difference with its
        interval and number. The best member of each sex is chosen on the scored films themselves, which favours it.
    """
    truth, groups = scored["age_months"].to_numpy(dtype=np.float64), groups_of(scored)

    def off(name: str) -> np.ndarray:
        return np.abs(scored[name].to_numpy(dtype=np.float64) - truth)

    best = np.full(len(scored), np.nan)
    for group, sexes in SEXES_OF.items():
        own = groups == group
        chosen = best_member(scored[own], members_of(scored[own], members, sexes))
        if chosen is not None:
            best[own] = off(chosen)[own]
    values = {
        ("ensemble", "best member"): off("ensemble") - best,
        ("ensemble", "mean of the models"): off("ensemble") - off("mean"),
        ("corrected", "ensemble"): off("corrected") - off("ensemble"),
        (answer, "median age alone"): off(answer) - off("constant"),
    }
    lead = set(values)
    for own, one in members.items():
        other = f"{one.region}-{one.head}-both"
        if one.sexes != "both" and other in members:
            values[own, other] = off(own) - off(other)
    found = means({f"{a} − {b}": own for (a, b), own in values.items()}, scored["patient_id"].to_numpy())
    out = []
    for (a, b), own in values.items():
        figure = found[f"{a} − {b}"]
        if figure["films"] and np.nanmax(np.abs(own)) < 1e-6:
            figure |= undefined("both give the same age to every film")
        out.append({"of": f"{a} − {b}", "first": a, "second": b, "lead": (a, b) in lead} | figure)
    return out


def fitted(scored: pd.DataFrame, ensemble: Ensemble) -> dict[str, dict[str, Any]]:
    """Group → on the very films that fitted its weights: mean absolute error of the weighted mean and of its best
    member, which is never less. This says that the weights are right, nothing of new films.

    Films that one of the group's models has not read are left out; None where that leaves none.
    """
    truth, groups = scored["age_months"].to_numpy(dtype=np.float64), groups_of(scored)
    out: dict[str, dict[str, Any]] = {}
    for name, group in ensemble.groups.items():
        predictions = predictions_of(scored, group.members)
        own = ((groups == name) | (name == "unknown")) & np.isfinite(predictions).all(axis=0)
        if not group.members or not own.any():
            out[name] = {"films": 0, "ensemble": None, "best": None, "best_member": None}
            continue
        errors = np.abs(predictions[:, own] - truth[own]).mean(axis=1)
        blended = present_mean(predictions[:, own], np.array(group.weights))
        out[name] = {
            "films": int(own.sum()),
            "ensemble": float(np.abs(blended - truth[own]).mean()),
            "best": float(errors.min()),
            "best_member": group.members[int(errors.argmin())],
        }
    return out


def source_table(scored: pd.DataFrame, members: Mapping[str, Member]) -> dict[str, dict[str, Figure]]:
    """Rows and columns as the source has them: region or "ensemble" → "sexes head" → mean absolute error of one
    model, or of the nested ensemble of that column's regions (where there are two or more), with its interval and
    number."""
    truth = scored["age_months"].to_numpy(dtype=np.float64)
    errors: dict[str, np.ndarray] = {}
    columns = dict.fromkeys((member.sexes, member.head) for member in members.values())
    for sexes, head in columns:
        names = [name for name, one in members.items() if (one.sexes, one.head) == (sexes, head)]
        for name in names:
            errors[f"{members[name].region}/{sexes} {head}"] = np.abs(scored[name].to_numpy(dtype=np.float64) - truth)
        read = np.isfinite(predictions_of(scored, names)).any(axis=0)
        if len(names) > 1 and read.any():
            blended = np.full(len(scored), np.nan)
            blended[read] = nested_ages(scored[read], names)[0]["ensemble"]
            errors[f"ensemble/{sexes} {head}"] = np.abs(blended - truth)
    out: dict[str, dict[str, Figure]] = {}
    for name, figure in means(errors, scored["patient_id"].to_numpy()).items():
        row, column = name.split("/", 1)
        out.setdefault(row, {})[column] = figure
    return out
