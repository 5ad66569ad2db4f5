from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from medray.shards.folds import assign_folds, given_folds, rarest_label
from medray.systems.ich.classes import CLASSES

CHALLENGE_SLICES = 674_258
CHALLENGE_PATIENTS = 16_900
RATES = {"intraparenchymal": 0.048, "intraventricular": 0.035, "subarachnoid": 0.048, "subdural": 0.063}
SHARE_BOUND = 0.01
"""At the challenge's size every class's share of a fold is within this of one fifth."""


def challenge(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Patients and labels at the challenge's size: 40% positive, positives in runs of 3-20, epidural on 300 patients."""
    rng = np.random.default_rng(seed)
    counts = (
        rng.multinomial(CHALLENGE_SLICES - 20 * CHALLENGE_PATIENTS, np.full(CHALLENGE_PATIENTS, 1 / CHALLENGE_PATIENTS))
        + 20
    )
    patients = np.repeat(np.arange(CHALLENGE_PATIENTS), counts)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    labels = np.zeros((CHALLENGE_SLICES, 6))
    positive = rng.choice(CHALLENGE_PATIENTS, int(0.4 * CHALLENGE_PATIENTS), replace=False)
    wanted = {"epidural": (positive[:300], 0.0041)} | {name: (positive, rate) for name, rate in RATES.items()}
    for column, name in enumerate(CLASSES[:-1]):
        pool, rate = wanted[name]
        while labels[:, column].mean() < rate:
            patient = rng.choice(pool)
            run = rng.integers(3, 21)
            start = first[patient] + rng.integers(0, max(1, counts[patient] - run))
            labels[start : start + run, column] = 1
    labels[:, -1] = labels[:, :-1].max(axis=1)
    return np.char.add("ID_", patients.astype(str)), labels


@pytest.mark.slow
def test_at_the_challenges_size_no_patient_is_split_and_every_class_is_shared_out() -> None:
    patients, labels = challenge(seed=0)
    folds = assign_folds(patients, rarest_label(labels), 5, seed=0)
    assert folds.index.is_unique
    assert set(folds.index) == set(patients)
    of_row = folds.loc[patients].to_numpy()
    for column, name in enumerate(CLASSES):
        shares = np.bincount(of_row, weights=labels[:, column], minlength=5) / labels[:, column].sum()
        assert np.abs(shares - 0.2).max() < SHARE_BOUND, f"{name}: {shares}"
    assert np.abs(np.bincount(of_row) / len(of_row) - 0.2).max() < SHARE_BOUND


def small() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    labels = (rng.random((600, 6)) < 0.1).astype(float)
    labels[rng.random(600) < 0.05] = np.nan
    return np.array([f"p{i % 37}" for i in range(600)]), labels


def test_the_order_of_rows_does_not_matter_and_the_seed_does() -> None:
    patients, labels = small()
    folds = assign_folds(patients, rarest_label(labels), 3, seed=5)
    order = np.random.default_rng(2).permutation(len(patients))
    pd.testing.assert_series_equal(folds, assign_folds(patients[order], rarest_label(labels[order]), 3, seed=5))
    assert not folds.equals(assign_folds(patients, rarest_label(labels), 3, seed=6))


def test_too_few_patients_or_folds_are_refused() -> None:
    patients, labels = small()
    with pytest.raises(ValueError, match="only 37 patients"):
        assign_folds(patients, rarest_label(labels), 38, seed=0)
    with pytest.raises(ValueError, match="at least 2"):
        assign_folds(patients, rarest_label(labels), 1, seed=0)


PATIENTS = np.array(["a", "a", "b", "c", "d", "e"], dtype=object)
SPLIT = np.array(["train", "train", "val", "test", "test", None], dtype=object)


def test_lists_hold_out_the_test_list_and_choose_on_the_validation_list() -> None:
    fold, inner = given_folds(PATIENTS, SPLIT)
    assert fold.tolist() == [1, 1, 1, 0, 0, -1]
    assert inner.tolist() == [False, False, True, False, False, False]


def test_a_search_holds_out_the_validation_list_and_never_sees_the_test_list() -> None:
    fold, inner = given_folds(PATIENTS, SPLIT, "val")
    assert fold.tolist() == [1, 1, 0, -1, -1, -1]
    assert not inner.any()


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (["train", "test", "val", "test", "test", None], "1 patients are in both train and test"),
        (["train", "val", "val", "test", "test", None], "1 patients are in both train and val"),
        (["train", "train", "val", None, None, None], "no usable image is in the test list"),
    ],
)
def test_lists_that_leak_or_are_empty_are_refused(split: list[str | None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        given_folds(PATIENTS, np.array(split, dtype=object))


def test_so_few_rows_that_no_stratum_is_in_every_fold_are_dealt_out_all_the_same() -> None:
    patients = np.array([f"p{i}" for i in range(6)])
    folds = assign_folds(patients, np.arange(6) % 3, 5, seed=0)
    assert sorted(folds.value_counts().tolist()) == [1, 1, 1, 1, 2]
