from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from medray.chest.decisions import decided, decisions, thresholds_f1
from medray.chest.readers import kappa, kappa_by_view, read_reader
from medray.chest.scores import calibration, film_metrics, score, thresholds

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
    for name in ("auc", "average_precision", "specificity_at_95_sensitivity"):
        assert mass[name]["low"] < mass[name]["value"] < mass[name]["high"]
    assert (mass["positives"], mass["negatives"]) == (int(table["Mass"].sum()), 400 - int(table["Mass"].sum()))
    assert found["targets"]["Edema"]["positives"] + found["targets"]["Edema"]["negatives"] == 320
    both = [found["targets"][name]["auc"]["value"] for name in ("Mass", "Edema")]
    assert found["mean_auc"]["value"] == pytest.approx(np.mean(both))
    assert found["mean_auc"]["over"] == ["Mass", "Edema"]
    assert found["mean_auc"]["low"] < found["mean_auc"]["value"] < found["mean_auc"]["high"]
    assert (found["films"], found["patients"]) == (400, 100)


def test_too_few_positives_say_so() -> None:
    hernia = score(predictions(), TARGETS, samples=5)["targets"]["Hernia"]
    for name in ("auc", "average_precision", "specificity_at_95_sensitivity"):
        assert hernia[name] == {"value": None, "low": None, "high": None, "reason": "3 positive films, fewer than 10"}
    assert hernia["log_loss"] is not None


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
    assert scored["Mass"]["decisions"] == {
        "threshold": found["Mass"],
        "f1": pytest.approx(sk.f1_score(test["Mass"], positive)),
        "sensitivity": pytest.approx(positive[test["Mass"] == 1].mean()),
        "specificity": pytest.approx(1 - positive[test["Mass"] == 0].mean()),
    }
    assert scored["Hernia"]["decisions"]["threshold"] is None


def test_a_decision_without_a_class_says_so() -> None:
    found = decided(np.array([0.2, 0.8]), np.zeros(2), 0.5)
    assert found == {
        "threshold": 0.5,
        "f1": None,
        "sensitivity": None,
        "specificity": 0.5,
        "reason": "no positive film",
    }
    assert decided(np.array([]), np.array([]), 0.5)["reason"] == "no positive and no negative film"
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


# ---- readers --------------------------------------------------------------------------------------------------------


def reader(
    tmp_path: Path, text: str, targets: tuple[str, ...] = ("tumour", "Edema"), name: str = "r.csv"
) -> pd.DataFrame:
    (tmp_path / name).write_text(text)
    return read_reader(str(tmp_path / name), targets)


def test_a_reader_answers_groups_by_name_or_by_members(tmp_path: Path) -> None:
    by_name = reader(tmp_path, "Image Index,Tumour,edema\na.png,1,0\nb.png,0,\n")
    assert by_name["tumour"].to_dict() == {"a": 1, "b": 0}
    assert np.isnan(by_name.loc["b", "Edema"])
    by_members = reader(tmp_path, "image,Mass,Nodule\na,0,1\nb,0,0\nc,0,\nd,1,\n")
    np.testing.assert_array_equal(by_members["tumour"], [1, 0, np.nan, 1])
    assert list(by_members.columns) == ["tumour"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,Lump\na,1\n", r'no column for any of tumour, Edema; "Lump"'),
        ("Mass,Nodule\n1,1\n", "no column names the images"),
        ("image,Edema\na,1\na.png,0\n", "1 images are given twice"),
        ("image,Edema\na,2\n", 'line 2: Edema is "2", neither 0 nor 1'),
    ],
)
def test_a_wrong_reader_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^--reader .*r.csv: {message}"):
        reader(tmp_path, text)


def test_kappa_is_cohens_over_the_films_that_both_answer() -> None:
    rng = np.random.default_rng(0)
    index = pd.Index([f"i{n}" for n in range(60)])
    first = pd.DataFrame({"Mass": rng.integers(0, 2, 60).astype(float), "Edema": 0.0}, index=index)
    second = first.copy()
    second.iloc[:12, 0] = 1 - second.iloc[:12, 0]
    second.iloc[50:, 0] = np.nan
    second = second.sample(frac=1, random_state=1)
    found = kappa(first, second)
    aligned = second.loc[index[:50], "Mass"]
    assert found["Mass"]["kappa"] == pytest.approx(sk.cohen_kappa_score(first["Mass"][:50], aligned))
    assert (found["Mass"]["films"], found["Mass"]["agreement"]) == (50, pytest.approx(38 / 50))
    assert found["Edema"] == {"kappa": None, "films": 60, "agreement": 1.0, "reason": "both say 0 of every film"}
    apart = kappa(first, second.set_axis([f"x{n}" for n in range(60)]))
    assert apart["Mass"]["reason"] == "no film is answered by both"
    views = pd.Series(["PA", "AP"] * 30, index=index)
    by_view = kappa_by_view(first, second, views)
    assert by_view["PA"]["Mass"]["films"] == 25
    assert by_view["PA"] == kappa(first.iloc[::2], second)


def test_decisions_compare_a_model_with_a_reader() -> None:
    table = predictions()
    made = decisions(table, {"Mass": 0.4, "Hernia": None})
    assert made["Hernia"].isna().all()
    assert made.loc["i7", "Mass"] == float(table["p_Mass"][7] >= 0.4)
    truth = table.set_index("image_id")[["Mass", "Hernia"]]
    found = kappa(made, truth)
    assert found["Mass"]["kappa"] == pytest.approx(sk.cohen_kappa_score(table["p_Mass"] >= 0.4, table["Mass"] == 1))
    assert found["Hernia"]["films"] == 0
