"""The scan's task: planning CT → the voxels of each organ. What nobody has drawn in a case is unknown there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd
import tyro

from medray.systems.headneck.names import mirrored
from medray.tasks.task import Example
from medray.tasks.volume import IDENTIFIERS, VolumeTask
from medray.tasks.volume_rows import COLUMNS, VolumeRow
from medray.tasks.volume_scores import Drawn

if TYPE_CHECKING:
    from torch import nn

    from medray.nn.volume_truth import Truth
    from medray.systems.headneck.networks import SNet

SETS = 256
"""Numbers of a mask in bytes."""
Grid = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class OrganTask(VolumeTask):
    """S-Net, or a plain network beside it: all organs at once, each a sigmoid of its own, since organs overlap and lack."""

    columns: ClassVar[tuple[str, ...]] = (*COLUMNS, "sets", "drawn", "foreground_class")
    host: ClassVar[tuple[str, ...]] = (*IDENTIFIERS, "own_mask", "inside", "spacing_mm", "own_sets", "own_drawn")

    architecture: Literal["snet", "unet", "segresnet", "resenc"] = "snet"  # type: ignore[assignment]
    activation: tyro.conf.Suppress[Literal["sigmoid"]] = "sigmoid"  # type: ignore[assignment]
    widths: tuple[int, ...] = (24, 48, 96)
    """S-Net: channels of each level."""
    blocks: int = 2
    """S-Net: residual blocks of each level on the way down."""
    dilations_mm: tuple[float, ...] = (12.0, 24.0, 48.0, 72.0)
    """S-Net: of DenseASPP's convolutions, in the plane of the slices; none leaves it out."""
    grid_mm: Grid = (2.5, 1.0, 1.0)
    """About the spacing of the scans (slices, rows, columns), for lengths in mm; the scans may differ."""
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
                f"--flip-axes W: a mirror makes {sided[0]} its other side's; leave W out (columns run to the left)"
            )

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.organs

    @property
    def channel_places(self) -> tuple[int, ...]:
        return (0,)

    def reading(self, source: Any) -> OrganTask:
        return replace(self, organs=tuple(source.organs))

    def labelled(self, index: pd.DataFrame) -> np.ndarray:
        """Where somebody has drawn one of the organs."""
        return (index["organs_drawn"] > 0).to_numpy()

    # ------------------------------------------------------------ examples

    def class_around(self, volume: VolumeRow, rng: np.random.Generator) -> int | None:
        """Each organ of a scan as often as another: small ones would hardly be met otherwise."""
        if self.foreground_class is not None or not len(volume.classes):
            return self.foreground_class
        return int(rng.choice(volume.classes))

    def train_examples(self, row: Mapping[str, Any], rngs: Sequence[np.random.Generator]) -> list[Example]:
        """Each with "sets" (256,) int64 and "drawn" (organs,) float32 beside voxels and mask (``nn.volume_truth``)."""
        sets, drawn = self._drawn(row)
        return [one | {"sets": sets, "drawn": drawn} for one in super().train_examples(row, rngs)]

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
        """S-Net itself, which gives features too: the first down-sampling is in plane only, since slices are thick."""
        from medray.systems.headneck.networks import SNet

        pools = [(1, 2, 2), *[(2, 2, 2)] * (len(self.widths) - 2)]
        factor = 2 ** len(pools)
        deep_mm = [grid * factor for grid in self.grid_mm]
        dilations = [(1, *(max(1, round(mm / deep_mm[axis])) for axis in (1, 2))) for mm in self.dilations_mm]
        return SNet(1, len(self.organs), self.widths, pools, dilations, self.blocks)  # type: ignore[arg-type]

    def truth(self, batch: dict[str, Any]) -> Truth:
        from medray.nn.volume_truth import Truth

        return Truth.of_sets(batch["mask"], batch["sets"], batch["drawn"])

    def drawn_in(self, batch: Mapping[str, Any], i: int) -> Drawn:
        mask = np.asarray(batch["own_mask"][i])
        return Drawn(mask, np.asarray(batch["own_sets"][i]), np.asarray(batch["own_drawn"][i]))

    def metrics(self, outputs: pd.DataFrame) -> dict[str, float]:
        """Mean Dice over the organs, each a mean over the scans in which it is drawn; and of each organ."""
        each = {name: outputs[f"dice_{name}"].astype(float).mean() for name in self.organs}
        found = [value for value in each.values() if np.isfinite(value)]
        mean = float(np.mean(found)) if found else np.nan
        return {"one_minus_dice": 1 - mean, "dice": mean, **{f"dice_{name}": float(v) for name, v in each.items()}}
