"""The same segmentation with an adversary: two networks, two optimizers, both in every step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from medray.tasks.task import At
from miniature.patches import CHANNELS, PatchTask, entropy_of_known


class WithCritic(nn.Module):
    def __init__(self, segmenter: nn.Module, hidden: int) -> None:
        super().__init__()
        self.segmenter = segmenter
        self.critic = nn.Sequential(
            nn.Conv3d(CHANNELS + 1, hidden, 3, stride=2, padding=1), nn.LeakyReLU(0.2), nn.AdaptiveAvgPool3d(1), nn.Flatten(),
            nn.Linear(hidden, 1),
        )  # fmt: skip

    def forward(self, voxels: Tensor, mask: Tensor | None = None, turn: str = "") -> Any:
        """Logits of the mask; in a turn also what the critic makes of image and mask together."""
        if turn == "critic":
            assert mask is not None
            with torch.no_grad():
                drawn = self.segmenter(voxels).sigmoid()
            return self.critic(torch.cat([voxels, mask.nan_to_num()], 1)), self.critic(torch.cat([voxels, drawn], 1))
        logits = self.segmenter(voxels)
        return (logits, self.critic(torch.cat([voxels, logits.sigmoid()], 1))) if turn else logits


@dataclass(frozen=True, kw_only=True)
class AdversaryTask(PatchTask):
    adversary_weight: float = 0.05
    critic_rate: float = 1e-3

    def network(self) -> nn.Module:
        return WithCritic(super().network(), self.hidden)

    def optimizers(self, network: Any) -> dict[str, torch.optim.Optimizer]:
        return {
            "critic": replace(self, learning_rate=self.critic_rate).make_optimizer(network.critic.parameters()),
            "segmenter": self.make_optimizer(network.segmenter.parameters()),
        }

    def losses(self, network: nn.Module, batch: dict[str, Tensor], at: At) -> dict[str, Tensor]:
        known = ~batch["mask"].isnan()
        volumes = known.flatten(1).any(1, keepdim=True)  # whose mask somebody has drawn
        first, second = network(batch["voxels"], batch["mask"], at.turn)
        true, false = torch.ones_like(second), torch.zeros_like(second)
        if at.turn == "critic":
            return {"loss": entropy_of_known(first, true, volumes, at) + entropy_of_known(second, false, volumes, at)}
        drawn = entropy_of_known(first, batch["mask"], known, at)
        return {"loss": drawn + self.adversary_weight * entropy_of_known(second, true, volumes, at), "entropy": drawn}
