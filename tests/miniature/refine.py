"""A second stage of the same segmentation: a network on the answers of a first one, whose runs it starts from."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from miniature.patches import PatchTask, segmenter


class Refiner(nn.Module):
    def __init__(self, first: nn.Module, second: nn.Module, frozen: bool) -> None:
        super().__init__()
        self.first, self.second = first.requires_grad_(not frozen), second

    def forward(self, voxels: Tensor) -> Tensor:
        return self.second(self.first(voxels))


@dataclass(frozen=True, kw_only=True)
class RefinerTask(PatchTask):
    """Its runs start from ``PatchTask``'s with the prefixes {"": "first."}."""

    frozen: bool = True
    """Train the second network only."""
    refined_hidden: int = 4

    def network(self) -> nn.Module:
        return Refiner(super().network(), segmenter(1, self.refined_hidden), self.frozen)
