"""The networks of bone age: U-Net for the hand, VGG-like ones for its points and its age (Iglovikov et al. 2018, DLMIA)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class _Grey(nn.Module):
    """uint8 films (batch, 1, rows, columns) through a network that wants numbers around 0."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: Tensor) -> Tensor:
        found = self.body(scaled(images))
        assert isinstance(found, Tensor)
        return found


def scaled(images: Tensor) -> Tensor:
    """Grey values 0 to 255 → about −1 to 3, black −1: most of a film is dark."""
    return images.float() / 64 - 1


def mask_network(width: int) -> nn.Module:
    """(batch, 1, side, side) uint8 → logits of the same shape."""
    from monai.networks.nets.basic_unet import (
        BasicUNet,
    )  # its import takes seconds, and the other networks need none of it

    features = (width, width, 2 * width, 4 * width, 8 * width, width)
    return _Grey(BasicUNet(spatial_dims=2, in_channels=1, out_channels=1, features=features, norm="batch"))


def point_network(channels: Sequence[int], dense: int, dropout: float, side_px: int, points: int) -> nn.Module:
    """(batch, 1, side, side) uint8 → (batch, 2 · points), 0 in the square's middle and 1 at its edges.

    Blocks of two 3×3 convolutions with ELU and batch normalization, then the maximum of 2 × 2.
    """
    layers: list[nn.Module] = []
    before = 1
    for width in channels:
        for inputs in (before, width):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ELU(), nn.BatchNorm2d(width)]
        layers.append(nn.MaxPool2d(2))
        before = width
    side = side_px // 2 ** len(channels)
    layers += [nn.Flatten(), nn.Linear(before * side * side, dense), nn.ELU(), nn.Dropout(dropout)]
    return _Grey(nn.Sequential(*layers, nn.Linear(dense, 2 * points)))


class AgeVGG(nn.Module):
    """The source's age network: six blocks, two dense layers (class m46 of its published code has the same table).

    A block: convolution 3×3, ELU, batch normalization, convolution 1×1, ELU, batch normalization, maximum of 3 × 3 with stride
    2 and no padding.

    Args:
        channels: of the blocks. dense: of both dense layers. size_px: rows and columns of an image.
        beside: further numbers of each film, joined to what the blocks give.
    """

    def __init__(
        self, channels: Sequence[int], dense: int, dropout: float, size_px: tuple[int, int], outputs: int, beside: int
    ) -> None:
        super().__init__()
        self.beside = beside
        blocks: list[nn.Module] = []
        before, (rows, columns) = 1, size_px
        for width in channels:
            blocks += [nn.Conv2d(before, width, 3, padding=1), nn.ELU(), nn.BatchNorm2d(width)]
            blocks += [nn.Conv2d(width, width, 1), nn.ELU(), nn.BatchNorm2d(width), nn.MaxPool2d(3, 2)]
            before, rows, columns = width, (rows - 1) // 2, (columns - 1) // 2
        if min(rows, columns) < 1:
            raise ValueError(f"images of {size_px[0]} × {size_px[1]} pixels are too small for {len(channels)} blocks")
        self.blocks = nn.Sequential(*blocks, nn.Flatten(), nn.Dropout(dropout))
        self.first = nn.Sequential(nn.Linear(before * rows * columns + beside, dense), nn.ELU(), nn.Dropout(dropout))
        self.last = nn.Sequential(nn.Linear(dense, dense), nn.ELU(), nn.Dropout(dropout), nn.Linear(dense, outputs))

    def forward(self, images: Tensor, beside: Tensor | None = None) -> Tensor:
        """(batch, 1, rows, columns) uint8 and (batch, beside) → (batch, outputs). Without ``beside`` nothing is known: zeros."""
        found = self.last(self.first(_joined(self.blocks(scaled(images)), beside, self.beside)))
        assert isinstance(found, Tensor)
        return found


class AgeBackbone(nn.Module):
    """A timm backbone, whose pooled features are joined to further numbers of each film before one dense layer."""

    def __init__(self, backbone: Any, dense: int, dropout: float, outputs: int, beside: int) -> None:
        super().__init__()
        self.beside = beside
        self.backbone = backbone  # nn.backbone.Backbone
        count = backbone.feature_count
        backbone.head, backbone.head_dropout = nn.Identity(), nn.Identity()  # its own last layer gives way to these
        self.first = nn.Sequential(nn.Dropout(dropout), nn.Linear(count + beside, dense), nn.ELU())
        self.last = nn.Linear(dense, outputs)

    def forward(self, images: Tensor, beside: Tensor | None = None) -> Tensor:
        """As ``AgeVGG``."""
        found = self.last(self.first(_joined(self.backbone.features(images), beside, self.beside)))
        assert isinstance(found, Tensor)
        return found


def _joined(features: Tensor, beside: Tensor | None, count: int) -> Tensor:
    given = features.new_zeros(len(features), count) if beside is None else beside.to(features.dtype)
    return torch.cat([features, given], dim=1)
