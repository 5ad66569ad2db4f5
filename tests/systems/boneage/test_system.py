from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest

from medray.shards.store import File
from medray.systems.boneage.chain import chain_of
from medray.systems.boneage.films.labels import Labels
from medray.systems.boneage.films.source import HandFilm
from medray.systems.boneage.recipes import Recipe, phantom, published
from medray.systems.boneage.system import fold_notes, label_notes, strata

POINTS = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
FILMS = [File("x/a.png", 1), File("x/b.png", 1)]


@dataclass(frozen=True)
class Films:
    index: pd.DataFrame


def labels(points: bool = False, outline: bool = False, ages: bool = True) -> Labels:
    table = pd.DataFrame(
        {
            "age_months": [30.0, 40.0] if ages else [np.nan, np.nan],
            "points": [POINTS if points else None] * 2,
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
    assert next(iter(ages)) == "x-A-regression-girls"
    assert [region.name for region in chain.regions(ages)] == ["A", "B", "C"]


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


def test_what_is_drawn_on_other_films_ends_it_before_anything_is_trained() -> None:
    chain = chain_of([], None, "masks", phantom())
    index = pd.DataFrame({"fold": [0, 0, 1, 1], "has_mask": [1, 0, 1, 0], "has_points": [0, 1, 1, 1]})
    assert chain.checked(Films(index)).index is index
    with pytest.raises(ValueError, match="^none of 4 films has points .*tip, thumb, capitate.*--no-register$"):
        chain.checked(Films(index.assign(has_points=0)))
    with pytest.raises(ValueError, match="^every film that has a mask or outline of its hand is in fold 1, whose"):
        chain.checked(Films(index.assign(has_mask=[0, 0, 1, 0])))
    left = replace(phantom(), register=False)
    chain_of(FILMS, labels(), "masks", left).checked(Films(index.assign(has_mask=0, has_points=0)))  # neither is needed


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
            "age_months": [1.0, 2.0, 3.0],
        }
    )  # fmt: skip
    assert fold_notes(index) == ["no film of a boy in fold 0 has a bone age"]


def test_a_model_without_films_in_a_fold_is_left_out_and_said() -> None:
    recipe = Recipe(("A-regression",))
    chain = chain_of(FILMS, labels(points=True), "masks", replace(recipe, register=False))
    _, ages = chain.tasks(recipe, "x")
    index = pd.DataFrame(
        {"fold": [0, 0, 1, 1, 1], "sex": ["F", "M", "F", "F", None], "age_months": [1.0, 2.0, 3.0, 4.0, 5.0]}
    )
    told: list[str] = []
    kept = chain.learned(ages, {"A": Films(index)}, (0,), told.extend)
    assert [*kept] == ["x-A-regression-girls", "x-A-regression-both"]
    assert told == ["A-regression-boys is left out: fold 0 has 1 of boys' films, the others 0 with a bone age"]
    assert [*chain.learned(ages, {"A": Films(index.assign(sex=None))}, (0,), told.extend)] == ["x-A-regression-both"]
    with pytest.raises(ValueError, match="no model has films to learn from in every fold"):
        chain.learned(ages, {"A": Films(index.assign(age_months=np.nan))}, (0, 1), told.extend)


def test_points_of_which_one_is_never_marked_are_refused_before_anything_is_spent() -> None:
    nan = float("nan")
    given = Labels(labels().table.assign(points=[[1.0, 2.0, nan, nan, 5.0, 6.0]] * 2))
    with pytest.raises(ValueError, match="points are marked on 2 films, thumb on 0 of them; mark all three"):
        chain_of(FILMS, given, "masks", published())
    assert chain_of(FILMS, given, "masks", replace(published(), register=False)).how == "film"


def test_masks_are_no_images_of_the_plan() -> None:
    chain = chain_of([*FILMS, *FILMS, File("x/masks/a.png", 1)], labels(), "masks", published())
    assert (chain.films, chain.images(4)) == (4, 3)


def test_the_title_of_a_stage_says_that_it_is_left_out_and_why() -> None:
    chain = chain_of([], None, "masks", phantom())
    assert chain.title("segmentation") == "Hands: each film by the network that has not seen its patient"
    assert chain.title("keypoints") == "Points of every hand, likewise"
    assert chain.title("regions") == "Registration, and the regions"
    chain = chain_of(FILMS, labels(), "masks", published())
    none = "Hands are not looked for, films are read whole: no mask or outline of a hand is there"
    assert chain.title("segmentation") == none
    assert chain.title("keypoints") == "Points are not looked for: no film has points (tip, thumb, capitate)"
    assert chain.title("regions") == "Region A, of the whole film"
    chain = chain_of(FILMS, labels(points=True), "masks", published())
    assert chain.title("keypoints") == "Points of every hand: each film by the network that has not seen its patient"
    chain = chain_of(FILMS, labels(points=True), "masks", replace(published(), register=False))
    assert chain.title("keypoints") == "Points are not looked for: --no-register"
    chain = chain_of(FILMS, labels(), "masks", replace(published(), registered=True))
    assert chain.title("keypoints") == "Points are not looked for: --registered, the films lie on the canvas"


def test_a_fold_of_which_every_film_was_refused_is_named() -> None:
    recipe = Recipe(("A-regression-both",))
    chain = chain_of(FILMS, labels(points=True), "masks", replace(recipe, register=False))
    index = pd.DataFrame({"fold": [1, 1, 1], "sex": ["F", "M", "F"], "age_months": [1.0, 2.0, 3.0]})
    with pytest.raises(ValueError, match="every film of fold 0 was refused by the stages before, as refused.csv says"):
        chain.learned(chain.tasks(recipe, "x")[1], {"A": Films(index)}, (0,), list[str]().extend)
