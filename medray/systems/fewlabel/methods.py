"""The ladder's other networks: one a source, one that is told which organ is wanted, and two that teach each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd
import tyro

from medray.systems.fewlabel.task import FewLabelTask
from medray.tasks.task import At, Example

if TYPE_CHECKING:
    from torch import Tensor, nn

Which = Literal["first", "second"]
SECOND = "second_"
"""What the columns of the second mean's outputs begin with."""


def of_an_organ(column: str, organs: Sequence[str]) -> bool:
    """Whether a column of outputs tells of one organ: dice_Liver, hd95_mm_Liver."""
    return any(column.endswith(f"_{organ}") for organ in organs)


@dataclass(frozen=True, kw_only=True)
class ApartTask(FewLabelTask):
    """A network for each source, trained side by side in one run: each learns from its own source's crops alone, of which an
    epoch holds as many as of another's. An organ is found by those whose source draws it by itself."""

    uses_all_parameters: ClassVar[bool] = False  # a batch may hold crops of some sources only

    taught: tyro.conf.Suppress[tuple[str, ...]] = ()
    """Sources that a run learns from; of one whose only cases it holds out the network knows nothing, and does not answer."""

    def learning_from(self, index: pd.DataFrame) -> ApartTask:
        return replace(super().learning_from(index), taught=tuple(sorted(set(index["origin"]))))

    @property
    def groups_of(self) -> dict[str, list[tuple[str, ...]]]:
        """Source → what it draws: organs, and several as one."""
        found: dict[str, list[tuple[str, ...]]] = {}
        for pair in self.drawn_by:
            source, _, group = pair.rpartition(":")
            found.setdefault(source, []).append(tuple(group.split("+")))
        return found

    def network(self) -> nn.Module:
        from medray.systems.fewlabel.networks import Apart

        place = {organ: number for number, organ in enumerate(self.organs, 1)}
        known = [[0, *(place[organ] for group in own for organ in group)] for own in self.groups_of.values()]
        return Apart(super().network, self.classes, known)

    def losses(self, network: nn.Module, batch: dict[str, Any], at: At) -> dict[str, Tensor]:
        sources = [*self.groups_of]
        numbers = [sources.index(origin) if origin in sources else 0 for origin in batch["origin"]]
        return self.losses_on(self.patch_of(network(batch["voxels"], numbers)), self.possible(batch), at)

    def answered(self, network: nn.Module, voxels: Tensor, notes: dict[str, Any]) -> Tensor:
        """Of each organ the mean of those networks whose source draws it by itself; nothing where that is none which was taught."""
        import torch

        def of(n: int) -> Tensor:
            return self.windowed(lambda some: network(some, [n] * len(some)).float().softmax(1)[:, 1:], voxels)

        groups = self.groups_of
        each = [of(n) for n in range(len(groups))]
        found = []
        for k, organ in enumerate(self.organs):
            asked = [n for n, (source, own) in enumerate(groups.items()) if (organ,) in own and self._knows(source)]
            found.append(
                torch.stack([each[n][:, k] for n in asked]).mean(0) if asked else torch.zeros_like(each[0][:, k])
            )
        return torch.stack(found, 1)

    def _knows(self, source: str) -> bool:
        return not self.taught or source in self.taught

    def is_told(self, organ: str) -> bool:
        """Whether a network that was taught tells it from all else."""
        return any((organ,) in own and self._knows(source) for source, own in self.groups_of.items())


@dataclass(frozen=True, kw_only=True)
class ConditionalTask(FewLabelTask):
    """One network that is told which organ is wanted, by a channel an organ, and answers for it alone: as many passes as organs."""

    def network(self) -> nn.Module:
        from medray.nn.volume_network import volume_network
        from medray.systems.fewlabel.networks import Conditional

        channels = 1 + len(self.organs)
        return Conditional(
            volume_network(
                self.architecture, channels, 1, self.width, self.levels, self.dropout, self.drop_connect, self.recurrent
            ),
            len(self.organs),
        )

    def train_examples(self, row: Mapping[str, Any], rngs: Sequence[np.random.Generator]) -> list[Example]:
        """Each with the number of the organ that is "asked", one that its source draws by itself; 0 where it has none."""
        own = row["sets"] if row["mask"] is not None else []
        alone = [int(math.log2(one)) for one in own if one > 1 and not one & (one - 1)]
        found = super().train_examples(row, rngs)
        return [
            one | {"asked": np.int64(rng.choice(alone) if alone else 0)} for one, rng in zip(found, rngs, strict=True)
        ]

    def losses(self, network: nn.Module, batch: dict[str, Any], at: At) -> dict[str, Tensor]:
        from medray.nn.volume_truth import Truth

        possible, asked = self.possible(batch), batch["asked"]
        places = asked[:, None, None, None, None].expand(-1, 1, *possible.numbers.shape[1:])
        may = possible.allowed.gather(1, places)
        alone = possible.allowed.sum(1, keepdim=True) == 1
        known = (~may | alone) & (asked > 0)[:, None, None, None, None]
        truth = Truth((may & known).float(), known.float())
        logits = self.patch_of(network(batch["voxels"], asked.clamp(min=1) - 1))
        return replace(self, activation="sigmoid").losses_of(logits, truth, at)

    def answered(self, network: nn.Module, voxels: Tensor, notes: dict[str, Any]) -> Tensor:
        import torch

        def of(k: int) -> Tensor:
            return self.windowed(
                lambda some: network(some, torch.full((len(some),), k, device=some.device)).float().sigmoid(), voxels
            )

        return torch.cat([of(k) for k in range(len(self.organs))], 1)


@dataclass(frozen=True, kw_only=True)
class CoTrainingTask(FewLabelTask):
    """Two networks on true and pseudo-labels, each also taught by the running mean of the other where no true label tells (τ)."""

    soft_weight: float = 0.1
    """Of the other network's soft labels, once it has ramped up."""
    ramp: float = 10.0
    """The weight grows as 2 / (1 + e^(−ramp · p)) − 1 with progress p; 0 has no soft labels at all."""
    mean_decay: float = 0.999
    """Of the running means, per step, once they have grown to it."""
    answer: tyro.conf.Suppress[Which] = "first"
    """Whose running mean answers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 <= self.soft_weight < math.inf and 0 <= self.ramp < math.inf):
            raise ValueError(f"--soft-weight {self.soft_weight}, --ramp {self.ramp}: 0 or more")
        if not 0 <= self.mean_decay < 1:
            raise ValueError(f"--mean-decay {self.mean_decay}: from 0 to below 1")

    def network(self) -> nn.Module:
        from medray.systems.fewlabel.networks import Twins

        return Twins(super().network)

    def losses(self, network: nn.Module, batch: dict[str, Any], at: At) -> dict[str, Tensor]:
        from medray.systems.fewlabel import losses as of

        possible = self.possible(batch)
        own, means = network(batch["voxels"])
        own, means = ([self.patch_of(one) for one in some] for some in (own, means))
        each = [self.losses_on(one, possible, at) for one in own]
        found = {name: each[0][name] + each[1][name] for name in each[0]}
        labels = [of.soft_labels(mean, possible) for mean in means]
        soft = of.soft(own[0], labels[1], possible, at) + of.soft(own[1], labels[0], possible, at)
        found["soft"] = soft
        found["loss"] = found["loss"] + self.soft_weight * self.ramped(at.progress) * soft
        return found

    def ramped(self, progress: float) -> float:
        """0 at the beginning of the run, towards 1."""
        return 2 / (1 + math.exp(-self.ramp * progress)) - 1

    def after_step(self, network: nn.Module, at: At) -> None:
        network.follow(self.mean_decay, at.step // self.accumulate)  # type: ignore[operator]

    def training_gigabytes(self) -> float | None:
        """Twice that of one network; what its running means need beside it is little."""
        one = super().training_gigabytes()
        return None if one is None else 2 * one

    def answered(self, network: nn.Module, voxels: Tensor, notes: dict[str, Any]) -> Tensor:
        return self.windowed(lambda some: network(some, self.answer).float().softmax(1)[:, 1:], voxels)

    def outputs(self, network: nn.Module, batch: dict[str, Any]) -> dict[str, np.ndarray]:
        """Of the mean that answers; where scores are all that is kept, with those of the second one (second_…), between which
        the inner scans choose."""
        found = super().outputs(network, batch)
        if self.keep != "nothing" or self.answer == "second":
            return found
        other = replace(self, answer="second").outputs(network, batch)
        return found | {f"{SECOND}{name}": other[name] for name in found if of_an_organ(name, self.organs)}
