"""Labels of 0 and 1, a column a class: what systems of findings tell the engine of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from medray.shards.folds import rarest_label


def one_sided(labels: pd.DataFrame, classes: Sequence[str], flag: str = "--labels") -> list[str]:
    """Of which classes nothing can be learned, a line each.

    Args:
        labels: a column a class: 0, 1, or NaN where unknown.
        flag: what the user gave them with.
    """
    known = {name: labels[name].dropna() for name in classes}
    absent = [name for name, values in known.items() if values.empty]
    alike = [name for name, values in known.items() if len(values) and values.eq(1).all()]
    lines = []
    if absent:
        lines.append(f"{flag}: no label of {', '.join(absent)}: nothing is learned of it, and it has no score")
    if alike:
        lines.append(f"{flag}: every known label of {', '.join(alike)} is 1: nothing is learned without one of 0")
    return lines


def absent_in_folds(index: pd.DataFrame, classes: Sequence[str]) -> list[str]:
    """Classes without a positive row in some fold, a line each; those without any label are not among them.

    Args:
        index: a column a class, and "fold": -1 for rows of none.
    """
    lines = []
    folds = sorted(set(index["fold"]) - {-1})
    for name in classes:
        empty = [k for k in folds if not (index.loc[index["fold"] == k, name] == 1).any()]
        if empty and index[name].notna().any():
            lines.append(f"no {name} in fold {', '.join(map(str, empty))}: its AUC there is undefined")
    return lines


def by_rarest(index: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
    """(rows,) strata of folds: by the rarest class that is positive, so that each fold has about as many rows of every class."""
    return rarest_label(index[list(classes)])


def any_known(index: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
    """(rows,) bool: where the label of at least one class is known."""
    return index[list(classes)].notna().any(axis=1).to_numpy()
