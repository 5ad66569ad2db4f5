"""Segmentation networks by name: the V-Net's layers as the paper's, volumes of any size, what is left out in training."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from lesion_scans import scan_row
from torch import nn

from medray.engine.train.device import to_device
from medray.nn.axis_gru import AxisGRU
from medray.nn.vnet import VNet
from medray.nn.volume_network import volume_network
from medray.systems.lesion import recipes
from medray.tasks.task import At

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = {"vnet": (2, None), "segresnet": (8, 2), "resenc": (4, 3), "unet": (4, 3)}


def test_the_v_nets_layers_are_the_papers() -> None:
    """Kernel, channels in and out of each layer, and what the layers give of 32³ voxels."""
    network = VNet(3, 1).eval()
    table = []

    def note(layer: nn.Module, _: object, output: torch.Tensor) -> None:
        assert isinstance(layer, nn.Conv3d | nn.ConvTranspose3d)
        kind = "up" if isinstance(layer, nn.ConvTranspose3d) else "conv" if layer.stride[0] == 1 else "down"
        table.append((kind, layer.kernel_size[0], layer.in_channels, layer.out_channels, output.shape[-1]))

    for layer in network.modules():
        if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d):
            layer.register_forward_hook(note)
    with torch.inference_mode():
        network(torch.zeros(1, 3, 32, 32, 32))
    assert table == [
        ("conv", 5, 3, 16, 32),
        ("down", 2, 16, 32, 16), *[("conv", 5, 32, 32, 16)] * 2,
        ("down", 2, 32, 64, 8), *[("conv", 5, 64, 64, 8)] * 3,
        ("down", 2, 64, 128, 4), *[("conv", 5, 128, 128, 4)] * 3,
        ("down", 2, 128, 256, 2), *[("conv", 5, 256, 256, 2)] * 3,
        ("up", 2, 256, 128, 4), *[("conv", 5, 256, 256, 4)] * 3,
        ("up", 2, 256, 64, 8), *[("conv", 5, 128, 128, 8)] * 3,
        ("up", 2, 128, 32, 16), *[("conv", 5, 64, 64, 16)] * 2,
        ("up", 2, 64, 16, 32), ("conv", 5, 32, 32, 32),
        ("conv", 1, 32, 1, 32),
    ]  # fmt: skip
    first = network.first.convolutions[0]
    assert sum(p.numel() for p in first.parameters()) == 6016
    assert sum(isinstance(m, nn.PReLU) for m in network.modules()) == 12 + 9 + 8  # no norm anywhere
    assert not any("Norm" in type(m).__name__ for m in network.modules())


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_the_v_net_adds_its_input_in_turns(channels: int) -> None:
    network = VNet(channels, 1, width=4)
    given = torch.randn(1, channels, 8, 8, 8)
    for convolution in network.first.convolutions:
        nn.init.zeros_(convolution.weight)
    found = network.first(given)
    for i in range(4):
        torch.testing.assert_close(found[0, i], nn.functional.leaky_relu(given[0, i % channels], 0.25))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("sides", [(13, 20, 16), (5, 8, 33)])
def test_volumes_of_any_size(name: str, sides: tuple[int, int, int]) -> None:
    width, levels = SMALL[name]
    network = volume_network(name, 3, 2, width, levels).train()
    assert network(torch.randn(2, 3, *sides)).shape == (2, 2, *sides)


@pytest.mark.parametrize("name", SMALL)
def test_dropout_and_drop_connect_are_of_training_only(name: str) -> None:
    width, levels = SMALL[name]
    given = torch.randn(1, 2, 16, 16, 16)
    for options in ({"dropout": 0.5}, {"drop_connect": 0.5}):
        torch.manual_seed(0)
        network = volume_network(name, 2, 1, width, levels, **options)  # type: ignore[arg-type]
        with torch.inference_mode(False):
            assert torch.equal(network.eval()(given), copy.deepcopy(network)(given))
            trained = [network.train()(given) for _ in range(2)]
        assert not torch.equal(*trained), options
        torch.manual_seed(0)
        plain = volume_network(name, 2, 1, width, levels).eval()
        torch.testing.assert_close(network.eval()(given), plain(given))


def test_drop_connect_leaves_out_the_stated_part() -> None:
    torch.manual_seed(0)
    network = volume_network("vnet", 2, 1, 4, drop_connect=0.3).train()
    layer = network.network.down[2][1].convolutions[0]  # type: ignore[union-attr,index]
    once, again = layer.weight, layer.weight
    assert (once == 0).float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert not torch.equal(once, again)
    assert {name for name, _ in network.named_buffers()} == set()


def test_the_gru_carries_along_its_axis_both_ways() -> None:
    torch.manual_seed(0)
    layer = AxisGRU(4).eval()
    given = torch.randn(1, 4, 6, 5, 5)
    changed = given.clone()
    changed[0, :, 3, 2, 2] += 1
    moved = (layer(changed) - layer(given)).abs().amax((0, 1, 3, 4))
    assert (moved > 1e-5).all()  # every slice knows of it
    assert moved.argmax() == 3
    network = volume_network("vnet", 2, 1, 2, recurrent=True)
    assert network(torch.randn(1, 2, 32, 16, 16)).shape == (1, 1, 32, 16, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("vnett", 2, 1), "--architecture vnett: no such network; there are vnet, segresnet, resenc, unet"),
        (("segresnet", 2, 1, 12), "--width 12: SegResNet's group norm wants a multiple of 8"),
        (("vnet", 2, 1, 16, 4), "--levels 4: the V-Net has 5; leave --levels away, or take another --architecture"),
        (("resenc", 2, 1, 8, 2), "--width 8, --levels 2: resenc has at least 1 channel and 3 levels"),
        (("unet", 2, 1, 8, 3, 0, 0, True), "--recurrent: the V-Net has it, unet has not; take --architecture vnet"),
    ],
)
def test_what_cannot_be_built_is_said(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        volume_network(*arguments)  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_v_net_learns_four_crops_by_heart() -> None:
    """Of 32³ voxels, by its own loss: Dice with squared denominator."""
    torch.manual_seed(0)
    task = replace(
        recipes.vnet(), patch_DHW=(32, 32, 32), context_padding=0, width=4, dropout=0.0, cross_entropy_weight=0.0
    )
    task = replace(task, foreground_share=1.0)
    examples = [task.train_example(scan_row(n, (40, 40, 40)), np.random.default_rng(n)) for n in range(4)]
    batch = to_device(task.collate(examples), torch.device("cpu"), task.host)
    network = task.network()
    optimizer = torch.optim.Adam(network.parameters(), 3e-4)  # without norms a larger rate throws it off
    for _ in range(50):
        optimizer.zero_grad()
        loss = task.losses(network, batch, At())["loss"]
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.3
