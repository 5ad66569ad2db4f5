"""A running mean of a network's weights."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


class Averaged(AveragedModel):
    """An exponential moving average of weights and buffers.

    It begins short and grows to its decay: a run of a few hundred steps would otherwise end near its random start. The
    number of steps is counted on the host: torch's own average asks the GPU for it in each step.

    Args:
        decay: of a step, once the mean has grown to it.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network, use_buffers=True)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        steps = int(self.n_averaged)
        part = 1.0 if steps == 0 else 1 - min(self.decay, (1 + steps) / (10 + steps))
        own = [*self.module.parameters(), *self.module.buffers()]
        pairs = list(zip(own, [*model.parameters(), *model.buffers()], strict=True))
        means = [(mean.detach(), value.detach()) for mean, value in pairs if steps and mean.is_floating_point()]
        if means:
            torch._foreach_lerp_([mean for mean, _ in means], [value for _, value in means], part)
        for mean, value in pairs:
            if not (steps and mean.is_floating_point()):
                mean.detach().copy_(value.detach())
        self.n_averaged += 1
