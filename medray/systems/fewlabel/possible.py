"""What each voxel may be. A source that labels the liver says of every voxel either that it is liver, or that it is anything but."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from medray.tasks.volume_rows import UNKNOWN

UNTRUE = 128
"""Added to a mask's number where no true label says which class a voxel is of, and where two networks may teach each other (τ)."""


def numbers_of(classes: int) -> int:
    """Most numbers that a mask may hold: 0, each class or group of them, and after pseudo-labels each class for itself and the
    background. The loss makes a channel of each.

    Args:
        classes: with the background.
    """
    return 2 * classes


def set_of(classes: Sequence[int]) -> int:
    """Bit c for class c; 0 is the background."""
    return int(sum(1 << c for c in set(classes)))


def sets_of(mask: np.ndarray, sets: Sequence[int], classes: int) -> np.ndarray:
    """(D, H, W) int64: of each voxel the classes that it may be of, UNTRUE or not.

    Args:
        mask: (D, H, W) uint8 of numbers, UNTRUE added to some of them, or UNKNOWN. sets: of each number.
        classes: with the background.
    """
    table = np.zeros(256, np.int64)
    table[: len(sets)] = table[UNTRUE : UNTRUE + len(sets)] = sets
    table[UNKNOWN] = set_of(range(classes))
    return table[mask]


@dataclass(frozen=True, eq=False)
class Possible:
    """The classes that each voxel of a batch may be of; 0 is the background."""

    numbers: Tensor
    """(batch, D, H, W) int64, below ``numbers_of``; -1 where all is possible."""
    table: Tensor
    """(batch, numbers, classes) bool: of each number the classes that it may stand for. 0 is what its source has not labelled."""
    taught: Tensor
    """(batch, D, H, W) bool: τ, where one network may teach another."""

    @staticmethod
    def of(mask: Tensor, sets: Tensor, classes: int) -> Possible:
        """
        Args:
            mask: (batch, D, H, W) uint8 of numbers, UNTRUE added to some of them, or UNKNOWN.
            sets: (batch, numbers) int64, of each number ``set_of`` the classes that it may be.
            classes: with the background.
        """
        nothing = mask == UNKNOWN
        taught = (mask >= UNTRUE) & ~nothing
        numbers = torch.where(nothing, -1, (mask % UNTRUE).long())
        bits = torch.arange(classes, device=sets.device)
        return Possible(numbers, (sets.unsqueeze(-1) >> bits) & 1 > 0, taught)

    @property
    def known(self) -> Tensor:
        """(batch, D, H, W) float: 0 where a voxel may be anything."""
        anything = self.table.all(-1)
        return ((self.numbers >= 0) & ~self._of_number(anything)).float()

    @property
    def allowed(self) -> Tensor:
        """(batch, classes, D, H, W) bool."""
        own = torch.stack([table[number.clamp(min=0)] for table, number in zip(self.table, self.numbers, strict=True)])
        return own.movedim(-1, 1) | (self.numbers < 0).unsqueeze(1)

    @property
    def teachable(self) -> Tensor:
        """(batch, classes, D, H, W) bool: where networks teach each other, all that the source leaves open, whatever a pseudo-label
        says; elsewhere ``allowed``."""
        rest = self.table[:, 0, :, None, None, None]
        return torch.where(self.taught.unsqueeze(1), rest, self.allowed)

    @property
    def unlabelled(self) -> Tensor:
        """(batch, classes) bool: organs that the source of a sample has not labelled."""
        rest = self.table[:, 0].clone()
        rest[:, 0] = False
        return rest

    def as_background(self) -> Possible:
        """What is not labelled taken for background: the wrong lesson that the others are compared with."""
        table = self.table.clone()
        table[:, 0] = False
        table[:, 0, 0] = True
        return replace(self, table=table)

    def _of_number(self, values: Tensor) -> Tensor:
        """(batch, D, H, W), of (batch, numbers)."""
        return torch.stack([own[number.clamp(min=0)] for own, number in zip(values, self.numbers, strict=True)])


def with_pseudo(
    mask: np.ndarray,
    sets: Sequence[int],
    pseudo: np.ndarray,
    near: np.ndarray,
    classes: int,
    unsure: Iterable[int] = (),
) -> tuple[np.ndarray, list[int]]:
    """True labels and pseudo-labels in one mask. True labels win: a pseudo-label counts where its class is possible.

    What neither names is background then, or one of ``unsure``. A group that a source has drawn as one (both kidneys) becomes the class that a
    pseudo-label tells, and stays a group where none does.

    Args:
        mask: (D, H, W) uint8 of numbers, or UNKNOWN. sets: of each number.
        pseudo: (D, H, W) uint8: 0, or the class that other sources' networks found.
        near: (D, H, W) bool: where two networks may teach each other, if there is no true label; it becomes UNTRUE.
        classes: with the background. unsure: classes of which pseudo-labels do not tell where they are not.
    Returns:
        The mask, and the sets of its numbers.
    Raises:
        ValueError: a mask of another shape.
    """
    if pseudo.shape != mask.shape:
        raise ValueError(f"pseudo-labels of {pseudo.shape} voxels for a scan of {mask.shape}")
    found = list(map(int, sets))
    own = sets_of(mask, found, classes)
    untold = (own & (own - 1)) != 0  # more than one class
    told = np.where(untold & (pseudo > 0) & ((own >> pseudo) & 1 > 0), np.int64(1) << pseudo.astype(np.int64), own)
    told = np.where(untold & (told == own) & (own & 1 > 0), own & set_of([0, *unsure]), told)
    # what 0 stands for stays the first, as it says which organs the source has not labelled
    every = [found[0], *(int(s) for s in np.unique(told) if s != found[0])]
    numbers = np.zeros(mask.shape, np.uint8)
    for number, bits in enumerate(every):
        numbers[told == bits] = number
    numbers[untold & near & (own == found[0])] |= UNTRUE  # a group is a true label
    return numbers, every
