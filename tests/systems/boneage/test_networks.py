from __future__ import annotations

import pytest
import torch
from torch import nn

from medray.systems.boneage.recipes import published
from medray.systems.boneage.stages.networks import AgeVGG, mask_network, point_network


def test_the_age_network_has_the_sources_table_of_layers() -> None:
    network = AgeVGG((32, 64, 128, 128, 256, 384), 2048, 0.3, (500, 375), 1, 0)
    kinds = [type(layer).__name__ for layer in network.blocks]
    block = ["Conv2d", "ELU", "BatchNorm2d", "Conv2d", "ELU", "BatchNorm2d", "MaxPool2d"]
    assert kinds == [*block * 6, "Flatten", "Dropout"]
    convolutions = [layer for layer in network.blocks if isinstance(layer, nn.Conv2d)]
    assert [layer.kernel_size for layer in convolutions] == [(3, 3), (1, 1)] * 6
    assert [layer.out_channels for layer in convolutions[::2]] == [32, 64, 128, 128, 256, 384]
    pools = [layer for layer in network.blocks if isinstance(layer, nn.MaxPool2d)]
    assert all((layer.kernel_size, layer.stride, layer.padding) == (3, 2, 0) for layer in pools)
    dense = [layer for layer in [*network.first, *network.last] if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in dense] == [
        (384 * 6 * 4, 2048),
        (2048, 2048),
        (2048, 1),
    ]
    assert type(network.last[-1]) is nn.Linear  # nothing bounds the answer
    assert {layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)} == {0.3}


def test_without_what_is_told_nothing_is_known() -> None:
    torch.manual_seed(0)
    network = AgeVGG((4, 8), 16, 0.0, (40, 30), 240, 3).eval()
    images = torch.randint(0, 255, (2, 1, 40, 30), dtype=torch.uint8)
    assert network(images).shape == (2, 240)
    assert torch.equal(network(images), network(images, torch.zeros(2, 3)))
    assert not torch.equal(network(images), network(images, torch.ones(2, 3)))


def test_images_that_are_too_small_are_refused() -> None:
    with pytest.raises(ValueError, match="20 × 20 pixels are too small for 6 blocks"):
        AgeVGG((4,) * 6, 16, 0.0, (20, 20), 1, 0)


def test_shapes_of_the_networks_before() -> None:
    images = torch.zeros((2, 1, 64, 64), dtype=torch.uint8)
    unet = mask_network(4)
    assert unet(images).shape == (2, 1, 64, 64)
    norms = [layer for layer in unet.modules() if "Norm" in type(layer).__name__]
    assert norms
    assert all(isinstance(layer, nn.BatchNorm2d) for layer in norms)
    points = point_network((4, 8, 16), 32, 0.0, 64, 3)
    assert points(images).shape == (2, 6)
    assert sum(isinstance(layer, nn.Conv2d) for layer in points.modules()) == 6  # two a block


def test_what_training_takes_of_a_gpu_is_counted_for_every_stage() -> None:
    """Where a task cannot say, each run takes all GPUs of a node."""
    recipe = published()
    for task in (recipe.segmentation, recipe.keypoints, recipe.age):
        gigabytes = task.training_gigabytes()
        assert gigabytes is not None
        assert 0.1 < gigabytes < 16
