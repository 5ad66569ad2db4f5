from __future__ import annotations

import json

import numpy as np
import optuna
import pandas as pd
import pytest
from scipy.special import expit

from medray.systems.ich.blend import Blend, Method, Space, align, average, find_weights, nested
from medray.systems.ich.classes import CLASSES, PROBABILITIES
from medray.systems.ich.scores import weighted_log_loss

SPACES: tuple[Space, ...] = ("logit", "probability")
SEARCHES: tuple[Method, ...] = ("optuna", "scipy")


def models(noises: tuple[float, ...], n: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(models, n, 6) probabilities that see the truth through noise of these sizes, and (n, 6) labels."""
    rng = np.random.default_rng(seed)
    true = rng.normal(-2, 2, (n, 6))
    labels = (rng.random((n, 6)) < expit(true)).astype(np.float64)
    return np.stack([expit(true + size * rng.normal(size=(n, 6))) for size in noises]), labels


# ---- averages ------------------------------------------------------------------------------------------------------


def test_averages_by_hand() -> None:
    both = np.stack([np.full((1, 6), 0.5), np.full((1, 6), 0.9)])  # logits 0 and log 9
    assert average(both, space="probability") == pytest.approx(np.full((1, 6), 0.7))
    assert average(both) == pytest.approx(np.full((1, 6), 3 / 4))  # odds 9 ** (1/2) = 3
    assert average(both, np.array([3, 1]), "probability") == pytest.approx(np.full((1, 6), 0.6))
    assert average(both, np.array([1, 3]), "probability") == pytest.approx(np.full((1, 6), 0.8))
    assert average(both, np.array([0, 2])) == pytest.approx(np.full((1, 6), 0.9))


def test_a_saturated_model_does_not_outvote_the_others() -> None:
    both = np.stack([np.zeros((1, 6)), np.full((1, 6), 0.9)])
    assert np.allclose(average(both), expit((np.log(1e-6 / (1 - 1e-6)) + np.log(9)) / 2))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], "1 weights for 2 models"),
        ([1.0, -0.1], "weights must be 0 or more: [1.0, -0.1]"),
        ([1.0, np.nan], "weights must be 0 or more"),
        ([0.0, 0.0], "all weights are 0"),
    ],
)
def test_weights_that_are_none(weights: list[float], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        average(np.full((2, 3, 6), 0.5), np.array(weights))
    assert message in str(error.value)


def test_a_blend_knows_its_models() -> None:
    probabilities, _ = models((1, 2), n=5)
    blend = Blend(("a", "b"), (0.25, 0.75), "probability")
    tables = {"b": probabilities[1], "a": probabilities[0], "c": probabilities[0]}
    assert blend.apply(tables) == pytest.approx(0.25 * probabilities[0] + 0.75 * probabilities[1])
    with pytest.raises(ValueError, match=r"a model of the ensemble has no predictions: b \(there are: a\)"):
        blend.apply({"a": probabilities[0]})
    assert Blend.from_json(json.loads(json.dumps(blend.to_json()))) == blend


# ---- tables --------------------------------------------------------------------------------------------------------


def table(ids: str = "pqrstu", seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.random((len(ids), 6)), columns=list(PROBABILITIES))
    return frame.assign(slice_id=list(ids), patient_id="p", fold=0, **dict.fromkeys(CLASSES, 0.0))


def test_tables_are_brought_into_the_first_ones_order() -> None:
    first, second = table(seed=1), table(seed=2)
    probabilities, rest = align({"a": first, "b": second.sample(frac=1, random_state=0)})
    assert probabilities.shape == (2, 6, 6)
    assert (probabilities[0] == first[list(PROBABILITIES)].to_numpy()).all()
    assert (probabilities[1] == second[list(PROBABILITIES)].to_numpy()).all()
    assert rest.equals(first.drop(columns=list(PROBABILITIES)))


def test_tables_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="there is no model to blend"):
        align({})
    missing = r"a model's predictions are missing: b lacks 4 of the slices of a \(p, q, r, …\)"
    with pytest.raises(ValueError, match=missing):
        align({"a": table(), "b": table("tu")})
    with pytest.raises(ValueError, match=r"a model's predictions are missing: a lacks 1 of the slices of b \(x\)"):
        align({"a": table(), "b": table("xpqrstu")})
    with pytest.raises(ValueError, match=r"b: 2 slice ids occur more than once \(p, q\)"):
        align({"a": table(), "b": table("pqpqprstu")})
    for value in (np.nan, -0.1, 1.1, np.inf):
        wrong = table()
        wrong.loc[[2, 4], "p_any"] = value
        message = "b: 2 slices have predictions that are NaN or not between 0 and 1, the first is r"
        with pytest.raises(ValueError, match=message) as error:
            align({"a": table(), "b": wrong})
        assert "\n" not in str(error.value)


# ---- weights -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("method", SEARCHES)
@pytest.mark.parametrize("seed", range(4))
def test_never_worse_than_the_best_single_model_and_equal_weights(space: Space, method: Method, seed: int) -> None:
    noises = tuple(np.random.default_rng(seed).uniform(0, 3, 4))  # some models are hardly worth having
    probabilities, labels = models(noises, seed=seed)
    weights = find_weights(probabilities, labels, space, method, trials=20, seed=seed)
    assert weights.shape == (4,)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    reached = weighted_log_loss(average(probabilities, weights, space), labels)
    for other in (*np.eye(4), np.full(4, 0.25)):
        assert reached <= weighted_log_loss(average(probabilities, other, space), labels) + 1e-6


@pytest.mark.parametrize("space", SPACES)
def test_optuna_and_the_gradient_agree(space: Space) -> None:
    probabilities, labels = models((0.8, 1.0, 1.2), n=3000)
    losses = [
        weighted_log_loss(average(probabilities, find_weights(probabilities, labels, space, method), space), labels)
        for method in SEARCHES
    ]
    assert losses[1] <= losses[0] + 1e-6  # convex: nothing is below the foot of the slope
    assert losses[0] - losses[1] < 5e-4


def test_the_gradient_finds_the_best_of_a_fine_grid() -> None:
    probabilities, labels = models((0.8, 1.4), n=2000)
    found = find_weights(probabilities, labels, method="scipy")
    grid = np.linspace(0, 1, 501)
    losses = [weighted_log_loss(average(probabilities, np.array([w, 1 - w])), labels) for w in grid]
    assert found[0] == pytest.approx(grid[np.argmin(losses)], abs=0.01)


@pytest.mark.parametrize("method", SEARCHES)
def test_a_model_of_noise_gets_little_weight(method: Method) -> None:
    probabilities, labels = models((0.5, 0.5), n=2000)
    noise = expit(np.random.default_rng(9).normal(0, 3, (1, 2000, 6)))
    weights = find_weights(np.concatenate([probabilities, noise]), labels, method=method)
    assert weights[2] < 0.05


@pytest.mark.parametrize("method", SEARCHES)
def test_the_same_again_and_quietly(method: Method, capsys: pytest.CaptureFixture[str]) -> None:
    probabilities, labels = models((0.8, 1.0, 1.2))
    before = optuna.logging.get_verbosity()
    first, second = (find_weights(probabilities, labels, method=method, trials=25, seed=5) for _ in range(2))
    assert (first == second).all()
    assert optuna.logging.get_verbosity() == before
    assert capsys.readouterr().err == ""


def test_few_trials_are_enough_to_try_every_single_model() -> None:
    probabilities, labels = models((5, 5, 5, 5, 0))
    assert find_weights(probabilities, labels, trials=1)[4] > 0.9


def test_where_there_is_nothing_to_find() -> None:
    probabilities, labels = models((0.5, 3))
    assert find_weights(probabilities, labels, method="equal").tolist() == [0.5, 0.5]
    assert find_weights(probabilities, np.full_like(labels, np.nan)).tolist() == [0.5, 0.5]
    assert find_weights(probabilities[:1], labels).tolist() == [1]
    with pytest.raises(ValueError, match="there is no model to blend"):
        find_weights(probabilities[:0], labels)


def test_unlabelled_rows_do_not_count() -> None:
    probabilities, labels = models((0.5, 3))
    more = np.concatenate([probabilities, 1 - probabilities], axis=1)
    unlabelled = np.concatenate([labels, np.full_like(labels, np.nan)])
    found = (find_weights(probabilities, labels, method="scipy"), find_weights(more, unlabelled, method="scipy"))
    assert (found[0] == found[1]).all()


@pytest.mark.parametrize("space", SPACES)
def test_classes_that_are_unknown_do_not_count(space: Space) -> None:
    """One model is right of any alone, the other of the types."""
    (right, wrong), labels = models((0.5, 4), n=1500)
    probabilities = np.stack([right, wrong])
    probabilities[:, :, -1] = probabilities[::-1, :, -1]
    for known, better in (([5], 1), ([0, 1, 2, 3, 4], 0)):
        partly = np.full_like(labels, np.nan)
        partly[:, known] = labels[:, known]
        assert find_weights(probabilities, partly, space, "scipy")[better] > 0.9


@pytest.mark.parametrize("space", SPACES)
def test_where_some_labels_are_unknown_the_weights_are_the_best_of_the_score(space: Space) -> None:
    probabilities, labels = models((0.8, 1.4), n=1500)
    rng = np.random.default_rng(2)
    labels[rng.random(labels.shape) < 0.3] = np.nan
    labels[:500, :5] = np.nan
    found = find_weights(probabilities, labels, space, "scipy")
    grid = np.linspace(0, 1, 201)
    losses = [weighted_log_loss(average(probabilities, np.array([w, 1 - w]), space), labels) for w in grid]
    assert found[0] == pytest.approx(grid[np.argmin(losses)], abs=0.01)


@pytest.mark.parametrize("method", SEARCHES)
def test_a_folds_labels_have_no_say_in_its_weights(method: Method) -> None:
    probabilities, labels = models((0.7, 0.9, 1.1), n=600)
    folds = np.arange(600) % 3
    blended, weights = nested(probabilities, labels, folds, method=method, trials=20)
    turned = labels.copy()
    turned[folds == 1] = 1 - turned[folds == 1]
    again, others = nested(probabilities, turned, folds, method=method, trials=20)
    assert list(weights) == [0, 1, 2]
    assert (weights[1] == others[1]).all()
    assert (blended[folds == 1] == again[folds == 1]).all()
    assert (weights[0] != others[0]).any()
    assert (weights[2] != others[2]).any()
    for fold in range(3):
        own = folds == fold
        assert np.allclose(blended[own], average(probabilities[:, own], weights[fold]))


def test_with_a_single_fold_weights_are_equal() -> None:
    probabilities, labels = models((0.1, 5), n=50)
    blended, weights = nested(probabilities, labels, np.full(50, 2))
    assert {fold: w.tolist() for fold, w in weights.items()} == {2: [0.5, 0.5]}
    assert np.allclose(blended, average(probabilities))
