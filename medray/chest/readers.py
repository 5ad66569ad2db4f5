"""Agreement with readers: a table of what a radiologist saw, and Cohen's kappa against a model or another reader."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import cohen_kappa_score

from medray.chest.classes import members, plain_name, unknown_findings
from medray.chest.table import image_column, image_keys, label_values, read_rows
from medray.shards.packed import read_unpacked


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
            answers[name] = label_values(table[by_plain[plain_name(name)]], shown, "--reader")
        elif all(plain_name(finding) in by_plain for finding in findings):
            parts = [label_values(table[by_plain[plain_name(f)]], shown, "--reader") for f in findings]
            answers[name] = either(np.stack(parts, axis=1))
    if not answers:
        others = [column for column in table.columns if column != image]
        raise ValueError(
            f"--reader {shown}: no column for any of {', '.join(members(t)[0] for t in targets)}; {unknown_findings(others)}"
        )
    return pd.DataFrame(answers, index=pd.Index(keys, name="image_id"))


def either(values: np.ndarray) -> np.ndarray:
    """(films, members) of 0, 1, NaN → (films,): 1 where one is, NaN where none is and one is unknown, else 0."""
    any_positive = (values == 1).any(axis=1)
    return np.where(any_positive, 1.0, np.where(np.isnan(values).any(axis=1), np.nan, 0.0))


def kappa(first: pd.DataFrame, second: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Cohen's kappa of two tables (``read_reader`` or ``decisions``), for each column that both have.

    Returns:
        target → kappa, films (that both answer), agreement (part of them); kappa is None, with a reason, where no film is
        answered by both or where both always give the same single answer.
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
        out[target] = {"kappa": float(cohen_kappa_score(one, other)), **found}
    return out


def kappa_by_view(first: pd.DataFrame, second: pd.DataFrame, views: pd.Series) -> dict[str, dict[str, dict[str, Any]]]:
    """``kappa`` of the films of each View Position.

    Args:
        views: (films,) View Position; its index names the films as the tables' do.
    """
    known = views.replace("", None).dropna()
    return {
        str(view): kappa(first[first.index.isin(known.index[known == view])], second) for view in sorted(known.unique())
    }
