"""Figures of metrics.json as cells of a table and as words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medray.metrics.intervals import LEAST_PATIENTS
from medray.report.figures import line, texts
from medray.report.page import Cell
from medray.systems.boneage.words import number

HOW = f"Intervals are of 95%, by resampling patients; there is none of fewer than {LEAST_PATIENTS} patients."


def cell(figure: Mapping[str, Any] | None, signed: bool = False, films: bool = False) -> Cell:
    """Months, and the interval or why there is none; a dash where nothing was scored.

    Args:
        films: also of how many films.
    """
    if figure is None or figure["value"] is None:
        return Cell("–", "" if figure is None or not figure.get("films") else str(figure.get("reason", "")))
    value, note = texts(figure, 2, signed)
    return Cell(value, f"{_short(note)}; {number(figure['films'], 'film')}" if films else _short(note))


def share(figure: Mapping[str, Any]) -> Cell:
    """A part of the films, in per cent."""
    if figure["value"] is None:
        return Cell("–")
    if figure["low"] is None:
        return Cell(f"{figure['value']:.1%}", _short(f"no interval: {figure['reason']}"))
    return Cell(f"{figure['value']:.1%}", f"{max(0, figure['low']):.1%} to {min(1, figure['high']):.1%}")


def _short(note: str) -> str:
    """What HOW says is not said again in every cell."""
    return "no interval" if note.endswith(f"fewer than {LEAST_PATIENTS}") else note


def months(figure: Mapping[str, Any]) -> str:
    """In a sentence, with true minus signs: "−0.54 (95% −0.96 to −0.14)"."""
    return minus(line(figure, 2)).replace("  ", " ")


def minus(text: str) -> str:
    """With true minus signs."""
    return text.replace("-", "−")
