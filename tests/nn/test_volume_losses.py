"""Losses of segmentation: equal to MONAI's and torch's where they define the same, blind to what is unknown."""

from __future__ import annotations

import functools
from collections.abc import Callable
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from medray.nn.volume_losses import cross_entropy, dice_loss, focal_loss, members_of, probabilities_of
from medray.tasks.task import At
from medray.tasks.volume_rows import UNKNOWN

AT = At()


def batch(classes: int, activation: str, samples: int = 3) -> tuple[Tensor, Tensor]:
    made = torch.Generator().manual_seed(0)
    outputs = classes + (activation == "softmax")
    logits = torch.randn(samples, outputs, 6, 7, 8, generator=made, dtype=torch.float32, requires_grad=True)
    return logits, torch.randint(0, classes + 1, (samples, 6, 7, 8), generator=made, dtype=torch.uint8)


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
    expected = monai(probabilities, members_of(mask, classes).double())
    found = dice_loss(logits, mask, activation, AT, whole_batch)  # type: ignore[arg-type]
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-14)
    gradients = [torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-16)


def test_a_crop_without_lesion_teaches_dice_nothing_unless_the_batch_is_taken_as_one() -> None:
    logits, mask = batch(1, "sigmoid", samples=2)
    mask[0] = 0
    for whole_batch, teaches in ((False, False), (True, True)):
        (gradient,) = torch.autograd.grad(dice_loss(logits, mask, "sigmoid", AT, whole_batch), logits)
        assert bool(gradient[0].abs().max() > 1e-6) == teaches
        assert gradient[1].abs().max() > 1e-6
    (gradient,) = torch.autograd.grad(cross_entropy(logits, mask, "sigmoid", AT), logits)
    assert gradient[0].abs().max() > 1e-6


def test_cross_entropy_is_torchs() -> None:
    logits, mask = batch(3, "softmax")
    weights = torch.tensor([1.0, 4.0, 4.0, 4.0])
    found = cross_entropy(logits, mask, "softmax", AT, weight=4.0)
    assert float(found) == pytest.approx(float(functional.cross_entropy(logits, mask.long(), weight=weights)), rel=1e-6)
    logits, mask = batch(2, "sigmoid")
    expected = functional.binary_cross_entropy_with_logits(
        logits, members_of(mask, 2), pos_weight=torch.full((2, 1, 1, 1), 4.0)
    )
    assert float(cross_entropy(logits, mask, "sigmoid", AT, weight=4.0)) == pytest.approx(float(expected), rel=1e-6)


def test_focal_is_of_the_activation_that_is_asked_for() -> None:
    from monai.losses import FocalLoss

    logits, mask = batch(2, "sigmoid")
    expected = FocalLoss(gamma=2.0)(logits, members_of(mask, 2))
    assert float(focal_loss(logits, mask, "sigmoid", AT)) == pytest.approx(float(expected), rel=1e-6)
    logits, mask = batch(2, "softmax")
    p = logits.softmax(1).gather(1, mask[:, None].long())
    by_hand = (-((1 - p) ** 2) * p.log()).mean()
    assert float(focal_loss(logits, mask, "softmax", AT)) == pytest.approx(float(by_hand), rel=1e-5)
    monai = FocalLoss(gamma=2.0, use_softmax=True, to_onehot_y=True)(logits, mask[:, None])
    assert float(focal_loss(logits, mask, "softmax", AT)) == pytest.approx(
        3 * float(monai), rel=1e-5
    )  # mean over classes
    for activation in ("sigmoid", "softmax"):
        logits, mask = batch(2, activation)
        plain = cross_entropy(logits, mask, activation, AT)  # type: ignore[arg-type]
        assert float(focal_loss(logits, mask, activation, AT, gamma=0.0)) == pytest.approx(float(plain), rel=1e-6)  # type: ignore[arg-type]


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
    found, expected = loss(logits, mask, activation, AT), loss(logits[:, :, :, 3:], mask[:, :, 3:], activation, AT)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    (gradient,) = torch.autograd.grad(found, logits)
    assert not gradient[:, :, :, :3].any()
    assert gradient.any()
    nothing = loss(logits, torch.full_like(mask, UNKNOWN), activation, AT)
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
    expected = loss(logits, mask, activation, AT)
    (gradient,) = torch.autograd.grad(expected, logits)
    parts = (slice(0, 1), slice(1, 4))
    given: list[list[Tensor]] = []
    for part in parts:  # what each worker puts into the sums, in order
        own: list[Tensor] = []
        with mock.patch.object(At, "sum_over_workers", lambda _, v, own=own: own.append(v.detach()) or v.detach()):
            loss(logits[part], mask[part], activation, At(workers=2))
        given.append(own)
    sums = [a + b for a, b in zip(*given, strict=True)]
    values, gradients = [], []
    for part in parts:
        answers = iter(sums)
        with mock.patch.object(At, "sum_over_workers", lambda _, v, answers=answers: next(answers).clone()):
            mine = loss(logits[part], mask[part], activation, At(workers=2))
        values.append(float(mine.detach()))
        gradients.append(torch.autograd.grad(mine, logits)[0])
    assert sum(values) / 2 == pytest.approx(float(expected.detach()), rel=1e-5)
    torch.testing.assert_close((gradients[0] + gradients[1]) / 2, gradient, rtol=1e-4, atol=1e-8)
