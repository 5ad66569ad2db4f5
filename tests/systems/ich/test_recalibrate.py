from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from medray.metrics.binary import Ranking, log_losses
from medray.systems.ich.classes import CLASSES, PROBABILITIES
from medray.systems.ich.recalibrate import Recalibration, fit_recalibration

N = 40_000


def world(seed: int = 0, n: int = N, centre: float = -4.0) -> tuple[pd.DataFrame, np.ndarray]:
    """Slices of 36 a patient whose labels come true with the (n, 6) logits that are returned beside."""
    rng = np.random.default_rng(seed)
    true = rng.normal(centre, 1.5, (n, 6))
    labels = (rng.random((n, 6)) < expit(true)).astype(np.float64)
    table = pd.DataFrame(labels, columns=list(CLASSES)).assign(patient_id=[f"p{i // 36}" for i in range(n)])
    return table.assign(**dict(zip(PROBABILITIES, expit(true).T, strict=True))), true


def values(table: pd.DataFrame) -> np.ndarray:
    return table[list(PROBABILITIES)].to_numpy()


def test_the_shift_of_repeated_slices_is_taken_back() -> None:
    train, inner, scored = (world(seed)[0] for seed in range(3))
    features = [logit(table[["p_epidural"]].to_numpy()) for table in (train, inner, scored)]
    times = np.where(train["epidural"] == 1, 5, 1)
    model = LogisticRegression(C=np.inf).fit(features[0].repeat(times, axis=0), train["epidural"].repeat(times))
    inner["p_epidural"], scored["p_epidural"] = (model.predict_proba(x)[:, 1] for x in features[1:])
    fitted = fit_recalibration(inner, repeats=5)
    assert fitted.biases[0] == pytest.approx(-np.log(5), abs=0.15)
    assert fitted.slopes[0] == pytest.approx(1, abs=0.06)
    assert fitted.apply(values(inner))[:, 0].mean() == pytest.approx(inner["epidural"].mean(), rel=0.01)
    before, after = scored["p_epidural"].to_numpy(), fitted.apply(values(scored))[:, 0]
    labels = scored["epidural"].to_numpy()
    assert before.mean() > 2 * labels.mean()
    assert after.mean() == pytest.approx(labels.mean(), rel=0.1)  # two draws of 1,700 positives
    assert log_losses(after, labels).mean() < log_losses(before, labels).mean() - 0.01


def test_the_shift_of_negatives_that_were_left_out_is_taken_back_and_theory_is_near() -> None:
    train, inner, scored = (world(seed)[0] for seed in range(3))
    for table in (train, inner, scored):  # any is the OR of the others
        table["any"] = table[list(CLASSES[:-1])].max(axis=1)
    features = [logit(table[list(PROBABILITIES)].to_numpy()) for table in (train, inner, scored)]
    seen = (train["any"] == 1) | (np.arange(len(train)) % 4 == 0)
    for place, name in enumerate(CLASSES):
        model = LogisticRegression(C=np.inf).fit(features[0][seen], train[name][seen])
        inner[PROBABILITIES[place]], scored[PROBABILITIES[place]] = (model.predict_proba(x)[:, 1] for x in features[1:])
    fitted = fit_recalibration(inner, repeats=1, negatives=0.25)
    assert fitted.theory == pytest.approx([np.log(0.25)] * 6)
    assert fitted.biases[-1] == pytest.approx(np.log(0.25), abs=0.1)  # exact for any
    assert all(np.log(0.25) - 0.1 < bias < -0.1 for bias in fitted.biases)  # of others less, where others bleed
    after = fitted.apply(values(scored))
    for place, name in enumerate(CLASSES):
        labels, before = scored[name].to_numpy(), scored[PROBABILITIES[place]].to_numpy()
        assert before.mean() > 1.2 * labels.mean()
        assert after[:, place].mean() == pytest.approx(labels.mean(), rel=0.06)
        assert log_losses(after[:, place], labels).mean() < log_losses(before, labels).mean()


def test_repeats_and_negatives_add_up() -> None:
    inner, _ = world(n=50)
    inner[list(CLASSES)] = np.nan
    fitted = fit_recalibration(inner, repeats=4, negatives=0.5)
    assert fitted.biases == pytest.approx([-np.log(8), *[-np.log(2)] * 5])
    again = Recalibration.from_json(json.loads(json.dumps(fitted.to_json())))
    assert (again, again.negatives, again.theory) == (fitted, 0.5, fitted.biases)
    assert Recalibration.from_json({k: v for k, v in fitted.to_json().items() if k != "negatives"}).negatives == 1


def test_the_data_may_overrule_theory() -> None:
    inner, _ = world()  # calibrated, though it is said that slices were repeated
    assert fit_recalibration(inner, repeats=5).biases[0] == pytest.approx(0, abs=0.15)


def test_calibrated_probabilities_stay() -> None:
    inner, _ = world()
    fitted = fit_recalibration(inner, repeats=1)
    assert np.allclose(fitted.slopes, 1, atol=0.06)
    assert np.allclose(fitted.biases, 0, atol=0.2)
    assert np.abs(fitted.apply(values(inner)) - values(inner)).mean() < 0.002


def test_without_positives_the_answer_is_theory() -> None:
    inner, logits = world(n=2000)
    inner["epidural"], inner["p_epidural"] = 0.0, expit(logits[:, 0] + np.log(4))
    inner["subarachnoid"] = 0.0
    fitted = fit_recalibration(inner, repeats=4)
    for name, bias in (("epidural", -np.log(4)), ("subarachnoid", 0.0)):
        place = CLASSES.index(name)
        assert fitted.positives[place] == 0
        assert (fitted.slopes[place], fitted.biases[place]) == (1.0, pytest.approx(bias, abs=1e-12))
    assert fitted.slopes[1] != 1  # a class with positives is fitted as ever
    assert fitted.apply(values(inner))[:, 0] == pytest.approx(expit(logits[:, 0]), abs=1e-9)


def test_with_few_positives_the_answer_is_near_theory() -> None:
    inner, logits = world(n=2000, centre=-7.5)
    inner["epidural"], inner["p_epidural"] = 0.0, expit(logits[:, 0] - 2 + np.log(4))
    inner.loc[[7, 8], "epidural"] = 1.0
    fitted = fit_recalibration(inner, repeats=4)
    assert fitted.positives[0] == 2
    assert fitted.biases[0] == pytest.approx(-np.log(4), abs=0.6)
    assert 0.5 < fitted.slopes[0] < 1.5


def test_a_class_that_was_not_repeated_stays_as_it_is_with_few_patients() -> None:
    """By chance 7 patients have more of it than they should: that is no reason to raise everybody's."""
    inner, _ = world(n=2000)
    inner["patient_id"] = [f"p{i % 7}" for i in range(len(inner))]
    inner["p_subdural"] = expit(logit(inner["p_subdural"]) - 0.4)
    few = fit_recalibration(inner, repeats=4)
    place = CLASSES.index("subdural")
    assert (few.slopes[place], few.biases[place]) == (1.0, 0.0)
    assert few.biases[0] != pytest.approx(-np.log(4), abs=1e-6)  # of the repeated class the data has a say
    inner["patient_id"] = [f"p{i % 200}" for i in range(len(inner))]
    assert fit_recalibration(inner, repeats=4).biases[place] > 0.2


def test_without_labels_it_is_theory() -> None:
    inner, _ = world(n=50)
    inner[list(CLASSES)] = np.nan
    fitted = fit_recalibration(inner, repeats=4)
    assert (fitted.slices, fitted.patients) == (0, 0)
    assert fitted.biases == pytest.approx([-np.log(4), 0, 0, 0, 0, 0])
    assert fitted.slopes == pytest.approx([1] * 6)


def test_unlabelled_rows_do_not_count() -> None:
    inner, _ = world(n=1000)
    unlabelled = inner.assign(patient_id="new", **dict.fromkeys(CLASSES, np.nan))
    assert fit_recalibration(pd.concat([inner, unlabelled]), 2) == fit_recalibration(inner, 2)


def test_each_class_is_fitted_where_it_is_known() -> None:
    inner, _ = world(n=4000)
    fitted = fit_recalibration(inner, 2)
    rows = np.arange(len(inner)) % 36 < 12  # a third of the slices of each patient
    partly = inner.copy()
    partly.loc[~rows, "epidural"] = np.nan
    found, of_part = fit_recalibration(partly, 2), fit_recalibration(inner[rows], 2)
    assert (found.slopes[0], found.biases[0]) == pytest.approx((of_part.slopes[0], of_part.biases[0]))
    assert (found.slopes[1:], found.biases[1:]) == (fitted.slopes[1:], fitted.biases[1:])
    assert found.positives == (of_part.positives[0], *fitted.positives[1:])
    assert found.slices == len(inner)
    alone = fit_recalibration(inner.assign(**dict.fromkeys(CLASSES[:-1], np.nan)), 2)
    assert alone.biases == pytest.approx([-np.log(2), 0, 0, 0, 0, fitted.biases[5]])
    assert alone.positives == (0, 0, 0, 0, 0, fitted.positives[5])


def test_the_order_of_slices_stays() -> None:
    rng = np.random.default_rng(3)
    inner, _ = world(n=3000)
    inner["p_subdural"] = 1 - inner["p_subdural"]  # the wrong way round: the slope ends at its bound, above 0
    fitted = fit_recalibration(inner, repeats=3)
    assert min(fitted.slopes) > 0
    wide = expit(rng.normal(-4, 4, (5000, 6)))
    labels = rng.integers(0, 2, 5000)
    after = fitted.apply(wide)
    for i in range(6):
        assert (np.diff(after[np.argsort(wide[:, i]), i]) >= 0).all()
        for score in ("auc", "average_precision"):
            same = (getattr(Ranking(p[:, i], labels), score)() for p in (wide, after))
            assert next(same) == pytest.approx(next(same), abs=1e-12)


def test_the_extremes_stay_probabilities() -> None:
    fitted = Recalibration((1.3,) * 6, (-1.0,) * 6, 10, 2, (1,) * 6)
    after = fitted.apply(np.array([[0.0] * 6, [1.0] * 6], dtype=np.float32))
    assert np.isfinite(logit(after[0])).all()
    assert ((after >= 0) & (after <= 1)).all()
    assert (after[1] > 0.999).all()


def test_json_there_and_back() -> None:
    inner, _ = world(n=720)
    fitted = fit_recalibration(inner, 3)
    assert (fitted.slices, fitted.patients) == (720, 20)
    assert fitted.positives == tuple(inner[list(CLASSES)].sum().astype(int))
    assert fitted.repeats == 3
    assert Recalibration.from_json(json.loads(json.dumps(fitted.to_json()))) == fitted
    older = {name: value for name, value in fitted.to_json().items() if name != "repeats"}
    assert Recalibration.from_json(older).biases == fitted.biases


def test_mistakes_are_said() -> None:
    inner, _ = world(n=72)
    with pytest.raises(ValueError, match="repeats is 0: a slice is seen at least once"):
        fit_recalibration(inner, 0)
    with pytest.raises(ValueError, match="negatives is 0: above 0, and at most 1"):
        fit_recalibration(inner, 1, negatives=0)
    inner.loc[[3, 5], "p_any"] = np.nan
    with pytest.raises(ValueError, match="2 of 72 inner slices have no prediction"):
        fit_recalibration(inner, 2)
