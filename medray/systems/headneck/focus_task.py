"""The stages for small organs as tasks: SOL-Net learns where each is, then SOS-Net its outline there; S-Net is frozen.

A run starts from the one before: ``FROM_SNET`` and ``FROM_FOCUS`` are the maps of names for ``FromRuns``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from scipy import ndimage

from medray.systems.headneck.task import Grid, OrganTask
from medray.tasks.task import At
from medray.tasks.volume_rows import VolumeRow
from medray.tasks.volume_scores import Drawn

if TYPE_CHECKING:
    from torch import Tensor, nn

    from medray.nn.volume_truth import Truth
    from medray.systems.headneck.focus import Box, Found

FROM_SNET = {"network.network.": "snet."}
"""Names of the weights of a run of OrganTask → here."""
FROM_FOCUS = {"snet.": "snet.", "sol.": "sol."}
"""Of a run of the stage before."""
AT_MIDDLE = 100.0
MOST_MM = 500.0
"""Of a region: more than a head."""


@dataclass(frozen=True, kw_only=True)
class FocusTask(OrganTask):
    """S-Net, SOL-Net and SOS-Net, of which the stage says what is trained."""

    stage: Literal["sol", "sos"] = "sol"
    """sol: the heatmaps; sos: the outlines, of frozen heatmaps."""
    small: tuple[str, ...] = ()
    """Organs with a network of their own."""
    sigma_mm: Grid = (2.5, 5.0, 5.0)
    """Of a heatmap's Gaussian, along slices, rows and columns."""
    region_mm: Grid = (20.0, 64.0, 64.0)
    """What an organ's own network sees."""
    gate: float = 0.6
    """An organ's own network is asked where its heatmap has a peak of this height; else S-Net's answer stays."""
    small_width: int = 16
    """Channels of an organ's own network."""
    sees: tuple[Literal["features", "heatmap", "ct"], ...] = ("features", "heatmap", "ct")
    """What an organ's own network is given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.architecture != "snet":
            raise ValueError(f"--architecture {self.architecture}: the stages for small organs stand on snet")
        lost = [organ for organ in self.small if self.organs and organ not in self.organs]
        if lost:
            raise ValueError(f"--small {lost[0]}: the run learns {', '.join(self.organs)}; name some of these")
        if len({*self.small}) < len(self.small):
            raise ValueError(f"--small {' '.join(self.small)}: each once")
        if not 0 < self.gate < 1 or self.small_width < 1:
            raise ValueError(
                f"--gate {self.gate}, --small-width {self.small_width}: between 0 and 1, and at least 1 channel"
            )
        for name in ("sigma_mm", "region_mm"):
            lengths = getattr(self, name)
            if not all(0 < length <= MOST_MM for length in lengths):
                shown = " ".join(f"{length:g}" for length in lengths)
                raise ValueError(f"--{name.replace('_', '-')} {shown}: lengths above 0, to {MOST_MM:g} mm")
        if self.test_flips or self.context_padding:
            raise ValueError(
                "--test-flips, --context-padding: the stages for small organs have neither; leave them out"
            )
        by = 2 ** (len(self.widths) - 1)
        if any(side % by for side in self.patch_DHW):
            raise ValueError(
                f"--patch-DHW {' '.join(map(str, self.patch_DHW))}: multiples of {by} with {len(self.widths)} widths"
            )

    @property
    def places(self) -> tuple[int, ...]:
        """Of the small organs among all, from 0."""
        return tuple(self.organs.index(organ) for organ in self.small)

    @property
    def region_DHW(self) -> tuple[int, int, int]:  # noqa: N802  axes
        """In voxels; the rows and columns multiples of 8, the slices of 2, as the coder of shapes wants them."""
        d, h, w = (mm / grid for mm, grid in zip(self.region_mm, self.grid_mm, strict=True))
        return max(2, 2 * round(d / 2)), max(8, 8 * round(h / 8)), max(8, 8 * round(w / 8))

    @property
    def sigma_DHW(self) -> tuple[float, ...]:  # noqa: N802  axes
        return tuple(mm / grid for mm, grid in zip(self.sigma_mm, self.grid_mm, strict=True))

    # ------------------------------------------------------------ training

    def class_around(self, volume: VolumeRow, rng: np.random.Generator) -> int | None:
        """One of the small organs of a scan: of the others these stages learn nothing."""
        wanted = [number for number in volume.classes.tolist() if number - 1 in self.places]
        if self.foreground_class is not None or not wanted:
            return self.foreground_class
        return self.one_of(wanted, rng)

    def network(self) -> nn.Module:
        from medray.systems.headneck.focus import FocusNet

        if not self.small:
            raise ValueError("--small: name the organs that have a network of their own")
        sees = {name: name in self.sees for name in ("features", "heatmap", "ct")}
        found = FocusNet(
            self.snet(), self.places, self.region_DHW, self.small_width, sees["features"], sees["heatmap"], sees["ct"]
        )
        frozen: list[nn.Module] = [found.snet, found.sos if self.stage == "sol" else found.sol]
        for module in frozen:
            module.requires_grad_(False)
        return found

    def losses(self, network: nn.Module, batch: dict[str, Any], at: At) -> dict[str, Tensor]:
        found, truth = network(batch["voxels"], self.stage != "sol"), self.truth(batch)
        if self.stage == "sol":
            return {"loss": self.loss_of_heatmaps(found.heatmaps, truth, batch["drawn"], at)}
        parts = self.losses_of_outlines(found, truth, at)
        return {"loss": parts["focal"] + parts["dice_loss"], **parts}

    def loss_of_heatmaps(self, heatmaps: Tensor, truth: Truth, drawn: Tensor, at: At) -> Tensor:
        """Squared error; at a middle, and where a peak is claimed, AT_MIDDLE times as dear as where nothing is. With equal weights
        peaks stay low for long; where only middles are dear, a peak at another organ costs next to nothing. 1, about, where
        nothing is found."""
        from medray.systems.headneck.focus import heatmaps_of

        places = list(self.places)
        wanted, told = heatmaps_of(truth.members[:, places], self.sigma_DHW)
        known = told * (drawn[:, places] > 0).float()
        claimed = heatmaps.detach().float().clamp(0, 1)
        weights = (1 + (AT_MIDDLE - 1) * wanted.maximum(claimed)) * known[:, :, None, None, None]
        squares = (heatmaps.float() - wanted).square() * weights
        # the sum of a whole Gaussian's weighted squares, about
        near = AT_MIDDLE * (2 * math.pi / 3) ** 1.5 * math.prod(self.sigma_DHW)
        return at.mean(squares.sum(), known.sum() * near)

    def losses_of_outlines(self, found: Found, truth: Truth, at: At) -> dict[str, Tensor]:
        """Focal loss and Dice of each small organ in the region about the predicted peak; of samples in which the peak is
        confident, or the region shows some of the organ. Means over the organs."""
        from medray.nn import volume_losses as of

        focal, dice = [], []
        assert found.outlines is not None
        for k in range(len(self.small)):
            own, logits = self.truth_in_region(found, truth, k), found.outlines[:, k : k + 1]
            focal.append(of.focal_loss(logits, own, "sigmoid", at, self.focal_gamma))
            dice.append(of.dice_loss(logits, own, "sigmoid", at, self.dice_of_batch, self.dice_log))
        return {"focal": sum(focal) / len(focal), "dice_loss": sum(dice) / len(dice)}  # type: ignore[dict-item]

    def truth_in_region(self, found: Found, truth: Truth, k: int) -> Truth:
        """What is drawn of the ``k``-th small organ about its peak; not known in samples that do not count."""
        from medray.nn.volume_truth import Truth
        from medray.systems.headneck.focus import in_boxes

        place = self.places[k]
        members, known = (
            in_boxes(part[:, place : place + 1], found.at[:, k], self.region_DHW)
            for part in (truth.members, truth.known)
        )
        counts = (found.peaks[:, k] > self.gate) | (members.flatten(1).amax(1) > 0)
        return Truth(members, known * counts.float()[:, None, None, None, None])

    # ------------------------------------------------------------ prediction

    def answered(self, network: Any, voxels: Tensor, notes: dict[str, Any]) -> Tensor:
        """S-Net's probabilities; in place of those of a small organ its own network's in the region about a confident peak."""
        import torch

        def all_of(some: Tensor) -> Tensor:
            _, logits, heat = network.maps(some)
            return torch.cat([logits.float().sigmoid(), heat.float()], 1)

        joined = self.windowed(all_of, voxels)
        found, heat = joined[:, : len(self.organs)], joined[:, len(self.organs) :]
        notes["peaks"] = {}
        for k, (organ, place) in enumerate(zip(self.small, self.places, strict=True)):
            height, peak = peak_of(heat[0, k].cpu().numpy(), self.sigma_DHW)
            notes["peaks"][organ] = height, peak
            if height >= self.gate and self.stage == "sos":
                box, outline = self._outlined(network, k, voxels, peak)
                found[:, place] = 0
                found[(0, place, *box)] = outline
        return found

    def _outlined(self, network: Any, k: int, voxels: Tensor, peak: tuple[int, ...]) -> tuple[Box, Tensor]:
        """The region about a peak, and what the ``k``-th small organ's network says of it: (d, h, w) probabilities.

        From one window about the peak, as in training. Features of a whole scan are gigabytes.
        """
        from medray.systems.headneck.focus import box_at, filled_up

        shape = voxels.shape[2:]
        window = box_at(peak, shape, self.patch_DHW)
        some = filled_up(voxels[(slice(None), slice(None), *window)], self.patch_DHW)
        d, h, w = (min(sides) for sides in zip(self.region_DHW, self.patch_DHW, strict=True))
        box = box_at(peak, shape, (d, h, w))
        own = (slice(b.start - first.start, b.stop - first.start) for b, first in zip(box, window, strict=True))
        inner = (slice(None), slice(None), *own)
        features, _, heat = network.maps(some)
        logits = network.outline(k, features[inner], heat[:, k : k + 1][inner], some[inner])
        return box, logits[0, 0].float().sigmoid()

    def noted(self, notes: Mapping[str, Any], drawn: Drawn, spacing_mm: np.ndarray) -> dict[str, Any]:
        """peak_<organ>: the height of its heatmap; peak_mm_<organ>: how far the peak lies from the middle of what is drawn."""
        columns: dict[str, Any] = {}
        for organ, place in zip(self.small, self.places, strict=True):
            height, at_voxel = notes.get("peaks", {}).get(organ, (np.nan, None))
            members, _ = drawn.of(place + 1)
            off = np.nan
            if at_voxel is not None and members.any():
                middle = np.argwhere(members).mean(axis=0)
                off = float(np.linalg.norm((np.add(at_voxel, notes["first"]) - middle) * spacing_mm))
            columns |= {f"peak_{organ}": float(height), f"peak_mm_{organ}": off}
        return columns

    def metrics(self, outputs: pd.DataFrame) -> dict[str, float]:
        """As S-Net's, of the small organs; in the stage of heatmaps how far the peaks lie off."""
        peaks = {f"peak_mm_{organ}": outputs[f"peak_mm_{organ}"].astype(float).median() for organ in self.small}
        heights = {
            f"confident_{o}": float((outputs[f"peak_{o}"].astype(float) >= self.gate).mean()) for o in self.small
        }
        known = [value for value in peaks.values() if np.isfinite(value)]
        of_small = [outputs[f"dice_{organ}"].astype(float).mean() for organ in self.small]
        found = [value for value in of_small if np.isfinite(value)]
        small = float(np.mean(found)) if found else np.nan
        first = (
            {"peak_mm": float(np.mean(known)) if known else np.nan}
            if self.stage == "sol"
            else {"one_minus_dice_small": 1 - small}
        )
        return first | {name: float(v) for name, v in peaks.items()} | heights | super().metrics(outputs)


def peak_of(heatmap: np.ndarray, sigma_DHW: Sequence[float]) -> tuple[float, tuple[int, int, int]]:  # noqa: N803  axes
    """The height of a heatmap's highest voxel, and the middle of what about it is at least half as high: a wide peak is flat at
    its top, and noise moves its highest voxel about.

    Args:
        heatmap: (D, H, W). sigma_DHW: of its Gaussian, in voxels; what lies farther than two of them is another peak's.
    """
    height = float(heatmap.max())
    top = np.unravel_index(int(heatmap.argmax()), heatmap.shape)
    if height <= 0:
        return height, (int(top[0]), int(top[1]), int(top[2]))
    first = [max(0, int(at - 2 * sigma)) for at, sigma in zip(top, sigma_DHW, strict=True)]
    box = tuple(slice(f, int(at + 2 * sigma) + 1) for f, at, sigma in zip(first, top, sigma_DHW, strict=True))
    near = np.where(heatmap[box] >= height / 2, heatmap[box], 0)
    d, h, w = (int(np.rint(f + middle)) for f, middle in zip(first, ndimage.center_of_mass(near), strict=True))
    return height, (d, h, w)
