"""The report's charts. Plain tables in, matplotlib figures out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medray.ich.classes import CLASSES, PROBABILITIES
from medray.ich.report.pictures import HISTOGRAM_EDGES_HU
from medray.ich.report.published import FIRST_PLACE_AUC
from medray.metrics.binary import Ranking, calibration_bins
from medray.page import ACCENT, FAINT, INK, PALETTE, WARNING, chart, legend, name_axes

COLOURS = dict(zip(CLASSES, PALETTE, strict=False))
_POINTS = 400  # of a drawn curve: more cannot be seen
_BINS = 15


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
    known = max(1, int(labels["any"].notna().sum()))
    heights = np.arange(len(CLASSES))[::-1]
    bars.barh(heights, counts, color=[COLOURS[name] for name in CLASSES], height=0.62)
    for y, count in zip(heights, counts, strict=True):
        bars.annotate(f"{count:,.0f} ({count / known:.1%})", (count, y), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8, color=INK)  # fmt: skip
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


def learning_curves(histories: dict[str, list[dict[str, Any]]]) -> Figure:
    """A row for each backbone, a colour for each fold: loss, AUC where an epoch has one, learning rate by epoch.

    Args:
        histories: run name ("<backbone>/fold<k>") → entries of its history.json.
    """
    backbones = list(dict.fromkeys(name.rpartition("/")[0] for name in histories))
    scored = any("auc" in key for entries in histories.values() for entry in entries for key in entry["metrics"])
    widths = [1.5, 1.2, 1] if scored else [1.5, 1]
    figure, axes = chart(10, 2.9 * len(backbones), len(backbones), len(widths), width_ratios=widths)
    for row, backbone in zip(axes, backbones, strict=True):
        loss, rate = row[0], row[-1]
        auc = row[1]  # where nothing was scored that is ``rate``, and no key asks for it
        runs = {name: entries for name, entries in histories.items() if name.rpartition("/")[0] == backbone}
        for colour, (name, entries) in zip(PALETTE * len(runs), runs.items(), strict=False):
            fold = name.rpartition("/")[2].replace("fold", "fold ")
            for key in dict.fromkeys(key for entry in entries for key in entry["metrics"]):
                points = [(e["epoch"], e["metrics"][key]) for e in entries if key in e["metrics"]]
                training = key == "train_loss"
                options = {"color": colour, "marker": "o", "markersize": 2.5, "linewidth": 1.4}
                options |= {"linestyle": (0, (4, 2)), "alpha": 0.75} if training else {}
                axis = loss if training or key.endswith("log_loss") else auc if "auc" in key else rate
                on = key.removesuffix("_weighted_log_loss").replace("_", " ")
                label = f"{fold}, {'training' if training else on}" if axis is loss else None
                axis.plot(*zip(*points, strict=True), label=label, **options)
        name_axes(loss, f"{backbone}: loss")
        if scored:
            name_axes(auc, "AUC of any")
        name_axes(rate, "learning rate")
        rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2), useMathText=False)
        rate.yaxis.get_offset_text().set(color=INK, fontsize=7.5)
        if scored and not auc.lines:
            auc.set_visible(False)
        legend(loss, ncols=2 if len(runs) > 2 else 1, fontsize=7.5)
        for axis in row:
            axis.set_xlabel("epoch")
            axis.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _thinned(distance: np.ndarray) -> np.ndarray:
    """Places of about _POINTS points, even along a rising ``distance``: 674,258 steps of a curve cannot be seen."""
    if len(distance) <= _POINTS:
        return np.arange(len(distance))
    places = np.searchsorted(distance, np.linspace(distance[0], distance[-1], _POINTS))
    first = np.geomspace(1, len(distance), 60).astype(int) - 1  # where precision still jumps
    return np.unique(np.concatenate([places, first, [len(distance) - 1]]))


def _draw_roc(axis: Axes, ranking: Ranking, **options: Any) -> None:
    true, false = (np.append(0, values / values[-1]) for values in ranking.curve())
    kept = _thinned(true + false)
    axis.plot(false[kept], true[kept], **options)


def roc_and_precision(oof: pd.DataFrame) -> Figure:
    """ROC and precision-recall curves of the slices; a class without both kinds of slices is named, not drawn."""
    figure, axes = chart(10, 4.3, 1, 3, width_ratios=[1, 1, 0.46])
    roc, recall, beside = axes[0]
    beside.axis("off")
    roc.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=(0, (3, 3)))
    for name, column in zip(CLASSES, PROBABILITIES, strict=True):
        ranking = Ranking(oof[column].to_numpy(), oof[name].to_numpy(dtype=np.float64))
        auc, precision = ranking.auc(), ranking.average_precision()
        options: dict[str, Any] = {"color": COLOURS[name], "linewidth": 2.0 if name == "any" else 1.4}
        if np.isfinite(auc):
            _draw_roc(roc, ranking, label=f"{name}  {auc:.3f}", **options)
        else:
            roc.plot([], [], label=f"{name}  undefined", **options)
        if np.isfinite(precision):
            true, false = ranking.curve()
            kept = _thinned(true)
            recall.plot(true[kept] / true[-1], (true / (true + false))[kept], label=f"{name}  {precision:.3f}", **options)  # fmt: skip
        else:
            recall.plot([], [], label=f"{name}  undefined", **options)
    name_axes(roc, "ROC (area)")
    roc.set(xlabel="1 − specificity", ylabel="sensitivity", aspect="equal")
    name_axes(recall, "precision-recall (average precision)")
    recall.set(xlabel="recall (sensitivity)", ylabel="precision")
    recall.set_aspect("equal")
    legend(roc, loc="lower right")
    # beside the axes: inside, it would lie over the curves
    legend(beside, loc="center left", handles=recall.get_legend_handles_labels()[0])
    for axis in (roc, recall):
        axis.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    return figure


def calibration(oof: pd.DataFrame) -> Figure:
    """Observed rate against mean probability in bins of equal count. Roots on both axes: most rates are small."""
    figure, axes = chart(10, 6.2, 2, 3)
    ticks = np.array([0, 0.01, 0.05, 0.1, 0.25, 0.5, 1])
    highest = 0.1
    for axis, name, column in zip(axes.flat, CLASSES, PROBABILITIES, strict=True):
        bins = calibration_bins(oof[column].to_numpy(), oof[name].to_numpy(dtype=np.float64), _BINS)
        axis.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=(0, (3, 3)))
        if len(bins):
            predicted, observed, members = bins.T
            low, high = _wilson(observed, members)
            highest = max(highest, predicted.max(), high.max())
            axis.vlines(predicted, low, high, color=COLOURS[name], linewidth=1.4, alpha=0.45)
            axis.plot(predicted, observed, "o-", color=COLOURS[name], markersize=4, linewidth=1)
        name_axes(axis, name)
        for scale in (axis.set_xscale, axis.set_yscale):
            scale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0)), np.square))
        axis.set_xticks(ticks, [f"{t:g}" for t in ticks], rotation=45)
        axis.set_yticks(ticks, [f"{t:g}" for t in ticks])
    end = ticks[np.searchsorted(ticks, highest)]  # the same for all classes, so that they compare
    for axis in axes.flat:
        axis.set(xlim=(0, end), ylim=(0, end), aspect="equal")
    for axis in axes[-1]:
        axis.set_xlabel("mean probability")
    for axis in axes[:, 0]:
        axis.set_ylabel("observed rate")
    return figure


def _wilson(rate: np.ndarray, members: np.ndarray, z: float = 1.96) -> tuple[np.ndarray, np.ndarray]:
    """95% score interval of a rate (Wilson 1927)."""
    centre = (rate + z**2 / (2 * members)) / (1 + z**2 / members)
    half = z / (1 + z**2 / members) * np.sqrt(rate * (1 - rate) / members + z**2 / (4 * members**2))
    return np.maximum(centre - half, 0), np.minimum(centre + half, 1)


def study_scores(studies: pd.DataFrame) -> Figure:
    """ROC of the study score with the source's vote as a point in it, and the scores of both kinds of studies."""
    figure, axes = chart(10, 3.7, 1, 2, width_ratios=[1, 1.3])
    roc, spread = axes[0]
    known = studies.dropna(subset=["label"])
    label, score = known["label"].to_numpy(dtype=np.float64), known["score"].to_numpy()
    roc.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=(0, (3, 3)))
    if label.any() and not label.all():
        ranking = Ranking(score, label)
        _draw_roc(roc, ranking, color=ACCENT, linewidth=1.8, label=f"study score  {ranking.auc():.3f}")
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
