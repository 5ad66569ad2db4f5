"""Sections about the answer: weights, the width of its interval, the calendar age, what was refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from medray.report.page import Block, Picture, Section, Table
from medray.systems.boneage.report import charts
from medray.systems.boneage.report.cells import cell, minus, share
from medray.systems.boneage.results import count_refused
from medray.systems.boneage.scores.calendar_age import NORMAL_SHARE, SOON_MONTHS
from medray.systems.boneage.scores.ensemble import Ensemble
from medray.systems.boneage.scores.figures import untested
from medray.systems.boneage.words import SEXES, number

_ROWS_SHOWN = 30


def weights(metrics: Mapping[str, Any], ensemble: Ensemble) -> Section:
    """What the ensemble is made of, and why parts of it could not be fitted."""
    rows, notes = [], []
    for name, group in ensemble.groups.items():
        own = metrics["fitted"][name]
        line = minus(f"{group.intercept:.2f} + {group.slope:.3f} · age") if "correction" not in group.reasons else None
        rows.append(
            {
                "films of": SEXES[name],
                "films that fitted it": group.films,
                "equal weights": "all" if "weights" in group.reasons else f"{group.equal_share:.0%}",
                "line": line,
                "ensemble, on films that fitted it": own["ensemble"],
                "its best member, on the same": own["best"],
                "best member": own["best_member"],
            }
        )
        said = {"weights": "equal weights", "correction": "no line", "interval": "no interval"}
        notes += [f"{SEXES[name]}: {said[what]} ({why})" for what, why in group.reasons.items()]
    figure = charts.weights(ensemble, metrics["weights_by_part"])
    text = (
        "Weights are 0 or more, of sum 1: those of the least mean absolute error, drawn towards equal ones as far as that "
        "helps on films that they were not found on (the column says how much is equal; few films fit their own accidents). "
        "Where they were fitted, the ensemble is never worse than its best member on the films that fit them."
    )
    if figure is not None:
        text += (
            " Bars: fitted on all films, for new ones. Dots: fitted without one part of the patients, by which that part's "
            "films were answered and scored; where dots lie apart, more films would settle it."
        )
    text += " Films of unknown sex are answered by the models of both, fitted on films of either sex."
    if notes:
        text += f"\nNot fitted: {'; '.join(notes)}."
    blocks: list[Block] = [] if figure is None else [Picture(figure)]
    return Section("The ensemble", text, more=(*blocks, Table(pd.DataFrame(rows), "Mean absolute errors in months.")))


def interval(metrics: Mapping[str, Any], ensemble: Ensemble) -> Section:
    """How wide the interval is, and how often it holds the age."""
    within = metrics["interval"]["within"]
    rows = [
        {"films": {"all": "all", **SEXES}.get(part, part), "scored": of["films"], "share within": share(of)}
        | {
            "half width for new films, months": None
            if (group := ensemble.groups.get(part)) is None
            else group.half_width
        }
        for part, of in within.items()
    ]
    text = (
        "The answer ± the half width is to hold 95% of the ages (split conformal prediction). Here each part of the "
        "patients was given the width that the other parts' errors say. The width is one for all ages: a band where "
        "errors are large is held less often."
    )
    if within["all"]["value"] is None:
        text += " No film could be given one: an interval needs 19 films of a sex in the other parts."
    elif untried := untested(metrics, ensemble):
        text += f" {untried[0].upper()}{untried[1:]}: that needs 19 films in the other parts. Its width for new films is untested."
    return Section("The interval", text, table=pd.DataFrame(rows))


def calendar(metrics: Mapping[str, Any]) -> Section:
    """Bone age against calendar age, and two films of a child."""
    found, again = metrics["calendar"], metrics["repeatability"]
    blocks: list[Block] = []
    if "reason" in found:
        text = f"Not given: {found['reason']}."
    else:
        text = (
            f"Bone − calendar age of {number(found['predicted']['films'], 'film')}; "
            f"beyond {NORMAL_SHARE:.0%} of the calendar age is outside of the normal band."
        )
        words = {"predicted": "predicted", "true": "by the label"}
        rows = [
            {
                "bone age": told,
                "films": found[name]["films"],
                "mean difference, months": cell(found[name], signed=True),
                "beyond the normal band": share(found[f"{name}_beyond"]),
            }
            for name, told in words.items()
        ]
        alike = found["alike"]
        caption = (
            ""
            if alike["value"] is None
            else f"On the same side of the band by both: {alike['value']:.1%} of {number(alike['films'], 'film')}."
        )
        blocks.append(Table(pd.DataFrame(rows), caption))
    if again["months"] is None:
        text += f"\nRepeatability: not given, {again['reason']}."
    else:
        text += (
            f"\nRepeatability: 95% of two films of a child at most {SOON_MONTHS:g} months apart differ by less than "
            f"{again['months']:.1f} months beyond what the calendar says; {number(again['pairs'], 'pair')} of "
            f"{number(again['patients'], 'patient')}."
        )
    return Section("Bone age and calendar age", text, more=tuple(blocks))


def refused(table: pd.DataFrame, metrics: Mapping[str, Any]) -> Section:
    """Films that a stage could not use, by stage and reason."""
    if table.empty:
        return Section("Refused films", "No film was refused by a stage.")
    counts = metrics["counts"]
    counted, lost = count_refused(table), counts["refused_in_training"]
    rows = counted.head(_ROWS_SHOWN).reset_index()
    rows = rows.rename(columns={"all": "films", "held_out": "held out", "in_training": "of folds only learned from"})
    rows = rows[["stage", "reason", *(["held out", "of folds only learned from"] if lost else []), "films"]]
    text = (
        f"{number(counts['refused'], 'held-out film')} beside {counts['films']:,} that were read. A refused film has no "
        "age and is in no figure: figures are of the films that pass. refused.csv names them."
    )
    if lost:
        text += (
            f" {number(lost, 'more film')} of folds that were not held out: nothing would have been scored on them, but "
            "the age networks have not learned from them."
        )
    caption = f"The first {_ROWS_SHOWN} of {len(counted):,} reasons." if len(counted) > _ROWS_SHOWN else ""
    return Section("Refused films", text, more=(Table(rows, caption),))
