"""Answers to new films → ages.csv, refused.csv, ages.html, and lines for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from medray.shards.leakage import seen_in_training
from medray.shards.store import Store
from medray.systems.boneage.predict.new_films import SCHEMA, film_name
from medray.systems.boneage.predict.page import AgesPage, render
from medray.systems.boneage.predict.question import FilmSet
from medray.systems.boneage.scores.calendar_age import NORMAL_SHARE, differences
from medray.systems.boneage.scores.ensemble import Ensemble
from medray.systems.boneage.scores.figures import untested
from medray.systems.boneage.words import age_words, child_word, number
from medray.systems.boneage.words import caution as run_caution

PHANTOMS = "this run was trained on phantoms: its ages say nothing about patients"
NOTES_SHOWN = 5
COLUMNS = (
    "film", "patient", "sex", "sex_from", "bone_age_months", "bone_age", "low_months", "high_months", "calendar_months",
    "difference_months", "normal_band", "hand", "method", "trained_on", "note", "name", "path",
)  # fmt: skip
"""Of ages.csv."""
REFUSED = ("film", "stage", "reason", "name", "path")
"""Of refused.csv."""
_LIES = {
    None: "as laid",
    False: "thumb on the right, fingers up",
    True: "mirrored: thumb on the left, fingers up",
}
_BAND = f"{NORMAL_SHARE:.0%}"


def write_answers(
    to: Store,
    parts: Sequence[pa.Table],
    films: FilmSet,
    trained: AbstractSet[str],
    method: Mapping[str, Any],
    name: str,
    caution: str = "",
    metrics: Mapping[str, Any] | None = None,
) -> list[str]:
    """The tables and the page; lines for a terminal, warnings with "! " before them.

    Args:
        parts: of ``NewFilms``, of all films in order. trained: as ``known_films``.
        method: method.json. name: of the model. caution: of a run that says nothing about patients.
        metrics: the run's metrics.json: how many films it was scored on, and its repeatability.
    Raises:
        ValueError: no film has an answer; the tables and the page are there.
    """
    found = [row for part in parts for row in part.to_pylist()]
    every = [film | {"about": film["note"]} | row for film, row in zip(films.rows, found, strict=True)]
    assert [row["name"] for row in every] == [film_name(i + 1) for i in range(len(every))], "parts of other films"
    known = seen_in_training(pd.DataFrame(found, columns=SCHEMA.names), trained)
    good = [row | {"trained_on": bool(seen)} for row, seen in zip(every, known, strict=True) if row["stage"] is None]
    ages = ages_table(good, name)
    refused = refused_table([row for row in every if row["stage"] is not None], films.aside)
    for file, table in (("ages.csv", ages), ("refused.csv", refused)):
        to.write_csv(file, table, None)
    same = _same_films(ages.assign(pixels_hash=[row["pixels_hash"] for row in good]))
    lines, warnings = _lines(to, ages, refused), [*_about_run(method, metrics or {}), *same, *_warnings(ages)]
    shown = (*([caution] if caution else []), *warnings)
    page = AgesPage(to, ages, refused, method, name, shown, (metrics or {}).get("repeatability") or {})
    to.write_bytes("ages.html", render(page).encode())
    if ages.empty:
        why = refused["reason"].iloc[0]
        raise ValueError(f"no film has an answer; first reason: {why}; {to.uri}/refused.csv has all")
    return [*lines, *(f"! {line}" for line in warnings)]


def ages_table(good: Sequence[Mapping[str, Any]], method: str) -> pd.DataFrame:
    """COLUMNS, one row an answered film, in their order.

    Args:
        good: what ``FilmSet.rows`` has of each, its note as "about"; its row of the parts; and trained_on.
    """
    months, calendar = (
        np.array([row[name] for row in good], dtype=np.float64) for name in ("months", "calendar_months")
    )
    difference, _ = differences(months, calendar)
    rows = []
    for row, beyond in zip(good, difference.tolist(), strict=True):
        rows.append(
            {
                "film": row["film_id"],
                "patient": row["patient_id"],
                "sex": row["sex"],
                "sex_from": row["sex_from"],
                "bone_age_months": row["months"],
                "bone_age": age_words(row["months"]),
                "low_months": row["low"],
                "high_months": row["high"],
                "calendar_months": row["calendar_months"],
                "difference_months": beyond,
                "normal_band": band_words(beyond, row["calendar_months"]),
                "hand": hand_words(row["laterality"], row["mirrored"]),
                "method": method,
                "trained_on": row["trained_on"],
                "note": "; ".join(text for text in (row["about"], row["note"]) if text),
                "name": row["name"],
                "path": row["shown"],
            }
        )
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    numbers = [name for name in COLUMNS if name.endswith("_months")]
    return table.astype(dict.fromkeys(numbers, float)).round(dict.fromkeys(numbers, 1))


def refused_table(lost: Sequence[Mapping[str, Any]], aside: pd.DataFrame) -> pd.DataFrame:
    """REFUSED: the films that a stage has refused, then the files that are no films, which have no name of ours.

    Args:
        lost: as of ``ages_table``. aside: of ``FilmSet``.
    """
    of_films = [[row["film_id"], row["stage"], row["reason"], row["name"], row["shown"]] for row in lost]
    of_files = [
        [path.rsplit("/", 1)[-1], "file", why, None, path]
        for path, why in zip(aside["path"], aside["reason"], strict=True)
    ]
    return pd.DataFrame([*of_films, *of_files], columns=list(REFUSED), dtype=object)


def band_words(difference: float, calendar: float) -> str:
    """Where a bone age lies to the normal band around the calendar age; empty where that is not known."""
    if not np.isfinite(difference):
        return ""
    if abs(difference) <= NORMAL_SHARE * calendar:
        return f"within {_BAND} of calendar age"
    return f"more than {_BAND} {'above' if difference > 0 else 'below'} calendar age"


def hand_words(laterality: str | None, mirrored: bool | None) -> str:
    """Which hand it is, which only a header knows, and how it lies; "as laid" where nobody has looked for its thumb."""
    side = {"L": "left hand, ", "R": "right hand, "}.get(laterality or "", "")
    return f"{side}{_LIES[mirrored]}"


def _lines(to: Store, ages: pd.DataFrame, refused: pd.DataFrame) -> list[str]:
    lines = [
        f"  {number(len(ages), 'film')} → {to.uri}: ages.csv, ages.html; {len(refused):,} refused, refused.csv says why"
    ]
    if len(ages) != 1:
        return lines
    (one,) = ages.to_dict("records")
    text = f"{one['bone_age']} ({one['bone_age_months']:.1f} months"
    text += "" if pd.isna(one["high_months"]) else f"; 95%: {one['low_months']:.1f} to {one['high_months']:.1f}"
    text += f"), {child_word(one['sex'])}; {one['hand']}"
    if one["normal_band"]:
        text += f"; {one['difference_months']:+.1f} months to calendar age: {one['normal_band']}"
    return [*lines, f"  {text}"]


def _same_films(films: pd.DataFrame) -> list[str]:
    """Of films that are equal pixel by pixel, where more is said than that there are two: another child, age or sex."""
    about = ["patient", "sex", "calendar_months"]
    shown = films.dropna(subset=["pixels_hash"])
    several = shown.groupby("pixels_hash")[about].nunique(dropna=False).max(axis=1) > 1
    count = int(shown["pixels_hash"].isin(several.index[several]).sum())
    return (
        [f"{number(count, 'film')} are equal pixel by pixel, and said to be of several children, sexes or ages"]
        if count
        else []
    )


def _about_run(method: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[str]:
    """What may not be claimed of the run's ages."""
    lines = []
    if not method["masks"]:
        lines.append("this run does not look for a hand: a film without one has an age too")
    if metrics:
        if few := run_caution(metrics["counts"]).removeprefix("; "):
            lines.append(f"the run was scored on {few}")
        if untried := untested(metrics, Ensemble.from_json(method["ensemble"])):
            lines.append(f"{untried.replace('here', 'in the run')}: its width is untested")
    return lines


def _warnings(ages: pd.DataFrame) -> list[str]:
    found = []
    if known := int(ages["trained_on"].sum()):
        are = "is" if known == 1 else "are"
        found.append(f"leakage: {known:,} of {number(len(ages), 'film')} {are} in the training data, pixel by pixel")
    if unknown := int(ages["sex_from"].eq("unknown").sum()):
        found.append(
            f"{number(unknown, 'film')} of unknown sex: only the models of both sexes are asked; knowing it is worth "
            "about 1.4 months on RSNA films"
        )
    if beyond := sum(text.startswith("more") for text in ages["normal_band"]):
        found.append(f"{number(beyond, 'film')} with a bone age more than {_BAND} off the calendar age")
    notes = Counter(note for text in ages["note"] for note in text.split("; ") if note)
    return found + [f"{number(count, 'film')}: {note}" for note, count in notes.most_common(NOTES_SHOWN)]
