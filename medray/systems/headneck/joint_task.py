"""The last two stages: the coder of shapes learns what organs look like, then all four networks are trained together.

Numbers of the losses are the source's released code's (the addendum of its specification); what trains is the text's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from medray.systems.headneck.focus_task import FocusTask
from medray.systems.headneck.task import OrganTask
from medray.tasks.task import At
from medray.tasks.volume_rows import VolumeRow

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from medray.systems.headneck.joint import Shapes

FROM_SOS = {"": "focus."}
"""Names of the weights of a run of FocusTask → here."""
FROM_SHAPES = {"": "coder."}
"""Of a run of ShapeTask."""


@dataclass(frozen=True, kw_only=True)
class ShapeTask(FocusTask):
    """An autoencoder of the masks of small organs, each in the region about its own middle."""

    code: int = 512
    """Numbers that a shape becomes."""
    coder_width: int = 8
    """Channels of the coder's first level."""

    def network(self) -> nn.Module:
        from medray.systems.headneck.focus import ShapeCoder

        return ShapeCoder(self.region_DHW, self.coder_width, self.code)

    def losses(self, network: nn.Module, batch: dict[str, Any], at: At) -> dict[str, Tensor]:
        """How far what comes out of the coder is from what went in; of organs whose middle lies in the crop."""
        masks, there = self.masks(batch)
        each = unlike(network(masks)[0], masks)
        return {"loss": at.mean((each * there).sum(), there.sum())}

    def masks(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """(samples · small organs, 1, d, h, w) of the truth, and (samples · small organs,) 1 where there is one to learn from."""
        import torch

        from medray.systems.headneck.focus import filled_up, heatmaps_of, in_boxes

        members = self.truth(batch).members[:, list(self.places)]
        wanted, told = heatmaps_of(members, self.sigma_DHW)
        at = wanted.flatten(2).argmax(2)
        boxes = torch.cat(
            [in_boxes(members[:, k : k + 1], at[:, k], self.region_DHW) for k in range(len(self.small))], 1
        )
        boxes = filled_up(boxes, self.region_DHW)
        there = told * (members.flatten(2).amax(2) > 0).to(told.dtype)
        return boxes.flatten(0, 1)[:, None], there.flatten()

    def outputs(self, network: Any, batch: dict[str, Any]) -> dict[str, np.ndarray]:
        """Of whole scans: dice_<organ>, of what comes out of the coder with what went in; NaN where it is not drawn."""
        import torch

        from medray.systems.headneck.focus import box_at
        from medray.tasks.volume import IDENTIFIERS

        columns: dict[str, list[Any]] = {name: list(batch[name]) for name in IDENTIFIERS}
        columns |= {f"dice_{organ}": [] for organ in self.small}
        device = next(network.parameters()).device
        for i in range(len(batch["own_mask"])):
            drawn = self.drawn_in(batch, i)
            for organ, place in zip(self.small, self.places, strict=True):
                members, _ = drawn.of(place + 1)
                if not members.any():
                    columns[f"dice_{organ}"].append(np.nan)
                    continue
                box = box_at(np.argwhere(members).mean(axis=0).astype(int).tolist(), members.shape, self.region_DHW)
                mask = np.zeros(self.region_DHW, np.float32)
                cut = members[box]
                mask[: cut.shape[0], : cut.shape[1], : cut.shape[2]] = cut
                logits = network(torch.from_numpy(mask)[None, None].to(device))[0]
                found = logits.float().cpu().numpy()[0, 0] > 0
                columns[f"dice_{organ}"].append(2 * float((found & (mask > 0)).sum()) / float(found.sum() + mask.sum()))
        return {name: np.array(values) for name, values in columns.items()}

    def metrics(self, outputs: pd.DataFrame) -> dict[str, float]:
        each = {f"dice_{organ}": float(outputs[f"dice_{organ}"].astype(float).mean()) for organ in self.small}
        known = [value for value in each.values() if np.isfinite(value)]
        return {"one_minus_dice": 1 - float(np.mean(known)) if known else np.nan, **each}

    def training_gigabytes(self) -> float | None:
        return None


@dataclass(frozen=True, kw_only=True)
class JointTask(FocusTask):
    """All four networks: the coder pulls codes of outlines and truth apart, the others pull them together."""

    stage: Literal["sol", "sos"] = "sos"
    code: int = 512
    coder_width: int = 8
    coder_rate: float = 1e-4
    """Peak learning rate of the coder."""
    apart: float = 0.001
    """Of the distance in the coder's loss; the rest is the reconstruction's."""
    features: float = 0.2
    """Of the distance of the coder's features beside that of its code."""
    together: float = 5.0
    """Of the distance in the networks' loss."""

    def network(self) -> nn.Module:
        from medray.systems.headneck.focus import ShapeCoder
        from medray.systems.headneck.joint import JointNet

        focus: Any = super().network()
        return JointNet(focus.requires_grad_(True), ShapeCoder(self.region_DHW, self.coder_width, self.code))

    def counted_network(self) -> nn.Module:
        """Without the coder, which is small beside the others."""
        network: Any = self.network()
        found: nn.Module = network.focus
        return found

    def class_around(self, volume: VolumeRow, rng: np.random.Generator) -> int | None:
        """Of any organ: S-Net learns on."""
        return OrganTask.class_around(self, volume, rng)

    def optimizers(self, network: Any) -> dict[str, torch.optim.Optimizer]:
        """The coder first: the networks are then pulled by what it has learned."""
        return {
            "coder": replace(self, learning_rate=self.coder_rate).make_optimizer(network.coder.parameters()),
            "networks": self.make_optimizer(network.focus.parameters()),
        }

    def losses(self, network: nn.Module, batch: dict[str, Any], at: At) -> dict[str, Tensor]:
        truth = self.truth(batch)
        found, shapes = network(batch["voxels"], truth.members, at.turn)
        counts = [self.truth_in_region(found, truth, k) for k in range(len(self.small))]
        # of an organ that nobody has drawn, or that the region does not show, there is no shape to compare with
        there = self._stacked(
            [(own.known.flatten(1).amax(1) > 0) & (own.members.flatten(1).amax(1) > 0) for own in counts]
        )
        apart = at.mean(((shapes.code_apart + self.features * shapes.features_apart) * there).sum(), there.sum())
        if at.turn == "coder":
            return self._of_coder(shapes, there, apart, at)
        parts = self.losses_of_outlines(found, truth, at)
        heat = self.loss_of_heatmaps(found.heatmaps, truth, batch["drawn"], at)
        snet = self.losses_of(found.logits, truth, at)["loss"]
        total = snet + heat + parts["focal"] + parts["dice_loss"] + self.together * apart
        return {"loss": total, "snet": snet, "heatmaps": heat, **parts, "shapes": apart}

    def _of_coder(self, shapes: Shapes, there: Tensor, apart: Tensor, at: At) -> dict[str, Tensor]:
        same = at.mean((unlike(shapes.reconstructed, shapes.true) * there).sum(), there.sum())
        return {"loss": (1 - self.apart) * same - self.apart * apart, "reconstruction": same, "apart": apart}

    @staticmethod
    def _stacked(by_organ: list[Tensor]) -> Tensor:
        """(samples · organs,) in the order of ``Shapes``."""
        import torch

        return torch.stack(by_organ, 1).flatten().float()


def unlike(logits: Tensor, masks: Tensor) -> Tensor:
    """(n,) cross-entropy and Dice loss of (n, 1, d, h, w) logits: a lens is one voxel in a hundred of its region, and by the
    cross-entropy alone the coder says for long that there is nothing."""
    from torch.nn import functional

    logits = logits.float()
    entropy = functional.binary_cross_entropy_with_logits(logits, masks, reduction="none").flatten(1).mean(1)
    found = logits.sigmoid()
    overlap, both = (found * masks).flatten(1).sum(1), (found + masks).flatten(1).sum(1)
    return entropy + 1 - (2 * overlap + 1) / (both + 1)
