"""Figures with their intervals, as texts for a page or a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medray.metrics.intervals import LEAST_PATIENTS, LEAST_PRECISION, LEAST_PREDICTIVE, LEAST_RATE

HOW = (
    "Intervals are of 95%, over patients, since what is seen of one patient is not independent: of an AUC by the variance "
    "for clustered data (Obuchowski 1997), of a rate by Wilson's, of other scores by resampling patients. There is none where "
    f"fewer than {LEAST_PATIENTS} patients are positive ({LEAST_PRECISION} for an average precision, {LEAST_RATE} for a rate, "
    f"{LEAST_PREDICTIVE} for a predictive value) or, where rows are ranked, negative. They leave out what another training would change; and new images are "
    "answered by the average of the folds' networks, which is not the predictor that is scored here."
)


def texts(figure: Mapping[str, Any], digits: int, signed: bool = False) -> tuple[str, str]:
    """A value and its interval, or the reason why there is none: "0.842" and "0.829 to 0.855".

    Args:
        figure: of ``medray.metrics.intervals.intervals``, also after JSON.
        signed: a plus sign before what is above 0, and a true minus sign.
    """

    def text(number: float) -> str:
        return f"{number:+.{digits}f}".replace("-", "−") if signed else f"{number:.{digits}f}"

    value, low, high, reason = (figure.get(key) for key in ("value", "low", "high", "reason"))
    if value is None:
        return "–", f"undefined: {reason}" if reason else "undefined"
    if low is None or high is None:
        return text(value), f"no interval: {reason}" if reason else ""
    return text(value), f"{text(low)} to {text(high)}"


def line(figure: Mapping[str, Any], digits: int) -> str:
    """The same in one line: "0.842  (95% 0.829 to 0.855)", "0.842  (no interval: 3 positive patients …)"."""
    value, note = texts(figure, digits)
    if figure["value"] is None:
        return note
    return f"{value}  ({'95% ' if figure['low'] is not None else ''}{note})" if note else value
