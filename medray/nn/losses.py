"""Losses in which a missing label does not count."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def masked_binary_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    class_weights: Sequence[float],
    label_smoothing: float = 0.0,
    positive_weight: float = 1.0,
) -> Tensor:
    """Weighted mean of binary cross-entropies, the challenge's weighted log loss for weights 1 1 1 1 1 2.

    Args:
        logits: (batch, classes).
        labels: (batch, classes) 0, 1 or NaN; a NaN leaves the mean with its weight.
        class_weights: of each column, positives and negatives alike, so that probabilities stay calibrated.
        label_smoothing: e makes 0 into e/2 and 1 into 1 - e/2.
        positive_weight: factor of the positives' part; other than 1 the probabilities are no longer calibrated.
    Returns:
        Scalar in float32; 0, with a gradient of 0, where no label is known.
    """
    logits = logits.float()
    known = ~torch.isnan(labels)
    targets = torch.where(known, labels.float(), torch.zeros_like(logits))
    targets = targets * (1 - label_smoothing) + label_smoothing / 2
    weights = _constants(tuple(class_weights), logits.device) * known
    factor = None if positive_weight == 1 else _constants((positive_weight,), logits.device)
    losses = functional.binary_cross_entropy_with_logits(
        logits, targets, weight=weights, reduction="sum", pos_weight=factor
    )
    return losses / weights.sum().clamp(min=1e-12)


@functools.lru_cache(maxsize=64)
def _constants(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Copied to the device once: in each step it would be waited for."""
    with torch.inference_mode(False):  # else no gradient could pass by them later
        return torch.tensor(values, dtype=torch.float32, device=device)
