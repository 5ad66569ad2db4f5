"""Networks that are several, or that are told something."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from medray.nn.average import follow

Which = Literal["first", "second"]


NEVER = -1e4
"""Logit of a class that a network does not know."""


class Apart(nn.Module):
    """A network for each source, of the classes that the source draws.

    Args:
        make: a network for all classes, with new random weights each time.
        classes: of all sources, with the background. known: of each source its classes.
    """

    never: Tensor

    def __init__(self, make: Callable[[], nn.Module], classes: int, known: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.networks = nn.ModuleList([make() for _ in known])
        never = torch.full((len(known), classes), NEVER)
        for number, own in enumerate(known):
            never[number, list(own)] = 0
        self.register_buffer("never", never, persistent=False)

    def forward(self, voxels: Tensor, sources: Sequence[int]) -> Tensor:
        """(batch, classes, D, H, W) logits, of each sample by the network of its source (a number of the host)."""
        out: list[Tensor | None] = [None] * len(sources)
        for number in sorted(set(sources)):
            places = [place for place, own in enumerate(sources) if own == number]
            some = voxels if len(places) == len(sources) else torch.stack([voxels[place] for place in places])
            logits = self.networks[number](some) + self.never[number][None, :, None, None, None]
            for place, own in zip(places, logits, strict=True):
                out[place] = own
        return torch.stack(out)  # type: ignore[arg-type]


class Conditional(nn.Module):
    """A network that has a channel for each organ beside the CT, 1 everywhere for the one that is asked."""

    def __init__(self, network: nn.Module, organs: int) -> None:
        super().__init__()
        self.inner, self.organs = network, organs

    def forward(self, voxels: Tensor, asked: Tensor) -> Tensor:
        """(batch, 1, D, H, W) logits.

        Args:
            asked: (batch,) int64, from 0.
        """
        told = functional.one_hot(asked, self.organs).to(voxels.dtype)[:, :, None, None, None]
        return self.inner(torch.cat([voxels, told.expand(-1, -1, *voxels.shape[2:])], 1))  # type: ignore[no-any-return]


class Twins(nn.Module):
    """Two networks that teach each other, each by the running mean of its weights (Huang et al., MICCAI 2020).

    ``networks`` are trained, ``means`` follow them without gradient and always in eval.

    Args:
        make: a network with new random weights each time.
    """

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleDict({"first": make(), "second": make()})
        self.means = deepcopy(self.networks).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Twins:
        super().train(mode)
        self.means.eval()
        return self

    def forward(self, voxels: Tensor, which: Which | None = None) -> Any:
        """Logits of the mean that is asked, or, to train both, ``(of the networks, of their means)``, each a pair.

        One call for all that a step needs: batch statistics move once, and several workers see one forward pass.
        """
        if which is not None:
            return self.means[which](voxels)
        with torch.no_grad():
            of_means = [mean(voxels) for mean in self.means.values()]
        return [network(voxels) for network in self.networks.values()], of_means

    def follow(self, decay: float, steps: int) -> None:
        """Bring both means up to date; see ``nn.average.follow``."""
        for name, mean in self.means.items():
            follow(mean, self.networks[name], decay, steps)
