"""Segmentation networks for volumes, by name."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from medray.nn.vnet import FACTOR, VNet

Architecture = Literal["vnet", "segresnet", "resenc", "unet"]
_WIDTHS = {"vnet": 16, "segresnet": 16, "resenc": 32, "unet": 16}
_LEVELS = {"vnet": 5, "segresnet": 4, "resenc": 5, "unet": 4}


def volume_network(
    name: str,
    channels: int,
    outputs: int,
    width: int | None = None,
    levels: int | None = None,
    dropout: float = 0.0,
    drop_connect: float = 0.0,
    recurrent: bool = False,
) -> nn.Module:
    """(batch, channels, D, H, W) of any size → logits (batch, outputs, D, H, W).

    vnet is the paper's V-Net; segresnet MONAI's SegResNet; resenc MONAI's DynUNet with a residual block of two convolutions in
    each level, instance norm; unet MONAI's UNet with one strided convolution in each level, instance norm.

    Args:
        width: channels of the first level; each level has twice those above it (resenc: at most 320).
        levels: resolutions.
        dropout: of whole channels.
        drop_connect: part of the convolutions' weights that a training step leaves out (Wan et al. 2013).
        recurrent: a GRU along the first axis at the V-Net's deepest level.
    Raises:
        ValueError: no such network, or one that cannot be built like this.
    """
    if name not in _WIDTHS:
        raise ValueError(f"--architecture {name}: no such network; there are {', '.join(_WIDTHS)}")
    if recurrent and name != "vnet":
        raise ValueError(f"--recurrent: the V-Net has it, {name} has not; take --architecture vnet")
    if name == "vnet" and levels not in (None, 5):
        raise ValueError(f"--levels {levels}: the V-Net has 5; leave --levels away, or take another --architecture")
    width = _WIDTHS[name] if width is None else width
    levels = _LEVELS[name] if levels is None else levels
    least = 3 if name == "resenc" else 2  # MONAI's
    if width < 1 or levels < least:
        raise ValueError(f"--width {width}, --levels {levels}: {name} has at least 1 channel and {least} levels")
    if name == "segresnet" and width % 8:
        raise ValueError(f"--width {width}: SegResNet's group norm wants a multiple of 8")
    if name == "vnet":
        found: nn.Module = VNet(channels, outputs, width, dropout, recurrent)
    else:
        found = _of_monai(name, channels, outputs, width, levels, dropout)
    if drop_connect:
        for layer in [m for m in found.modules() if isinstance(m, nn.Conv3d | nn.ConvTranspose3d)]:
            parametrize.register_parametrization(layer, "weight", DropConnect(drop_connect))
    if name == "vnet":
        return AnySize(found, FACTOR, FACTOR)
    factor = 2 ** (levels - 1)
    return AnySize(found, factor, 2 * factor)  # of one place at the deepest level an instance norm has no deviation


def _of_monai(name: str, channels: int, outputs: int, width: int, levels: int, dropout: float) -> nn.Module:
    from monai.networks.nets import DynUNet, SegResNet, UNet  # seconds

    if name == "segresnet":
        down = tuple(min(4, 2 ** ((level + 1) // 2)) for level in range(levels))  # 1, 2, 2, 4 as published
        return SegResNet(
            3, width, channels, outputs, dropout_prob=dropout or None, blocks_down=down, blocks_up=(1,) * (levels - 1)
        )
    widths = [width * 2**level for level in range(levels)]
    if name == "unet":
        return UNet(3, channels, outputs, widths, [2] * (levels - 1), dropout=dropout)
    strides: Any = [1] + [2] * (levels - 1)
    found = DynUNet(
        3, channels, outputs, [3] * levels, strides, strides[1:], filters=[min(320, w) for w in widths],
        dropout=("dropout", {"p": dropout}) if dropout else None, res_block=True,
    )  # fmt: skip
    found.heads = []  # of deep supervision, which is off: tensors that would stay behind on the CPU
    return found


class AnySize(nn.Module):
    """A network that wants sides of multiples of ``factor``, and at least ``least``, on volumes of any: zeros are added at the
    ends, and cut off of what it gives."""

    def __init__(self, network: nn.Module, factor: int, least: int) -> None:
        super().__init__()
        self.network, self.factor, self.least = network, factor, least

    def forward(self, voxels: Tensor) -> Tensor:
        sides = voxels.shape[2:]
        more = [max(self.least, side + -side % self.factor) - side for side in sides]
        if any(more):
            voxels = functional.pad(voxels, [n for side in more[::-1] for n in (0, side)])
        logits: Tensor = self.network(voxels)
        return logits[:, :, : sides[0], : sides[1], : sides[2]] if any(more) else logits


class DropConnect(nn.Module):
    """In training each weight is left out with probability ``part``, and the others grow by as much."""

    def __init__(self, part: float) -> None:
        super().__init__()
        self.part = part

    def forward(self, weight: Tensor) -> Tensor:
        return functional.dropout(weight, self.part, self.training)
