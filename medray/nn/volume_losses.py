"""Losses of segmentation in which unknown voxels do not count, over the batches of all workers together."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from medray.nn.volume_truth import Truth
from medray.tasks.task import At

Activation = Literal["sigmoid", "softmax"]
SMOOTH = 1e-5


def probabilities_of(logits: Tensor, activation: Activation) -> Tensor:
    """(batch, classes, D, H, W), without the background, which softmax's logits begin with."""
    return logits.sigmoid() if activation == "sigmoid" else logits.softmax(1)[:, 1:]


def dice_loss(
    logits: Tensor, truth: Truth, activation: Activation, at: At, whole_batch: bool = False, log: bool = False
) -> Tensor:
    """1 − (2Σpg + ε)/(Σp² + Σg² + ε), ε = 1e-5, of each sample and class (Milletari et al. 2016); their mean.

    A sample without a lesion has a loss of 1 whatever is found, and next to no gradient: cross-entropy or focal loss must
    carry it, or ``whole_batch``.

    Args:
        logits: (batch, outputs, D, H, W).
        whole_batch: sums over the samples of all workers before the fraction is taken, and classes that none of them shows leave
            the mean: their fraction is 1 but for a network that is sure of nothing at all, and so teaches it never to find them.
            Else classes of which nothing is known in a sample leave the mean.
        log: −log of the fraction, of the classes that a sample shows (Wong et al. 2018): near 1 it is as 1 − it, near 0 its pull
            does not vanish, so that a class which is found nowhere comes back.
    """
    p = probabilities_of(wide(logits), activation) * truth.known
    places = (2, 3, 4)
    both = (p * truth.members).sum(places)
    squares = (p * p).sum(places) + (truth.members * truth.members).sum(places)
    shown = truth.members * truth.known if log else truth.known
    there = (shown.sum(places) > 0).float().expand_as(both)
    if whole_batch:
        both, squares = _of_all(both.sum(0), at), _of_all(squares.sum(0), at)
        anywhere = (at.sum_over_workers((truth.members * truth.known).sum((0, 2, 3, 4))) > 0).float()
        each = of_fraction((2 * both + SMOOTH) / (squares + SMOOTH), log)
        return (each * anywhere).sum() / anywhere.sum().clamp(min=1)
    each = of_fraction((2 * both + SMOOTH) / (squares + SMOOTH), log)
    return at.mean((each * there).sum(), there.sum())


def of_fraction(dice: Tensor, log: bool) -> Tensor:
    """The loss of a Dice."""
    return -dice.log() if log else 1 - dice


def cross_entropy(logits: Tensor, truth: Truth, activation: Activation, at: At, weight: float = 1.0) -> Tensor:
    """Mean over the known voxels; with sigmoid over the classes too.

    Args:
        logits: (batch, outputs, D, H, W).
        weight: of voxels that are of a class. As in torch, softmax's mean is the weighted one.
    """
    logits, known = wide(logits), truth.known
    if activation == "sigmoid":
        factor = None if weight == 1 else torch.full((), weight, device=logits.device)
        each = functional.binary_cross_entropy_with_logits(
            logits, truth.members.to(logits.dtype), reduction="none", pos_weight=factor
        )
        return at.mean((each * known).sum(), known.expand_as(each).sum())
    numbers = truth.numbers()
    each = functional.cross_entropy(logits, numbers, reduction="none").unsqueeze(1)
    weights = known * (1 + (weight - 1) * (numbers != 0).unsqueeze(1).float())
    return at.mean((each * weights).sum(), weights.sum())


def focal_loss(logits: Tensor, truth: Truth, activation: Activation, at: At, gamma: float = 2.0) -> Tensor:
    """(1 − p)^γ · cross-entropy, p the probability of what is true (Lin et al. 2017), by the activation that is asked for.

    Args:
        logits: (batch, outputs, D, H, W).
    """
    logits, known = wide(logits), truth.known
    if activation == "sigmoid":
        g = truth.members.to(logits.dtype)
        each = functional.binary_cross_entropy_with_logits(logits, g, reduction="none")
        # log of (1 − p): by logits, as e^-each loses its digits where p is nearly 1
        missed = functional.logsigmoid(-(2 * g - 1) * logits)
        return at.mean((each * (gamma * missed).exp() * known).sum(), known.expand_as(each).sum())
    each = functional.cross_entropy(logits, truth.numbers(), reduction="none")
    missed = 1 - (-each).exp()
    return at.mean((each * missed.clamp(min=1e-12) ** gamma * known[:, 0]).sum(), known.sum())


def wide(logits: Tensor) -> Tensor:
    """In fp32 at least: sums over so many voxels want it."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _of_all(own: Tensor, at: At) -> Tensor:
    """The sum over all workers, with the gradient of one's own part, for gradients that are averaged over them."""
    return at.sum_over_workers(own) + at.workers * (own - own.detach())
