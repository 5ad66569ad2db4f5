"""A running mean of a network's weights."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


class Averaged(AveragedModel):
    """An exponential moving average of weights and buffers, as ``follow`` makes it.

    The number of steps is counted on the host: torch's own average asks the GPU for it in each step.

    Args:
        decay: of a step, once the mean has grown to it.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network, use_buffers=True)
        self.decay = decay

    def update_parameters(self, model: nn.Module) -> None:
        follow(self.module, model, self.decay, int(self.n_averaged))
        self.n_averaged += 1


@torch.no_grad()
def follow(mean: nn.Module, model: nn.Module, decay: float, steps: int) -> None:
    """Bring a running mean up to date with the network that it follows.

    It begins short and grows to its decay: a run of a few hundred steps would otherwise end near its random start. Weights and
    buffers of floating point are averaged, as batch statistics belong to the weights that they were counted with; other
    buffers are copied.

    Args:
        mean, model: of one architecture. decay: of a step, once the mean has grown to it.
        steps: how often it has been brought up to date before; at 0 it becomes a copy.
    """
    part = 1.0 if steps == 0 else 1 - min(decay, (1 + steps) / (10 + steps))
    all_of_it = [*mean.parameters(), *mean.buffers()]
    pairs = list(zip(all_of_it, [*model.parameters(), *model.buffers()], strict=True))
    means = [(own.detach(), value.detach()) for own, value in pairs if steps and own.is_floating_point()]
    if means:
        torch._foreach_lerp_([own for own, _ in means], [value for _, value in means], part)
    for of_mean, value in pairs:
        if not (steps and of_mean.is_floating_point()):
            of_mean.detach().copy_(value.detach())
