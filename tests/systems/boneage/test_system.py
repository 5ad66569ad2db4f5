from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from medray.shards.store import File
from medray.systems.boneage.labels import Labels
from medray.systems.boneage.recipes import Recipe, phantom, published
from medray.systems.boneage.source import HandFilm
from medray.systems.boneage.system import chain_of, fold_notes, label_notes, strata

POINTS = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
FILMS = [File("x/a.png", 1), File("x/b.png", 1)]


def labels(points: bool = False, outline: bool = False, ages: bool = True) -> Labels:
    table = pd.DataFrame(
        {
            "age_months": [30.0, 40.0] if ages else [np.nan, np.nan],
            "points": [POINTS if points else None, None],
            "outline_px": [POINTS if outline else None, None],
        },
        index=["a", "b"],
    )
    return Labels(table)


def test_phantoms_have_every_stage() -> None:
    chain = chain_of([], None, "masks", phantom())
    assert (chain.masks, chain.how, chain.left_out) == (True, "points", ())
    before, ages = chain.tasks(phantom(), "x")
    assert [*before] == ["segmentation", "keypoints"]
    assert [*ages][0] == "x-A-regression-girls"
    assert [region.name for region in chain.regions(ages.values())] == ["A", "B", "C"]


def test_what_nobody_has_drawn_is_left_out_and_said() -> None:
    chain = chain_of(FILMS, labels(), "masks", published())
    assert (chain.masks, chain.how) == (False, "film")
    assert [line.split(":")[0] for line in chain.left_out] == ["no segmentation", "no registration"]
    before, ages = chain.tasks(published(), "x")
    assert not before
    assert len(ages) == 6
    assert {task.region for task in ages.values()} == {"A"}


@pytest.mark.parametrize(
    ("files", "given", "masks"),
    [
        ([*FILMS, File("x/masks/a.png", 1)], labels(), True),
        ([*FILMS, File("masks.png", 1)], labels(), False),
        (FILMS, labels(outline=True), True),
    ],
)
def test_masks_are_files_or_outlines(files: list[File], given: Labels, masks: bool) -> None:
    assert chain_of(files, given, "masks", published()).masks == masks


def test_how_hands_come_onto_the_canvas() -> None:
    assert chain_of(FILMS, labels(points=True), "masks", published()).how == "points"
    unregistered = chain_of(FILMS, labels(points=True), "masks", replace(published(), register=False))
    assert unregistered.how == "film"
    assert "--no-register" in unregistered.left_out[-1]
    assert chain_of(FILMS, labels(), "masks", replace(published(), registered=True)).how == "canvas"


def test_models_that_need_registration_alone_are_refused_without_it() -> None:
    recipe = Recipe(("B-regression", "C"))
    with pytest.raises(ValueError, match="without registration there are no regions B and C; no registration: no film"):
        chain_of(FILMS, labels(), "masks", recipe).tasks(recipe, "x")


def test_what_a_prediction_needs_to_know() -> None:
    recipe = phantom()
    chain = chain_of([], None, "masks", recipe)
    method = chain.method(recipe, chain.tasks(recipe, "x")[1], HandFilm(), (0,), (0, 1))
    assert method["models"]["B-regression-both"] == "x-B-regression-both"
    assert (method["masks"], method["points"], method["how"]) == ("segmentation", "keypoints", "points")
    assert (method["folds"], method["stage_folds"]) == ([0], [0, 1])
    left = replace(recipe, register=False)
    chain = chain_of(FILMS, labels(), "masks", left)
    method = chain.method(left, chain.tasks(left, "x")[1], HandFilm(), (0,), (0, 1))
    assert (method["masks"], method["points"], method["how"]) == (None, None, "film")


def test_folds_are_balanced_over_age_and_sex() -> None:
    index = pd.DataFrame({"age_months": [10.0, 10.0, 200.0, None], "sex": ["F", "M", "F", None]})
    found = strata(index)
    assert len(set(found.tolist())) == 4
    assert found[3] == -1


def test_notes() -> None:
    with pytest.raises(ValueError, match="no film has a bone age"):
        label_notes(labels(ages=False))
    assert label_notes(labels()) == []
    index = pd.DataFrame(
        {
            "film_id": ["a", "b", "c"], "patient_id": ["p", "q", "r"], "fold": [0, 1, 1], "sex": ["F", "F", "M"],
            "age_months": [1.0, 2.0, 3.0], "pixels_hash": ["x", "x", "y"],
        }
    )  # fmt: skip
    lines = fold_notes(index)
    assert lines[0] == "no film of a boy in fold 0 has a bone age"
    assert "under several patients" in lines[1]
