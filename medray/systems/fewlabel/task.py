"""The scan's task: CT → the voxels of each organ, learned from sources that each label a few of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import numpy as np
import pandas as pd
import tyro

from medray.systems.fewlabel.possible import Possible, numbers_of, set_of, sets_of
from medray.tasks.ct_rows import largest_part
from medray.tasks.organs import OrgansTask
from medray.tasks.sampling import balanced
from medray.tasks.task import At, Example
from medray.tasks.volume import IDENTIFIERS
from medray.tasks.volume_rows import COLUMNS, mask_of
from medray.tasks.volume_scores import Drawn

if TYPE_CHECKING:
    from torch import Tensor, nn

Labelled = TypeVar("Labelled", bound="FewLabelTask")


@dataclass(frozen=True, kw_only=True)
class FewLabelTask(OrgansTask):
    """One network for all organs, each voxel of one class: marginal loss, with exclusion loss; or the wrong baseline."""

    columns: ClassVar[tuple[str, ...]] = (*COLUMNS, "origin", "sets", "scored", "scored_organs", "foreground_class")
    host: ClassVar[tuple[str, ...]] = (
        *IDENTIFIERS,
        "own_mask",
        "inside",
        "spacing_mm",
        "own_drawn",
        "origin",
        "may_be",
    )

    activation: tyro.conf.Suppress[Literal["sigmoid", "softmax"]] = "softmax"
    unlabelled: Literal["marginal", "background"] = "marginal"
    """What a source has not labelled is background or any organ that it does not label (marginal), or taken for background."""
    exclusion_weight: float = 0.0
    """Of the loss that keeps organs which a source has not labelled off those that it has."""
    organs: tyro.conf.Suppress[tuple[str, ...]] = ()  # of all sources; the source says, here and below
    drawn_by: tyro.conf.Suppress[tuple[str, ...]] = ()  # source:organ, or source:organ+organ of what it draws as one

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.exclusion_weight < 0:
            raise ValueError(f"--exclusion-weight {self.exclusion_weight}: 0 or more")
        sided = [organ for organ in self.organs if organ.endswith(("_L", "_R"))]
        if "W" in self.flip_axes and sided:
            raise ValueError(f"--flip-axes W: a flip makes {sided[0]} its other side's; leave W out")
        if self.dice_of_batch or self.foreground_weight != 1:
            raise ValueError("--dice-of-batch, --foreground-weight: not of this system; leave them out")

    @property
    def classes(self) -> int:
        """With the background."""
        return len(self.organs) + 1

    def reading(self: Labelled, source: Any) -> Labelled:
        drawn_by = tuple(
            f"{one.name}:{'+'.join(group)}" for one in source.origins for group in one.groups if one.organs
        )
        return replace(self, organs=tuple(source.organs), drawn_by=drawn_by)

    def keeps_inner(self, index: pd.DataFrame) -> bool:
        """Co-training chooses between its means on inner scans; the others do without them too, to learn from as many."""
        return True

    def labelled(self, index: pd.DataFrame) -> np.ndarray:
        """Where its source has labelled an organ."""
        return (index["organs_labelled"] > 0).to_numpy()

    def times_per_epoch(self, index: pd.DataFrame) -> np.ndarray:
        """Sources have equal parts of an epoch, however many cases they have."""
        if self.steps_per_epoch is None:
            readings = len(index)
        else:
            readings = -(-self.steps_per_epoch * self.batch_size // self.crops)
        return balanced(index["origin"], max(readings, index["origin"].nunique()))

    # ------------------------------------------------------------ examples

    def train_examples(self, row: Mapping[str, Any], rngs: Sequence[np.random.Generator]) -> list[Example]:
        """Each with "sets" (numbers,) int64 (``possible.Possible``) and its "origin" beside voxels and mask."""
        sets = np.zeros(numbers_of(self.classes), np.int64)
        own = row["sets"] if row["mask"] is not None else []
        sets[: len(own)] = own
        return [one | {"sets": sets, "origin": row["origin"]} for one in super().train_examples(row, rngs)]

    def example(self, row: Mapping[str, Any]) -> Example:
        """As others', but that "own_mask" is what scores are taken from, and "own_drawn" (organs,) says of which organs; "may_be"
        (D, H, W) int64 is the set of classes that its source leaves open in each voxel (``possible.set_of``)."""
        drawn = np.zeros(len(self.organs), np.float32)
        if row["scored"] is not None:
            drawn[:] = np.asarray(row["scored_organs"], np.float32)
        found = super().example({**row, "mask": row["scored"]})
        if row["mask"] is None:
            may_be = np.full(found["own_mask"].shape, set_of(range(self.classes)), np.int64)
        else:
            may_be = sets_of(mask_of(row), row["sets"], self.classes)
        return found | {"own_drawn": drawn, "origin": row["origin"], "may_be": may_be}

    def drawn_in(self, batch: Mapping[str, Any], i: int) -> Drawn:
        return Drawn(np.asarray(batch["own_mask"][i]), drawn=np.asarray(batch["own_drawn"][i]))

    # ------------------------------------------------------------ training

    def possible(self, batch: Mapping[str, Any]) -> Possible:
        found = Possible.of(batch["mask"], batch["sets"], self.classes)
        return found.as_background() if self.unlabelled == "background" else found

    def losses(self, network: nn.Module, batch: dict[str, Any], at: At) -> dict[str, Tensor]:
        return self.losses_on(self.patch_of(network(batch["voxels"])), self.possible(batch), at)

    def patch_of(self, logits: Tensor) -> Tensor:
        """Without the context around it."""
        margin = self.context_padding
        return logits[:, :, margin:-margin, margin:-margin, margin:-margin] if margin else logits

    def losses_on(self, logits: Tensor, possible: Possible, at: At) -> dict[str, Tensor]:
        """ "loss", as the weights of the fields mix it, and its parts."""
        from medray.systems.fewlabel import losses as of

        parts = {}
        if self.dice_weight:
            parts["dice_loss"] = self.dice_weight, of.dice(logits, possible, at, self.dice_log)
        if self.cross_entropy_weight:
            parts["cross_entropy"] = self.cross_entropy_weight, of.cross_entropy(logits, possible, at)
        if self.focal_weight:
            parts["focal"] = self.focal_weight, of.focal(logits, possible, at, self.focal_gamma)
        if self.exclusion_weight:
            parts["exclusion"] = self.exclusion_weight, of.exclusion(logits, possible, at)
        total: Any = sum(weight * part for weight, part in parts.values())
        return {"loss": total, **{name: part for name, (_, part) in parts.items()}}

    def counted_network(self) -> nn.Module:
        """One network for all organs, of which the ladder's others have one or more."""
        return FewLabelTask.network(replace(self, drop_connect=0.0))

    # ------------------------------------------------------------ prediction

    def voxels_of(self, number: int, probability: np.ndarray, mask: np.ndarray) -> np.ndarray:
        found = np.asarray(mask == number)
        return largest_part(found) if self.largest_part else found
