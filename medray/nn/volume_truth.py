"""What is drawn in a batch of crops, class by class, and what of it is known."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medray.tasks.volume_rows import UNKNOWN


@dataclass(frozen=True, eq=False)
class Truth:
    """Classes may overlap, and each may be unknown for itself: a case on which nobody has drawn an organ says nothing of it."""

    members: Tensor
    """(batch, classes, D, H, W) float, 1 where a voxel is of the class; none of them where unknown."""
    known: Tensor
    """(batch, 1 or classes, D, H, W) float, 1 where it is known whether a voxel is of the class."""

    @staticmethod
    def of_numbers(mask: Tensor, classes: int) -> Truth:
        """
        Args:
            mask: (batch, D, H, W) of 0, class numbers from 1, or UNKNOWN: a voxel is of one class, and known for all or none.
        """
        members = torch.stack([(mask == number) for number in range(1, classes + 1)], 1).float()
        return Truth(members, (mask != UNKNOWN).unsqueeze(1).float())

    @staticmethod
    def of_sets(mask: Tensor, sets: Tensor, drawn: Tensor) -> Truth:
        """
        Args:
            mask: (batch, D, H, W) of numbers of sets of classes, or UNKNOWN for all classes.
            sets: (batch, 256) int64, of each number the classes in it: bit k − 1 is class k.
            drawn: (batch, classes) of any type, above 0 where the class has been drawn in the sample.
        """
        bits = torch.stack([own[number] for own, number in zip(sets, mask.long(), strict=True)])
        there = (mask != UNKNOWN).unsqueeze(1).float()
        known = there * (drawn > 0).float()[:, :, None, None, None]
        classes = torch.arange(drawn.shape[1], device=mask.device)[None, :, None, None, None]
        return Truth(((bits.unsqueeze(1) >> classes) & 1).float() * known, known)

    def numbers(self) -> Tensor:
        """(batch, D, H, W) int64 class numbers, 0 where unknown; where classes overlap, the first one.

        Raises:
            ValueError: a class that is unknown for itself, of which a number cannot tell.
        """
        if self.known.shape[1] != 1:
            raise ValueError("classes that are unknown for themselves want --activation sigmoid")
        return torch.where(self.members.any(1), self.members.argmax(1) + 1, 0)
