"""A convolutional GRU along one axis of a volume (Ballas et al., arXiv 1511.06432), both ways."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AxisGRU(nn.Module):
    """(batch, channels, D, H, W) → the same shape: each slice of the first axis knows of those before and after it.

    What the two directions give is averaged and added to the input.
    """

    def __init__(self, channels: int, kernel: int = 3) -> None:
        super().__init__()
        self.forwards, self.backwards = (_Cell(channels, kernel) for _ in range(2))

    def forward(self, volume: Tensor) -> Tensor:
        slices = list(volume.unbind(2))
        there = self.forwards(slices)
        back = self.backwards(slices[::-1])[::-1]
        return volume + (torch.stack(there, 2) + torch.stack(back, 2)) / 2


class _Cell(nn.Module):
    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(2 * channels, 2 * channels, kernel, padding=kernel // 2)
        self.candidate = nn.Conv2d(2 * channels, channels, kernel, padding=kernel // 2)

    def forward(self, slices: list[Tensor]) -> list[Tensor]:
        """The state after each (batch, channels, H, W) slice."""
        state = torch.zeros_like(slices[0])
        states = []
        for given in slices:
            update, reset = self.gates(torch.cat([given, state], 1)).sigmoid().chunk(2, 1)
            found = torch.tanh(self.candidate(torch.cat([given, reset * state], 1)))
            state = (1 - update) * state + update * found
            states.append(state)
        return states
