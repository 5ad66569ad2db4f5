from __future__ import annotations

from io import BytesIO
from typing import Any

import matplotlib.figure
import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from medray.systems.ich.classes import CLASSES, PROBABILITIES
from medray.systems.ich.montage import draw_study, legend_line


def drawn(monkeypatch: pytest.MonkeyPatch, truth: pd.Series | None) -> tuple[str, np.ndarray]:
    """The words above a montage of three slices, and its pixels."""
    said: list[str] = []
    above = matplotlib.figure.Figure.suptitle

    def listen(self: Any, text: str, **options: Any) -> Any:
        said.append(text)
        return above(self, text, **options)

    monkeypatch.setattr(matplotlib.figure.Figure, "suptitle", listen)
    answered = pd.DataFrame({"slice_id": ["a", "b", "c"], "index": range(3)})
    answered = answered.assign(**dict.fromkeys(PROBABILITIES, 0.1), **dict.fromkeys(CLASSES, np.nan))
    rows = [{"image": bytes(16 * 16 * 3), "rows": 16, "columns": 16}] * 3
    png = draw_study(answered, rows, 3, "study 2 of 7", truth)
    return said[0], matplotlib.image.imread(BytesIO(png))[..., :3]


def red(pixels: np.ndarray) -> int:
    return int(((pixels[..., 0] > 0.9) & (pixels[..., 1:] < 0.35).all(axis=-1)).sum())


def test_a_montage_says_which_study_it_is_and_what_orange_means(monkeypatch: pytest.MonkeyPatch) -> None:
    words, pixels = drawn(monkeypatch, None)
    assert words == "study 2 of 7\n" + legend_line(labelled=False)
    assert "orange: any ≥ 50%" in words
    assert "edh epidural" in words
    assert "labelled" not in words
    assert red(pixels) == 0


def test_labelled_bleeds_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    words, pixels = drawn(monkeypatch, pd.Series({"a": 0.0, "b": 1.0}))
    assert words.endswith("red dot: labelled as a bleed")
    assert red(pixels) > 5
    words, pixels = drawn(monkeypatch, pd.Series({"a": 0.0}))
    assert "red dot" in words  # it is known that none bleeds
    assert red(pixels) == 0
