"""Losses of segmentation: equal to MONAI's and torch's where they define the same, blind to what is unknown."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from two_workers import of_two_workers

from medray.nn.volume_losses import cross_entropy, dice_loss, focal_loss, probabilities_of
from medray.nn.volume_truth import Truth
from medray.tasks.task import At
from medray.tasks.volume_rows import UNKNOWN

AT = At()


def batch(classes: int, activation: str, samples: int = 3) -> tuple[Tensor, Tensor]:
    made = torch.Generator().manual_seed(0)
    outputs = classes + (activation == "softmax")
    logits = torch.randn(samples, outputs, 6, 7, 8, generator=made, dtype=torch.float32, requires_grad=True)
    return logits, torch.randint(0, classes + 1, (samples, 6, 7, 8), generator=made, dtype=torch.uint8)


def drawn(mask: Tensor, classes: int = 2) -> Truth:
    return Truth.of_numbers(mask, classes)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("whole_batch", [False, True])
@pytest.mark.parametrize("classes", [1, 3])
def test_dice_is_monais(activation: str, whole_batch: bool, classes: int) -> None:
    """To the last digits of fp64."""
    from monai.losses import DiceLoss

    logits, mask = batch(classes, activation)
    logits = logits.detach().double().requires_grad_()
    mask[0] = 0  # a crop without lesion
    monai = DiceLoss(squared_pred=True, smooth_nr=1e-5, smooth_dr=1e-5, batch=whole_batch)
    probabilities = probabilities_of(logits, activation)  # type: ignore[arg-type]
    expected = monai(probabilities, Truth.of_numbers(mask, classes).members.double())
    found = dice_loss(logits, drawn(mask, classes), activation, AT, whole_batch)  # type: ignore[arg-type]
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-14)
    gradients = [torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-16)


def test_a_class_that_no_crop_of_the_batch_shows_is_not_unlearned() -> None:
    """Else its loss falls from 1 to 0 as its probabilities vanish below 1e-5, and a rare organ's channel dies."""
    logits, mask = batch(2, "sigmoid", samples=2)
    mask[mask == 2] = 0
    sure_of_nothing = torch.cat([logits.detach()[:, :1], torch.full_like(logits[:, 1:], -5.5)], 1).requires_grad_()
    (gradient,) = torch.autograd.grad(dice_loss(sure_of_nothing, drawn(mask), "sigmoid", AT, True), sure_of_nothing)
    assert gradient[:, 0].abs().max() > 1e-6
    assert gradient[:, 1].abs().max() == 0


@pytest.mark.parametrize("whole_batch", [False, True])
def test_the_logarithm_of_dice_is_as_dice_where_it_is_good_and_pulls_where_nothing_is_found(whole_batch: bool) -> None:
    mask = torch.zeros(2, 6, 7, 8, dtype=torch.uint8)
    mask[0, 1:4, 2:5, 2:5] = 1  # the second crop shows nothing, and counts nowhere unless the batch is taken as one

    def of(logit: float, log: bool) -> tuple[float, Tensor]:
        logits = torch.where(mask == 1, logit, -12.0)[:, None].clone().requires_grad_()
        loss = dice_loss(logits, drawn(mask, 1), "sigmoid", AT, whole_batch, log)
        return float(loss.detach()), torch.autograd.grad(loss, logits)[0][0, 0][mask[0] == 1].mean()

    plain, log = of(6.0, False), of(6.0, True)
    assert log[0] == pytest.approx(-math.log(1 - (1 if whole_batch else 2) * plain[0]), abs=2e-3)
    lost, found = of(-9.0, False), of(-9.0, True)
    assert abs(float(lost[1])) < 1e-4
    assert float(found[1]) == pytest.approx(-1 / 27, rel=0.1)  # of each of its voxels an equal part


def test_a_crop_without_lesion_teaches_dice_nothing_unless_the_batch_is_taken_as_one() -> None:
    logits, mask = batch(1, "sigmoid", samples=2)
    mask[0] = 0
    for whole_batch, teaches in ((False, False), (True, True)):
        (gradient,) = torch.autograd.grad(dice_loss(logits, drawn(mask, 1), "sigmoid", AT, whole_batch), logits)
        assert bool(gradient[0].abs().max() > 1e-6) == teaches
        assert gradient[1].abs().max() > 1e-6
    (gradient,) = torch.autograd.grad(cross_entropy(logits, drawn(mask, 1), "sigmoid", AT), logits)
    assert gradient[0].abs().max() > 1e-6


def test_cross_entropy_is_torchs() -> None:
    logits, mask = batch(3, "softmax")
    weights = torch.tensor([1.0, 4.0, 4.0, 4.0])
    found = cross_entropy(logits, drawn(mask, 3), "softmax", AT, weight=4.0)
    assert float(found) == pytest.approx(float(functional.cross_entropy(logits, mask.long(), weight=weights)), rel=1e-6)
    logits, mask = batch(2, "sigmoid")
    expected = functional.binary_cross_entropy_with_logits(
        logits, Truth.of_numbers(mask, 2).members, pos_weight=torch.full((2, 1, 1, 1), 4.0)
    )
    assert float(cross_entropy(logits, drawn(mask), "sigmoid", AT, weight=4.0)) == pytest.approx(
        float(expected), rel=1e-6
    )


def test_focal_is_of_the_activation_that_is_asked_for() -> None:
    from monai.losses import FocalLoss

    logits, mask = batch(2, "sigmoid")
    expected = FocalLoss(gamma=2.0)(logits, Truth.of_numbers(mask, 2).members)
    assert float(focal_loss(logits, drawn(mask), "sigmoid", AT)) == pytest.approx(float(expected), rel=1e-6)
    logits, mask = batch(2, "softmax")
    p = logits.softmax(1).gather(1, mask[:, None].long())
    by_hand = (-((1 - p) ** 2) * p.log()).mean()
    assert float(focal_loss(logits, drawn(mask), "softmax", AT)) == pytest.approx(float(by_hand), rel=1e-5)
    monai = FocalLoss(gamma=2.0, use_softmax=True, to_onehot_y=True)(logits, mask[:, None])
    assert float(focal_loss(logits, drawn(mask), "softmax", AT)) == pytest.approx(
        3 * float(monai), rel=1e-5
    )  # mean over classes
    for activation in ("sigmoid", "softmax"):
        logits, mask = batch(2, activation)
        plain = cross_entropy(logits, drawn(mask), activation, AT)  # type: ignore[arg-type]
        assert float(focal_loss(logits, drawn(mask), activation, AT, gamma=0.0)) == pytest.approx(
            float(plain), rel=1e-6
        )  # type: ignore[arg-type]


LOSSES: list[Callable[..., Tensor]] = [
    dice_loss,
    functools.partial(dice_loss, whole_batch=True),
    functools.partial(cross_entropy, weight=3.0),
    focal_loss,
]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_unknown_voxels_are_out_of_every_loss(activation: str, loss: Callable[..., Tensor]) -> None:
    logits, mask = batch(2, activation)
    mask[:, :, :3] = UNKNOWN
    found, expected = (
        loss(logits, drawn(mask), activation, AT),
        loss(logits[:, :, :, 3:], drawn(mask[:, :, 3:]), activation, AT),
    )
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    (gradient,) = torch.autograd.grad(found, logits)
    assert not gradient[:, :, :, :3].any()
    assert gradient.any()
    nothing = loss(logits, drawn(torch.full_like(mask, UNKNOWN)), activation, AT)
    (gradient,) = torch.autograd.grad(nothing, logits)
    assert float(nothing.detach()) == 0
    assert not gradient.any()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_two_workers_have_the_loss_and_gradient_of_one(activation: str, loss: Callable[..., Tensor]) -> None:
    """Of parts with unequal numbers of known voxels: the denominators are those of both."""
    logits, mask = batch(2, activation, samples=4)
    mask[0, :, :, 2:] = UNKNOWN
    mask[3] = UNKNOWN
    expected = loss(logits, drawn(mask), activation, AT)
    (gradient,) = torch.autograd.grad(expected, logits)
    value, (of_two,) = of_two_workers(
        lambda part, at: loss(logits[part], drawn(mask[part]), activation, at), [logits], (slice(0, 1), slice(1, 4))
    )
    assert value == pytest.approx(float(expected.detach()), rel=1e-5)
    torch.testing.assert_close(of_two, gradient, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_class_that_nobody_has_drawn_in_a_sample_teaches_nothing_of_itself_there(loss: Callable[..., Tensor]) -> None:
    """Hidden in one sample: the loss and gradients are as if the other samples alone had it, and its voxels do not matter."""
    logits, mask = batch(2, "sigmoid")
    sets = torch.zeros(3, 256, dtype=torch.int64)
    sets[:, 1], sets[:, 2], sets[:, 3] = 0b01, 0b10, 0b11  # a voxel of both
    mask[0, 0] = 3
    all_known = torch.ones(3, 2)
    full = Truth.of_sets(mask, sets, all_known)
    assert full.members[0, :, 0].all()
    hidden = all_known.clone()
    hidden[1, 0] = 0
    found = loss(logits, Truth.of_sets(mask, sets, hidden), "sigmoid", AT)
    (gradient,) = torch.autograd.grad(found, logits)
    assert not gradient[1, 0].any()
    assert gradient[1, 1].any()
    assert gradient[0, 0].any()
    other = sets.clone()
    other[1, 1], other[1, 3] = 0, 0b10  # class 1 is nowhere in the sample, as far as its numbers tell
    assert float(loss(logits, Truth.of_sets(mask, other, hidden), "sigmoid", AT)) == float(found)
    assert float(loss(logits, full, "sigmoid", AT).detach()) != pytest.approx(float(found.detach()))
    alone = torch.zeros(3, 2)
    nothing = loss(logits, Truth.of_sets(mask, sets, alone), "sigmoid", AT)
    assert float(nothing.detach()) == 0


def test_sets_of_one_class_each_are_numbers() -> None:
    _, mask = batch(3, "sigmoid")
    mask[1, :2] = UNKNOWN
    sets = torch.zeros(3, 256, dtype=torch.int64)
    sets[:, 1], sets[:, 2], sets[:, 3] = 1, 2, 4
    one, other = Truth.of_sets(mask, sets, torch.ones(3, 3)), drawn(mask, 3)
    assert torch.equal(one.members, other.members)
    assert torch.equal(one.known, other.known.expand(-1, 3, -1, -1, -1))
    assert torch.equal(other.numbers(), torch.where(mask == UNKNOWN, 0, mask).long())
    with pytest.raises(ValueError, match="want --activation sigmoid"):
        one.numbers()
