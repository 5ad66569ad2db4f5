from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from medray.nn.losses import masked_binary_cross_entropy


def test_positive_weight_is_torchs_over_the_known_labels() -> None:
    logits = torch.tensor([[0.3, -1.0], [2.0, 0.5], [-0.7, 0.1]])
    labels = torch.tensor([[1.0, 0.0], [float("nan"), 1.0], [0.0, 0.0]])
    known = ~torch.isnan(labels)
    for weight in (1.0, 4.0):
        expected = functional.binary_cross_entropy_with_logits(
            logits[known], labels[known], pos_weight=torch.tensor(weight)
        )
        found = masked_binary_cross_entropy(logits, labels, (1.0, 1.0), positive_weight=weight)
        assert float(found) == pytest.approx(float(expected), rel=1e-6)
