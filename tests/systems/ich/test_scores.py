from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss

from medray.metrics.binary import log_losses
from medray.systems.ich.classes import CLASSES, PROBABILITIES, SCORE_WEIGHTS
from medray.systems.ich.results import summary
from medray.systems.ich.scores import score, slice_losses, slice_metrics, weighted_log_loss
from medray.systems.ich.study import study_table


def test_the_weights_make_the_sources_class_losses_into_its_score() -> None:
    any_first = [0.115454, 0.019861, 0.0951, 0.07395, 0.03101, 0.052185]
    losses = np.array([*any_first[1:], any_first[0]])
    assert losses @ np.array(SCORE_WEIGHTS) / sum(SCORE_WEIGHTS) == pytest.approx(0.07186, abs=5e-6)


def test_the_weighted_log_loss_is_the_weighted_mean_of_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    probabilities, labels = rng.random((200, 6)), rng.integers(0, 2, (200, 6))
    columns = [log_loss(labels[:, i], probabilities[:, i]) for i in range(6)]
    expected = (sum(columns) + columns[-1]) / 7
    assert weighted_log_loss(probabilities, labels) == pytest.approx(expected, abs=1e-9)
    assert weighted_log_loss(probabilities, labels) == pytest.approx(
        log_losses(probabilities, labels).mean(axis=0) @ np.array(SCORE_WEIGHTS) / 7, abs=1e-12
    )


def predictions(patients: int = 30, per_study: int = 12) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    rows = []
    for patient in range(patients):
        for index in range(per_study):
            labels = dict.fromkeys(CLASSES, 0.0)
            if patient % 2 and 3 <= index < 8:
                labels |= {"subdural": 1.0, "any": 1.0}
            values = {
                p: float(np.clip(0.7 * labels[c] + 0.3 * rng.random(), 0, 1))
                for p, c in zip(PROBABILITIES, CLASSES, strict=True)
            }
            ids = {
                "slice_id": f"s{patient:02d}-{index:02d}",
                "study_id": f"t{patient}",
                "stack_id": f"r{patient}",
                "patient_id": f"p{patient}",
            }
            rows.append(ids | {"index": index, "fold": patient % 3} | values | labels)
    return pd.DataFrame(rows)


def test_metrics_of_a_known_table() -> None:
    table = predictions()
    metrics = score(table, study_table(table), samples=100)
    assert metrics["auc"]["any"]["value"] == 1.0
    assert metrics["auc"]["epidural"]["value"] is None  # no positive: undefined, not a number
    assert metrics["auc"]["epidural"]["reason"] == "no label is positive"
    assert metrics["counts"]["positive_slices"]["subdural"] == 15 * 5
    assert metrics["counts"]["positive_patients"]["subdural"] == metrics["study"]["positive_patients"] == 15
    assert metrics["study"]["auc"]["value"] == 1.0
    point = metrics["study"]["operating_points"]["0.80"]
    assert point["sensitivity"]["value"] is None
    assert "too few negatives in other folds" in point["sensitivity"]["reason"]  # 10 studies in each two folds
    assert metrics["study"]["by_class"]["subdural"]["auc"]["value"] == 1.0
    assert metrics["study"]["by_class"]["subdural"]["positive_patients"] == 15
    assert metrics["without_positives"] == [name for name in CLASSES if name not in ("subdural", "any")]
    assert {fold: of["studies"] for fold, of in metrics["study"]["by_fold"].items()} == {"0": 10, "1": 10, "2": 10}
    assert metrics["calibration"]["epidural"]["slope"]["reason"] == "no label is positive"
    assert metrics["brier"]["any"]["low"] < metrics["brier"]["any"]["value"]
    low, value, high = (metrics["weighted_log_loss"][k] for k in ("low", "value", "high"))
    assert low < value < high


def test_of_three_bleeding_patients_there_is_no_interval_and_the_terminal_says_so() -> None:
    table = predictions(patients=7)
    metrics = score(table, study_table(table), samples=20) | {"classes": list(CLASSES)}
    reason = "3 positive patients, fewer than 5"
    for figure in (metrics["weighted_log_loss"], metrics["log_loss"]["any"], metrics["study"]["auc"]):
        assert figure == {"value": figure["value"], "low": None, "high": None, "reason": reason}
    lines = summary(metrics)
    assert f"AUC any              1.000  (no interval: {reason})  (15 slices of 3 patients positive)" in lines
    assert f"AUC of studies       1.000  (no interval: {reason})  (3 of 7 bleed, of 3 patients)" in lines


def test_names_of_patients_and_slices_do_not_matter() -> None:
    table = predictions()
    other = table.copy()
    for column in ("slice_id", "study_id", "stack_id", "patient_id"):
        other[column] = [f"{hash((column, name)):x}" for name in table[column]]
    assert score(table, study_table(table), samples=20) == score(other, study_table(other), samples=20)


def test_a_class_that_is_unknown_leaves_a_slices_loss_with_its_weight() -> None:
    rng = np.random.default_rng(0)
    probabilities, labels = rng.random((4, 6)), rng.integers(0, 2, (4, 6)).astype(np.float64)
    labels[1, :5], labels[2, [0, 5]], labels[3] = np.nan, np.nan, np.nan
    single = log_losses(probabilities, labels)
    expected = [single[0] @ np.array(SCORE_WEIGHTS) / 7, single[1, 5], single[2, 1:5].mean(), np.nan]
    np.testing.assert_allclose(slice_losses(probabilities, labels), expected, rtol=1e-12)
    assert weighted_log_loss(probabilities, labels) == pytest.approx(np.mean(expected[:3]))
    assert np.isnan(weighted_log_loss(probabilities[3:], labels[3:]))


@pytest.mark.filterwarnings("error")
def test_of_any_alone_the_score_is_its_own_and_the_rest_is_undefined() -> None:
    table = predictions()
    table[list(CLASSES[:-1])] = np.nan
    metrics = score(table, study_table(table), samples=20)
    assert metrics["classes"] == ["any"]
    assert metrics["weighted_log_loss"]["value"] == pytest.approx(log_loss(table["any"], table["p_any"]), abs=1e-9)
    assert metrics["auc"]["any"]["value"] == 1.0
    nothing = {"value": None, "low": None, "high": None, "reason": "no label is known"}
    for kind in ("auc", "average_precision", "log_loss"):
        assert all(metrics[kind][name] == nothing for name in CLASSES[:-1])
    for kind in ("observed_rate", "mean_probability"):
        assert all(metrics["counts"][kind][name] is None for name in CLASSES[:-1])
    assert metrics["counts"]["labelled_slices"] == dict.fromkeys(CLASSES, 0) | {"any": len(table)}
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert slice_metrics(table)["auc_any"] == 1.0


@pytest.mark.filterwarnings("error")
def test_without_any_there_is_no_score_of_studies() -> None:
    table = predictions().assign(any=np.nan)
    metrics = score(table, study_table(table), samples=20)
    assert metrics["study"]["auc"] == {"value": None, "low": None, "high": None, "reason": "no label is known"}
    assert (metrics["study"]["studies"], metrics["study"]["positive"]) == (0, 0)
    assert metrics["auc"]["subdural"]["value"] == 1.0
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    found = slice_metrics(table)
    assert np.isnan(found["auc_any"])
    assert found["weighted_log_loss"] == pytest.approx(metrics["weighted_log_loss"]["value"])


def test_each_class_is_scored_where_it_is_known() -> None:
    table = predictions()
    known = table[table["patient_id"].str[1:].astype(int) % 3 > 0]
    partly = table.copy()
    partly.loc[~table.index.isin(known.index), "subdural"] = np.nan
    found, of_known = (score(t, study_table(t), samples=5) for t in (partly, known))
    for kind in ("auc", "average_precision", "log_loss"):
        assert found[kind]["subdural"]["value"] == pytest.approx(of_known[kind]["subdural"]["value"], abs=1e-12)
        assert found[kind]["any"] == score(table, study_table(table), samples=5)[kind]["any"]
    for kind in ("positive_slices", "observed_rate", "mean_probability"):
        assert found["counts"][kind]["subdural"] == of_known["counts"][kind]["subdural"]
