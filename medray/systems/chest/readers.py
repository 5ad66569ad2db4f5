"""Agreement with readers: a table of what a radiologist saw, and Cohen's kappa against a model or another reader."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from medray.metrics.intervals import intervals
from medray.metrics.intervals import kappa as kappa_of
from medray.shards.cells import zeros_and_ones
from medray.shards.films import image_keys, plain_name, rows_of
from medray.shards.packed import read_unpacked
from medray.systems.chest.classes import members, unknown_findings
from medray.systems.chest.decisions import decisions
from medray.systems.chest.table import image_column, read_rows


def read_reader(uri: str, targets: Sequence[str]) -> pd.DataFrame:
    """A reader's CSV: a column of images, and one named like each of some ``targets`` (Mass, tumour, abnormal).

    A group that has no column of its own is made of its members where all of them have one.

    Args:
        uri: path or URI, gzip or plain.
        targets: as a task's: findings, groups, "name=A|B".
    Returns:
        Index: image, without its extension; a column for each target that the reader answers: 0, 1, or NaN for an empty
        cell, -1 or "uncertain".
    Raises:
        ValueError: no such file, no column of images or of a target, an image twice, a cell that says nothing known.
    """
    data, shown = read_unpacked(uri, "--reader")
    table = read_rows(data, shown, "--reader")
    image = image_column(table)
    if image is None:
        raise ValueError(
            f"--reader {shown}: no column names the images (Image Index, path, image); its columns are "
            f"{', '.join(table.columns)[:160]}"
        )
    keys = image_keys(table[image])
    if keys.duplicated().any():
        raise ValueError(
            f"--reader {shown}: {int(keys.duplicated().sum())} images are given twice; keep one row of each"
        )
    by_plain = {plain_name(column): column for column in table.columns}
    answers: dict[str, np.ndarray] = {}
    for target in targets:
        name, findings = members(target)
        if plain_name(name) in by_plain:
            answers[name] = zeros_and_ones(table[by_plain[plain_name(name)]], shown, "--reader")
        elif all(plain_name(finding) in by_plain for finding in findings):
            parts = [zeros_and_ones(table[by_plain[plain_name(f)]], shown, "--reader") for f in findings]
            answers[name] = either(np.stack(parts, axis=1))
    if not answers:
        others = [column for column in table.columns if column != image]
        raise ValueError(
            f"--reader {shown}: no column for any of {', '.join(members(t)[0] for t in targets)}; {unknown_findings(others)}"
        )
    return pd.DataFrame(answers, index=pd.Index(keys, name="image_id"))


def on_films(reader: pd.DataFrame, inventory: pd.DataFrame, private: pd.DataFrame) -> pd.DataFrame:
    """A reader's answers under the ids that predictions have, which may be pseudonyms.

    Args:
        reader: of ``read_reader``.
        inventory: as in inventory.parquet. private: the same rows with the files' own paths and identifiers. A film is
            found as one is in the labels: by its SOPInstanceUID, its path, or the file's name alone.
    Raises:
        ValueError: none of the reader's images is a film that is there.
    """
    there = private["status"].isin(["ok", "repaired", "unlabelled"]).to_numpy()
    films = private[there]
    rows = rows_of(films["item_id"], image_keys(films["path"]), reader.index)
    known = rows.notna().to_numpy()
    if not known.any():
        raise ValueError(
            f"--reader: none of its {len(reader)} images is one of the {len(films):,} films; they must be named as the files "
            "are (00000013_005.png), or by SOPInstanceUID"
        )
    names = pd.Index(inventory.loc[there, "image_id"].to_numpy()[known], name="image_id")
    return reader.loc[rows[known]].set_axis(names)


def agreement(
    predictions: pd.DataFrame, targets: Sequence[str], readers: Sequence[pd.DataFrame]
) -> list[dict[str, Any]]:
    """Cohen's kappa of the model at its thresholds and each reader, and of each two readers, on the films of a table.

    Args:
        predictions: with columns threshold_<target>, without which a model decides nothing.
        readers: of ``on_films``, in the order of the command line: "reader 1", "reader 2".
    Returns:
        One entry a pair: "between" (two names), "targets" as ``kappa`` gives them, "by_view" as ``kappa_by_view``.
    """
    nothing = np.full(len(predictions), np.nan)
    own = {t: predictions[f"threshold_{t}"].to_numpy() if f"threshold_{t}" in predictions else nothing for t in targets}
    held_out = pd.Index(predictions["image_id"])
    sides = {"model": decisions(predictions, own)}
    sides |= {f"reader {n}": table[table.index.isin(held_out)] for n, table in enumerate(readers, start=1)}
    views, patients = (pd.Series(predictions[name].to_numpy(), index=held_out) for name in ("view", "patient_id"))
    out = []
    for (first, one), (second, other) in combinations(sides.items(), 2):
        found, by_view = kappa(one, other, patients), kappa_by_view(one, other, views, patients)
        undecided = [t for t in found if first == "model" and one[t].isna().all()]
        for of in (found, *by_view.values()):
            of |= {t: of[t] | {"reason": "the model has no threshold for it"} for t in undecided}
        out.append({"between": [first, second], "targets": found, "by_view": by_view})
    return out


def either(values: np.ndarray) -> np.ndarray:
    """(films, members) of 0, 1, NaN → (films,): 1 where one is, NaN where none is and one is unknown, else 0."""
    any_positive = (values == 1).any(axis=1)
    return np.where(any_positive, 1.0, np.where(np.isnan(values).any(axis=1), np.nan, 0.0))


def kappa(first: pd.DataFrame, second: pd.DataFrame, patients: pd.Series) -> dict[str, dict[str, Any]]:
    """Cohen's kappa of two tables (``read_reader`` or ``decisions``), for each column that both have.

    Args:
        patients: (films,) whose they are; its index names the films as the tables' do.
    Returns:
        target → kappa, figure (the same with its interval over patients), films (that both answer), agreement (part of them);
        kappa is None, with a reason, where no film is answered by both or where both always give the same single answer.
    """
    shared = first.index.intersection(second.index)
    out: dict[str, dict[str, Any]] = {}
    for target in (column for column in first.columns if column in second.columns):
        pair = pd.DataFrame({"a": first.loc[shared, target], "b": second.loc[shared, target]}).dropna()
        one, other = pair["a"].to_numpy(dtype=int), pair["b"].to_numpy(dtype=int)
        if not len(pair):
            out[target] = {"kappa": None, "films": 0, "agreement": None, "reason": "no film is answered by both"}
            continue
        found: dict[str, Any] = {"films": len(pair), "agreement": float((one == other).mean())}
        if len({*one, *other}) == 1:
            out[target] = {"kappa": None, **found, "reason": f"both say {one[0]} of every film"}
            continue
        scores = {"kappa": kappa_of(one.astype(np.float64), other.astype(np.float64))}
        figure = intervals(scores, patients.loc[pair.index].to_numpy())["kappa"]
        out[target] = {"kappa": figure["value"], "figure": figure, **found}
    return out


def kappa_by_view(
    first: pd.DataFrame, second: pd.DataFrame, views: pd.Series, patients: pd.Series
) -> dict[str, dict[str, dict[str, Any]]]:
    """``kappa`` of the films of each View Position.

    Args:
        views: (films,) View Position; its index names the films as the tables' do.
    """
    known = views.replace("", None).dropna()
    return {
        str(view): kappa(first[first.index.isin(known.index[known == view])], second, patients)
        for view in sorted(known.unique())
    }
