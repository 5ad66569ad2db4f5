"""Which networks a changed number of workers leaves alike, and what is said of the others."""

from __future__ import annotations

import timm
import torch
from torch import nn

from medray.engine.fit import after_changes
from medray.engine.nodes.changing import depends_on_workers, synchronized


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


def test_synchronized_batch_normalization_keeps_timms_activations() -> None:
    torch.manual_seed(0)
    for name in ("test_efficientnet", "test_resnet"):  # the first one's layers hold their activation
        network = timm.create_model(name).eval()
        images = torch.rand(2, 3, 32, 32)
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
