"""From tables of predictions to the run's answer, its rungs, and the answer for new studies; all on made-up tables."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from medray.systems.ich import recipes
from medray.systems.ich.classes import CLASSES, PROBABILITIES
from medray.systems.ich.ladder import Rung, mean_over_neighbours
from medray.systems.ich.method import PLAIN as PLAIN_AVERAGE
from medray.systems.ich.method import Ensemble, Method, Predictions, combine, probabilities_of, with_probabilities
from medray.systems.ich.new_studies import answer, images_of, submission
from medray.systems.ich.recalibrate import fit_recalibration
from medray.systems.ich.task import SliceTask
from medray.systems.ich.views import Views

FOLDS, PATIENTS, SLICES = 3, 18, 6
HOW = Ensemble(blend="searched", blend_trials=12)
PLAIN = SliceTask(backbone="test_resnet", pretrained=False)
REPEATED = replace(PLAIN, repeat_epidural=3, epidural_weight=2.0)


def truth() -> pd.DataFrame:
    """One row a slice, patient by patient, with its fold and the logits that nature drew its labels from."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"patient_id": np.repeat([f"p{i:02d}" for i in range(PATIENTS)], SLICES)})
    frame["index"] = np.tile(np.arange(SLICES), PATIENTS)
    frame["slice_id"] = frame["patient_id"] + "-" + frame["index"].astype(str)
    frame["study_id"] = frame["stack_id"] = "of " + frame["patient_id"]
    frame["fold"] = np.repeat(np.arange(PATIENTS) % FOLDS, SLICES)
    drawn = rng.normal(-0.5, 2, (len(frame), 6))
    labels = (rng.random(drawn.shape) < expit(drawn)).astype(np.float64)
    return frame.assign(**dict(zip(CLASSES, labels.T, strict=True)), drawn=list(drawn))


def said(table: pd.DataFrame, noise: float, seed: int) -> pd.DataFrame:
    """What a model that sees the truth through this much noise says."""
    drawn = np.stack(table["drawn"].to_list())
    seen = expit(drawn + noise * np.random.default_rng(seed).normal(size=drawn.shape))
    return with_probabilities(table.drop(columns="drawn"), seen)


def model(noise: float, seed: int, task: SliceTask = PLAIN, sequence: bool = True) -> Predictions:
    every = truth()
    inner = {}
    for fold in range(FOLDS):  # a patient of another fold that the network has not learned from
        theirs = every["patient_id"] == every.loc[every["fold"] != fold, "patient_id"].iloc[0]
        inner[fold] = said(every, noise, seed + 50 + fold)[theirs].drop(columns="fold")
    return Predictions(
        task=task,
        plain=said(every, noise, seed),
        inner=inner,
        views={k: said(every, noise * 0.9, seed + 10 + k).drop(columns="fold") for k in range(FOLDS)},
        sequence=said(every, noise * 0.7, seed + 20) if sequence else None,
    )


def two_models() -> dict[str, Predictions]:
    return {"first": model(1.0, 1, REPEATED), "second": model(1.5, 100)}


def shuffled(one: Predictions) -> Predictions:
    def mix(table: pd.DataFrame) -> pd.DataFrame:
        return table.sample(frac=1, random_state=5).reset_index(drop=True)

    sequence = None if one.sequence is None else mix(one.sequence)
    views, inner = ({k: mix(t) for k, t in tables.items()} for tables in (one.views, one.inner))
    return replace(one, plain=mix(one.plain), inner=inner, views=views, sequence=sequence)


@pytest.fixture(scope="module")
def method() -> Method:
    return combine(two_models(), {}, HOW)


def by_id(table: pd.DataFrame) -> np.ndarray:
    return probabilities_of(table.sort_values("slice_id"))


# ---- held-out slices by the right network --------------------------------------------------------------------------


def test_views_are_those_of_the_network_that_has_not_seen_the_patient() -> None:
    one = model(1.0, 1)
    found = one.held_out_views()
    assert sorted(found["slice_id"]) == sorted(one.plain["slice_id"])
    for fold, part in found.groupby("fold"):
        wanted = one.views[int(fold)].set_index("slice_id").loc[part["slice_id"]]  # type: ignore[call-overload]
        assert np.array_equal(probabilities_of(part), probabilities_of(wanted))
        assert set(part["patient_id"]) == set(one.plain.loc[one.plain["fold"] == fold, "patient_id"])


def test_a_fold_without_views_and_a_slice_without_them_are_named() -> None:
    one = model(1.0, 1)
    lacking = replace(one, views={k: table for k, table in one.views.items() if k != 2})
    with pytest.raises(ValueError, match=r"^first: fold 2: its views are missing; .*$") as error:
        combine({"first": lacking}, {}, HOW)
    assert "\n" not in str(error.value)
    lost = one.plain.loc[one.plain["fold"] == 1, "slice_id"].iloc[0]
    fewer = replace(one, views={**one.views, 1: one.views[1].query("slice_id != @lost")})
    with pytest.raises(ValueError, match=rf"^first: fold 1: 1 held-out slices have no views, such as {lost}$"):
        combine({"first": fewer}, {}, HOW)


# ---- recalibration -------------------------------------------------------------------------------------------------


def test_only_models_that_repeated_slices_are_recalibrated_each_fold_on_its_inner_patients(method: Method) -> None:
    models = two_models()
    first, second = models["first"], models["second"]
    assert set(method.recalibrations["first"]) == set(range(FOLDS))
    assert method.recalibrations["second"] == {}
    assert np.array_equal(by_id(method.tables["second"]), by_id(second.held_out_views()))
    table = method.tables["first"]
    for fold, fit in method.recalibrations["first"].items():
        inner = first.views[fold].loc[first.views[fold]["slice_id"].isin(first.inner[fold]["slice_id"])]
        assert fit == fit_recalibration(inner, 3)
        assert not set(inner["patient_id"]) & set(table.loc[table["fold"] == fold, "patient_id"])
        before = first.held_out_views().query("fold == @fold")
        after = table.set_index("slice_id").loc[before["slice_id"]]
        assert np.array_equal(probabilities_of(after), fit.apply(probabilities_of(before)))
    assert not np.allclose(by_id(table), by_id(first.held_out_views()))
    assert method.tables["first sequence"] is not None
    assert np.array_equal(by_id(method.tables["first sequence"]), by_id(said(truth(), 0.7, 21)))  # as it came


def test_recalibration_of_plain_slices_is_fitted_on_plain_slices_and_keeps_the_order_of_the_rows() -> None:
    first = shuffled(model(1.0, 1, REPEATED))
    table, fits = first.recalibrated(views=False)
    assert table["slice_id"].tolist() == first.plain["slice_id"].tolist()
    assert fits == {fold: fit_recalibration(first.inner[fold], 3) for fold in fits}
    assert set(fits) == set(range(FOLDS))


# ---- the ensemble --------------------------------------------------------------------------------------------------


def test_the_answer_is_the_same_whatever_the_order_of_the_rows(method: Method) -> None:
    again = combine({name: shuffled(one) for name, one in two_models().items()}, {}, HOW)
    assert again.final["slice_id"].tolist() != method.final["slice_id"].tolist()
    np.testing.assert_allclose(by_id(again.final), by_id(method.final), rtol=1e-9)
    columns = ["slice_id", "fold", "patient_id", *CLASSES]
    one, other = (m.final.sort_values("slice_id")[columns].reset_index(drop=True) for m in (again, method))
    pd.testing.assert_frame_equal(one, other)


def test_the_answer_is_the_same_each_time_and_holds_every_slice_once(method: Method) -> None:
    again = combine(two_models(), {}, HOW)
    pd.testing.assert_frame_equal(again.final, method.final, check_exact=True)
    assert again.blend == method.blend
    assert sorted(method.final["slice_id"]) == sorted(truth()["slice_id"])
    assert list(method.tables) == ["first", "first sequence", "second", "second sequence"]
    assert set(method.weights) == set(method.tables) == set(method.blend.names)
    for fold in range(FOLDS):
        assert sum(weights[fold] for weights in method.weights.values()) == pytest.approx(1)
    losses = {name: one["weighted_log_loss"] for name, one in method.comparison.items()}
    assert min(losses, key=losses.__getitem__) != "second"
    assert method.comparison[PLAIN_AVERAGE]["change"] is None
    for name, one in method.comparison.items():
        if name != PLAIN_AVERAGE:
            assert one["change"]["value"] == pytest.approx(losses[name] - losses[PLAIN_AVERAGE])
            assert one["change"]["low"] < one["change"]["value"] < one["change"]["high"]


def test_the_plain_average_is_the_answer_where_a_search_costs_more_than_it_finds(method: Method) -> None:
    assert method.plain == ""
    few = combine(two_models(), {}, replace(HOW, blend="auto"))
    assert re.fullmatch(r"\d+ patients with a bleed, fewer than 200", few.plain)
    assert few.rungs[-1].adds == "all models, plain average"
    assert few.weights == method.weights  # shown beside it
    assert set(few.blend.weights) == {0.25}  # for new studies
    equal = sum(logit(by_id(table).clip(1e-6, 1 - 1e-6)) for table in few.tables.values()) / 4
    np.testing.assert_allclose(by_id(few.final), expit(equal), atol=1e-12)
    assert combine(two_models(), {}, replace(HOW, blend="plain")).plain == "asked for (--blend plain)"
    one_fold = {name: model(1.0, 1).plain.query("fold == 0") for name in ("a", "b")}
    bare = {n: Predictions(PLAIN, table, {}, {0: table}) for n, table in one_fold.items()}
    assert combine(bare, {}, replace(HOW, blend="auto")).plain == "1 fold, fewer than 3"


def test_the_answer_of_a_fold_is_the_blend_with_its_own_weights(method: Method) -> None:
    for fold in range(FOLDS):
        own = method.final.query("fold == @fold").sort_values("slice_id")
        logits = sum(
            method.weights[name][fold] * logit(by_id(table.query("fold == @fold")).clip(1e-6, 1 - 1e-6))
            for name, table in method.tables.items()
        )
        np.testing.assert_allclose(probabilities_of(own), expit(logits), atol=1e-12)


def test_the_weights_for_a_fold_are_found_without_its_labels_and_predictions(method: Method) -> None:
    def spoiled(one: Predictions, noise: float) -> Predictions:
        """Fold 0 with other labels, and with other predictions."""

        def spoil(table: pd.DataFrame) -> pd.DataFrame:
            theirs = truth().set_index("slice_id")["fold"].loc[table["slice_id"]].to_numpy() == 0
            table = table.copy()
            table.loc[theirs, list(CLASSES)] = 1 - table.loc[theirs, list(CLASSES)]
            scale = np.random.default_rng(3).normal(1, noise, (int(theirs.sum()), 6))
            table.loc[theirs, list(PROBABILITIES)] = expit(scale * logit(probabilities_of(table)[theirs]))
            return table

        # the inner patients of the other folds may be of fold 0: recalibration is not what is looked at here
        sequence = None if one.sequence is None else spoil(one.sequence)
        views = {k: spoil(t) for k, t in one.views.items()}
        return replace(one, task=PLAIN, inner={}, plain=spoil(one.plain), views=views, sequence=sequence)

    bare = {name: replace(one, task=PLAIN, inner={}) for name, one in two_models().items()}
    before = combine(bare, {}, HOW)
    after = combine({n: spoiled(one, i + 0.5) for i, (n, one) in enumerate(two_models().items())}, {}, HOW)
    assert {n: w[0] for n, w in before.weights.items()} == {n: w[0] for n, w in after.weights.items()}
    for fold in (1, 2):
        assert {n: w[fold] for n, w in before.weights.items()} != {n: w[fold] for n, w in after.weights.items()}
    assert before.blend != after.blend  # that of new studies uses every fold


def with_nan(table: pd.DataFrame, slice_id: str) -> pd.DataFrame:
    table = table.copy()
    table.loc[table["slice_id"] == slice_id, PROBABILITIES[2]] = np.nan
    return table


@pytest.mark.parametrize("where", ["first", "second", "second sequence"])
def test_a_prediction_that_is_nan_names_the_model_and_the_slice(where: str) -> None:
    models = two_models()
    name = where.split()[0]
    lost = truth().query("fold == 1")["slice_id"].iloc[0]
    if where.endswith("sequence"):
        sequence = models[name].sequence
        assert sequence is not None
        models[name] = replace(models[name], sequence=with_nan(sequence, lost))
    else:
        views = models[name].views
        models[name] = replace(models[name], views={**views, 1: with_nan(views[1], lost)})
    with pytest.raises(ValueError, match=rf"^{where}: .*NaN.* {lost}$") as error:
        combine(models, {}, HOW)
    assert "\n" not in str(error.value)


def test_a_nan_among_the_inner_slices_names_the_model() -> None:
    models = two_models()
    lost = models["first"].inner[1]["slice_id"].iloc[0]
    views = models["first"].views
    models["first"] = replace(models["first"], views={**views, 1: with_nan(views[1], lost)})
    with pytest.raises(ValueError, match=r"^first: .*1 of 6 inner slices have no prediction"):
        combine(models, {}, HOW)


# ---- rungs ---------------------------------------------------------------------------------------------------------


def names_of(rungs: list[Rung]) -> list[str]:
    return [rung.name for rung in rungs]


def ablations() -> dict[str, Predictions]:
    tasks = recipes.ladder(REPEATED)
    found = {n: model(1.5, 200 + i, task, sequence=False) for i, (n, task) in enumerate(tasks.items())}
    return {n: replace(one, views={}) for n, one in found.items()}


def test_the_rungs_with_all_ablations() -> None:
    models, others = {"first": model(1.0, 1, REPEATED)}, ablations()
    found = combine(models, models | others, HOW)
    rungs = {rung.name: rung for rung in found.rungs}
    assert list(rungs) == [
        "single window", "3 windows", "imbalance", "test-time augmentation", "mean over neighbours", "sequence",
        "ensemble",
    ]  # fmt: skip
    first = models["first"]
    assert rungs["single window"].predictions is others["single-window"].plain
    assert rungs["3 windows"].predictions is others["no-remedy"].plain
    wanted, _ = first.recalibrated(views=False)
    pd.testing.assert_frame_equal(rungs["imbalance"].predictions, wanted)
    pd.testing.assert_frame_equal(rungs["test-time augmentation"].predictions, found.tables["first"])
    pd.testing.assert_frame_equal(
        rungs["mean over neighbours"].predictions, mean_over_neighbours(found.tables["first"])
    )
    assert rungs["sequence"].predictions is first.sequence
    assert rungs["ensemble"].predictions is found.final
    assert (
        rungs["imbalance"].adds
        == "epidural slices × 3, its loss × 2, recalibrated on a tenth of the patients, of whom it learns nothing and the step before did"
    )
    assert names_of(found.remedies) == [
        "no remedy", "repetition", "repetition, recalibrated", "repetition and column weight",
        "repetition and column weight, recalibrated",
    ]  # fmt: skip


def test_the_rungs_without_ablations(method: Method) -> None:
    rungs = {rung.name: rung for rung in method.rungs}
    assert list(rungs) == ["3 windows", "test-time augmentation", "mean over neighbours", "sequence", "ensemble"]
    wanted, _ = two_models()["first"].recalibrated(views=False)
    pd.testing.assert_frame_equal(rungs["3 windows"].predictions, wanted)
    assert names_of(method.remedies) == ["remedies", "remedies, recalibrated"]


@pytest.mark.parametrize(
    ("fields", "first"),
    [
        ({}, "3 windows"),
        ({"windows": ("brain",)}, "1 window"),
        ({"windows": ("brain",), "neighbours": True}, "three neighbouring slices"),
    ],
)
def test_a_single_model_without_a_sequence_stage_is_the_ensemble(fields: dict[str, Any], first: str) -> None:
    one = model(1.0, 1, replace(PLAIN, **fields), sequence=False)
    found = combine({"only": one}, {"only": one}, HOW)
    assert names_of(found.rungs) == [first, "test-time augmentation", "mean over neighbours", "ensemble"]
    assert found.weights == {"only": dict.fromkeys(range(FOLDS), 1.0)}
    np.testing.assert_allclose(by_id(found.final), by_id(one.held_out_views()), atol=1e-6)
    assert names_of(found.remedies) == ["no remedy"]
    assert found.remedies[0].predictions is one.plain


def test_what_is_turned_off_is_not_named() -> None:
    bare = replace(model(1.5, 200, sequence=False), views={})
    lead = model(1.0, 1, replace(PLAIN, repeat_epidural=3))
    found = combine({"first": lead}, {"no-remedy": bare}, HOW)
    assert (
        {rung.name: rung.adds for rung in found.rungs}["imbalance"]
        == "epidural slices × 3, recalibrated on a tenth of the patients, of whom it learns nothing and the step before did"
    )
    assert found.remedies[1].adds == "epidural slices × 3"


def test_a_loss_weight_alone_is_not_said_to_be_recalibrated() -> None:
    lead = replace(PLAIN, epidural_weight=2.0)
    bare = replace(model(1.5, 200, sequence=False), views={})
    found = combine({"first": model(1.0, 1, lead)}, {"no-remedy": bare}, HOW)
    rungs = {rung.name: rung for rung in found.rungs}
    assert "recalibrated" not in rungs["imbalance"].adds
    assert rungs["imbalance"].adds == "loss of epidural × 2"
    assert [rung.adds for rung in found.remedies] == ["as the data is", "loss of epidural × 2"]
    assert names_of(found.remedies) == ["no remedy", "remedies"]


def test_what_makes_it_faster_stands_on_the_ladder_step_by_step() -> None:
    lead = replace(REPEATED, negatives=0.5, early_size_px=128, early_epochs=2)
    ablations = {
        name: replace(model(noise, seed, task, sequence=False), views={})
        for name, noise, seed, task in (
            ("no-remedy", 1.6, 200, PLAIN),
            ("all-negatives", 1.5, 201, REPEATED),
            ("full-resolution", 1.4, 202, replace(REPEATED, negatives=0.5)),
        )
    }
    one = model(1.0, 1, lead, sequence=False)
    found = combine({"first": one}, ablations, HOW)
    rungs = {rung.name: rung for rung in found.rungs}
    assert names_of(found.rungs)[:5] == [
        "3 windows", "imbalance", "half of the negatives", "low resolution first", "test-time augmentation",
    ]  # fmt: skip
    for name, of in (("imbalance", ablations["all-negatives"]), ("half of the negatives", ablations["full-resolution"]),
                     ("low resolution first", one)):  # fmt: skip
        pd.testing.assert_frame_equal(rungs[name].predictions, of.recalibrated(views=False)[0])
    assert rungs["low resolution first"].adds == "2 of 5 epochs at 128 px, then 224 px"
    assert found.remedies[-1].name == "remedies, recalibrated"
    pd.testing.assert_frame_equal(found.remedies[-2].predictions, ablations["all-negatives"].plain)


def test_a_network_that_saw_fewer_negatives_is_recalibrated() -> None:
    task = replace(PLAIN, negatives=0.5)
    one = model(1.0, 1, task, sequence=False)
    table, fits = one.recalibrated(views=False)
    assert set(fits) == set(range(FOLDS))
    assert all((fit.repeats, fit.negatives) == (1, 0.5) for fit in fits.values())
    of_fold = one.plain["fold"] == 1
    wanted = fit_recalibration(one.inner[1], 1, 0.5).apply(probabilities_of(one.plain[of_fold]))
    np.testing.assert_allclose(probabilities_of(table[of_fold]), wanted)
    found = combine({"first": one}, {"no-remedy": replace(model(1.5, 2, sequence=False), views={})}, HOW)
    assert names_of(found.rungs)[:2] == ["3 windows", "half of the negatives"]
    assert names_of(found.remedies) == ["no remedy"]


# ---- new studies ---------------------------------------------------------------------------------------------------


Tables = dict[str, dict[int, pd.DataFrame]]
PLACES = {"first": ("first-v", "first-sequence"), "second": ("second", "second-sequence")}


@pytest.fixture(scope="module")
def described(method: Method) -> dict[str, Any]:
    """method.json as it comes back from a file."""
    written = json.dumps(method.description(two_models(), Views().identity(), PLACES), allow_nan=False)
    return dict(json.loads(written))


def study() -> tuple[Tables, Tables]:
    """A study of four slices as every network sees it."""
    rng = np.random.default_rng(9)
    ids = pd.DataFrame({"slice_id": [f"new-{i}" for i in range(4)], "stack_id": "new", "index": range(4)})

    def tables() -> Tables:
        return {
            name: {k: with_probabilities(ids, rng.uniform(0.01, 0.99, (4, 6))) for k in range(FOLDS)}
            for name in ("first", "second")
        }

    return tables(), tables()


def test_the_description_says_what_a_prediction_needs(described: dict[str, Any], method: Method) -> None:
    assert list(described["models"]) == ["first", "second"]
    assert described["models"]["first"]["folds"] == [0, 1, 2]
    assert (described["models"]["first"]["runs"], described["models"]["first"]["sequence"]) == PLACES["first"]
    assert set(described["models"]["first"]["recalibration"]) == {"0", "1", "2"}
    assert described["models"]["second"]["recalibration"] == {}
    assert Views(**{k: tuple(v) if isinstance(v, list) else v for k, v in described["views"].items()}) == Views()
    assert described["blend"]["weights"] == list(method.blend.weights)


def test_the_answer_for_a_study_is_the_average_by_hand(described: dict[str, Any], method: Method) -> None:
    views, sequences = study()
    found = answer(described, views, sequences)
    parts = {}
    for name in ("first", "second"):
        of_folds = []
        for fold in range(FOLDS):
            given = logit(probabilities_of(views[name][fold]))
            if name == "first":
                fit = method.recalibrations[name][fold]
                given = given * np.array(fit.slopes) + np.array(fit.biases)
            of_folds.append(given)
        parts[name] = np.mean(of_folds, axis=0)
        parts[f"{name} sequence"] = np.mean(
            [logit(probabilities_of(sequences[name][fold])) for fold in range(FOLDS)], axis=0
        )
    wanted = sum(w * parts[n] for n, w in zip(method.blend.names, method.blend.weights, strict=True))
    np.testing.assert_allclose(probabilities_of(found), expit(wanted), atol=1e-9)
    views["first"][FOLDS] = with_probabilities(
        found[["slice_id"]], np.full((4, 6), 0.5)
    )  # the method knows no such fold
    pd.testing.assert_frame_equal(answer(described, views, sequences), found)
    assert found["slice_id"].tolist() == [f"new-{i}" for i in range(4)]
    assert found["index"].tolist() == list(range(4))


def drop_fold(views: Tables, sequences: Tables) -> None:
    del views["second"][1]


def drop_folds_of_the_sequence(views: Tables, sequences: Tables) -> None:
    del sequences["first"][0], sequences["first"][2]


def drop_model(views: Tables, sequences: Tables) -> None:
    del views["second"]


def drop_sequence(views: Tables, sequences: Tables) -> None:
    sequences.clear()


def one_is_nan(views: Tables, sequences: Tables) -> None:
    views["first"][2].loc[3, PROBABILITIES[5]] = np.nan


def one_is_nan_in_the_sequence(views: Tables, sequences: Tables) -> None:
    sequences["second"][0].loc[1, PROBABILITIES[0]] = np.nan


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (drop_fold, "second: no predictions of fold 1"),
        (drop_folds_of_the_sequence, "first sequence: no predictions of fold 0, 2"),
        (drop_model, "second: no predictions of fold 0, 1, 2"),
        (drop_sequence, "first sequence: no predictions of fold 0, 1, 2"),
        (one_is_nan, "first: 1 predictions are NaN, the first is of new-3"),
        (one_is_nan_in_the_sequence, "second sequence: 1 predictions are NaN, the first is of new-1"),
    ],
)
def test_what_is_missing_from_the_answer_is_named(
    spoil: Callable[[Tables, Tables], None], message: str, described: dict[str, Any]
) -> None:
    views, sequences = study()
    spoil(views, sequences)
    with pytest.raises(ValueError, match=rf"^{message}$"):
        answer(described, views, sequences)


def test_a_model_of_the_blend_that_is_not_among_the_models_is_named(described: dict[str, Any]) -> None:
    fewer = described | {"models": {"first": described["models"]["first"]}}
    with pytest.raises(ValueError, match=r"a model of the ensemble has no predictions: second, second sequence"):
        answer(fewer, *study())


# ---- submission ----------------------------------------------------------------------------------------------------


def rates() -> Mapping[str, float]:
    return dict(zip(CLASSES, (0.14, 0.005, 0.05, 0.04, 0.047, 0.063), strict=True))


def test_a_submission_has_six_rows_an_image_and_every_image_once() -> None:
    answered = said(truth(), 1.0, 1).iloc[:5]
    ids = ["unread-1", *answered["slice_id"][::-1], answered["slice_id"].iloc[2], "unread-2", "unread-1"]
    text, guessed = submission(ids, answered, rates())
    assert guessed == 2
    assert text.endswith("\n")
    assert "nan" not in text
    lines = text.splitlines()
    assert lines[0] == "ID,Label"
    images = ["unread-1", *answered["slice_id"][::-1], "unread-2"]
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["ID"] for row in rows] == [f"{image}_{name}" for image in images for name in CLASSES]
    values = np.array([float(row["Label"]) for row in rows]).reshape(-1, 6)
    for image, own in zip(images, values, strict=True):
        if image.startswith("unread"):
            assert own.tolist() == list(rates().values())
        else:
            wanted = probabilities_of(answered.query("slice_id == @image"))[0]
            np.testing.assert_allclose(own, wanted, rtol=1e-8)


def test_a_submission_keeps_small_and_large_probabilities() -> None:
    ends = np.array([[0.0, 1.0, 1e-15, 1 - 1e-7, 3.3333333e-9, 0.5]])
    answered = with_probabilities(pd.DataFrame({"slice_id": ["a"]}), ends)
    text, guessed = submission(["a"], answered, rates())
    values = [float(line.rsplit(",", 1)[1]) for line in text.splitlines()[1:]]
    assert guessed == 0
    np.testing.assert_allclose(values, ends[0], rtol=1e-8)


def test_what_is_no_dicom_file_is_no_image_of_a_submission() -> None:
    table = pd.DataFrame(
        [
            ("d/ID_a.dcm", "1.2.3", None),
            ("d/ID_b.dcm", None, "truncated: 12 bytes of pixels are missing"),
            ("d/stage_2_train.csv", None, "not a DICOM file: no DICM at byte 128"),
            ("d/ID_c.dcm", "1.2.4", None),
            ("d/notes", None, "not a DICOM file: no DICM at byte 128"),
            ("d/ID_d.DCM", None, "not a DICOM file: no DICM at byte 128"),  # nothing is left of it but its name
        ],
        columns=["path", "item_id", "reason"],
    )
    assert images_of(table) == (["1.2.3", "ID_b", "1.2.4", "ID_d"], 2)
