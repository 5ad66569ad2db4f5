"""The networks of a run, stage by stage: which there are, what each is trained for, and from which weights it starts.

S-Net finds all organs. On it stand a heatmap an organ (peaks), then a network for each small organ (outlines); the coder of
shapes is trained beside them (shapes), then all four together (joint). The ladder's rungs are what the method is compared
with, trained alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from medray.systems.headneck.focus_task import FROM_FOCUS, FROM_SNET, FocusTask
from medray.systems.headneck.joint_task import FROM_SHAPES, FROM_SOS, JointTask, ShapeTask
from medray.systems.headneck.names import small_ones
from medray.systems.headneck.recipes import stage
from medray.systems.headneck.task import Grid, OrganTask

STAGES = {
    "organs": "All organs at once",
    "peaks": "Where each small organ is: a heatmap each, S-Net frozen",
    "outlines": "A network for each small organ, about its peak",
    "shapes": "The coder of shapes",
    "joint": "All four networks together, against the coder",
}
"""Stage → its title."""
RUNGS = ("unet", "weighted", "four", "snet", "no-ct", "outlines", "large", "joint")
"""Networks that can be scored, in the order of the ladder."""
Rung = Literal["unet", "weighted", "four", "no-ct", "large"]
FOREGROUND_WEIGHT = 20.0
"""Of the rung "weighted"."""


@dataclass(frozen=True, kw_only=True)
class SmallOrgans:
    """Fields of the stages that stand on S-Net, and of what the method is compared with."""

    small: tuple[str, ...] | None = None
    """Organs with a network of their own; where not given, those that are a few voxels in everyone (lens, chiasm, optic nerve,
    pituitary, cochlea, lacrimal gland). Without a name after it: none, and S-Net is all."""
    rungs: tuple[Rung, ...] = ()
    """Train these too, for the ladder. unet: a plain 3D U-Net. weighted: it, organs weighed against the rest. four: S-Net with
    four down-samplings. no-ct: small organs' networks without the CT itself. large: every organ has a network of its own."""
    sigma_mm: Grid = (2.5, 5.0, 5.0)
    """Of a heatmap's Gaussian, along slices, rows and columns. A peak whose place is uncertain by as much stays at a third of its
    height: organs of several centimetres want 12 to 15 mm."""
    region_mm: Grid = (20.0, 64.0, 64.0)
    """What an organ's own network sees."""
    gate: float = 0.6
    """It is asked where its heatmap has a peak of this height; else S-Net's answer stays."""
    small_width: int = 16
    """Its channels."""
    around_share: float = 0.5
    """Part of the crops of the heatmaps' stage that hold a small organ: a heatmap must also be low where none is. In the stage of
    outlines all do."""
    peaks_epochs: int | None = None
    """Half of S-Net's where not given, here and below."""
    outlines_epochs: int | None = None
    shapes_epochs: int | None = None
    joint_epochs: int | None = None
    peaks_rate: float | None = None
    """Peak learning rate of the heatmaps; twice S-Net's where not given, since a small head learns from ready features."""
    joint_rate: float | None = None
    """Peak learning rate when all four are trained; a tenth of S-Net's where not given."""
    coder_rate: float = 1e-4
    """Of the coder in the joint stage."""
    code: int = 512
    """Numbers that a shape becomes."""
    coder_width: int = 8
    """Channels of the coder's first level."""
    together: float = 5.0
    """Weight of the distance between the codes of outline and truth in the networks' loss."""

    def check(self) -> None:
        """Raises ValueError, by the flag, where a field is out of range: the last stages come hours after the first."""
        if len({*self.rungs}) < len(self.rungs):
            raise ValueError(f"--rungs {' '.join(self.rungs)}: each once")
        if not 0 <= self.around_share <= 1:
            raise ValueError(f"--around-share {self.around_share}: from 0 to 1")
        for name in ("peaks_epochs", "outlines_epochs", "shapes_epochs", "joint_epochs", "code", "coder_width"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: at least 1")
        for name in ("peaks_rate", "joint_rate", "coder_rate"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: above 0")
        if not 0 <= self.together < math.inf:
            raise ValueError(f"--together {self.together}: 0 or more")


PHANTOM = SmallOrgans(
    sigma_mm=(3.0, 5.0, 5.0), region_mm=(18.0, 40.0, 40.0), gate=0.5, peaks_epochs=5, outlines_epochs=4,
    shapes_epochs=3, joint_epochs=1, peaks_rate=1e-2, joint_rate=2e-4, together=0.5, code=128,
)  # fmt: skip
"""For the drawn heads."""


@dataclass(frozen=True)
class Chain:
    """All networks of a run.

    Args:
        name: their runs begin with it. base: S-Net, on the organs that the source has. fields: of the later stages.
    """

    name: str
    base: OrganTask
    fields: SmallOrgans

    @property
    def small(self) -> tuple[str, ...]:
        return small_ones(self.base.organs) if self.fields.small is None else self.fields.small

    @property
    def final(self) -> str:
        """The rung that answers."""
        return "joint" if self.small else "snet"

    def run(self, rung: str) -> str:
        """What its runs are called."""
        return f"{self.name}-{rung}"

    def tasks(self) -> dict[str, dict[str, OrganTask]]:
        """Stage → rung → task. Raises ValueError where a field does not fit another, or an organ is not learned."""
        base, of = self.base, self.fields
        of.check()
        if base.architecture != "snet":
            raise ValueError(
                f"--architecture {base.architecture}: the method stands on snet; --rungs unet compares one"
            )
        every = {
            "unet": _plain(base),
            "weighted": _plain(base, foreground_weight=FOREGROUND_WEIGHT),
            "four": replace(base, widths=_deeper(base.widths)),
        }
        found: dict[str, dict[str, OrganTask]] = {
            "organs": {"snet": base} | {name: task for name, task in every.items() if name in of.rungs}
        }
        if not self.small:
            if lost := [rung for rung in of.rungs if rung not in every]:
                raise ValueError(f"--rungs {lost[0]}: no organ is small here; --small names some")
            return found
        shared = {"sigma_mm": of.sigma_mm, "region_mm": of.region_mm, "gate": of.gate, "small_width": of.small_width}
        peaks = _epochs(of.peaks_epochs) | shared | {"foreground_share": of.around_share}
        peaks["learning_rate"] = 2 * base.learning_rate if of.peaks_rate is None else of.peaks_rate
        outlines = {"stage": "sos", "foreground_share": 1.0} | _epochs(of.outlines_epochs) | shared
        found["peaks"] = {"peaks": stage(FocusTask, base, self.small, **peaks)}
        found["outlines"] = {"outlines": stage(FocusTask, base, self.small, **outlines)}
        if "no-ct" in of.rungs:
            found["outlines"]["no-ct"] = stage(
                FocusTask, base, self.small, **outlines | {"sees": ("features", "heatmap")}
            )
        if "large" in of.rungs:
            found["peaks"]["large-peaks"] = stage(FocusTask, base, base.organs, **peaks)
            found["outlines"]["large"] = stage(FocusTask, base, base.organs, **outlines)
        coder = shared | {"code": of.code, "coder_width": of.coder_width}
        found["shapes"] = {"shapes": stage(ShapeTask, base, self.small, **coder | _epochs(of.shapes_epochs))}
        joint = coder | {"coder_rate": of.coder_rate, "together": of.together} | _epochs(of.joint_epochs)
        joint["learning_rate"] = base.learning_rate / 10 if of.joint_rate is None else of.joint_rate
        found["joint"] = {"joint": stage(JointTask, base, self.small, **joint)}
        return found

    def starts(self, rung: str) -> Sequence[tuple[str, Mapping[str, str]]]:
        """Rungs whose weights it starts from, and their names there."""
        return {
            "peaks": [("snet", FROM_SNET)],
            "large-peaks": [("snet", FROM_SNET)],
            "outlines": [("peaks", FROM_FOCUS)],
            "no-ct": [("peaks", FROM_FOCUS)],
            "large": [("large-peaks", FROM_FOCUS)],
            "joint": [("outlines", FROM_SOS), ("shapes", FROM_SHAPES)],
        }.get(rung, [])

    def scored(self) -> list[str]:
        """Rungs of the run that have contours, in the ladder's order."""
        there = {rung for own in self.tasks().values() for rung in own}
        return [rung for rung in RUNGS if rung in there]

    def left_out(self) -> list[str]:
        """What the user should know before the plan."""
        if self.small:
            return []
        return ["no organ has a network of its own: S-Net is all that is trained; --small names organs"]

    def identity(self) -> dict[str, Any]:
        """Of the whole method, for MLflow and the report."""
        return self.base.identity() | {
            name: value for name, value in vars(self.fields).items() if name not in ("small", "rungs")
        } | {"small": list(self.small)}  # fmt: skip


def _plain(base: OrganTask, **changes: Any) -> OrganTask:
    """A 3D U-Net of about as many weights, with Dice and cross-entropy."""
    return replace(
        base, architecture="unet", width=base.widths[0] * 3 // 2, levels=4, dice_weight=1.0, cross_entropy_weight=1.0,
        focal_weight=0.0, **changes,
    )  # fmt: skip


def _epochs(count: int | None) -> dict[str, int]:
    return {} if count is None else {"epochs": count}


def _deeper(widths: tuple[int, ...]) -> tuple[int, ...]:
    """Two levels more, as wide as the deepest."""
    return (*widths, widths[-1], widths[-1])
