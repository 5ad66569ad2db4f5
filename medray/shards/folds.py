"""Cross-validation folds: grouped by patient, balanced over strata of the rows; or lists that are given."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold


def assign_folds(patients: np.ndarray, strata: np.ndarray, folds: int, seed: int) -> pd.Series:
    """Patient → fold.

    Every fold gets about as many rows of each stratum; all rows of a patient go to one fold. The result depends on the
    set of rows, not on their order.

    Args:
        patients: (rows,) what tells patients apart, in whose order they are dealt. Not keyed hashes: folds must not depend on
            the key.
        strata: (rows,) numbers; what is balanced, such as ``rarest_label``, or bands of months.
        folds: how many, at least 2.
        seed: of the order in which patients that are alike are dealt.
    Returns:
        Series of int64 named "fold", indexed by patient, sorted.
    Raises:
        ValueError: fewer patients than folds, or fewer than two folds.
    """
    if folds < 2:
        raise ValueError(f"--folds {folds}: cross-validation needs at least 2")
    distinct = np.unique(patients)
    if len(distinct) < folds:
        way_out = "use fewer folds" if len(distinct) > 1 else "cross-validation needs two or more patients"
        raise ValueError(f"--folds {folds}: only {len(distinct)} patients have usable images; {way_out}")
    order = np.lexsort((strata, patients))
    patients, stratum = np.asarray(patients)[order], np.asarray(strata)[order]
    if np.unique(stratum, return_counts=True)[1].max() < folds:  # so few rows that none can be in every fold
        stratum = np.zeros_like(stratum)
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    fold_of_row = np.empty(len(patients), dtype=np.int64)
    with warnings.catch_warnings():  # of classes with fewer rows than folds: the jobs say that, by name
        warnings.simplefilter("ignore", UserWarning)
        for fold, (_, held_out) in enumerate(splitter.split(np.zeros(len(patients)), stratum, groups=patients)):
            fold_of_row[held_out] = fold
    by_patient = pd.Series(fold_of_row, index=pd.Index(patients, name="patient_id"), name="fold")
    return by_patient[~by_patient.index.duplicated()].sort_index()


def rarest_label(labels: np.ndarray | pd.DataFrame) -> np.ndarray:
    """(rows,) strata by the rarest positive label of each row, so that the rarest class is spread over folds first.

    Args:
        labels: (rows, classes) 0, 1 or NaN where a label is missing.
    """
    positive = np.nan_to_num(np.asarray(labels, dtype=np.float64)) > 0
    rarest_first = np.argsort(positive.sum(axis=0), kind="stable")
    strata = np.full(len(positive), len(rarest_first))
    for rank, column in reversed(list(enumerate(rarest_first))):
        strata[positive[:, column]] = rank
    return strata


def given_folds(patients: np.ndarray, split: np.ndarray, held_out: str = "test") -> tuple[np.ndarray, np.ndarray]:
    """Lists as a cross-validation of which fold 0 is asked for.

    Args:
        patients: (rows,) original patient identifiers.
        split: (rows,) "train", "val", "test", or None for a row of no list.
        held_out: "test", with the validation list as inner rows, where a checkpoint and thresholds are chosen; or "val",
            for a search, which then never sees the test list.
    Returns:
        fold: (rows,) int64, 0 for what is held out, 1 for the rest, -1 for rows that are not used.
        inner: (rows,) bool, the validation list where test is held out.
    Raises:
        ValueError: a patient in two lists, or an empty list.
    """
    check_lists(patients, split)
    for name in ("train", held_out):
        if not (split == name).any():
            raise ValueError(f"given lists: no usable image is in the {name} list; split by folds instead")
    fold = np.full(len(split), -1, dtype=np.int64)
    fold[split == held_out] = 0
    fold[split == "train"] = 1
    inner = np.zeros(len(split), dtype=bool)
    if held_out == "test":
        inner = split == "val"
        fold[inner] = 1
    return fold, inner


def check_lists(patients: np.ndarray, split: np.ndarray) -> None:
    """Raise ValueError where a patient is in two of the lists "train", "val" and "test"."""
    lists = {name: set(patients[split == name]) for name in ("train", "val", "test")}
    for first, second in itertools.combinations(lists, 2):
        both = len(lists[first] & lists[second])
        if both:
            raise ValueError(
                f"given lists: {both} patients are in both {first} and {second}; mend the lists, or split by folds"
            )
