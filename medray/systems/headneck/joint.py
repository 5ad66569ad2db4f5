"""FocusNetV2 whole: S-Net, SOL-Net and SOS-Nets with the coder of shapes that they are trained against."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from medray.systems.headneck.focus import FocusNet, Found, ShapeCoder, filled_up, in_boxes


class Shapes(NamedTuple):
    """What the coder makes of the outlines and of the truth in the same regions; one row a sample and small organ."""

    reconstructed: Tensor
    """(n, 1, d, h, w) logits of the true masks."""
    true: Tensor
    """(n, 1, d, h, w) the true masks."""
    code_apart: Tensor
    """(n,) mean squared difference of the codes of outline and truth."""
    features_apart: Tensor
    """(n,) likewise of what the coder's levels find, their mean."""


class JointNet(nn.Module):
    """Both in one forward pass, as several workers want it.

    Args:
        coder: its masks are of ``focus``'s regions.
    """

    def __init__(self, focus: FocusNet, coder: ShapeCoder) -> None:
        super().__init__()
        self.focus, self.coder = focus, coder

    def forward(self, voxels: Tensor, members: Tensor, turn: str) -> tuple[Found, Shapes]:
        """
        Args:
            voxels: (batch, 1, D, H, W). members: (batch, organs, D, H, W), what is drawn.
            turn: "coder": the outlines are taken as they are, without a gradient for the networks that drew them.
        """
        if turn == "coder":
            with torch.no_grad():
                found = self.focus(voxels)
        else:
            found = self.focus(voxels)
        assert found.outlines is not None
        true = torch.cat([
            in_boxes(members[:, place : place + 1], found.at[:, k], self.focus.region)
            for k, place in enumerate(self.focus.small)
        ], 1)  # fmt: skip
        return found, self.shapes(found.outlines.float().sigmoid().flatten(0, 1)[:, None], true.flatten(0, 1)[:, None])

    def shapes(self, outlines: Tensor, true: Tensor) -> Shapes:
        """Both (n, 1, d, h, w), 0 to 1; where a crop is smaller than a region, zeros fill it up."""
        outlines, true = (filled_up(part, self.coder.region) for part in (outlines, true))
        reconstructed, levels, code = self.coder(true)
        other_levels, other_code = self.coder.features(outlines)
        apart = [(a - b).square().flatten(1).mean(1) for a, b in zip(levels, other_levels, strict=True)]
        return Shapes(reconstructed, true, (code - other_code).square().mean(1), torch.stack(apart).mean(0))

    def maps(self, voxels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As FocusNet's."""
        return self.focus.maps(voxels)

    def outline(self, k: int, features: Tensor, heatmap: Tensor, voxels: Tensor) -> Tensor:
        """As FocusNet's."""
        return self.focus.outline(k, features, heatmap, voxels)
