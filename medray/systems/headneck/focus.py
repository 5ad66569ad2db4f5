"""The parts of FocusNetV2 for small organs: where each is (SOL-Net), its outline there (SOS-Net), its shape (an autoencoder).

SOL-Net gives a heatmap an organ from S-Net's last features. SOS-Net has a network an organ, which sees S-Net's features, the
heatmap and the CT itself in a region about the heatmap's peak. The autoencoder's code tells good shapes from bad ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from medray.systems.headneck.networks import RARE, SEResidual, SNet

Sides = tuple[int, int, int]
Box = tuple[slice, slice, slice]


class Found(NamedTuple):
    """What FocusNet says of a batch of crops."""

    logits: Tensor
    """(batch, organs, D, H, W) of S-Net."""
    heatmaps: Tensor
    """(batch, small, D, H, W)."""
    outlines: Tensor | None
    """(batch, small, d, h, w): logits of each small organ in the region about the peak of its heatmap, where asked for."""
    peaks: Tensor
    """(batch, small) heights of the peaks."""
    at: Tensor
    """(batch, small) flat places of the peaks."""


class FocusNet(nn.Module):
    """S-Net, SOL-Net and SOS-Nets.

    Args:
        small: of the organs of S-Net those that have a network of their own, by their places from 0.
        region_DHW: voxels that an organ's own network sees.
        width: channels of an organ's own network.
        with_features, with_heatmap, with_ct: what of these it sees.
    """

    def __init__(
        self,
        snet: SNet,
        small: Sequence[int],
        region_DHW: Sides,  # noqa: N803  axes
        width: int = 16,
        with_features: bool = True,
        with_heatmap: bool = True,
        with_ct: bool = True,
    ) -> None:
        super().__init__()
        self.snet, self.small, self.region = snet, tuple(small), region_DHW
        self.sees = with_features, with_heatmap, with_ct
        features = snet.head.in_channels
        last = nn.Conv3d(features, len(self.small), 1)
        for parameter in last.parameters():  # S-Net's features may be of any size: a heatmap begins at nothing
            nn.init.zeros_(parameter)
        self.sol = nn.Sequential(SEResidual(features, features), last)
        inputs = features * with_features + with_heatmap + with_ct
        self.sos = nn.ModuleList(_own_network(inputs, width) for _ in self.small)

    def forward(self, voxels: Tensor, outlines: bool = True) -> Found:
        """(batch, 1, D, H, W), whole crops: also the outlines about the peaks. ``maps`` is for windows of a scan."""
        features, logits, heatmaps = self.maps(voxels)
        flat = heatmaps.detach().flatten(2)
        peaks, at = flat.amax(2), flat.argmax(2)
        found = [
            self.outline(
                k,
                *(in_boxes(part, at[:, k], self.region) for part in (features, heatmaps[:, k : k + 1], voxels)),
            )
            for k in range(len(self.small) if outlines else 0)
        ]
        return Found(logits, heatmaps, torch.cat(found, 1) if found else None, peaks, at)

    def maps(self, voxels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, 1, D, H, W) → features, logits of all organs, heatmaps of the small ones (batch, small, D, H, W)."""
        features, logits = self.snet(voxels)
        return features, logits, self.sol(features)

    def outline(self, k: int, features: Tensor, heatmap: Tensor, voxels: Tensor) -> Tensor:
        """Logits (batch, 1, d, h, w) of the ``k``-th small organ in a region, of which all else is given.

        Args:
            features: (batch, channels, d, h, w). heatmap, voxels: (batch, 1, d, h, w).
        """
        given = [part for part, sees in zip((features, heatmap, voxels), self.sees, strict=True) if sees]
        found: Tensor = self.sos[k](torch.cat(given, 1))
        return found


def _own_network(inputs: int, width: int) -> nn.Module:
    """Of one small organ: channels in a region → the logit of each voxel, which begins at RARE."""
    last = nn.Conv3d(width, 1, 1)
    nn.init.constant_(last.bias, RARE)  # type: ignore[arg-type]
    return nn.Sequential(SEResidual(inputs, width), SEResidual(width, width), last)


class ShapeCoder(nn.Module):
    """An autoencoder of one organ's mask in its region; all organs share it.

    Args:
        region_DHW: of the masks; each side of the plane a multiple of 8, the depth of 2.
        code: numbers that a shape becomes.
    """

    def __init__(self, region_DHW: Sides, width: int = 8, code: int = 512) -> None:  # noqa: N803  axes
        super().__init__()
        self.region = region_DHW
        pools: tuple[Sides, ...] = ((1, 2, 2), (2, 2, 2), (1, 2, 2))
        widths = [width * 2**level for level in range(len(pools) + 1)]
        if any(side % by for side, by in zip(region_DHW, (2, 8, 8), strict=True)):
            raise ValueError(f"a region of {region_DHW} voxels: a multiple of 2, 8 and 8")
        self.down = nn.ModuleList()
        before = 1
        for wide, pool in zip(widths[1:], pools, strict=True):
            self.down.append(nn.Sequential(
                nn.Conv3d(before, wide, 3, stride=pool, padding=1), nn.InstanceNorm3d(wide, affine=True), nn.LeakyReLU(0.01),
            ))  # fmt: skip
            before = wide
        self.inner = (before, region_DHW[0] // 2, region_DHW[1] // 8, region_DHW[2] // 8)
        flat = before * self.inner[1] * self.inner[2] * self.inner[3]
        self.to_code, self.from_code = nn.Linear(flat, code), nn.Linear(code, flat)
        self.up = nn.Sequential()
        for wide, pool in zip(reversed(widths[:-1]), reversed(pools), strict=True):
            self.up.append(nn.ConvTranspose3d(before, wide, pool, pool))
            self.up.append(nn.LeakyReLU(0.01))
            before = wide
        self.up.append(nn.Conv3d(before, 1, 3, padding=1))

    def features(self, masks: Tensor) -> tuple[list[Tensor], Tensor]:
        """(batch, 1, d, h, w) of 0 to 1 → what each level finds, and the code (batch, code)."""
        found, x = [], masks
        for level in self.down:
            x = level(x)
            found.append(x)
        return found, self.to_code(x.flatten(1))

    def forward(self, masks: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """→ logits of the mask that comes out, features, code."""
        found, code = self.features(masks)
        x = functional.leaky_relu(self.from_code(code), 0.01).view(-1, *self.inner)
        return self.up(x), found, code


def box_at(peak_DHW: Sequence[int], shape: Sequence[int], region_DHW: Sides) -> Box:  # noqa: N803  axes
    """The region about a voxel, moved into the volume where it would leave it; all of an axis that is shorter."""
    boxes = []
    for peak, side, wanted in zip(peak_DHW, shape, region_DHW, strict=True):
        length = min(wanted, side)
        start = min(max(0, int(peak) - length // 2), side - length)
        boxes.append(slice(start, start + length))
    return boxes[0], boxes[1], boxes[2]


def filled_up(volumes: Tensor, sides_DHW: Sequence[int]) -> Tensor:  # noqa: N803  axes
    """(batch, channels, D, H, W) with zeros behind each axis that is shorter than wanted."""
    more = [max(0, wanted - side) for wanted, side in zip(sides_DHW, volumes.shape[2:], strict=True)]
    return functional.pad(volumes, [n for side in reversed(more) for n in (0, side)])


def in_boxes(volumes: Tensor, peaks: Tensor, region_DHW: Sides) -> Tensor:  # noqa: N803  axes
    """(batch, channels, D, H, W) about a voxel of each sample → (batch, channels, *region), without asking the device where.

    Args:
        peaks: (batch,) flat places.
    """
    shape = volumes.shape[2:]
    sides = [min(wanted, side) for wanted, side in zip(region_DHW, shape, strict=True)]
    d, rest = peaks // (shape[1] * shape[2]), peaks % (shape[1] * shape[2])
    h, w = rest // shape[2], rest % shape[2]
    out = volumes
    for axis, (at, side) in enumerate(zip((d, h, w), sides, strict=True), 2):
        start = (at - side // 2).clamp(0, shape[axis - 2] - side)
        places = start[:, None] + torch.arange(side, device=volumes.device)
        view = [1] * out.ndim
        view[0], view[axis] = len(places), side
        wanted_shape = [*out.shape]
        wanted_shape[axis] = side
        out = out.gather(axis, places.view(view).expand(wanted_shape))
    return out


def heatmaps_of(members: Tensor, sigma_DHW: Sequence[float]) -> tuple[Tensor, Tensor]:  # noqa: N803  axes
    """Gaussians about the middles of organs in crops, and which of them can be told.

    The middle of an organ that is cut by the crop's border is not known. Of one that is not in the crop the heatmap is 0.

    Args:
        members: (batch, organs, D, H, W) of 0 and 1.
        sigma_DHW: in voxels.
    Returns:
        (batch, organs, D, H, W), 1 at the middle; (batch, organs) 1 where it can be told.
    """
    shape = members.shape[2:]
    places = [torch.arange(side, device=members.device, dtype=torch.float32) for side in shape]
    count = members.sum((2, 3, 4))
    exponent: Tensor | float = 0.0
    told = torch.ones_like(count, dtype=torch.bool)
    for axis, (at, sigma) in enumerate(zip(places, sigma_DHW, strict=True)):
        others = tuple(a for a in (2, 3, 4) if a != axis + 2)
        along = members.sum(others)  # (batch, organs, side)
        middle = (along * at).sum(-1) / count.clamp(min=1)
        told &= (along[..., 0] == 0) & (along[..., -1] == 0)
        view = [1, 1, 1, 1, 1]
        view[axis + 2] = -1
        exponent = exponent + ((at.view(view) - middle[:, :, None, None, None]) / sigma) ** 2
    assert isinstance(exponent, Tensor)
    return (-0.5 * exponent).exp() * (count > 0)[:, :, None, None, None], told.to(members.dtype)
