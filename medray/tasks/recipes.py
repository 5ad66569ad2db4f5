"""Recipes by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import TypeVar

SomeRecipe = TypeVar("SomeRecipe", bound=Callable[..., object])


def named(recipes: Mapping[str, SomeRecipe], name: str) -> SomeRecipe:
    """The recipe of that name. Raises ValueError, with a near name or all of them, where there is none."""
    if name in recipes:
        return recipes[name]
    near = difflib.get_close_matches(name, recipes, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(recipes)}"
    raise ValueError(f"--recipe {name}: no such recipe; {hint}")
