"""Losses of segmentation in which unknown voxels do not count, over the batches of all workers together."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from medray.tasks.task import At
from medray.tasks.volume_rows import UNKNOWN

Activation = Literal["sigmoid", "softmax"]
SMOOTH = 1e-5


def known_of(mask: Tensor) -> Tensor:
    """(batch, 1, D, H, W) float, 1 where a (batch, D, H, W) mask knows."""
    return (mask != UNKNOWN).unsqueeze(1).float()


def members_of(mask: Tensor, classes: int) -> Tensor:
    """(batch, D, H, W) mask → (batch, classes, D, H, W) float, 1 where a voxel is of the class; none of them where unknown."""
    return torch.stack([(mask == number) for number in range(1, classes + 1)], 1).float()


def probabilities_of(logits: Tensor, activation: Activation) -> Tensor:
    """(batch, classes, D, H, W), without the background, which softmax's logits begin with."""
    return logits.sigmoid() if activation == "sigmoid" else logits.softmax(1)[:, 1:]


def dice_loss(logits: Tensor, mask: Tensor, activation: Activation, at: At, whole_batch: bool = False) -> Tensor:
    """1 − (2Σpg + ε)/(Σp² + Σg² + ε), ε = 1e-5, of each sample and class (Milletari et al. 2016); their mean.

    A sample without a lesion has a loss of 1 whatever is found, and next to no gradient: cross-entropy or focal loss must
    carry it, or ``whole_batch``.

    Args:
        logits: (batch, outputs, D, H, W).
        mask: (batch, D, H, W) of class numbers.
        whole_batch: sums over the samples of all workers before the fraction is taken; else samples of which nothing is known
            leave the mean.
    """
    known = known_of(mask)
    p = probabilities_of(_wide(logits), activation) * known
    g = members_of(mask, p.shape[1])
    places = (2, 3, 4)
    both, squares = (p * g).sum(places), (p * p).sum(places) + (g * g).sum(places)
    there = (known.sum((1, 2, 3, 4)) > 0).float()
    if whole_batch:
        both, squares = _of_all(both.sum(0), at), _of_all(squares.sum(0), at)
        anything = (at.sum_over_workers(there.sum()) > 0).float()
        return (1 - (2 * both + SMOOTH) / (squares + SMOOTH)).mean() * anything
    each = (1 - (2 * both + SMOOTH) / (squares + SMOOTH)).mean(1)
    return _mean((each * there).sum(), there.sum(), at)


def cross_entropy(logits: Tensor, mask: Tensor, activation: Activation, at: At, weight: float = 1.0) -> Tensor:
    """Mean over the known voxels; with sigmoid over the classes too.

    Args:
        logits, mask: as ``dice_loss``'s.
        weight: of voxels that are of a class. As in torch, softmax's mean is the weighted one.
    """
    logits, known = _wide(logits), known_of(mask)
    if activation == "sigmoid":
        factor = None if weight == 1 else torch.full((), weight, device=logits.device)
        g = members_of(mask, logits.shape[1])
        each = functional.binary_cross_entropy_with_logits(logits, g, reduction="none", pos_weight=factor)
        return _mean((each * known).sum(), known.sum() * logits.shape[1], at)
    each = functional.cross_entropy(logits, _numbers(mask), reduction="none").unsqueeze(1)
    weights = known * (1 + (weight - 1) * (mask != 0).unsqueeze(1).float())
    return _mean((each * weights).sum(), weights.sum(), at)


def focal_loss(logits: Tensor, mask: Tensor, activation: Activation, at: At, gamma: float = 2.0) -> Tensor:
    """(1 − p)^γ · cross-entropy, p the probability of what is true (Lin et al. 2017), by the activation that is asked for.

    Args:
        logits, mask: as ``dice_loss``'s.
    """
    logits, known = _wide(logits), known_of(mask)
    if activation == "sigmoid":
        g = members_of(mask, logits.shape[1])
        each = functional.binary_cross_entropy_with_logits(logits, g, reduction="none")
        # log of (1 − p): by logits, as e^-each loses its digits where p is nearly 1
        missed = functional.logsigmoid(-(2 * g - 1) * logits)
        return _mean((each * (gamma * missed).exp() * known).sum(), known.sum() * logits.shape[1], at)
    each = functional.cross_entropy(logits, _numbers(mask), reduction="none")
    missed = 1 - (-each).exp()
    return _mean((each * missed.clamp(min=1e-12) ** gamma * known[:, 0]).sum(), known.sum(), at)


def _wide(logits: Tensor) -> Tensor:
    """In fp32 at least: sums over so many voxels want it."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _numbers(mask: Tensor) -> Tensor:
    """Class numbers; background where unknown, which is left out elsewhere."""
    return torch.where(mask == UNKNOWN, torch.zeros_like(mask), mask).long()


def _mean(total: Tensor, count: Tensor, at: At) -> Tensor:
    """The mean over all workers, for gradients that are averaged over them; 0 where nothing is counted."""
    return total * at.workers / at.sum_over_workers(count).clamp(min=1e-12)


def _of_all(own: Tensor, at: At) -> Tensor:
    """The sum over all workers, with the gradient of one's own part, for gradients that are averaged over them."""
    return at.sum_over_workers(own) + at.workers * (own - own.detach())
