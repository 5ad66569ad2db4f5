"""S-Net of FocusNetV2 (Gao et al. 2021): few down-samplings for small organs, and dilated convolutions for the wide view.

Differences: instance norm where the source has batch norm (batches of one or two crops), and dilations that a field
gives in millimetres.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

Kernel = tuple[int, int, int]
RARE = -3.0
"""Logit of every organ at first: a probability of 5%."""


class InstanceNorm(nn.InstanceNorm3d):
    """Instance norm that leaves a tensor's channels last where they are. torch's copies them to the front
    and back."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not x.is_contiguous(memory_format=torch.channels_last_3d):
            return super().forward(x)
        each = (
            functional.batch_norm(one, None, None, self.weight, self.bias, training=True, eps=self.eps)
            for one in x.split(1)
        )
        return torch.cat(list(each))


def _norm(channels: int) -> nn.Module:
    return InstanceNorm(channels, affine=True)


class SEResidual(nn.Module):
    """Two convolutions of 3³ and a gate for each channel (Hu et al. 2018), added to what came in."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv3d(channels, outputs, 3, padding=1, bias=False), _norm(outputs), nn.LeakyReLU(0.01, inplace=True),
            nn.Conv3d(outputs, outputs, 3, padding=1, bias=False), _norm(outputs),
        )  # fmt: skip
        narrow = max(4, outputs // 4)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool3d(1), nn.Conv3d(outputs, narrow, 1), nn.ReLU(inplace=True), nn.Conv3d(narrow, outputs, 1), nn.Sigmoid(),
        )  # fmt: skip
        self.skip = nn.Identity() if channels == outputs else nn.Conv3d(channels, outputs, 1, bias=False)
        self.last = nn.LeakyReLU(0.01, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        found = self.main(x)
        out: Tensor = self.last(found * self.gate(found) + self.skip(x))
        return out


class DenseASPP(nn.Module):
    """Convolutions of growing dilation, each of which sees what all before it have found (Yang et al. 2018).

    Args:
        dilations_DHW: of each convolution, in voxels.
    """

    def __init__(self, channels: int, growth: int, dilations_DHW: Sequence[Kernel], dropout: float = 0.1) -> None:  # noqa: N803
        super().__init__()
        self.steps = nn.ModuleList()
        wide = channels
        for dilation in dilations_DHW:
            self.steps.append(nn.Sequential(
                nn.Conv3d(wide, channels, 1, bias=False), _norm(channels), nn.LeakyReLU(0.01, inplace=True),
                nn.Conv3d(channels, growth, 3, padding=dilation, dilation=dilation, bias=False), _norm(growth),
                nn.LeakyReLU(0.01, inplace=True), nn.Dropout3d(dropout),
            ))  # fmt: skip
            wide += growth
        self.last = nn.Sequential(
            nn.Conv3d(wide, channels, 1, bias=False), _norm(channels), nn.LeakyReLU(0.01, inplace=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = torch.cat([x, step(x)], 1)
        out: Tensor = self.last(x)
        return out


class SNet(nn.Module):
    """(batch, channels, D, H, W) of sides that are multiples of ``factor`` → (features, logits) at full resolution.

    Args:
        widths: channels of each level; one down-sampling less than there are levels.
        pools_DHW: factor of each down-sampling.
        dilations_DHW: of DenseASPP at the deepest level, in its voxels; none leaves it out.
        blocks: residual blocks of each level on the way down.
    """

    def __init__(
        self,
        channels: int,
        outputs: int,
        widths: Sequence[int],
        pools_DHW: Sequence[Kernel],  # noqa: N803  axes
        dilations_DHW: Sequence[Kernel],  # noqa: N803  axes
        blocks: int = 2,
    ) -> None:
        super().__init__()
        self.factor = tuple(math.prod(pool[axis] for pool in pools_DHW) for axis in range(3))
        self.down = nn.ModuleList()
        before = channels
        for width in widths:
            inner = [SEResidual(width, width) for _ in range(blocks - 1)]
            self.down.append(nn.Sequential(SEResidual(before, width), *inner))
            before = width
        self.pools = nn.ModuleList(nn.MaxPool3d(pool, pool) for pool in pools_DHW)
        self.wide = DenseASPP(widths[-1], max(4, widths[-1] // 2), dilations_DHW) if dilations_DHW else nn.Identity()
        self.up, self.joined = nn.ModuleList(), nn.ModuleList()
        for level in range(len(widths) - 2, -1, -1):
            pool = pools_DHW[level]
            self.up.append(nn.ConvTranspose3d(widths[level + 1], widths[level], pool, pool))
            self.joined.append(SEResidual(2 * widths[level], widths[level]))
        self.head = nn.Conv3d(widths[0], outputs, 1)
        # organs are rare: a network that begins at one half everywhere spends its first hundreds of steps on saying so
        # (Lin et al. 2017)
        nn.init.constant_(self.head.bias, RARE)  # type: ignore[arg-type]

    def forward(self, voxels: Tensor) -> tuple[Tensor, Tensor]:
        kept = []
        x = voxels
        if x.device.type == "cpu":  # convolutions of few channels are quicker so, above all backward
            x = x.clone(memory_format=torch.channels_last_3d)  # contiguous() leaves a single channel as it is
        for level, block in enumerate(self.down):
            x = block(x)
            if level < len(self.pools):
                kept.append(x)
                x = self.pools[level](x)
        x = self.wide(x)
        for up, joined in zip(self.up, self.joined, strict=True):
            x = joined(torch.cat([kept.pop(), up(x)], 1))
        return x, self.head(x)


class Logits(nn.Module):
    """The logits of a network that gives its features too."""

    def __init__(self, network: SNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, voxels: Tensor) -> Tensor:
        logits: Tensor = self.network(voxels)[1]
        return logits
