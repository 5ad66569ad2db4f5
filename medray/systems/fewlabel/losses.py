"""Losses on voxels that may be of several classes: marginal and exclusion loss (Shi et al., Medical Image Analysis 2021), and the
soft labels of another network (Huang et al., MICCAI 2020). With one class a voxel they are the plain ones.

Classes exclude each other: softmax. Sums go over the batches of all workers together.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from medray.nn.volume_losses import SMOOTH, of_fraction, wide
from medray.systems.fewlabel.possible import Possible
from medray.tasks.task import At


def marginal_log(logits: Tensor, possible: Possible) -> Tensor:
    """(batch, D, H, W): the logarithm of the probability that a voxel is one of the classes that it may be; 0 where it may be
    anything. Probabilities are summed, not their logarithms.

    Args:
        logits: (batch, classes, D, H, W).
    """
    own = logits.masked_fill(~possible.allowed, -torch.inf)
    return own.logsumexp(1) - logits.logsumexp(1)


def cross_entropy(logits: Tensor, possible: Possible, at: At) -> Tensor:
    """Mean of −``marginal_log`` over the voxels of which something is known."""
    known = possible.known
    return at.mean(-(marginal_log(wide(logits), possible) * known).sum(), known.sum())


def focal(logits: Tensor, possible: Possible, at: At, gamma: float = 2.0) -> Tensor:
    """Mean of −(1 − q)^γ log q, q the probability of what a voxel may be (Lin et al. 2017)."""
    known = possible.known
    log = marginal_log(wide(logits), possible)
    missed = (1 - log.exp()).clamp(min=1e-12)
    return at.mean(-(missed**gamma * log * known).sum(), known.sum())


def dice(logits: Tensor, possible: Possible, at: At, log: bool = False) -> Tensor:
    """Mean of 1 − (2Σpg + ε)/(Σp² + Σg² + ε) over the labelled organs, and groups of them, that a crop shows.

    p is the probability of the organ, or of any of the group. An organ that a crop does not show would add a constant 1.

    Args:
        logits: (batch, classes, D, H, W). log: −log of the fraction, whose pull does not vanish (``volume_losses.dice_loss``).
    """
    p = wide(logits).softmax(1) * possible.known.unsqueeze(1)
    organs = possible.table & ~possible.table[..., :1]  # numbers that may be background are no organ
    together = torch.einsum("bnc,bcdhw->bndhw", organs.to(p.dtype), p)
    numbers = torch.arange(possible.table.shape[1], device=p.device)[None, :, None, None, None]
    drawn = ((possible.numbers.unsqueeze(1) == numbers) & organs.any(-1)[..., None, None, None]).to(p.dtype)
    places = (2, 3, 4)
    both, of_drawn = (together * drawn).sum(places), drawn.sum(places)
    each = of_fraction((2 * both + SMOOTH) / ((together * together).sum(places) + of_drawn + SMOOTH), log)
    there = (of_drawn > 0).to(p.dtype)
    return at.mean((each * there).sum(), there.sum())


def exclusion(logits: Tensor, possible: Possible, at: At) -> Tensor:
    """How far organs that a source has not labelled lie over those that it has: overlap by Dice, and the mean of log(1 + p), over
    the unlabelled organs of each crop that shows a labelled one. 0 where all organs are labelled.

    Args:
        logits: (batch, classes, D, H, W).
    """
    p = wide(logits).softmax(1)
    organ = (possible.numbers >= 0) & ~possible.allowed[:, 0]
    barred = ((~possible.allowed & organ.unsqueeze(1)) & possible.unlabelled[..., None, None, None]).to(p.dtype)
    places = (2, 3, 4)
    size = barred.sum(places)
    overlap = (2 * (p * barred).sum(places) + SMOOTH) / ((p * p).sum(places) + size + SMOOTH)
    entropy = (p.log1p() * barred).sum(places) / size.clamp(min=1)
    there = (size > 0).to(p.dtype)
    return at.mean(((overlap + entropy) * there).sum(), there.sum())


def soft_labels(logits: Tensor, possible: Possible) -> Tensor:
    """Probabilities (batch, classes, D, H, W) of another network, without what a voxel cannot be: true labels win."""
    p = wide(logits).softmax(1) * possible.teachable
    return p / p.sum(1, keepdim=True).clamp(min=1e-6)


def soft(logits: Tensor, labels: Tensor, possible: Possible, at: At) -> Tensor:
    """−(1/Στ) Σ τ Σ_c labels_c log p_c, τ over the batches of all workers; 0 where no voxel is taught.

    Args:
        logits, labels: (batch, classes, D, H, W); no gradient goes through the labels.
    """
    taught = possible.taught.to(labels.dtype)
    each = (labels.detach() * functional.log_softmax(wide(logits), 1)).sum(1)
    return at.mean(-(each * taught).sum(), taught.sum())
