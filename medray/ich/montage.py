"""A study as one picture: its slices in stack order, each with its six probabilities."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from medray.ich.classes import CLASSES, PROBABILITIES

SHORT = ("edh", "iph", "ivh", "sah", "sdh", "any")
_COLUMNS = 8


def draw_montage(slices: pd.DataFrame, images: list[np.ndarray], title: str) -> bytes:
    """PNG of a study.

    Args:
        slices: rows in stack order with "index" and PROBABILITIES; a true "any" of 1 is marked where CLASSES are there.
        images: (rows, columns) uint8 each, the first window.
        title: without identifiers.
    """
    rows = -(-len(slices) // _COLUMNS)
    figure = Figure(figsize=(2.0 * _COLUMNS, 2.35 * rows + 0.5), facecolor="black", layout="constrained")
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
        bleeds = probabilities[-1] >= 0.5
        axis.set_title(text, fontsize=6.5, color="#ff8a5c" if bleeds else "#c8c8c8", family="monospace", pad=2)
        if "any" in CLASSES and row.get("any") == 1:
            axis.plot([0.96], [0.05], "o", color="#ff3b30", markersize=5, transform=axis.transAxes)
    figure.suptitle(title, color="white", fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, facecolor="black")
    return buffer.getvalue()


def draw_study(answered: pd.DataFrame, rows: Sequence[Mapping[str, Any]], windows: int) -> bytes:
    """PNG of a predicted study.

    Args:
        answered: one row a slice, in the order of ``rows``.
        rows: of the shards' schema, with pixels. windows: that they hold; the first one is drawn.
    """
    images = [np.frombuffer(r["image"], np.uint8).reshape(r["rows"], r["columns"], windows)[..., 0] for r in rows]
    return draw_montage(answered, images, "any, and five types, in %")
