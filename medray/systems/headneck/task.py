"""The scan's task: planning CT → the voxels of each organ. What nobody has drawn in a case is unknown there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd
import tyro

from medray.metrics.surface import SurfaceDistances
from medray.systems.headneck.names import mirrored
from medray.systems.headneck.yardstick import tolerance_mm
from medray.tasks.ct_rows import largest_part
from medray.tasks.organs import OrgansTask
from medray.tasks.task import Example
from medray.tasks.volume import IDENTIFIERS
from medray.tasks.volume_rows import COLUMNS
from medray.tasks.volume_scores import Drawn

if TYPE_CHECKING:
    from torch import nn

    from medray.nn.volume_truth import Truth
    from medray.systems.headneck.networks import SNet

THICK = 1.1
"""Slices are thick from this many times rows or columns on."""
SETS = 256
"""Numbers of a mask in bytes."""
Grid = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class OrganTask(OrgansTask):
    """S-Net, or a plain network beside it: all organs at once, each a sigmoid of its own, since organs overlap and lack."""

    columns: ClassVar[tuple[str, ...]] = (*COLUMNS, "sets", "drawn", "foreground_class")
    host: ClassVar[tuple[str, ...]] = (*IDENTIFIERS, "own_mask", "inside", "spacing_mm", "own_sets", "own_drawn")

    architecture: Literal["snet", "unet", "segresnet", "resenc"] = "snet"  # type: ignore[assignment]
    """snet: the source's. The others are plain networks to compare it with; the later stages stand on snet."""
    activation: tyro.conf.Suppress[Literal["sigmoid"]] = "sigmoid"  # type: ignore[assignment]
    widths: tuple[int, ...] = (24, 48, 96)
    """S-Net: channels of each level."""
    blocks: int = 2
    """S-Net: residual blocks of each level on the way down."""
    dilations_mm: tuple[float, ...] = (12.0, 24.0, 48.0, 72.0)
    """S-Net: of DenseASPP's convolutions, in the plane of the slices; none leaves it out."""
    grid_mm: Grid = (2.5, 1.0, 1.0)
    """About the spacing of the scans (slices, rows, columns), for lengths in mm and for what S-Net down-samples first; the
    scans may differ."""
    mirror: bool = False
    """Augment with mirrors of left and right, half of the time; what was the left parotid is the right one then."""
    organs: tuple[str, ...] = ()
    """TG-263 names of those to learn; of tables and folders with masks all that any case has, where not given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not len(self.widths) >= 2 or min(self.widths) < 1:
            raise ValueError(f"--widths {' '.join(map(str, self.widths))}: two or more, each at least 1")
        if self.blocks < 1:
            raise ValueError(f"--blocks {self.blocks}: at least 1")
        if any(not length > 0 for length in (*self.dilations_mm, *self.grid_mm)):
            raise ValueError("--dilations-mm, --grid-mm: lengths above 0")
        sided = [organ for organ in self.organs if mirrored(organ) != organ]
        if "W" in self.flip_axes and sided:
            raise ValueError(
                f"--flip-axes W: a flip makes {sided[0]} its other side's; take --mirror, which renames it too"
            )

    def reading(self, source: Any) -> OrganTask:
        """Lengths in mm become voxels of the source's grid, where it has one for all."""
        grid_mm = self.grid_mm if source.spacing_mm is None else tuple(source.spacing_mm)
        return replace(self, organs=tuple(source.organs), grid_mm=grid_mm)

    def labelled(self, index: pd.DataFrame) -> np.ndarray:
        """Where somebody has drawn one of the organs."""
        return (index["organs_drawn"] > 0).to_numpy()

    # ------------------------------------------------------------ examples

    def train_examples(self, row: Mapping[str, Any], rngs: Sequence[np.random.Generator]) -> list[Example]:
        """Each with "sets" (256,) int64 and "drawn" (organs,) float32 beside voxels and mask (``nn.volume_truth``)."""
        told = self._drawn(row)
        mirrored_told = in_mirror(self.organs, *told)
        found = []
        for one, rng in zip(super().train_examples(row, rngs), rngs, strict=True):
            turn = self.mirror and rng.random() < 0.5
            if turn:
                one |= {name: np.ascontiguousarray(one[name][..., ::-1]) for name in ("voxels", "mask")}
            sets, drawn = mirrored_told if turn else told
            found.append(one | {"sets": sets, "drawn": drawn})
        return found

    def example(self, row: Mapping[str, Any]) -> Example:
        sets, drawn = self._drawn(row)
        return super().example(row) | {"own_sets": sets, "own_drawn": drawn}

    def _drawn(self, row: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        sets = np.zeros(SETS, np.int64)
        known = np.zeros(len(self.organs), np.float32)
        if row["mask"] is not None:
            sets[: len(row["sets"])] = row["sets"]
            known[:] = np.asarray(row["drawn"], np.float32)
        return sets, known

    # ------------------------------------------------------------ network

    def network(self) -> nn.Module:
        if self.architecture != "snet":
            return super().network()
        from medray.nn.volume_network import AnySize
        from medray.systems.headneck.networks import Logits

        factor = 2 ** (len(self.widths) - 1)
        return AnySize(Logits(self.snet()), factor, 2 * factor)

    def snet(self) -> SNet:
        """S-Net itself, which gives features too."""
        from medray.systems.headneck.networks import SNet

        pools = pools_of(self.grid_mm, len(self.widths) - 1)
        deep_mm = [grid * 2 ** len(pools) for grid in self.grid_mm]
        dilations = [(1, *(max(1, round(mm / deep_mm[axis])) for axis in (1, 2))) for mm in self.dilations_mm]
        return SNet(1, len(self.organs), self.widths, pools, dilations, self.blocks)  # type: ignore[arg-type]

    def truth(self, batch: dict[str, Any]) -> Truth:
        import torch

        from medray.nn.volume_truth import Truth

        truth = Truth.of_sets(batch["mask"], batch["sets"], batch["drawn"])
        others = [mirrored(organ) for organ in self.organs]
        if not any(other != organ and other in self.organs for organ, other in zip(self.organs, others, strict=True)):
            return truth
        # what is drawn as one side's organ is not the other's, though nobody has drawn that one
        places = [self.organs.index(other) if other in self.organs else k for k, other in enumerate(others)]
        of_other = torch.stack([truth.members[:, place] for place in places], 1)
        return replace(truth, known=torch.maximum(truth.known, of_other))

    def drawn_in(self, batch: Mapping[str, Any], i: int) -> Drawn:
        mask = np.asarray(batch["own_mask"][i])
        return Drawn(mask, np.asarray(batch["own_sets"][i]), np.asarray(batch["own_drawn"][i]))

    # ------------------------------------------------------------ prediction

    def voxels_of(self, number: int, probability: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """By its own threshold, whatever else is there: a lens lies in its eye. The largest part of it, if so wanted."""
        found = probability[number - 1] >= self.threshold
        return largest_part(found) if self.largest_part else found

    def surface_scores(self, name: str, surface: SurfaceDistances | None) -> dict[str, float]:
        """With the share of both surfaces within the organ's tolerance."""
        within = np.nan if surface is None else surface.dice(tolerance_mm(name))
        return super().surface_scores(name, surface) | {"surface_dice": within}


def pools_of(grid_mm: Grid, count: int) -> list[tuple[int, int, int]]:
    """Factors of ``count`` down-samplings: the first is in plane only where slices are thicker than rows and columns, as the
    paper's are (2.5 × 1 × 1 mm): by a tenth or more, so that 1.00 × 0.98 × 0.98 mm counts as even."""
    thick = grid_mm[0] > THICK * min(grid_mm[1:])
    return [(1 if thick else 2, 2, 2), *[(2, 2, 2)] * (count - 1)]


def in_mirror(organs: Sequence[str], sets: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the numbers of a mask stand for when left and right are exchanged, and which organs are drawn.

    An organ whose other side is not learned is unknown there.

    Args:
        sets: (256,) int64, bit k is organ k. drawn: (organs,) float32.
    """
    others = [organs.index(mirrored(organ)) if mirrored(organ) in organs else None for organ in organs]
    turned, known = np.zeros_like(sets), np.zeros_like(drawn)
    for k, other in enumerate(others):
        if other is not None:
            turned |= ((sets >> other) & 1) << k
            known[k] = drawn[other]
    return turned, known
