from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import binomtest
from sklearn import metrics as sk

from medray.metrics import intervals as scores
from medray.metrics.intervals import Figure, Score, intervals


def drawn(
    rng: np.random.Generator, patients: int, positive: int, each: int = 6
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, labels and patients of rows; the first ``positive`` patients have positive rows, and all some of their own."""
    of = np.repeat(np.arange(patients), each)
    labels = ((rng.random(len(of)) < 0.5) | (np.arange(len(of)) % each == 0)) & (of < positive)
    of_patient = rng.normal(0, 0.8, patients)[of]
    return 1.6 * labels + of_patient + rng.normal(0, 0.8, len(of)), labels.astype(np.float64), of


def only(score: Score, groups: np.ndarray, samples: int = 200) -> Figure:
    return intervals({"it": score}, groups, samples)["it"]


def coverage(positive: int, repeats: int = 300) -> float:
    """How often the interval of the AUC holds the AUC of very many patients."""
    ranks, labels, _ = drawn(np.random.default_rng(0), 40_000, 10_000)
    truth = sk.roc_auc_score(labels, ranks)
    held = []
    for seed in range(repeats):
        ranks, labels, of = drawn(np.random.default_rng(seed + 1), 80, positive)
        found = only(scores.auc(ranks, labels), of)
        held.append(found["low"] <= truth <= found["high"])
    return float(np.mean(held))


@pytest.mark.parametrize("positive", [5, 20])
def test_95_of_100_intervals_of_an_auc_hold_the_truth(positive: int) -> None:
    # by chance 0.95 ± 0.025 at two standard errors; see bench_intervals.py for what plain percentiles hold
    assert 0.92 <= coverage(positive) <= 0.99


def test_most_intervals_of_a_mean_loss_hold_the_truth_with_few_positive_patients() -> None:
    """A loss that rests on 8 of 60 patients: its tails are drawn with 7 degrees of freedom, not with 59."""
    held = {True: 0, False: 0}
    for seed in range(150):
        rng = np.random.default_rng(seed)
        positive = rng.random(60) < 8 / 60
        if positive.sum() < 5:
            continue
        losses = np.where(positive, rng.gamma(1.0, 1.0, 60), 0.02)
        for aware in held:
            found = only(scores.mean(losses, positive.astype(float) if aware else None), np.arange(60))
            held[aware] += found["low"] <= 8 / 60 + 0.02 * 52 / 60 <= found["high"]
    assert held[True] > held[False]
    assert held[True] >= 0.9 * 140


def test_the_interval_of_a_mean_over_patients_is_the_textbooks() -> None:
    groups = np.repeat(np.arange(400), 5)
    of_group = np.random.default_rng(0).normal(size=400)
    values = of_group[groups]  # fully dependent within a patient
    out = only(scores.mean(values), groups, samples=2000)
    half = 1.96 * of_group.std() / np.sqrt(400)  # not / sqrt(2000)
    assert out["value"] == pytest.approx(values.mean())
    assert (out["high"] - out["low"]) / 2 == pytest.approx(half, rel=0.1)


@pytest.mark.parametrize("patients", [5, 12])
def test_95_of_100_intervals_of_a_mean_over_few_patients_hold_the_truth(patients: int) -> None:
    """Skewed, as Dice is, and one to three scans of each; percentiles of draws held .75 of 3 and .88 of 5 patients."""
    held, truth = [], expit(1.2 + np.random.default_rng(0).normal(0, 0.9, 1_000_000)).mean()
    for seed in range(600):
        rng = np.random.default_rng(seed + 1)
        of = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
        dice = expit(1.2 + rng.normal(0, np.sqrt(0.65), patients)[of] + rng.normal(0, 0.4, len(of)))
        found = only(scores.mean(dice, within=(0.0, 1.0)), of)
        assert 0 <= found["low"] < found["value"] < found["high"] <= 1
        held.append(found["low"] <= truth <= found["high"])
    assert 0.90 <= np.mean(held) <= 0.98  # .92 to .98, and two standard errors


def test_95_of_100_intervals_of_a_sensitivity_hold_the_truth_and_one_of_all_found_is_no_point() -> None:
    held, truth = [], expit(1.5 + np.random.default_rng(0).normal(0, 1, 1_000_000)).mean()
    for seed in range(600):
        rng = np.random.default_rng(seed + 1)
        of = np.repeat(np.arange(8), 6)
        hits = (rng.random(48) < expit(1.5 + rng.normal(0, 1, 8))[of]).astype(float)
        found = only(scores.rate(hits), of)
        held.append(found["low"] <= truth <= found["high"])
    assert 0.92 <= np.mean(held) <= 0.99
    every = only(scores.rate(np.ones(30)), np.repeat(np.arange(10), 3))
    assert every["value"] == every["high"] == 1
    wilson = binomtest(10, 10).proportion_ci(method="wilson").low  # of 10 patients, not of 30 rows
    assert wilson - 0.05 < every["low"] < wilson
    alone = only(scores.rate(np.r_[np.ones(40), np.zeros(10)]), np.arange(50))
    low, high = binomtest(40, 50).proportion_ci(method="wilson")
    assert (alone["low"], alone["high"]) == pytest.approx((low, high), abs=0.005)
    few = only(scores.rate(np.ones(60), np.r_[np.ones(19), np.zeros(41)]), np.arange(60))
    assert few["reason"] == "19 positive patients, fewer than 20"


def test_f1_and_kappa_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    of, labels = np.repeat(np.arange(60), 4), (rng.random(240) < 0.3).astype(float)
    said = (rng.random(240) < 0.2 + 0.6 * labels).astype(float)
    labels[::9], said[::11] = np.nan, np.nan
    both = ~np.isnan(labels) & ~np.isnan(said)
    found = intervals({"f1": scores.f1(said, labels), "kappa": scores.kappa(said, labels)}, of, 100)
    assert found["f1"]["value"] == pytest.approx(sk.f1_score(labels[both], said[both]))
    assert found["kappa"]["value"] == pytest.approx(sk.cohen_kappa_score(labels[both], said[both]))
    assert all(one["low"] < one["value"] < one["high"] for one in found.values())
    assert only(scores.kappa(np.ones(240), np.ones(240)), of)["value"] is None
    brier = only(scores.brier(np.full(240, 0.3), labels), of)
    assert brier["value"] == pytest.approx(
        sk.brier_score_loss(labels[~np.isnan(labels)], np.full(240, 0.3)[~np.isnan(labels)])
    )


def test_values_are_scikit_learns_and_of_rows_whose_label_is_known() -> None:
    ranks, labels, of = drawn(np.random.default_rng(0), 60, 30)
    probabilities = 1 / (1 + np.exp(-ranks))
    labels[::7] = np.nan
    known = ~np.isnan(labels)
    every = {
        "auc": scores.auc(ranks, labels),
        "average_precision": scores.average_precision(ranks, labels),
        "log_loss": scores.log_loss(probabilities, labels),
        "specificity": scores.specificity_at(0.95, ranks, labels),
    }
    found = intervals(every, of, samples=50)
    y, s = labels[known], ranks[known]
    false_rate, sensitivity, _ = sk.roc_curve(y, s, drop_intermediate=False)
    expected = {
        "auc": sk.roc_auc_score(y, s), "average_precision": sk.average_precision_score(y, s),
        "log_loss": sk.log_loss(y, probabilities[known]), "specificity": 1 - false_rate[sensitivity >= 0.95].min(),
    }  # fmt: skip
    assert {name: figure["value"] for name, figure in found.items()} == pytest.approx(expected)
    assert found == intervals(every, of, samples=50)
    assert found == intervals(every, np.array([f"{hash(name):x}" for name in of]), samples=50)
    for name in ("auc", "average_precision", "log_loss"):
        assert found[name].keys() == {"value", "low", "high"}
        assert found[name]["low"] < found[name]["value"] < found[name]["high"]
    assert found["specificity"]["reason"] == "30 positive patients, fewer than 100"


@settings(max_examples=20, deadline=None)
@given(positive=st.integers(1, 8), patients=st.integers(14, 30))
def test_too_few_patients_have_no_interval_and_say_how_few(positive: int, patients: int) -> None:
    ranks, labels, of = drawn(np.random.default_rng(positive), patients, positive)
    every = {"auc": scores.auc(ranks, labels), "loss": scores.log_loss(1 / (1 + np.exp(-ranks)), labels)}
    precision = only(scores.average_precision(ranks, labels), of)
    assert precision["reason"] == f"{positive} positive patient{'s' * (positive != 1)}, fewer than 10"
    assert precision["value"] is not None
    for figure in intervals(every, of, samples=20).values():
        if positive < 5:
            reason = f"{positive} positive patient{'s' * (positive != 1)}, fewer than 5"
            assert figure == {"value": figure["value"], "low": None, "high": None, "reason": reason}
        else:
            assert "reason" not in figure
    flipped = only(scores.auc(-ranks, np.where(of < positive, 0.0, 1.0)), of)
    assert ("reason" in flipped) == (positive < 5)
    if positive < 5:
        assert flipped["reason"].endswith("with negatives, fewer than 5")


def test_other_reasons() -> None:
    of, labels = np.repeat(np.arange(12), 2), np.tile([0.0, 1.0], 12)
    apart = only(scores.auc(labels, labels), of)
    assert apart == {"value": 1.0, "low": None, "high": None, "reason": "all positives rank above all negatives"}
    assert only(scores.auc(0 * labels, labels), of)["reason"] == "patients do not differ in how they rank"
    for kind, word in ((0.0, "positive"), (1.0, "negative")):
        alike = only(scores.auc(labels, np.full(24, kind)), of)
        assert alike == {"value": None, "low": None, "high": None, "reason": f"no label is {word}"}
    nothing = {"value": None, "low": None, "high": None, "reason": "no label is known"}
    assert only(scores.log_loss(labels, np.full(24, np.nan)), of) == nothing
    assert only(scores.mean(np.zeros(0)), np.zeros(0)) == nothing | {"reason": "no row counts"}
    alike = "its patients do not differ, or it is undefined without one of them"
    assert only(scores.mean(np.ones(24)), of) == {"value": 1.0, "low": None, "high": None, "reason": alike}
    none = only(scores.log_loss(labels, np.zeros(24)), of)  # a class of which it would say nothing
    assert none == {"value": None, "low": None, "high": None, "reason": "no label is positive"}
    assert only(scores.mean(np.arange(4.0)), np.arange(4))["reason"] == "4 patients, fewer than 5"


def test_a_mean_auc_has_an_interval_where_all_its_parts_have() -> None:
    rng = np.random.default_rng(0)
    ranks, labels, of = drawn(rng, 60, 20)
    rare = np.where(of < 3, labels, 0.0)
    common = {"Mass": scores.auc(ranks, labels), "Edema": scores.auc(ranks + rng.normal(size=len(of)), labels)}
    found = only(scores.mean_auc(common), of)
    alone = intervals(common, of)
    assert found["value"] == np.mean([figure["value"] for figure in alone.values()])
    assert found["low"] < found["value"] < found["high"]
    with_rare = only(scores.mean_auc(common | {"Hernia": scores.auc(ranks, rare)}), of)
    assert with_rare["reason"] == "Hernia has 3 positive patients, fewer than 5"
    assert with_rare["value"] is not None
    assert with_rare["low"] is None
