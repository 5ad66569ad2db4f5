"""The report's charts. Plain tables in, matplotlib figures out; ages and errors in months."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from medray.report.page import FAINT, INK, PALETTE, chart, legend, name_axes
from medray.systems.boneage.report.cells import minus
from medray.systems.boneage.scores.bands import BANDS_MONTHS
from medray.systems.boneage.scores.ensemble import Ensemble
from medray.systems.boneage.words import SEXES, number

COLOURS = {"girls": PALETTE[0], "boys": PALETTE[1], "unknown": PALETTE[2]}
_DASHED = (0, (3, 3))
_DRAWN_SINGLY = 1500  # points; more are drawn as pixels, or the page has megabytes of circles
_YEARS = range(0, 241, 24)


def agreement(films: pd.DataFrame, answer: str, limits: Mapping[str, Any]) -> Figure:
    """Predicted against true age, and their difference against their mean (Bland–Altman).

    Args:
        films: as films.csv, of a known error. answer: the column that was scored.
        limits: mean difference (value) and its limits (low_months, high_months), None where too few patients say.
    """
    figure, axes = chart(10, 4.2, 1, 2)
    left, right = axes[0]
    options: dict[str, Any] = {
        "s": 26 if len(films) < 100 else 14 if len(films) < 300 else 5,
        "linewidths": 0,
        "rasterized": len(films) > _DRAWN_SINGLY,
    }
    options |= {"alpha": 0.75 if len(films) < 300 else 0.35}
    for name, colour in COLOURS.items():
        own = films[films["group"] == name]
        if len(own):
            true, found = own["age_months"].to_numpy(dtype=np.float64), own[answer].to_numpy(dtype=np.float64)
            left.scatter(true, found, color=colour, label=SEXES[name], **options)
            right.scatter((true + found) / 2, found - true, color=colour, **options)
    most = max(1.0, float(films[["age_months", answer]].to_numpy(dtype=np.float64).max()))
    left.plot([0, most], [0, most], color=FAINT, linewidth=0.8, linestyle=_DASHED)
    left.set(xlabel="true bone age, months", xticks=_ticks(most), yticks=_ticks(most), aspect="equal")
    name_axes(left, "predicted bone age, months")
    legend(left, loc="upper left", markerscale=1.5)
    for key, style in (("value", "-"), ("low_months", "--"), ("high_months", "--")):
        if limits[key] is not None:
            right.axhline(limits[key], color=INK, linewidth=1, linestyle=style)
            right.annotate(
                minus(f"{limits[key]:+.1f}"),
                (1.0, limits[key]),
                xycoords=("axes fraction", "data"),
                xytext=(3, 0),
                textcoords="offset points",
                fontsize=8,
                color=INK,
                va="center",
            )
    right.axhline(0, color=FAINT, linewidth=0.8, linestyle=_DASHED)
    right.set(xlabel="mean of both, months", xticks=_ticks(most))
    name_axes(right, "predicted − true, months")
    return figure


def _ticks(most: float) -> list[int]:
    return [months for months in _YEARS if months <= most]


def signed_errors(signed: Mapping[str, Mapping[str, Any]], bands: list[str]) -> Figure:
    """Mean predicted − true by band of age and sex: thick, its 95% interval; thin, the 95% limits of agreement.

    Args:
        signed: sex → band → as ``bias.bias`` has them.
    """
    figure, axes = chart(10, 3.1)
    axis = axes[0, 0]
    places = np.arange(len(bands), dtype=np.float64)
    axis.axhline(0, color=FAINT, linewidth=0.8, linestyle=_DASHED)
    for name, aside in (("girls", -0.13), ("boys", 0.13)):
        for place, band in zip(places + aside, bands, strict=True):
            of = signed[name][band]
            for keys, width in ((("low_months", "high_months"), 1.0), (("low", "high"), 4.0)):
                if None not in (of[keys[0]], of[keys[1]]):
                    axis.plot([place] * 2, [of[keys[0]], of[keys[1]]], color=COLOURS[name], linewidth=width, alpha=0.6)
            if of["value"] is not None:
                axis.plot(place, of["value"], "o", color=COLOURS[name], markersize=5)
        axis.plot([], [], "o", color=COLOURS[name], markersize=5, label=SEXES[name])
    years = [
        f"{low / 12:g}–{high / 12:g}" if np.isfinite(high) else f"{low / 12:g} and more"
        for low, high in pairwise(BANDS_MONTHS)
    ]
    axis.set_xticks(places, years)
    axis.set_xlim(-0.5, len(bands) - 0.5)
    axis.set_xlabel("true bone age, years")
    name_axes(axis, "predicted − true, months")
    legend(axis, loc="best", ncols=2)
    return figure


def ages_by_sex(films: pd.DataFrame) -> Figure:
    """How many films of each sex there are in each year of bone age."""
    figure, axes = chart(10, 2.6)
    axis = axes[0, 0]
    edges = np.arange(0, 241, 12)
    known = films[films["age_months"].notna()]
    there = [name for name in COLOURS if (known["group"] == name).any()]
    width = 10.5 / max(1, len(there))
    for place, name in enumerate(there):
        months = known.loc[known["group"] == name, "age_months"].to_numpy(dtype=np.float64)
        counts, _ = np.histogram(np.clip(months, 0, 239), edges)
        left, label = edges[:-1] + 0.75 + place * width, f"{SEXES[name]}, {len(months):,}"
        axis.bar(left, counts, width, align="edge", color=COLOURS[name], label=label)
    axis.set_xticks(list(_YEARS), [f"{months // 12}" for months in _YEARS])
    axis.yaxis.get_major_locator().set_params(integer=True)
    axis.set_xlabel("bone age by the label, years")
    name_axes(axis, "films")
    if there:
        legend(axis, loc="upper left")
    return figure


def weights(ensemble: Ensemble, by_part: Mapping[str, list[list[float]]]) -> Figure | None:
    """The weights of each group's models, and, as dots, those by which the parts of the held-out films were answered;
    None where no group's weights were fitted."""
    groups = {
        name: group
        for name, group in ensemble.groups.items()
        if len(group.members) > 1 and "weights" not in group.reasons
    }
    if not groups:
        return None
    most = max(len(group.members) for group in groups.values())
    figure, axes = chart(10, 0.9 + 0.21 * most, 1, len(groups))
    for axis, (name, group) in zip(axes[0], groups.items(), strict=True):
        heights = np.arange(len(group.members))[::-1]
        axis.barh(heights, group.weights, color=COLOURS[name], height=0.6, alpha=0.75)
        for own in by_part[name]:
            axis.plot(own, heights, "o", color=INK, markersize=2.5, linewidth=0)
        axis.set_yticks(heights, group.members)
        axis.set_ylim(len(group.members) - most - 0.6, len(group.members) - 0.4)
        axis.set_xlim(0, 1.02 * max(0.05, *group.weights, *(one for own in by_part[name] for one in own)))
        axis.set_xlabel("weight")
        name_axes(axis, f"{SEXES[name]}: {number(group.films, 'film')}")
    return figure


def errors_by_epoch(histories: Mapping[str, list[dict[str, Any]]]) -> Figure | None:
    """Mean absolute error of the rows that were scored after each epoch, a line a run; None where none was scored."""
    lines = {
        f"{run}, {key.removesuffix('_mae_months').replace('_', ' ')}": [
            (entry["epoch"], entry["metrics"][key]) for entry in entries if key in entry["metrics"]
        ]
        for run, entries in histories.items()
        for key in dict.fromkeys(key for entry in entries for key in entry["metrics"])
        if key.endswith("mae_months")
    }
    if not lines:
        return None
    figure, axes = chart(10, 3.2)
    axis = axes[0, 0]
    for place, (name, points) in enumerate(lines.items()):
        colour = PALETTE[place % len(PALETTE)]
        axis.plot(*zip(*points, strict=True), color=colour, linewidth=1.2, marker="o", markersize=2.5, label=name)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("epoch")
    axis.xaxis.get_major_locator().set_params(integer=True)
    name_axes(axis, "mean absolute error, months")
    if len(lines) <= 12:
        legend(axis, ncols=2, fontsize=7.5)
    return figure
