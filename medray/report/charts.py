"""Charts that every system's report has. Plain tables in, matplotlib figures out."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from medray.metrics.binary import Ranking, calibration_bins
from medray.report.page import FAINT, INK, PALETTE, chart, legend, name_axes

_POINTS = 400  # of a drawn curve: more cannot be seen
_BINS = 15
_ROWS = 3  # of learning curves, one for each backbone
_A_ROW = 3  # charts, where there are more backbones
_ALIKE = 0.05  # of the largest learning rate: curves that lie closer are drawn as one


def minimised(keys: Collection[str]) -> set[str]:
    """Of an epoch's figures the loss that was minimised, or those of several turns (train_coder_loss), each of which has a
    gradient; its parts (train_dice_loss) are not."""
    found = {key for key in keys if key.startswith("train_") and key.endswith("_loss")}
    turns = {key for key in found if f"{key.removesuffix('loss')}gradient_norm" in keys}
    return turns or ({"train_loss"} & found) or found


def is_scored(key: str) -> bool:
    """Whether it is what other rows than those of training were scored by."""
    return key.endswith(("log_loss", "one_minus_dice"))


def learning_curves(histories: Mapping[str, list[dict[str, Any]]], auc_of: str) -> Figure:
    """A row for each backbone, a colour for each fold: loss, AUC where an epoch has one, learning rate by epoch.

    Many backbones whose epochs have no AUC stand side by side, with one chart of all learning rates at the end.

    Args:
        histories: run name ("<backbone>/fold<k>") → entries of its history.json.
        auc_of: title of the AUC's chart.
    """
    backbones = list(dict.fromkeys(name.rpartition("/")[0] for name in histories))
    scored = any("auc" in key for entries in histories.values() for entry in entries for key in entry["metrics"])
    if len(backbones) > _ROWS and not scored:
        return _many_curves(histories, backbones)
    widths = [1.5, 1.2, 1] if scored else [1.5, 1]
    figure, axes = chart(10, 2.9 * len(backbones), len(backbones), len(widths), width_ratios=widths)
    for row, backbone in zip(axes, backbones, strict=True):
        loss, rate = row[0], row[-1]
        auc = row[1]  # where nothing was scored that is ``rate``, and no key asks for it
        runs = {name: entries for name, entries in histories.items() if name.rpartition("/")[0] == backbone}
        for colour, (name, entries) in zip(PALETTE * len(runs), runs.items(), strict=False):
            fold = name.rpartition("/")[2].replace("fold", "fold ")
            keys = dict.fromkeys(key for entry in entries for key in entry["metrics"])
            for key in keys:
                points = [(e["epoch"], e["metrics"][key]) for e in entries if key in e["metrics"]]
                training = key in minimised(keys)
                options = {"color": colour, "marker": "o", "markersize": 2.5, "linewidth": 1.4}
                options |= {"linestyle": (0, (4, 2)), "alpha": 0.75} if training else {}
                axis = (
                    loss if training or is_scored(key) else auc if "auc" in key
                    else rate if key == "learning_rate" else None
                )  # fmt: skip
                if axis is None:  # parts of the loss and norms of gradients, which history.json has
                    continue
                on = re.sub(r"_((weighted|mean)_log_loss|one_minus_dice)$", "", key).replace("_", " ")
                turn = key.removeprefix("train_").removesuffix("loss").strip("_")
                label = f"{fold}, {' '.join(['training', turn]).strip() if training else on}" if axis is loss else None
                axis.plot(*zip(*points, strict=True), label=label, **options)
        name_axes(loss, f"{backbone}: loss")
        if scored:
            name_axes(auc, auc_of)
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


def _many_curves(histories: Mapping[str, list[dict[str, Any]]], backbones: Sequence[str]) -> Figure:
    """The loss of each backbone in a small chart, a colour for each fold, and at the end the learning rates of all."""
    rows = -(-(len(backbones) + 1) // _A_ROW)
    figure, axes = chart(10, 2.3 * rows + 0.4, rows, _A_ROW)
    places = list(axes.flat)
    folds = list(dict.fromkeys(name.rpartition("/")[2] for name in histories))
    for name, entries in histories.items():
        backbone, _, fold = name.rpartition("/")
        axis, colour = places[backbones.index(backbone)], PALETTE[folds.index(fold) % len(PALETTE)]
        axis.set_title(f"{backbone}: loss", loc="left", fontsize=8.5, color=INK, fontweight="bold", pad=6)
        keys = dict.fromkeys(key for entry in entries for key in entry["metrics"])
        training = minimised(keys)
        for key in keys:
            if key in training or is_scored(key):
                style = {"linestyle": (0, (4, 2)), "alpha": 0.75} if key in training else {}
                points = [(e["epoch"], e["metrics"][key]) for e in entries if key in e["metrics"]]
                axis.plot(*zip(*points, strict=True), color=colour, linewidth=1.2, marker="o", markersize=2, **style)
    rate = places[len(backbones)]
    for place, (label, points) in enumerate(_learning_rates(histories).items()):
        colour = PALETTE[(len(folds) + place) % len(PALETTE)]
        rate.plot(*zip(*points, strict=True), color=colour, linewidth=1.4, label=label)
    rate.set_title("learning rate", loc="left", fontsize=8.5, color=INK, fontweight="bold", pad=6)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2), useMathText=False)
    rate.yaxis.get_offset_text().set(color=INK, fontsize=7.5)
    rate.set_ylim(top=rate.get_ylim()[1] * (1 + 0.12 * len(rate.lines)))  # room for the legend
    legend(rate, fontsize=7, loc="upper right")
    for axis in places[: len(backbones) + 1]:
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_xlabel("epoch")
    for axis in places[len(backbones) + 1 :]:
        axis.set_visible(False)
    colours = zip(PALETTE * len(folds), folds, strict=False)
    handles = [Line2D([], [], color=colour, label=fold.replace("fold", "fold ")) for colour, fold in colours]
    figure.legend(handles=handles, loc="outside upper left", ncols=10, frameon=False, fontsize=8, labelcolor=INK)
    return figure


def _learning_rates(histories: Mapping[str, list[dict[str, Any]]]) -> dict[str, list[tuple[int, float]]]:
    """Whose → (epoch, learning rate) by epoch; runs whose curves are alike but for their number of steps are one."""
    found: list[tuple[list[str], np.ndarray]] = []
    for name, entries in histories.items():
        curve = np.array(
            [(e["epoch"], e["metrics"]["learning_rate"]) for e in entries if "learning_rate" in e["metrics"]]
        )
        for names, own in found:
            if own.shape == curve.shape and np.allclose(own, curve, rtol=0, atol=_ALIKE * curve[:, 1].max()):
                names.append(name)
                break
        else:
            if len(curve):
                found.append(([name], curve))
    labels = [list(dict.fromkeys(name.rpartition("/")[0] for name in names)) for names, _ in found]
    shown = [own[0] if len(own) == 1 else f"{own[0]} and {len(own) - 1} more" for own in labels]
    return {label: [(int(e), float(r)) for e, r in curve] for label, (_, curve) in zip(shown, found, strict=True)}


def _thinned(distance: np.ndarray) -> np.ndarray:
    """Places of about _POINTS points, even along a rising ``distance``: 674,258 steps of a curve cannot be seen."""
    if len(distance) <= _POINTS:
        return np.arange(len(distance))
    places = np.searchsorted(distance, np.linspace(distance[0], distance[-1], _POINTS))
    first = np.geomspace(1, len(distance), 60).astype(int) - 1  # where precision still jumps
    return np.unique(np.concatenate([places, first, [len(distance) - 1]]))


def draw_roc(axis: Axes, ranking: Ranking, **options: Any) -> None:
    """A ROC curve; options of Axes.plot."""
    true, false = (np.append(0, values / values[-1]) for values in ranking.curve())
    kept = _thinned(true + false)
    axis.plot(false[kept], true[kept], **options)


def roc_and_precision(oof: pd.DataFrame, colours: Mapping[str, str], lead: str = "") -> Figure:
    """ROC and precision-recall curves; a class without both kinds of rows is named, not drawn.

    Args:
        oof: a column for each class (0, 1, or NaN, which does not count), and p_<class>.
        colours: class → colour.
        lead: the class that is drawn thicker.
    """
    figure, axes = chart(10, 4.3, 1, 3, width_ratios=[1, 1, 0.46])
    roc, recall, beside = axes[0]
    beside.axis("off")
    roc.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=(0, (3, 3)))
    for name in colours:
        ranking = Ranking(*_known(oof, name))
        auc, precision = ranking.auc(), ranking.average_precision()
        options: dict[str, Any] = {"color": colours[name], "linewidth": 2.0 if name == lead else 1.4}
        if np.isfinite(auc):
            draw_roc(roc, ranking, label=f"{name}  {auc:.3f}", **options)
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


def calibration(oof: pd.DataFrame, colours: Mapping[str, str]) -> Figure:
    """Observed rate against mean probability in bins of equal count. Roots on both axes: most rates are small.

    Args:
        oof, colours: as ``roc_and_precision``.
    """
    rows = -(-len(colours) // 3)
    figure, axes = chart(10, 3.1 * rows, rows, 3)
    ticks = np.array([0, 0.01, 0.05, 0.1, 0.25, 0.5, 1])
    highest = 0.1
    for axis in axes.flat[len(colours) :]:
        axis.set_visible(False)
    for axis, name in zip(axes.flat, colours, strict=False):
        bins = calibration_bins(*_known(oof, name), _BINS)
        axis.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=(0, (3, 3)))
        if len(bins):
            predicted, observed, members = bins.T
            low, high = _wilson(observed, members)
            highest = max(highest, predicted.max(), high.max())
            axis.vlines(predicted, low, high, color=colours[name], linewidth=1.4, alpha=0.45)
            axis.plot(predicted, observed, "o-", color=colours[name], markersize=4, linewidth=1)
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


def _known(oof: pd.DataFrame, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels of the rows whose label is known."""
    labels = oof[name].to_numpy(dtype=np.float64)
    known = ~np.isnan(labels)
    return oof[f"p_{name}"].to_numpy(dtype=np.float64)[known], labels[known]
