from __future__ import annotations

import pytest

from medray.tasks.recipes import named

RECIPES = {"vnet": dict, "segresnet": list}


def test_by_name() -> None:
    assert named(RECIPES, "vnet") is dict


@pytest.mark.parametrize(
    ("name", "hint"), [("segresnett", "did you mean segresnet"), ("x", "there are vnet, segresnet")]
)
def test_a_name_that_there_is_not(name: str, hint: str) -> None:
    with pytest.raises(ValueError, match=f"--recipe {name}: no such recipe; {hint}"):
        named(RECIPES, name)
