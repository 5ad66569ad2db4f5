"""Which models read a film, by its sex, and which regions of the hand they see."""

from __future__ import annotations

from collections.abc import Iterable

from medray.systems.boneage.scores.ensemble import GROUP_OF, Ensemble, Member
from medray.systems.boneage.stages.canvas import RegionName

_REGIONS: tuple[RegionName, ...] = ("A", "B", "C")


def group_of(sex: object) -> str:
    """Of "F", "M", or whatever stands for unknown."""
    return GROUP_OF.get(sex, "unknown") if isinstance(sex, str) else "unknown"


def readers(ensemble: Ensemble) -> dict[str, list[str]]:
    """Group of films → the models that are asked: those of weight 0 have no say."""
    return {
        name: [model for model, weight in zip(group.members, group.weights, strict=True) if weight > 0]
        for name, group in ensemble.groups.items()
    }


def regions_of(models: Iterable[str]) -> list[RegionName]:
    """What these models see, in the order of the canvas: whole hand, carpals, fingers."""
    seen = {Member.of(model).region for model in models}
    return [name for name in _REGIONS if name in seen]
