from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from medray.systems.ich.classes import CLASSES, PROBABILITIES
from medray.systems.ich.ladder import Rung, ladder, mean_over_neighbours, rare_class
from medray.systems.ich.scores import weighted_log_loss


def rungs(noises: tuple[float, ...] = (1.2, 1.0, 0.5), patients: int = 40, each: int = 10) -> list[Rung]:
    """The same slices through less and less noise; what is hard for one rung is hard for all."""
    rng = np.random.default_rng(0)
    n = patients * each
    true = rng.normal(-2, 2, (n, 6)) + np.repeat(rng.normal(0, 1, (patients, 1)), each, axis=0)
    labels = (rng.random((n, 6)) < expit(true)).astype(np.float64)
    ids = pd.DataFrame(
        {
            "slice_id": [f"s{i}" for i in range(n)],
            "patient_id": [f"p{i // each}" for i in range(n)],
            "fold": np.arange(n) // each % 3,
        }
    )
    shared = rng.normal(size=(n, 6))
    out = []
    for place, noise in enumerate(noises):
        values = expit(true + noise * (0.9 * shared + 0.3 * rng.normal(size=(n, 6))))
        columns = dict(zip(PROBABILITIES, values.T, strict=True)) | dict(zip(CLASSES, labels.T, strict=True))
        out.append(Rung(f"step {place}", f"noise {noise}", ids.assign(**columns)))
    return out


def test_scores_of_a_rung_are_those_of_scikit_learn() -> None:
    steps = rungs()
    row, table = ladder(steps, samples=20)[1], steps[1].predictions
    assert row["name"] == "step 1"
    assert row["adds"] == "noise 1.0"
    probabilities, labels = table[list(PROBABILITIES)].to_numpy(), table[list(CLASSES)].to_numpy()
    assert row["weighted_log_loss"]["value"] == pytest.approx(weighted_log_loss(probabilities, labels))
    assert row["auc_any"]["value"] == pytest.approx(roc_auc_score(table["any"], table["p_any"]))
    epidural, p = table["epidural"], table["p_epidural"]
    assert row["average_precision_epidural"]["value"] == pytest.approx(average_precision_score(epidural, p))
    assert row["log_loss_epidural"]["value"] == pytest.approx(log_loss(epidural, p))
    assert row["mean_probability_epidural"] == pytest.approx(p.mean())
    assert row["observed_rate_epidural"] == pytest.approx(epidural.mean())
    assert (row["slices"], row["own_slices"], row["patients"], row["folds"]) == (400, 400, 40, [0, 1, 2])


def test_a_change_is_the_difference_and_paired_over_patients() -> None:
    first, second, third = ladder(rungs(), samples=300)
    assert first["change"] is None
    change = third["change"]
    assert change["value"] == pytest.approx(third["weighted_log_loss"]["value"] - second["weighted_log_loss"]["value"])
    assert change["low"] < change["value"] < change["high"] < 0  # less noise is better, and the interval knows
    # unpaired, the difference of two means would be as uncertain as both together
    widths = [row["weighted_log_loss"]["high"] - row["weighted_log_loss"]["low"] for row in (second, third)]
    assert change["high"] - change["low"] < 0.5 * np.hypot(*widths)


def test_only_labelled_slices_of_every_rung_count() -> None:
    steps = rungs()
    fewer = steps[1].predictions.iloc[40:].sample(frac=1, random_state=1).drop(columns="fold")
    unlabelled = steps[2].predictions.copy()
    unlabelled.loc[unlabelled.index[-30:], list(CLASSES)] = np.nan
    mixed = [steps[0], Rung("fewer", "", fewer), Rung("unlabelled", "", unlabelled)]
    rows = ladder(mixed, samples=10)
    assert [row["slices"] for row in rows] == [330] * 3
    assert [row["own_slices"] for row in rows] == [400, 360, 370]
    assert [row["folds"] for row in rows] == [[0, 1, 2], None, [0, 1, 2]]
    kept = steps[1].predictions.iloc[40:370]
    expected = weighted_log_loss(kept[list(PROBABILITIES)].to_numpy(), kept[list(CLASSES)].to_numpy())
    assert rows[1]["weighted_log_loss"]["value"] == pytest.approx(expected)


def test_names_do_not_matter_and_rows_are_json() -> None:
    steps = rungs(patients=12)
    renamed = []
    for step in steps:
        ids = {c: [f"{hash(name):x}" for name in step.predictions[c]] for c in ("slice_id", "patient_id")}
        renamed.append(Rung(step.name, step.adds, step.predictions.assign(**ids)))
    rows = ladder(steps, samples=30)
    assert rows == ladder(renamed, samples=30)
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    rare = rare_class(steps, samples=30)
    assert rare == rare_class(renamed, samples=30)
    assert json.loads(json.dumps(rare, allow_nan=False)) == rare


def test_what_a_remedy_did_to_a_class() -> None:
    plain, *_ = rungs()
    shifted = plain.predictions.assign(p_subdural=expit(logit(plain.predictions["p_subdural"]) + np.log(4)))
    rows = rare_class([plain, Rung("repeated", "4 times", shifted)], "subdural", samples=200)
    assert [row["class"] for row in rows] == ["subdural"] * 2
    assert rows[0]["change"] is None
    assert rows[1]["change"]["low"] > 0  # a shift away from the truth costs
    assert rows[1]["average_precision"]["value"] == pytest.approx(rows[0]["average_precision"]["value"])
    assert rows[1]["mean_probability"] > rows[0]["mean_probability"]
    predicted, observed = (plain.predictions[column].mean() for column in ("p_subdural", "subdural"))
    assert rows[0]["ratio"] == pytest.approx(predicted / observed)
    assert rows[0]["positives"] == plain.predictions["subdural"].sum()


def test_a_class_without_positives_is_undefined_not_wrong() -> None:
    steps = [Rung(r.name, r.adds, r.predictions.assign(epidural=0.0)) for r in rungs()]
    assert rare_class(steps, samples=10)[0]["ratio"] is None
    assert rare_class(steps, samples=10)[1]["average_precision"]["value"] is None
    assert ladder(steps, samples=10)[0]["average_precision_epidural"]["value"] is None


def partly(changes: dict[str, object]) -> list[Rung]:
    return [Rung(r.name, r.adds, r.predictions.assign(**changes)) for r in rungs()]


@pytest.mark.filterwarnings("error")
def test_of_any_alone_its_own_figures_are_left() -> None:
    steps = partly(dict.fromkeys(CLASSES[:-1], np.nan))
    rows = ladder(steps, samples=10)
    table = steps[1].predictions
    assert rows[1]["weighted_log_loss"]["value"] == pytest.approx(log_loss(table["any"], table["p_any"]))
    assert rows[1]["auc_any"]["value"] == pytest.approx(roc_auc_score(table["any"], table["p_any"]))
    assert rows[1]["log_loss_epidural"] == {"value": None, "low": None, "high": None, "reason": "no label is known"}
    assert (rows[1]["mean_probability_epidural"], rows[1]["observed_rate_epidural"]) == (None, None)
    assert {row["slices"] for row in rows} == {400}
    rare = rare_class(steps, samples=10)
    assert rare[1]["log_loss"]["value"] is None
    assert (rare[1]["mean_probability"], rare[1]["ratio"], rare[1]["slices"], rare[1]["positives"]) == (
        None,
        None,
        0,
        0,
    )
    assert json.loads(json.dumps([rows, rare], allow_nan=False)) == [rows, rare]


def test_a_remedy_is_judged_where_the_class_is_known() -> None:
    known = np.arange(400) // 10 % 2 == 0  # every other patient
    labels = rungs()[0].predictions["epidural"].where(known)
    steps = partly({"epidural": labels})
    rows = rare_class(steps, samples=10)
    table = steps[1].predictions[known]
    assert rows[1]["log_loss"]["value"] == pytest.approx(log_loss(table["epidural"], table["p_epidural"]))
    assert (rows[1]["slices"], rows[1]["patients"]) == (200, 20)
    assert rows[1]["observed_rate"] == pytest.approx(table["epidural"].mean())
    of_all = ladder(steps, samples=10)[1]
    assert of_all["log_loss_epidural"]["value"] == rows[1]["log_loss"]["value"]
    assert of_all["slices"] == 400


def test_rungs_that_do_not_fit() -> None:
    steps = rungs(patients=4)
    table = steps[1].predictions

    def second(changed: pd.DataFrame) -> list[Rung]:
        return [steps[0], Rung("second", "", changed)]

    with pytest.raises(ValueError, match="a ladder needs at least one rung"):
        ladder([])
    with pytest.raises(ValueError, match="second: 40 rows repeat a slice"):
        ladder(second(pd.concat([table, table])))
    with pytest.raises(ValueError, match="no labelled slice is common to step 0, second"):
        ladder(second(table.assign(slice_id=[f"x{i}" for i in range(40)])))
    with pytest.raises(ValueError, match="second: 40 slices have other labels than in step 0, the first is s0"):
        ladder(second(table.assign(any=1 - table["any"])))
    with pytest.raises(ValueError, match="second: 30 slices have other patients than in step 0, the first is s10"):
        ladder(second(table.assign(patient_id="p0")))
    with pytest.raises(ValueError, match="second: 1 slices have no prediction, the first is s7"):
        ladder(second(table.assign(p_any=table["p_any"].where(table["slice_id"] != "s7"))))


# ---- mean over neighbours ------------------------------------------------------------------------------------------


def stack(series: dict[str, list[float]]) -> pd.DataFrame:
    rows = [(s, i, f"{s}{i}", *[p] * 6) for s, values in series.items() for i, p in enumerate(values)]
    return pd.DataFrame(rows, columns=["stack_id", "index", "slice_id", *PROBABILITIES])


def test_mean_over_neighbours_by_hand() -> None:
    # log-odds of base 9: -1, 0, 1; one slice stays, two become their mean
    found = mean_over_neighbours(stack({"a": [0.9], "b": [0.5, 0.9], "c": [0.1, 0.5, 0.9, 0.9]}))

    def odds(power: float) -> float:
        return 9**power / (1 + 9**power)

    expected = [0.9, odds(0.5), odds(0.5), odds(-0.5), odds(0), odds(2 / 3), odds(1)]
    assert np.allclose(found["p_any"], expected)
    assert np.allclose(found["p_epidural"], expected)


def test_rows_keep_their_order_and_other_columns() -> None:
    table = stack({"b": [0.1, 0.5, 0.9, 0.3], "a": [0.2, 0.7]})
    shuffled = table.sample(frac=1, random_state=4)
    found = mean_over_neighbours(shuffled)
    assert found.drop(columns=list(PROBABILITIES)).equals(shuffled.drop(columns=list(PROBABILITIES)))
    assert np.allclose(found.sort_index()["p_any"], mean_over_neighbours(table)["p_any"])
    assert (shuffled["p_any"] == table["p_any"].reindex(shuffled.index)).all()  # what came in is not changed


def test_neighbours_across_a_gap_and_without_a_series_name() -> None:
    table = stack({"a": [0.1, 0.5, 0.9]}).drop(index=1)
    assert np.allclose(mean_over_neighbours(table)["p_any"], 0.5)
    other = table.assign(stack_id="f00")
    assert mean_over_neighbours(other)["p_any"].tolist() == mean_over_neighbours(table)["p_any"].tolist()
    assert mean_over_neighbours(table.iloc[:0]).empty
