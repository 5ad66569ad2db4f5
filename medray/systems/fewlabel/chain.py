"""The networks of a run: which there are, and which learn from pseudo-labels that others have written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import pandas as pd

from medray.systems.fewlabel.methods import ApartTask, ConditionalTask, CoTrainingTask
from medray.systems.fewlabel.pseudo import Merged, PseudoLabels, Region
from medray.systems.fewlabel.pseudo_files import with_locked
from medray.systems.fewlabel.recipes import method
from medray.systems.fewlabel.task import FewLabelTask
from medray.tasks.contours import Contours

STAGES = {
    "networks": "Networks that learn from true labels",
    "pseudo": "Pseudo-labels: what each source's network finds in the others' scans",
    "taught": "Networks that learn from pseudo-labels too",
}
"""Stage → its title."""
Rung = Literal["apart", "background", "marginal", "exclusion", "conditional", "self", "cotraining"]
RUNGS: tuple[Rung, ...] = ("apart", "background", "marginal", "exclusion", "conditional", "self", "cotraining")
"""In the order of the ladder."""
TAUGHT = ("self", "cotraining")
ORDER: tuple[Rung, ...] = ("background", "apart", "conditional", "marginal", "exclusion", "self", "cotraining")
"""Of those that are trained the last one answers."""


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """Fields of what is trained beside marginal loss, and of pseudo-labels."""

    rungs: tuple[Rung, ...] = ("apart", "background", "marginal", "cotraining")
    """What is trained. apart: a network a source. background: what is not labelled taken for it. marginal: what is not labelled
    may be any organ that is not. exclusion: with exclusion loss. conditional: one network that is told the organ. self:
    pseudo-labels. cotraining: two networks that teach each other. The last two want apart."""
    exclusion: float = 1.0
    """Weight of the exclusion loss in its rung."""
    soft_weight: float = 0.1
    """Of the soft labels in co-training, once they have ramped up."""
    ramp: float = 10.0
    """Their weight grows as 2 / (1 + e^(−ramp · p)) − 1 with progress p."""
    mean_decay: float = 0.999
    """Of the running means in co-training, per step, once they have grown to it."""
    region: Region = "band"
    """Where the two networks teach each other, of what no true label tells: a band about the pseudo-labelled organs, or everywhere."""
    band_mm: float = 20.0
    """Width of the band."""
    pseudo_threshold: float = 0.5
    """From this probability on a voxel has a pseudo-label."""
    least_confidence: float = 0.0
    """An organ's pseudo-labels of a scan count from this mean probability on."""
    locked: str | None = None
    """Folder or URI with pseudo-labels that a person has looked at, which replace a network's: scan-…/<organ>.nii.gz, called as in
    models/<name>/pseudo, which it may not be itself."""

    def check(self) -> None:
        """Raises ValueError where a field is out of range, or a rung lacks one that it stands on."""
        if not self.rungs:
            raise ValueError(f"--rungs: name one or more of {', '.join(RUNGS)}")
        if len({*self.rungs}) < len(self.rungs):
            raise ValueError(f"--rungs {' '.join(self.rungs)}: each once")
        taught = [rung for rung in self.rungs if rung in TAUGHT]
        if taught and "apart" not in self.rungs:
            raise ValueError(f"--rungs {taught[0]}: pseudo-labels are written by a network a source; name apart too")
        for name in ("pseudo_threshold", "least_confidence"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: from 0 to below 1")
        for name in ("exclusion", "soft_weight", "ramp", "band_mm"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: 0 or more")


@dataclass(frozen=True)
class Chain:
    """All networks of a run.

    Args:
        name: their runs begin with it. base: with marginal loss, on the organs that the sources have. fields: of the others.
    """

    name: str
    base: FewLabelTask
    fields: Ladder

    @property
    def rungs(self) -> list[Rung]:
        """In the ladder's order."""
        return [rung for rung in RUNGS if rung in self.fields.rungs]

    @property
    def final(self) -> Rung:
        """The rung that answers: the last one of one pass, or what there is; the wrong lesson only where it is alone."""
        return max(self.rungs, key=ORDER.index)

    @property
    def notices(self) -> list[str]:
        """Lines before the plan."""
        if not (self.teaches and self.fields.locked):
            return []
        return [
            "networks that learn from pseudo-labels are trained anew where what is locked has changed, also those that the plan has as done"
        ]

    @property
    def teaches(self) -> bool:
        """Whether there are pseudo-labels."""
        return any(rung in TAUGHT for rung in self.rungs)

    def run(self, rung: str) -> str:
        """What its runs are called."""
        return f"{self.name}-{rung}"

    def named(self, tasks: Mapping[Rung, FewLabelTask]) -> dict[str, FewLabelTask]:
        """What its runs are called → task."""
        return {self.run(rung): task for rung, task in tasks.items()}

    @property
    def kept(self) -> list[str]:
        """Folder of the pseudo-labels below features/."""
        return [f"{self.run('pseudo-labels')}-found"] if self.teaches else []

    def tasks(self) -> dict[str, dict[Rung, FewLabelTask]]:
        """Stage → rung → task, of as many steps and crops each. Raises ValueError where a field does not fit another."""
        base, of = self.base, self.fields
        of.check()
        if base.unlabelled != "marginal" or base.exclusion_weight:
            raise ValueError(
                "--unlabelled, --exclusion-weight: would change every network of the ladder; name background or exclusion in "
                "--rungs, and --exclusion"
            )
        every: Mapping[Rung, FewLabelTask] = {
            "apart": method(ApartTask, base),
            "background": replace(base, unlabelled="background"),
            "marginal": base,
            "exclusion": replace(base, exclusion_weight=of.exclusion),
            "conditional": method(ConditionalTask, base),
            "self": base,
            "cotraining": method(
                CoTrainingTask, base, soft_weight=of.soft_weight, ramp=of.ramp, mean_decay=of.mean_decay
            ),
        }
        own = {rung: every[rung] for rung in self.rungs}
        return {
            "networks": {rung: task for rung, task in own.items() if rung not in TAUGHT},
            "taught": {rung: task for rung, task in own.items() if rung in TAUGHT},
        }

    def pseudo(self) -> PseudoLabels:
        return PseudoLabels(self.fields.pseudo_threshold)

    def merged(self, index: pd.DataFrame) -> Merged:
        """True and pseudo-labels, with what a person has locked.

        Args:
            index: of the shards.
        """
        of = self.fields
        return with_locked(Merged(self.base.organs, of.region, of.band_mm, of.least_confidence), of.locked, index)

    def asked(self, answer: str) -> Contours:
        """Organs by the final network of a fold, of co-training by the running mean that answers there."""
        return Contours((("answer", answer),)) if self.final == "cotraining" else Contours()

    def identity(self) -> dict[str, Any]:
        """Of the whole method, for MLflow and the report."""
        return self.base.identity() | {name: value for name, value in vars(self.fields).items() if name != "locked"} | {
            "rungs": list(self.rungs)
        }  # fmt: skip
