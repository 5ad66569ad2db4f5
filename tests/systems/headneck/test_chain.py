"""The networks of a run: which there are, and what each starts from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from medray.engine.train.checkpoint import renamed
from medray.systems.headneck import recipes
from medray.systems.headneck.chain import RUNGS, STAGES, Chain, SmallOrgans
from medray.systems.headneck.focus_task import FocusTask
from medray.systems.headneck.joint_task import JointTask

BASE = replace(recipes.phantom(), organs=("Brainstem", "Lens_L", "Lens_R"))
EVERY = ("unet", "weighted", "four", "no-ct", "large")


def test_small_organs_are_those_that_are_small_in_everyone_or_those_that_are_named() -> None:
    assert Chain("a", BASE, SmallOrgans()).small == ("Lens_L", "Lens_R")
    assert Chain("a", BASE, SmallOrgans(small=("Brainstem",))).small == ("Brainstem",)
    with pytest.raises(ValueError, match=r"--small Cochlea_L: the run learns Brainstem, Lens_L, Lens_R"):
        Chain("a", BASE, SmallOrgans(small=("Cochlea_L",))).tasks()


def test_without_a_small_organ_snet_is_all() -> None:
    chain = Chain("a", BASE, SmallOrgans(small=()))
    assert chain.tasks() == {"organs": {"snet": BASE}}
    assert chain.final == "snet"
    assert "--small names organs" in chain.left_out()[0]
    with pytest.raises(ValueError, match="--rungs no-ct: no organ is small here"):
        Chain("a", BASE, SmallOrgans(small=(), rungs=("no-ct",))).tasks()


def test_stages_come_in_the_sources_order_and_every_rung_is_scored_once() -> None:
    chain = Chain("a", BASE, SmallOrgans(rungs=EVERY))
    assert [*chain.tasks()] == [*STAGES]
    assert tuple(chain.scored()) == RUNGS
    assert Chain("a", BASE, SmallOrgans()).scored() == ["snet", "outlines", "joint"]


def test_a_run_starts_from_networks_of_earlier_stages_whose_weights_fit() -> None:
    chain = Chain("a", BASE, SmallOrgans(rungs=EVERY))
    tasks = chain.tasks()
    order = [*tasks]
    stage_of = {rung: stage for stage, own in tasks.items() for rung in own}
    every = {rung: task for own in tasks.values() for rung, task in own.items()}
    for rung, task in every.items():
        wanted = task.network().state_dict()
        for before, prefixes in chain.starts(rung):
            assert order.index(stage_of[before]) < order.index(stage_of[rung]), rung
            taken = renamed(every[before].network().state_dict(), prefixes, wanted)
            assert taken, (rung, before)
            assert all(value.shape == wanted[name].shape for name, value in taken.items())


def test_rungs_differ_in_what_they_are_named_for() -> None:
    tasks = {
        rung: task for own in Chain("a", BASE, SmallOrgans(rungs=EVERY)).tasks().values() for rung, task in own.items()
    }
    assert tasks["unet"] == replace(tasks["weighted"], foreground_weight=1.0)
    assert len(tasks["four"].widths) == len(BASE.widths) + 2
    outlines, bare, large = tasks["outlines"], tasks["no-ct"], tasks["large"]
    assert isinstance(outlines, FocusTask)
    assert isinstance(bare, FocusTask)
    assert isinstance(large, FocusTask)
    assert replace(bare, sees=outlines.sees) == outlines
    assert replace(large, small=outlines.small) == outlines
    assert large.small == BASE.organs
    joint = tasks["joint"]
    assert isinstance(joint, JointTask)
    assert joint.learning_rate == BASE.learning_rate / 10
    trained = [name for name, p in joint.network().named_parameters() if p.requires_grad]
    assert {name.split(".")[0] for name in trained} == {"focus", "coder"}
    assert len(trained) == len(list(joint.network().parameters()))  # all four parts


def test_a_chain_stands_on_snet() -> None:
    with pytest.raises(ValueError, match="--architecture unet: the method stands on snet"):
        Chain("a", replace(BASE, architecture="unet"), SmallOrgans()).tasks()


def test_memory_of_every_stage_is_told_without_a_gpu() -> None:
    every = [own.items() for own in Chain("a", BASE, SmallOrgans()).tasks().values()]
    told = {rung: task.training_gigabytes() for items in every for rung, task in items}
    assert told.pop("shapes") is None
    # what is frozen keeps nothing for a backward pass
    assert told["joint"] > told["snet"] > told["peaks"] > told["outlines"] > 0.001  # type: ignore[operator]


def test_a_heatmap_begins_at_nothing_whatever_the_features_are() -> None:
    (task,) = Chain("a", BASE, SmallOrgans()).tasks()["peaks"].values()
    network = task.network()
    assert torch.equal(network.maps(torch.rand(1, 1, 8, 16, 16) * 1e3)[2], torch.zeros(1, 2, 8, 16, 16))


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"small": ("Lens_L", "Lens_L")}, "--small Lens_L Lens_L: each once"),
        ({"rungs": ("unet", "unet")}, "--rungs unet unet: each once"),
        ({"gate": 2.0}, "--gate 2.0, --small-width 16: between 0 and 1"),
        ({"sigma_mm": (float("inf"), 1.0, 1.0)}, "--sigma-mm inf 1 1: lengths above 0"),
        ({"region_mm": (0.0, 0.0, 0.0)}, "--region-mm 0 0 0: lengths above 0"),
        ({"around_share": 3.0}, "--around-share 3.0: from 0 to 1"),
        ({"coder_rate": 0.0}, "--coder-rate 0.0: above 0"),
        ({"peaks_rate": -1.0}, "--peaks-rate -1.0: above 0"),
        ({"joint_epochs": 0}, "--joint-epochs 0: at least 1"),
        ({"code": 0}, "--code 0: at least 1"),
        ({"together": -1.0}, "--together -1.0: 0 or more"),
    ],
)
def test_a_field_of_a_later_stage_fails_before_the_first_one(changed: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Chain("a", BASE, SmallOrgans(**changed)).tasks()
