"""A study as one picture: its slices in stack order, each with its six probabilities."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from medray.systems.ich.classes import CLASSES, PROBABILITIES

SHORT = ("edh", "iph", "ivh", "sah", "sdh", "any")
ORANGE_FROM = 0.5
"""The probability of any bleed from which a slice's numbers are orange."""

_COLUMNS = 8


def draw_montage(slices: pd.DataFrame, images: list[np.ndarray], title: str) -> bytes:
    """PNG of a study.

    Args:
        slices: rows in stack order with "index" and PROBABILITIES; where "any" is there, a slice with 1 gets a dot.
        images: (rows, columns) uint8 each, the first window.
        title: without identifiers.
    """
    rows = -(-len(slices) // _COLUMNS)
    figure = Figure(figsize=(2.0 * _COLUMNS, 2.35 * rows + 0.8), facecolor="black", layout="constrained")
    axes: Any = figure.subplots(rows, _COLUMNS, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (_, row), image in zip(axes.flat, slices.iterrows(), images, strict=False):
        step = max(1, image.shape[0] // 256)
        axis.imshow(image[::step, ::step], cmap="gray", vmin=0, vmax=255)
        probabilities = row[list(PROBABILITIES)].to_numpy(dtype=float)
        values = "  ".join(f"{name} {100 * p:.0f}" for name, p in zip(SHORT, probabilities, strict=True))
        half = len(values.split("  ")) // 2
        parts = values.split("  ")
        text = f"{int(row['index'])}:  " + "  ".join(parts[:half]) + "\n" + "  ".join(parts[half:])
        bleeds = probabilities[-1] >= ORANGE_FROM
        axis.set_title(text, fontsize=6.5, color="#ff8a5c" if bleeds else "#c8c8c8", family="monospace", pad=2)
        if row.get("any") == 1:
            axis.plot([0.96], [0.05], "o", color="#ff3b30", markersize=5, transform=axis.transAxes)
    known = "any" in slices and slices["any"].notna().any()
    figure.suptitle("\n".join([title, legend_line(bool(known))]), color="white", fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, facecolor="black")
    return buffer.getvalue()


def legend_line(labelled: bool) -> str:
    """What the numbers and colours of a montage mean."""
    meaning = "place in the stack, then probabilities in %: " + ", ".join(
        f"{short} {name}" if short != name else f"{name} bleed" for short, name in zip(SHORT, CLASSES, strict=True)
    )
    return f"{meaning}; orange: any ≥ {ORANGE_FROM:.0%}" + ("; red dot: labelled as a bleed" if labelled else "")


def draw_study(
    answered: pd.DataFrame, rows: Sequence[Mapping[str, Any]], windows: int, title: str, truth: pd.Series | None = None
) -> bytes:
    """PNG of a predicted study.

    Args:
        answered: one row a slice, in the order of ``rows``.
        rows: of the shards' schema, with pixels. windows: that they hold; the first one is drawn.
        title: without identifiers.
        truth: slice id → whether the slice bleeds: 0, 1, NaN where unknown.
    """
    if truth is not None:
        answered = answered.assign(any=answered["slice_id"].map(truth))
    images = [np.frombuffer(r["image"], np.uint8).reshape(r["rows"], r["columns"], windows)[..., 0] for r in rows]
    return draw_montage(answered, images, title)
