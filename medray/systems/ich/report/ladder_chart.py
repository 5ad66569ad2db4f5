"""The chart of what each step added."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medray.report.page import ACCENT, FAINT, WARNING, chart, name_axes

_NAME_WIDTH = 34  # characters of a line


def steps(rows: Sequence[dict[str, Any]], published: Sequence[float] = ()) -> Figure:
    """Weighted log loss and its change with 95% intervals, a line a step, the first at the top.

    Args:
        rows: of ``medray.systems.ich.ladder.ladder``.
        published: losses to show as hollow diamonds on a line below.
    """
    names = [row["name"] for row in rows] + (["published, validation"] if published else [])
    figure, axes = chart(10, 0.9 + 0.42 * len(names), 1, 2, sharey=True, width_ratios=[1.25, 1])
    loss, change = axes[0]
    heights = np.arange(len(names))[::-1]
    change.axvline(0, color=FAINT, linewidth=0.8, linestyle=(0, (3, 3)))
    for y, row in zip(heights, rows, strict=False):
        _point(loss, row["weighted_log_loss"], y, ACCENT)
        if row["change"] is not None:
            _point(change, row["change"], y, _verdict(row["change"]))
    if published:
        loss.plot(published, [heights[-1]] * len(published), "D", color=FAINT, markerfacecolor="none", markersize=5.5)
    loss.set_yticks(heights, [textwrap.fill(name, _NAME_WIDTH) for name in names])
    loss.set_ylim(-0.6, len(names) - 0.4)
    name_axes(loss, "weighted log loss")
    name_axes(change, "its change against the line above")
    return figure


def _point(axis: Axes, figure: dict[str, float | None], y: float, colour: str) -> None:
    value, low, high = figure["value"], figure["low"], figure["high"]
    if value is None:
        axis.text(0.02, y, "undefined", transform=axis.get_yaxis_transform(), va="center", fontsize=8, color=FAINT)
        return
    if low is not None and high is not None:
        axis.plot([low, high], [y, y], color=colour, linewidth=2.2, alpha=0.55)
    axis.plot(value, y, "o", color=colour, markersize=5.5)


def _verdict(change: dict[str, float | None]) -> str:
    """Better, worse, or an interval that spans 0."""
    if change["high"] is not None and change["high"] < 0:
        return ACCENT
    return WARNING if change["low"] is not None and change["low"] > 0 else FAINT
