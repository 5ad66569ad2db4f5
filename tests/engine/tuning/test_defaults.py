"""What each system's search looks through where no flag says it: a default that cannot be parsed is the page's own command failing."""

from __future__ import annotations

import pytest

from medray.engine.tuning.space import parse_space
from medray.systems.boneage import system as boneage
from medray.systems.chest import system as chest
from medray.systems.fewlabel import system as fewlabel
from medray.systems.headneck import system as headneck
from medray.systems.ich import system as ich
from medray.systems.lesion import system as lesion
from medray.tasks.system import SearchSetup

SETUPS = {
    f"{module.__name__.split('.')[2]}-{name.lower()}": value
    for module in (ich, chest, lesion, boneage, headneck, fewlabel)
    for name, value in vars(module).items()
    if isinstance(value, SearchSetup)
}


def test_every_system_has_a_search() -> None:
    assert {name.partition("-")[0] for name in SETUPS} == {"ich", "chest", "lesion", "boneage", "headneck", "fewlabel"}


@pytest.mark.parametrize("setup", SETUPS.values(), ids=[*SETUPS])
def test_the_default_space_can_be_searched(setup: SearchSetup) -> None:
    tasks = {name: setup.recipe(name) for name in setup.backbones}
    space = parse_space(setup.space, tasks)
    assert len(space) == len(setup.space)
    for dimension in space:
        dimension.distribution()
