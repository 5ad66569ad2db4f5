"""The page of a search: what its pictures look like to a reader in light or dark mode, and what few trials can say."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from medray.engine.tuning.page import search_sections
from medray.engine.tuning.space import parse_space
from medray.report import page
from medray.systems.headneck.recipes import small


def sections(count: int) -> dict[str, page.Section]:
    rng = np.random.default_rng(0)
    space = parse_space(["learning-rate=1e-4..1e-1:log", "optimizer=adamw|sgd"], {"small": small()})
    trials: list[dict[str, Any]] = []
    for i in range(count):
        rate = float(10 ** rng.uniform(-4, -1))
        scores = {"one_minus_dice": abs(np.log10(rate) + 2)}
        values = {"learning_rate": rate, "optimizer": ("adamw", "sgd")[i % 2]}
        rungs = [{"epoch": 1, "scores": scores}]
        trials.append({"name": f"t{i}", "values": values, "rungs": rungs, "state": "complete", "reason": ""})
    sweep = SimpleNamespace(
        space=space, objectives={"one_minus_dice": "min"}, rungs=(1,), validation=SimpleNamespace(folds=(0,))
    )
    return {one.title: one for one in search_sections(trials, sweep, "command")}  # type: ignore[arg-type]


def picture(section: page.Section) -> page.Picture:
    (found,) = [block for block in section.more if isinstance(block, page.Picture)]
    return found


@pytest.mark.parametrize("title", ["Parallel coordinates", "Importances"])
def test_pictures_follow_the_readers_light_or_dark_mode(title: str) -> None:
    """Of colours that come near white or black none is left: the page's own take their place."""
    drawn = page.render("Search", "s", [sections(8)[title]])
    (svg,) = re.findall(r"<svg.*?</svg>", drawn, re.DOTALL)
    used = {to_rgb(colour) for colour in re.findall(r"#[0-9a-f]{6}\b", svg)}
    assert used
    for colour in used:
        light = np.dot(colour, (0.299, 0.587, 0.114))
        assert 0.2 < light < 0.85, colour
    assert "var(--ink)" in svg


def test_of_few_trials_the_page_says_that_they_tell_little() -> None:
    few, many = (picture(sections(n)["Importances"]).caption for n in (8, 24))
    assert "(n = 8)" in few
    assert "tell little" in few
    assert "(n = 24)" in many
    assert "tell little" not in many


def test_the_folds_that_have_chosen_are_named_and_not_to_be_reported() -> None:
    said = " ".join(str(block) for block in sections(30)["What was found"].more)
    assert "Report its score without fold 0, by which they were chosen" in said
