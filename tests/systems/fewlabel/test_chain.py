"""Which networks a run trains, and flags that do not fit each other."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from few_scans import ORGANS

from medray.systems.fewlabel import recipes
from medray.systems.fewlabel.chain import RUNGS, Chain, Ladder
from medray.systems.fewlabel.methods import CoTrainingTask

BASE = replace(recipes.small(), organs=ORGANS)


def test_every_rung_has_as_many_steps_crops_and_rates() -> None:
    chain = Chain("a", BASE, Ladder(rungs=RUNGS, ramp=3.0))
    every = {rung: task for own in chain.tasks().values() for rung, task in own.items()}
    assert {*every} == {*RUNGS}
    for task in every.values():
        for name in ("epochs", "steps_per_epoch", "batch_size", "crops", "patch_DHW", "learning_rate", "width", "seed"):
            assert getattr(task, name) == getattr(BASE, name), name
    assert every["background"] == replace(BASE, unlabelled="background")
    assert every["exclusion"].exclusion_weight == 1.0
    assert every["self"] == every["marginal"] == BASE
    assert isinstance(every["cotraining"], CoTrainingTask)
    assert every["cotraining"].ramp == 3.0


def test_the_answer_is_the_last_network_of_one_pass() -> None:
    assert Chain("a", BASE, Ladder()).final == "cotraining"
    assert Chain("a", BASE, Ladder(rungs=("conditional", "background", "exclusion", "marginal"))).final == "exclusion"
    assert Chain("a", BASE, Ladder(rungs=("apart", "background"))).final == "apart"  # not the wrong lesson
    assert not Chain("a", BASE, Ladder(rungs=("marginal",))).teaches


@pytest.mark.parametrize("changed", [{"unlabelled": "background"}, {"exclusion_weight": 0.5}])
def test_no_field_changes_what_every_rung_is(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="would change every network of the ladder; name background or exclusion"):
        Chain("a", replace(BASE, **changed), Ladder()).tasks()


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"rungs": ()}, "--rungs: name one or more of apart, "),
        ({"rungs": ("marginal", "marginal")}, "--rungs marginal marginal: each once"),
        ({"rungs": ("marginal", "self")}, "--rungs self: pseudo-labels are written by a network a source; name apart too"),
        ({"pseudo_threshold": 1.0}, "--pseudo-threshold 1.0: from 0 to below 1"),
        ({"band_mm": math.nan}, "--band-mm nan: 0 or more"),
        ({"ramp": math.inf}, "--ramp inf: 0 or more"),
        ({"band_mm": -1.0}, "--band-mm -1.0: 0 or more"),
        ({"soft_weight": -1.0}, "--soft-weight -1.0: 0 or more"),
        ({"mean_decay": 1.0}, "--mean-decay 1.0: from 0 to below 1"),
    ],
)  # fmt: skip
def test_flags_that_do_not_fit_fail_before_anything_is_trained(changed: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Chain("a", BASE, replace(Ladder(), **changed)).tasks()
