"""The ladder's networks: what each learns from, and how two of them teach each other."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from few_scans import ORGANS, SOURCES, few_row
from torch.nn import functional
from two_workers import of_two_workers

from medray.engine.train.device import to_device
from medray.engine.train.step import Trainer
from medray.nn.volume_losses import dice_loss
from medray.nn.volume_truth import Truth
from medray.systems.fewlabel import losses, recipes
from medray.systems.fewlabel.chain import RUNGS, Chain, Ladder
from medray.systems.fewlabel.methods import ApartTask, ConditionalTask, CoTrainingTask
from medray.systems.fewlabel.possible import UNTRUE
from medray.systems.fewlabel.scores import Chosen, chosen, of_answer
from medray.systems.fewlabel.task import FewLabelTask
from medray.tasks.task import At

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
BASE = replace(
    recipes.small(), organs=ORGANS, patch_DHW=(12, 12, 12), batch_size=4, width=4, levels=3, epochs=2,
    drawn_by=tuple(f"{source}:{organ}" for source, own in SOURCES.items() for organ in own),
)  # fmt: skip
ROWS = [few_row(number) for number in range(4)]


def batch(task: FewLabelTask, rows: list[dict[str, Any]] = ROWS) -> dict[str, Any]:
    made = task.collate([task.train_example(row, np.random.default_rng((0, 0, i))) for i, row in enumerate(rows)])
    return to_device(made, CPU, task.host)


def test_an_epoch_has_as_many_crops_of_each_source_however_many_cases_it_has() -> None:
    index = pd.DataFrame({"origin": ["a"] * 9 + ["b"] * 3, "patient_id": range(12)})
    times = BASE.times_per_epoch(index)
    assert times[:9].sum() == pytest.approx(times[9:].sum())
    assert times.sum() == pytest.approx(100 * 4 / 2)  # steps · batch, two crops a reading


def test_a_network_a_source_learns_from_its_own_crops_alone_and_knows_no_other_organ() -> None:
    task = recipes.method(ApartTask, BASE)
    network = task.network()
    task.losses(network, batch(task, [ROWS[0], ROWS[2]]), At())["loss"].backward()
    first, second = network.networks
    assert all(p.grad is not None for p in first.parameters())
    assert all(p.grad is None for p in second.parameters())
    voxels = torch.zeros(2, 1, 12, 12, 12)
    p = network.eval()(voxels, [0, 1]).softmax(1)
    assert float(p[0, 2:].max()) == 0
    assert float(p[1, 1].max()) == 0
    assert float(p[0, 1].min()) > 0


def test_a_network_whose_source_has_nothing_to_learn_from_answers_nothing() -> None:
    """Its only case is held out: what it says is noise, and would become a pseudo-label."""
    index = pd.DataFrame({"origin": ["one", "one"], "organs_ml": [[3.0, None, None]] * 2})
    task = recipes.method(ApartTask, replace(BASE, keep="uint8")).learning_from(index)
    assert task.taught == ("one",)
    network = task.network().eval()
    with torch.no_grad():
        for own in network.networks:  # sure of everything
            list(own.parameters())[-1].add_(9.0)
    voxels = torch.zeros(1, 1, 12, 12, 12)
    with torch.inference_mode():
        found = task.answered(network, voxels, {})
    assert float(found[:, 0].min()) > 0
    assert float(found[:, 1:].max()) == 0


def test_the_conditional_network_answers_for_the_organ_that_it_is_asked() -> None:
    task = recipes.method(ConditionalTask, BASE)
    asked = batch(task)["asked"].tolist()
    assert all(ORGANS[k - 1] in SOURCES[row["origin"]] for k, row in zip(asked, ROWS, strict=True))
    network = task.network().eval()
    voxels = torch.randn(1, 1, 12, 12, 12)
    each = [network(voxels, torch.tensor([k])) for k in range(3)]
    assert not torch.allclose(each[0], each[1])
    with torch.inference_mode():
        outputs = task.outputs(network, to_device(task.collate([task.example(ROWS[0])]), CPU, task.host))
    assert np.isfinite(outputs["dice_Liver"]).all()


def test_two_workers_train_both_networks_as_one_does() -> None:
    """Of four crops one worker has three; of those of the other nobody is taught anything softly."""
    task = recipes.method(CoTrainingTask, BASE)
    torch.manual_seed(0)
    network, whole = task.network(), batch(task)
    with torch.no_grad():  # means that say something else than their networks
        for p in network.means.parameters():
            p.mul_(1.1)
    whole["mask"][1:, :6] |= UNTRUE
    inputs = [p for p in network.parameters() if p.requires_grad]
    halfway = At(step=10, steps=20)

    def of(part: slice, at: At) -> torch.Tensor:
        own = {name: values[part] for name, values in whole.items()}
        return task.losses(network, own, replace(halfway, workers=at.workers))["loss"]

    expected = of(slice(0, 4), At())
    gradients = torch.autograd.grad(expected, inputs)
    value, of_two = of_two_workers(of, inputs, (slice(0, 1), slice(1, 4)))
    assert value == pytest.approx(float(expected.detach()), rel=1e-5)
    for one, two in zip(gradients, of_two, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("rung", [rung for rung in RUNGS if rung not in ("apart", "conditional")])
def test_with_all_organs_labelled_the_loss_of_a_recipe_is_the_plain_one(rung: str) -> None:
    """Of both networks in co-training, where no voxel is left to teach each other on. Apart and conditional have no such case: one
    knows no other organ, the other answers for one organ at a time, by a sigmoid."""
    base = replace(BASE, dice_log=False)
    every = {name: task for own in Chain("x", base, Ladder(rungs=RUNGS)).tasks().values() for name, task in own.items()}
    task = every[rung]  # type: ignore[index]
    torch.manual_seed(0)
    network, whole = task.network().eval(), batch(task)
    mask = torch.randint(0, len(ORGANS) + 1, whole["mask"].shape, dtype=torch.uint8)
    whole["mask"], whole["sets"] = mask, torch.tensor([[1 << c for c in range(whole["sets"].shape[1])]] * len(mask))
    found = task.losses(network, whole, At(step=1, steps=2))
    networks = [*network.networks.values()] if rung == "cotraining" else [network]
    plain = torch.zeros(())
    for one in networks:
        logits = one(whole["voxels"])
        logits = logits if logits.shape[2:] == mask.shape[1:] else task.patch_of(logits)
        entropy = functional.cross_entropy(logits, mask.long())
        dice = dice_loss(logits, Truth.of_numbers(mask, len(ORGANS)), "softmax", At())
        plain = plain + task.cross_entropy_weight * entropy + task.dice_weight * dice
    assert float(found["loss"].detach()) == pytest.approx(float(plain.detach()), rel=1e-5)
    if rung == "cotraining":
        assert float(found["soft"].detach()) == 0


def test_means_follow_their_networks_in_closed_form_and_gather_no_gradient() -> None:
    task = recipes.method(CoTrainingTask, BASE, mean_decay=0.5)
    torch.manual_seed(0)
    network = task.network()
    begun = [p.detach().clone() for p in network.means.parameters()]
    assert not torch.equal(next(network.networks["first"].parameters()), next(network.networks["second"].parameters()))
    with torch.no_grad():
        for p in network.networks.parameters():
            p.add_(1.0)
    for step in range(3):
        task.after_step(network, At(step=step))
    for p, mean in zip(network.networks.parameters(), network.means.parameters(), strict=True):
        assert torch.allclose(mean, p)  # the first step copies: the mean of equal values is that value
    with torch.no_grad():
        for p in network.networks.parameters():
            p.add_(2.0)
    parts = [min(0.5, (1 + step) / (10 + step)) for step in (3, 4, 5)]
    for step in (3, 4, 5):
        task.after_step(network, At(step=step))
    for was, mean in zip(begun, network.means.parameters(), strict=True):
        assert torch.allclose(mean, was + 3 - 2 * math.prod(parts), atol=1e-5)
    task.losses(network, batch(task), At())["loss"].backward()
    assert all(p.grad is None and not p.requires_grad for p in network.means.parameters())
    network.train()
    assert not any(module.training for module in network.means.modules())


def test_each_network_is_taught_by_the_mean_of_the_other_where_no_true_label_tells() -> None:
    task = recipes.method(CoTrainingTask, BASE, soft_weight=1.0)
    network, told = task.network(), batch(task)
    assert float(task.losses(network, told, At(step=5, steps=10))["soft"]) == 0  # τ is empty: only merged rows have one
    told["mask"] = torch.where(told["mask"] == 0, UNTRUE, told["mask"]).to(torch.uint8)
    found = task.losses(network, told, At(step=5, steps=10))
    possible = task.possible(told)
    own, means = network(told["voxels"])
    by_hand = sum(losses.soft(own[k], losses.soft_labels(means[1 - k], possible), possible, At()) for k in (0, 1))
    assert float(found["soft"]) == pytest.approx(float(by_hand), rel=1e-6)
    plain = task.losses(network, told, At(step=0, steps=10))
    assert float(found["loss"] - plain["loss"]) == pytest.approx(float(task.ramped(0.5) * by_hand), rel=1e-4)
    assert [round(task.ramped(p), 3) for p in (0.0, 0.1, 1.0)] == [0.0, 0.462, 1.0]


def test_the_means_are_in_the_state_and_a_step_moves_them() -> None:
    task = recipes.method(CoTrainingTask, BASE)
    torch.manual_seed(0)
    trainer = Trainer(task, task.network(), CPU)
    trainer.train()
    for step in range(2):
        trainer.step(batch(task), 0, step, 4)
    kept = trainer.state()
    assert any(name.startswith("means.first.") for name in kept["network"])
    again = Trainer(task, task.network(), CPU)
    again.load(kept)
    again.train()
    for one in (trainer, again):
        one.step(batch(task), 0, 2, 4)
    for name, value in trainer.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name]), name


def test_the_better_mean_on_inner_scans_answers() -> None:
    organs, origins = ("Liver", "Spleen"), {"a": "both", "b": "liver"}
    labelled = {"both": ("Liver", "Spleen"), "liver": ("Liver",)}
    inner = pd.DataFrame({
        "scan_id": ["a", "b"], "dice_Liver": [0.9, 0.7], "dice_Spleen": [0.5, 0.9],
        "second_dice_Liver": [0.8, 0.8], "second_dice_Spleen": [0.7, 0.0],  # of the other source's scan for scores alone
    })  # fmt: skip
    assert chosen(inner, organs, origins, labelled) == Chosen("second", 2, organs)
    assert chosen(inner.assign(second_dice_Spleen=0.4), organs, origins, labelled).answer == "first"
    assert chosen(None, organs, origins, labelled) == Chosen("first")
    assert of_answer(inner, "second")["dice_Spleen"].iloc[0] == 0.7
    assert [*of_answer(inner, "first")] == ["scan_id", "dice_Liver", "dice_Spleen"]


def test_all_scores_are_of_the_mean_that_answers() -> None:
    task = recipes.method(CoTrainingTask, BASE)
    torch.manual_seed(0)
    network = task.network().eval()
    with torch.inference_mode():
        made = to_device(task.collate([task.example(ROWS[0])]), CPU, task.host)
        outputs, other = (replace(task, answer=answer).outputs(network, made) for answer in ("first", "second"))
    answered = of_answer(pd.DataFrame({name: list(values) for name, values in outputs.items()}), "second")
    told = [name for name in other if name.endswith("_Pancreas")]
    assert {"dice_Pancreas", "hd95_mm_Pancreas", "ml_Pancreas"} <= {*told}
    for name in told:
        np.testing.assert_equal(answered[name].iloc[0], other[name][0])


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"flip_axes": ("W",), "organs": ("Kidney_L",)}, "--flip-axes W: a flip makes Kidney_L its other side's"),
        ({"exclusion_weight": -1.0}, "--exclusion-weight -1.0: 0 or more"),
        ({"dice_of_batch": True}, "not of this system"),
        ({"window_hu": (5.0, 5.0)}, "--window-hu 5 5: the lower end first"),
    ],
)
def test_fields_that_cannot_be(changed: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        replace(recipes.small(), **changed)
