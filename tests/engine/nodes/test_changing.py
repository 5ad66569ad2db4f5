"""Which networks a changed number of workers leaves alike, and what is said of the others."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from medray.engine.nodes.changing import depends_on_workers, synchronized
from medray.engine.train.fit import after_changes
from medray.systems.chest import recipes as chest
from medray.systems.ich import recipes as ich

BACKBONES = sorted(
    {recipe().backbone.split(".")[0] for of_system in (ich, chest) for recipe in of_system.RECIPES.values()}
    | {ich.phantom().backbone, "test_resnet"}
)


def test_networks_whose_steps_do_not_depend_on_the_number_of_workers() -> None:
    assert depends_on_workers(timm.create_model("test_efficientnet_gn")) == []
    assert depends_on_workers(timm.create_model("test_vit")) == []
    assert depends_on_workers(nn.LSTM(4, 4, num_layers=2)) == []
    assert depends_on_workers(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.0))) == []


def test_networks_whose_steps_do() -> None:
    assert depends_on_workers(timm.create_model("test_resnet")) == ["batch normalization"]
    assert depends_on_workers(nn.Dropout(0.1)) == ["dropout"]
    assert depends_on_workers(nn.LSTM(4, 4, num_layers=2, dropout=0.3)) == ["dropout"]
    assert depends_on_workers(nn.MultiheadAttention(4, 1, dropout=0.3)) == ["dropout"]
    assert depends_on_workers(timm.create_model("test_vit", drop_path_rate=0.1)) == ["dropout"]
    assert depends_on_workers(nn.Sequential(nn.BatchNorm2d(2), nn.Dropout2d(0.1))) == ["batch normalization", "dropout"]


@pytest.mark.parametrize("name", BACKBONES)
def test_synchronized_batch_normalization_keeps_every_recipes_outputs(name: str) -> None:
    """torch's own conversion drops the activation of timm's layers: 78 of efficientnet_b3's, 121 of densenet121's."""
    torch.manual_seed(0)
    network = timm.create_model(name).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # as a trained network has them: not zero and one
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            assert module.bias is not None
            nn.init.normal_(module.bias, 0, 0.1)
    images = torch.rand(1, 3, 96, 96)
    with torch.inference_mode():
        before = network(images)
        converted = synchronized(network)
        after = converted(images)
    assert depends_on_workers(converted) == []
    torch.testing.assert_close(after, before)


def test_the_thousandth_is_promised_to_no_other_network() -> None:
    shown, other = after_changes([]), after_changes(["batch normalization", "dropout"])
    assert "equals an undisturbed run's within 1e-3 where every label is known" in shown
    assert (
        "with batch normalization and dropout its loss may differ from an undisturbed run's by more than 1e-3" in other
    )
    assert "within" not in other
