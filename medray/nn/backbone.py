"""A timm backbone with pooled features and one linear layer."""

from __future__ import annotations

import difflib
from typing import Any

import timm
import torch
from torch import Tensor, nn


class Backbone(nn.Module):
    """Images → globally averaged features → logits.

    ``forward`` takes uint8 images (batch, channels, height, width) and returns (batch, classes);
    ``features`` returns the pooled (batch, feature_count), the input of later stages.

    Raises:
        ValueError: timm does not know ``name`` (near names are given), or the pretrained weights cannot be loaded.
    """

    def __init__(self, name: str, channels: int, classes: int, pretrained: bool, dropout: float = 0.0) -> None:
        super().__init__()
        check_backbone(name)
        try:
            self.body: Any = timm.create_model(name, pretrained=pretrained, in_chans=channels, num_classes=0)
        except Exception as error:  # timm lets every hub and network failure through as it comes
            if not pretrained:
                raise
            first = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
            raise ValueError(
                f"--backbone {name}: its pretrained weights cannot be loaded ({first}); "
                "go online once to fill the cache, give a local file with --weights FILE_OR_URI, or train from random weights with "
                "--no-pretrained"
            ) from None
        body: Any = self.body
        self.feature_count: int = body.num_features
        # one grey mean and deviation: a channel is a window here, not a colour
        self.mean = float(sum(body.pretrained_cfg["mean"]) / 3)
        self.deviation = float(sum(body.pretrained_cfg["std"]) / 3)
        self.head_dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.feature_count, classes)

    def features(self, images: Tensor) -> Tensor:
        images = (images.float() / 255 - self.mean) / self.deviation
        pooled = self.body.forward_head(self.body.forward_features(images), pre_logits=True)
        assert isinstance(pooled, Tensor)
        return pooled

    def forward(self, images: Tensor) -> Tensor:
        logits = self.head(self.head_dropout(self.features(images)))
        assert isinstance(logits, torch.Tensor)
        return logits


def licence_of(name: str) -> str | None:
    """The licence of the pretrained weights that ``name`` stands for in timm; None where it says none."""
    known = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return None if known is None else known.license


def check_backbone(name: str) -> None:
    """Raise ValueError, with near names, where timm does not know ``name``."""
    if timm.is_model(name.split(".")[0]):
        return
    near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() names them all"
    raise ValueError(f"--backbone {name}: timm has no such model; {hint}")
