"""Children with films at several calendar ages: how the bone age went."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medray.report import page
from medray.systems.boneage.scores.calendar_age import NORMAL_SHARE
from medray.systems.boneage.words import child_word

CURVES = 12
"""So many children have a chart."""
OVER_TIME = (
    "Bone age over calendar age, of each child with films at several calendar ages; the grey line is where both are equal, "
    f"the band {NORMAL_SHARE:.0%} of calendar age to both sides, the bars 95% intervals."
)


def with_several_films(ages: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of each child with films at several calendar ages.

    Args:
        ages: columns name, patient, sex, calendar_months, bone_age_months, low_months, high_months.
    """
    known = ages[ages["patient"].notna() & ages["calendar_months"].notna()]
    return [own for _, own in known.groupby("patient", sort=False) if own["calendar_months"].nunique() > 1]


def section(films: pd.DataFrame, answer: str) -> page.Section | None:
    """Of held-out films, those with most films first; None where no child has several.

    Args:
        films: as films.csv. answer: the column that is the answer.
    """
    names = {
        "film_id": "name", "patient_id": "patient", answer: "bone_age_months", "low": "low_months", "high": "high_months",
        "age_months": "true_months",
    }  # fmt: skip
    ages = films[films[answer].notna()][["sex", "calendar_months", *names]].rename(columns=names)
    children = sorted(with_several_films(ages), key=len, reverse=True)
    if not children:
        return None
    text = f"{OVER_TIME} Crosses are the labels."
    if len(children) > CURVES:
        text += f" {CURVES} of {len(children):,} children are shown."
    return page.Section("Children with several films", text, curves(children[:CURVES]))


def curves(children: Sequence[pd.DataFrame]) -> Figure:
    """A chart of each child: bone age over calendar age.

    Args:
        children: as ``with_several_films`` gives them; a column true_months, where there is one, is drawn as crosses.
    """
    columns = min(3, len(children))
    rows = -(-len(children) // columns)
    figure, axes = page.chart(3.33 * columns, 3.1 * rows, rows, columns)
    for axis in axes.flat[len(children) :]:
        axis.set_visible(False)
    for axis, own in zip(axes.flat, children, strict=False):
        _curve(axis, own.sort_values("calendar_months", kind="stable"))
    return figure


def _curve(axis: Axes, own: pd.DataFrame) -> None:
    calendar, months = (own[name].to_numpy(dtype=np.float64) / 12 for name in ("calendar_months", "bone_age_months"))
    ends = np.array([max(0.0, calendar.min() - 1), calendar.max() + 1])
    axis.fill_between(
        ends, ends * (1 - NORMAL_SHARE), ends * (1 + NORMAL_SHARE), color=page.FAINT, alpha=0.18, linewidth=0
    )
    axis.plot(ends, ends, color=page.FAINT, linewidth=1)
    low, high = (own[name].to_numpy(dtype=np.float64) / 12 for name in ("low_months", "high_months"))
    if np.isfinite(high).all():
        axis.vlines(calendar, low, high, color=page.ACCENT, alpha=0.35, linewidth=2)
    axis.plot(calendar, months, color=page.ACCENT, marker="o", markersize=4, linewidth=1.4)
    if "true_months" in own:
        true = own["true_months"].to_numpy(dtype=np.float64) / 12
        axis.plot(calendar, true, color=page.FAINT, marker="x", markersize=5, linestyle="none")
    first, last = own["name"].iloc[0], own["name"].iloc[-1]
    page.name_axes(axis, f"{first} … {last}, {child_word(own['sex'].iloc[0])}")
    axis.set_xlabel("calendar age, years")
    axis.set_ylabel("bone age, years")
