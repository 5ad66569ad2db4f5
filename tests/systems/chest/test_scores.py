from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from medray.systems.chest.decisions import thresholds_f1
from medray.systems.chest.scores import calibration, film_metrics, score, thresholds

TARGETS = ("Mass", "Hernia", "Edema")


def predictions(films: int = 400, seed: int = 0) -> pd.DataFrame:
    """Mass is told well, Hernia has three positives, Edema is not labelled at all in every fifth film."""
    rng = np.random.default_rng(seed)
    mass = (rng.uniform(size=films) < 0.3).astype(float)
    hernia = np.zeros(films)
    hernia[:3] = 1
    edema = (rng.uniform(size=films) < 0.5).astype(float)
    table = pd.DataFrame(
        {
            "image_id": [f"i{n}" for n in range(films)], "patient_id": [f"p{n // 4}" for n in range(films)],
            "view": np.where(np.arange(films) % 3, "PA", "AP"), "Mass": mass, "Hernia": hernia, "Edema": edema,
        }
    )  # fmt: skip
    table["p_Mass"] = np.clip(0.3 + 0.25 * mass + rng.normal(0, 0.15, films), 0.01, 0.99)
    table["p_Hernia"] = rng.uniform(0.01, 0.1, films)
    table["p_Edema"] = rng.uniform(0.05, 0.95, films)
    table.loc[::5, "Edema"] = np.nan
    return table


def test_metrics_are_means_over_what_is_defined() -> None:
    table = predictions()
    found = film_metrics(table, TARGETS)
    known = table.dropna(subset=["Edema"])
    losses = [sk.log_loss(t[n], t[f"p_{n}"]) for n, t in (("Mass", table), ("Hernia", table), ("Edema", known))]
    aucs = [sk.roc_auc_score(t[n], t[f"p_{n}"]) for n, t in (("Mass", table), ("Hernia", table), ("Edema", known))]
    assert next(iter(found)) == "mean_log_loss"
    assert found == pytest.approx({"mean_log_loss": np.mean(losses), "mean_auc": np.mean(aucs)})
    nothing = film_metrics(table.assign(Mass=0.0, Edema=np.nan), ("Mass", "Edema"))
    assert nothing["mean_log_loss"] == pytest.approx(sk.log_loss(np.zeros(400), table["p_Mass"], labels=[0, 1]))
    assert np.isnan(nothing["mean_auc"])


def test_figures_are_scikit_learns_with_intervals_around_them() -> None:
    table = predictions()
    found = score(table, TARGETS, samples=60)
    mass = found["targets"]["Mass"]
    assert mass["auc"]["value"] == pytest.approx(sk.roc_auc_score(table["Mass"], table["p_Mass"]))
    assert mass["average_precision"]["value"] == pytest.approx(
        sk.average_precision_score(table["Mass"], table["p_Mass"])
    )
    false_rate, sensitivity, _ = sk.roc_curve(table["Mass"], table["p_Mass"], drop_intermediate=False)
    expected = 1 - false_rate[sensitivity >= 0.95].min()
    assert mass["specificity_at_95_sensitivity"]["value"] == pytest.approx(expected)
    for name in ("auc", "average_precision"):
        assert mass[name]["low"] < mass[name]["value"] < mass[name]["high"]
    positive = table.loc[table["Mass"] == 1, "patient_id"].nunique()
    assert positive == mass["positive_patients"] < 100
    specificity = mass["specificity_at_95_sensitivity"]
    assert specificity["reason"] == f"{positive} positive patients, fewer than 100"
    assert (specificity["low"], specificity["high"]) == (None, None)
    enough = score(predictions(films=800), TARGETS, samples=60)["targets"]["Mass"]["specificity_at_95_sensitivity"]
    assert enough["low"] < enough["value"] < enough["high"]
    assert (mass["positives"], mass["negatives"]) == (int(table["Mass"].sum()), 400 - int(table["Mass"].sum()))
    assert found["targets"]["Edema"]["positives"] + found["targets"]["Edema"]["negatives"] == 320
    both = [found["targets"][name]["auc"]["value"] for name in ("Mass", "Edema")]
    assert found["mean_auc"]["value"] == pytest.approx(np.mean(both))
    assert found["mean_auc"]["over"] == ["Mass", "Edema"]
    assert found["mean_log_loss"]["value"] == pytest.approx(film_metrics(table, TARGETS)["mean_log_loss"])
    assert found["mean_log_loss"]["low"] < found["mean_log_loss"]["value"] < found["mean_log_loss"]["high"]
    assert found["mean_auc"]["low"] < found["mean_auc"]["value"] < found["mean_auc"]["high"]
    assert (found["films"], found["patients"]) == (400, 100)


def test_too_few_positives_say_so() -> None:
    hernia = score(predictions(), TARGETS, samples=5)["targets"]["Hernia"]
    for name in ("auc", "average_precision", "specificity_at_95_sensitivity"):
        assert hernia[name] == {"value": None, "low": None, "high": None, "reason": "3 positive films, fewer than 10"}
    assert hernia["log_loss"]["value"] is not None
    assert hernia["log_loss"]["reason"] == "1 positive patient, fewer than 5"


def test_by_view_is_the_score_of_those_films() -> None:
    table = predictions()
    table.loc[0, "view"] = ""
    found = score(table, TARGETS, {"Mass": 0.4}, samples=20)
    assert list(found["by_view"]) == ["AP", "PA"]
    for view, of_view in found["by_view"].items():
        alone = score(table[table["view"] == view], TARGETS, {"Mass": 0.4}, samples=20)
        del alone["by_view"]
        assert of_view == alone


@pytest.mark.parametrize("rows", [slice(0, 0), slice(0, 1), slice(0, 9)])
def test_next_to_nothing_is_scored_without_a_crash(rows: slice) -> None:
    table = predictions().iloc[rows].assign(Mass=0.0)
    found = score(table, TARGETS, thresholds(table, TARGETS), samples=5)
    assert found["mean_auc"] == {
        "value": None, "low": None, "high": None, "over": [], "reason": "no target has enough films",
    }  # fmt: skip
    for of_target in found["targets"].values():
        assert of_target["decisions"]["threshold"] is None
        assert of_target["decisions"]["reason"]


def test_thresholds_are_of_the_best_f1_on_the_rows_that_are_given() -> None:
    validation, test = predictions(seed=1), predictions(seed=2)
    found = thresholds(validation, TARGETS)
    assert found["Hernia"] is None
    assert found["Mass"] is not None
    best = max(sk.f1_score(validation["Mass"], validation["p_Mass"] >= t) for t in np.unique(validation["p_Mass"]))
    assert sk.f1_score(validation["Mass"], validation["p_Mass"] >= found["Mass"]) == pytest.approx(best)
    scored = score(test, TARGETS, found, samples=5)["targets"]
    positive = test["p_Mass"] >= found["Mass"]
    decisions = scored["Mass"]["decisions"]
    assert decisions["threshold"] == found["Mass"]
    expected = {
        "f1": sk.f1_score(test["Mass"], positive), "sensitivity": positive[test["Mass"] == 1].mean(),
        "specificity": 1 - positive[test["Mass"] == 0].mean(), "ppv": test["Mass"][positive].mean(),
    }  # fmt: skip
    for name, value in expected.items():
        assert decisions[name]["value"] == pytest.approx(value)
        assert decisions[name]["low"] < value < decisions[name]["high"]
    assert (
        score(test, TARGETS, found, 5, prevalence=0.01)["targets"]["Mass"]["decisions"]["ppv_at"]["value"]
        < expected["ppv"]
    )
    assert scored["Hernia"]["decisions"]["threshold"] is None


def test_of_equal_thresholds_the_highest_is_taken() -> None:
    assert thresholds_f1(np.array([0.1, 0.6, 0.6, 0.9]), np.array([0, 1, 1, 1])) == 0.6


def test_calibration_error_is_the_mean_gap() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(size=20_000)
    labels = (rng.uniform(size=20_000) < p).astype(float)
    assert calibration(p, labels)["expected_calibration_error"] < 0.02
    shifted = calibration(np.full(1000, 0.7), np.r_[np.ones(400), np.zeros(600)])
    assert sum(row["films"] for row in shifted["bins"]) == 1000
    certain = calibration(np.r_[np.zeros(50), np.ones(50)], np.r_[np.ones(50), np.zeros(50)])
    assert certain["expected_calibration_error"] == pytest.approx(1.0)
    assert calibration(np.array([]), np.array([]))["expected_calibration_error"] is None
