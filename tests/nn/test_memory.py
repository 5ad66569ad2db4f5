from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from medray.nn.memory import OVERHEAD, training_gigabytes
from medray.systems.ich import recipes


def test_outputs_of_every_layer_and_the_weights_are_counted() -> None:
    network = nn.Sequential(nn.Linear(10, 20), nn.ReLU(inplace=True), nn.Linear(20, 5)).to("meta")
    found = training_gigabytes(network, torch.empty(2, 10, device="meta"), batch_size=8, value_bytes=2)
    weights = 10 * 20 + 20 + 20 * 5 + 5
    assert found == pytest.approx(OVERHEAD * ((20 + 5) * 8 * 2 + weights * 16) / 1e9)  # what is in place takes no more


def test_frozen_layers_keep_nothing_for_a_backward_pass() -> None:
    network = nn.Sequential(nn.Linear(10, 20), nn.ReLU(inplace=True), nn.Linear(20, 5)).to("meta")
    network[0].requires_grad_(False)
    found = training_gigabytes(network, torch.empty(2, 10, device="meta"), batch_size=8, value_bytes=2)
    trained, frozen = 20 * 5 + 5, 10 * 20 + 20
    assert found == pytest.approx(OVERHEAD * (5 * 8 * 2 + trained * 16 + frozen * 4) / 1e9)


def test_the_recipes_batches_on_a_gpu() -> None:
    """Small networks fit 16 GB with the recipe's batch, the large one at 480 px fits no GPU of a four-GPU node."""
    assert 3 < recipes.seresnext50_32x4d().training_gigabytes() < 16  # type: ignore[operator]
    assert 3 < recipes.efficientnet_b3().training_gigabytes() < 16  # type: ignore[operator]
    large = recipes.second_place()
    assert large.training_gigabytes() > 48  # type: ignore[operator]
    half = replace(large, batch_size=32).training_gigabytes()
    assert half == pytest.approx(large.training_gigabytes() / 2, rel=0.05)  # type: ignore[operator]


@pytest.mark.parametrize("backbone", ["convnext_tiny", "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"])
def test_other_kinds_of_backbones(backbone: str) -> None:
    task = replace(recipes.any_backbone(backbone), pretrained=False)
    assert task.training_gigabytes() > 0.5  # type: ignore[operator]
