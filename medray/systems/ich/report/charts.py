"""The report's charts. Plain tables in, matplotlib figures out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from medray.metrics.binary import Ranking
from medray.report.charts import draw_roc
from medray.report.page import ACCENT, FAINT, INK, PALETTE, WARNING, chart, legend, name_axes
from medray.systems.ich.classes import CLASSES
from medray.systems.ich.report.pictures import HISTOGRAM_EDGES_HU
from medray.systems.ich.report.published import FIRST_PLACE_AUC

COLOURS = dict(zip(CLASSES, PALETTE, strict=False))


def scores_by_class(metrics: dict[str, Any]) -> Figure:
    """Value and interval of three scores for each class; a hollow diamond where one is published."""
    figure, axes = chart(10, 2.7, 1, 3, sharey=True)
    kinds = (("auc", "AUC"), ("average_precision", "average precision"), ("log_loss", "log loss"))
    heights = np.arange(len(CLASSES))[::-1]
    for axis, (key, title) in zip(axes[0], kinds, strict=True):
        name_axes(axis, title)
        for y, name in zip(heights, CLASSES, strict=True):
            found = metrics[key][name]
            if found["value"] is None:
                axis.text(0.02, y, "undefined", transform=axis.get_yaxis_transform(), va="center", fontsize=8, color=FAINT)  # fmt: skip
                continue
            if found["low"] is not None and found["high"] is not None:
                axis.plot([found["low"], found["high"]], [y, y], color=COLOURS[name], linewidth=2.2, alpha=0.55)
            axis.plot(found["value"], y, "o", color=COLOURS[name], markersize=5.5)
        axis.set_yticks(heights, CLASSES)
        axis.set_ylim(-0.6, len(CLASSES) - 0.4)
    auc, precision, loss = axes[0]
    auc.plot(list(FIRST_PLACE_AUC.values()), heights, "D", color=FAINT, markerfacecolor="none", markersize=5.5)  # fmt: skip
    auc.axvline(0.5, color=FAINT, linewidth=0.8, linestyle=(0, (3, 3)))
    auc.set_xlim(right=1.01)
    for y, name in zip(heights, CLASSES, strict=True):
        rate = metrics["counts"]["observed_rate"][name]
        if rate is not None:
            precision.plot([rate, rate], [y - 0.25, y + 0.25], color=FAINT, linewidth=1)
    precision.set_xlim(left=0)
    loss.set_xlim(left=0)
    return figure


def class_counts(labels: pd.DataFrame) -> Figure:
    """Positive slices of each class, and how often two classes come together."""
    figure, axes = chart(10, 3.3, 1, 2, width_ratios=[1, 1.15])
    bars, grid = axes[0]
    positive = np.nan_to_num(labels[list(CLASSES)].to_numpy(dtype=np.float64))
    counts = positive.sum(axis=0)
    known = labels[list(CLASSES)].notna().sum().to_numpy()
    heights = np.arange(len(CLASSES))[::-1]
    bars.barh(heights, counts, color=[COLOURS[name] for name in CLASSES], height=0.62)
    for y, count, of in zip(heights, counts, known, strict=True):
        bars.annotate(f"{count:,.0f} ({count / of:.1%})" if of else "no label", (count, y), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8, color=INK)  # fmt: skip
    bars.set_yticks(heights, CLASSES)
    bars.set_xlim(0, max(1.0, counts.max()) * 1.34)
    name_axes(bars, "positive slices")
    bars.grid(False, axis="y")
    together = positive.T @ positive
    grid.grid(False)
    name_axes(grid, "of the row's slices, how many are also the column's")
    grid.spines[:].set_visible(False)
    for i, row in enumerate(heights):
        for j in range(len(CLASSES)):
            share = together[i, j] / counts[i] if counts[i] else np.nan
            shade = 0.06 + 0.8 * (share if np.isfinite(share) else 0)
            grid.barh(row, 0.96, left=j - 0.48, height=0.94, color=ACCENT, alpha=shade, linewidth=0)
            text = f"{share:.0%}\n{together[i, j]:,.0f}" if np.isfinite(share) else "–"
            grid.text(j, row, text, ha="center", va="center", fontsize=7.5, color="white" if shade > 0.5 else INK)
    grid.set_yticks(heights, CLASSES)
    grid.set_xticks(np.arange(len(CLASSES)), CLASSES, rotation=20, ha="right")
    grid.set_xlim(-0.5, len(CLASSES) - 0.5)
    grid.tick_params(length=0)
    return figure


def hounsfield_histogram(counts: np.ndarray, bounds_hu: tuple[tuple[str, float, float], ...]) -> Figure:
    """Pixels of one head by HU, and the range of each window below them."""
    figure, axes = chart(10, 2.5, 2, 1, sharex=True, height_ratios=[3, max(1.0, 0.45 * len(bounds_hu))])
    top, below = axes[:, 0]
    top.stairs(np.maximum(counts, 0.5), HISTOGRAM_EDGES_HU, fill=True, color=ACCENT, alpha=0.45, baseline=0.5)
    top.set_yscale("log")
    top.set_ylabel("pixels of the head")
    heights = np.arange(len(bounds_hu))[::-1]
    for y, (name, lower, upper), colour in zip(heights, bounds_hu, PALETTE * 9, strict=False):
        below.barh(y, upper - lower, left=lower, height=0.55, color=colour)
        below.annotate(name, (upper, y), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8, color=INK)
    below.set_yticks([])
    below.set_ylim(-0.6, len(bounds_hu) - 0.4)
    below.set_xlim(HISTOGRAM_EDGES_HU[0], HISTOGRAM_EDGES_HU[-1] + 250)
    below.set_xlabel("Hounsfield units")
    below.spines["left"].set_visible(False)
    return figure


def study_scores(studies: pd.DataFrame) -> Figure:
    """ROC of the study score with the source's vote as a point in it, and the scores of both kinds of studies."""
    figure, axes = chart(10, 3.7, 1, 2, width_ratios=[1, 1.3])
    roc, spread = axes[0]
    known = studies.dropna(subset=["label"])
    label, score = known["label"].to_numpy(dtype=np.float64), known["score"].to_numpy()
    roc.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=(0, (3, 3)))
    if label.any() and not label.all():
        ranking = Ranking(score, label)
        draw_roc(roc, ranking, color=ACCENT, linewidth=1.8, label=f"study score  {ranking.auc():.3f}")
        vote = known["source_vote_any"].to_numpy(dtype=np.float64)
        roc.plot(vote[label == 0].mean(), vote[label == 1].mean(), "X", color=WARNING, markersize=9, label="source's vote", clip_on=False)  # fmt: skip
        legend(roc, loc="lower right")
    name_axes(roc, "ROC of studies")
    roc.set(xlabel="1 − specificity", ylabel="sensitivity", aspect="equal")
    roc.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    edges = np.linspace(0, 1, 41)
    for value, name, colour in ((0, "without a bleed", ACCENT), (1, "with a bleed", WARNING)):
        members = score[label == value]
        spread.hist(members, bins=edges, color=colour, alpha=0.55, label=f"{name} ({len(members):,})")
    name_axes(spread, "score of studies")
    spread.set(xlabel="maximum of the 3-slice running mean of any", ylabel="studies", xlim=(0, 1))  # fmt: skip
    spread.yaxis.get_major_locator().set_params(integer=True)
    legend(spread, loc="upper right")
    return figure
