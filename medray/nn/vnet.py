"""V-Net in the paper's form (Milletari et al., arXiv 1606.04797), for any number of channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medray.nn.axis_gru import AxisGRU

DOWN = (1, 2, 3, 3, 3)
"""Convolutions of each stage on the way down, the deepest last."""
UP = (3, 3, 2, 1)
FACTOR = 16
"""Sides of the input are multiples of it."""

ADDED_AT_START = 0.1
"""Of what a stage's last convolution would give to what came in, before training."""


class VNet(nn.Module):
    """(batch, channels, D, H, W) → (batch, outputs, D, H, W) logits; the sides are multiples of 16.

    Convolutions of 5³ with PReLU in residual stages, no normalisation; convolutions of 2³ with stride 2 go down, transposed
    ones up. Widths of 16, 32, 64, 128, 256 down and 256, 128, 64, 32 up. The first stage adds the input itself: the paper's
    one channel becomes 16 copies, several take turns.

    Args:
        width: of the first stage, 16 in the paper.
        dropout: of whole channels, after every stage but the first and the last.
        recurrent: a GRU along the first axis at the deepest stage.
    """

    def __init__(
        self, channels: int, outputs: int, width: int = 16, dropout: float = 0.0, recurrent: bool = False
    ) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(len(DOWN))]
        self.first = Stage(channels, width, DOWN[0])
        self.down = nn.ModuleList(
            nn.Sequential(_resampling(nn.Conv3d, here, deeper), Stage(deeper, deeper, count), nn.Dropout3d(dropout))
            for here, deeper, count in zip(widths, widths[1:], DOWN[1:], strict=False)
        )
        self.bottom = AxisGRU(widths[-1]) if recurrent else nn.Identity()
        self.rise, self.up = nn.ModuleList(), nn.ModuleList()
        below = widths[-1]
        for skip, count in zip(widths[-2::-1], UP, strict=True):
            self.rise.append(_resampling(nn.ConvTranspose3d, below, skip))
            self.up.append(
                nn.Sequential(Stage(2 * skip, 2 * skip, count), nn.Dropout3d(dropout if skip > width else 0.0))
            )
            below = 2 * skip
        self.last = nn.Conv3d(below, outputs, 1)

    def forward(self, voxels: Tensor) -> Tensor:
        found = self.first(voxels)
        skips = []
        for down in self.down:
            skips.append(found)
            found = down(found)
        found = self.bottom(found)
        for rise, up in zip(self.rise, self.up, strict=True):
            found = up(torch.cat([rise(found), skips.pop()], 1))
        logits: Tensor = self.last(found)
        return logits


class Stage(nn.Module):
    """``count`` convolutions of 5³; what came in is added to what the last one gives."""

    def __init__(self, channels: int, width: int, count: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv3d(channels if i == 0 else width, width, 5, padding=2) for i in range(count)
        )
        self.activations = nn.ModuleList(nn.PReLU(width) for _ in range(count))
        for convolution in self.convolutions:
            _initialise(convolution)
        # nine stages that each add as much as came in would make logits of hundreds, and a sigmoid without a gradient
        with torch.no_grad():
            last = self.convolutions[-1].weight
            assert isinstance(last, Tensor)
            last.mul_(ADDED_AT_START)

    def forward(self, given: Tensor) -> Tensor:
        found = given
        last = len(self.convolutions) - 1
        for i, (convolution, activation) in enumerate(zip(self.convolutions, self.activations, strict=True)):
            found = convolution(found)
            if i == last:
                found = found + _repeated(given, found.shape[1])
            found = activation(found)
        return found


def _repeated(given: Tensor, width: int) -> Tensor:
    """(batch, channels, …) → (batch, width, …), channels in turn."""
    channels = given.shape[1]
    if channels == width:
        return given
    copies = -(-width // channels)
    return given.repeat(1, copies, 1, 1, 1)[:, :width]


def _resampling(kind: type[nn.Conv3d] | type[nn.ConvTranspose3d], channels: int, width: int) -> nn.Sequential:
    """Half or twice the sides."""
    layer = kind(channels, width, 2, stride=2)
    _initialise(layer)
    return nn.Sequential(layer, nn.PReLU(width))


def _initialise(layer: nn.Module) -> None:
    """He et al. 2015, for PReLU: without normalisation a smaller start fades on the way through 19 layers."""
    assert isinstance(layer, nn.Conv3d | nn.ConvTranspose3d)
    weight = layer.weight
    fan_in = layer.in_channels * (1 if isinstance(layer, nn.ConvTranspose3d) else weight[0, 0].numel())
    with torch.no_grad():
        weight.normal_(0.0, (2 / (1 + 0.25**2) / fan_in) ** 0.5)
        if layer.bias is not None:
            layer.bias.zero_()
