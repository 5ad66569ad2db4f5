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


def test_the_weights_of_the_known_classes_make_the_mean() -> None:
    nan = float("nan")
    logits = torch.tensor([[0.3, -1.0, 0.4], [2.0, 0.5, -0.2]], requires_grad=True)
    labels = torch.tensor([[nan, nan, 1.0], [0.0, nan, 0.0]])
    single = functional.binary_cross_entropy_with_logits(logits, torch.nan_to_num(labels), reduction="none")
    expected = (2 * single[0, 2] + single[1, 0] + 2 * single[1, 2]) / 5
    found = masked_binary_cross_entropy(logits, labels, (1.0, 1.0, 2.0))
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found, logits)
    assert (gradient[torch.isnan(labels)] == 0).all()
    assert (gradient[~torch.isnan(labels)] != 0).all()
