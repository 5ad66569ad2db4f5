"""New films and what their table says of them → answers → ages.csv, refused.csv, ages.html."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from medray.shards.films import image_keys, rows_of
from medray.shards.inventory import Inventory, set_aside
from medray.shards.leakage import seen_in_training, trained_on
from medray.shards.store import Store
from medray.systems.boneage.films.labels import Labels, read_labels
from medray.systems.boneage.films.source import FILM
from medray.systems.boneage.films.table import FLAG, MOST_CALENDAR_MONTHS
from medray.systems.boneage.predict.new_films import FILMS_PER_PIECE, SCHEMA, Films, film_name
from medray.systems.boneage.predict.page import AgesPage, render
from medray.systems.boneage.predict.picture import short_age
from medray.systems.boneage.results import read_films
from medray.systems.boneage.scores.calendar_age import NORMAL_SHARE, differences
from medray.systems.boneage.words import child_word, number

PHANTOMS = "this run was trained on phantoms: its ages say nothing about patients"
WHOLE_YEARS = "its calendar age is the header's, in whole years: up to 11 months too low"
NOTES_SHOWN = 5
COLUMNS = (
    "film", "patient", "sex", "sex_from", "bone_age_months", "bone_age", "low_months", "high_months", "calendar_months",
    "difference_months", "normal_band", "hand", "method", "trained_on", "note", "name", "path",
)  # fmt: skip
"""Of ages.csv."""
REFUSED = ("film", "stage", "reason", "name", "path")
"""Of refused.csv."""
_LIES = {None: "as laid", False: "thumb on the right of the film", True: "mirrored: thumb on the left of the film"}
_BAND = f"{NORMAL_SHARE:.0%}"


@dataclass(frozen=True)
class FilmSet:
    """The films that are asked about, under their own identifiers, and the files that are none."""

    rows: list[dict[str, Any]]
    """path, shown (the path below --images), film_id, patient_id (None where nobody says), sex, sex_from,
    calendar_months, points (in the file's pixels, or None), note; in order of path."""
    aside: pd.DataFrame  # path (below --images), reason
    warnings: tuple[str, ...] = ()

    def pieces(self) -> list[Films]:
        return [Films(i + 1, self.rows[i : i + FILMS_PER_PIECE]) for i in range(0, len(self.rows), FILMS_PER_PIECE)]


def read_table(uri: str) -> Labels:
    """As ``read_labels``, of a table that needs no ages; errors name --table."""
    try:
        return read_labels(uri, needs_ages=False)
    except ValueError as error:
        raise ValueError(str(error).replace(FLAG, "--table")) from None


def film_set(inventory: Inventory, folder: Store, table: Labels | None, sex: str | None) -> FilmSet:
    """Films with patient, sex and calendar age: of the table, else of the DICOM header; the sex else as the flag says.

    Args:
        inventory: of ``assemble`` without labels. folder: --images.
        sex: "F" or "M", of films that neither table nor header name.
    Raises:
        ValueError: none of the table's films is there.
    """
    paths, items = inventory.rows["files"].map(lambda files: files[FILM]), inventory.rows["film_id"]
    keys = pd.Series(None, index=items.index, dtype=object)
    marked = keys
    warnings: list[str] = []
    if table is not None:
        keys = rows_of(items, image_keys(paths), table.table.index)
        if keys.isna().all():
            raise ValueError(
                f"--table: none of its {len(table.table):,} films is one of the {len(keys):,} that are there; it must "
                "name the files (1437 or 1437.png, or with folders) or be of SOPInstanceUIDs"
            )
        warnings = [line.replace(FLAG, "--table") for line in table.warnings]
        if missing := int(keys.isna().sum()):
            warnings.append(f"{missing:,} of {len(keys):,} films are not in --table")
        # an export may name a film otherwise than the CSV
        points = table.table["points"].dropna()
        own = rows_of(items, image_keys(paths), points.index)
        marked = own.where(~own.duplicated(keep=False), None).map(points.to_dict())
    headers = inventory.table.set_index("path").loc[paths, ["patient_id", "sex", "calendar_months"]].to_dict("records")
    rows = []
    for path, key, film_id, header, six in zip(paths, keys, items, headers, marked, strict=True):
        told: Mapping[str, Any] = {} if table is None or key is None else table.table.loc[key]
        about = _about(told, {name: None if pd.isna(value) else value for name, value in header.items()}, sex)
        places = {"path": path, "shown": below(folder, path), "points": six if isinstance(six, list) else None}
        rows.append(places | {"film_id": film_id} | about)
    aside = set_aside(inventory.table)
    aside = aside[aside["status"].ne("unused")]  # masks that somebody has drawn: nobody has asked for their age
    aside = pd.DataFrame({"path": [below(folder, path) for path in aside["path"]], "reason": aside["reason"].tolist()})
    return FilmSet(rows, aside, tuple(warnings))


def _about(told: Mapping[str, Any], header: Mapping[str, Any], flag: str | None) -> dict[str, Any]:
    """Of one film; what the table says counts first."""
    notes = []
    sexes = {"table": told.get("sex"), "header": header["sex"], "flag": flag, "unknown": None}
    origin = next((name for name, sex in sexes.items() if sex), "unknown")
    if origin == "table" and header["sex"] not in (None, sexes["table"]):
        notes.append("table and header name different sexes: the table's is taken")
    calendar = told.get("calendar_months", np.nan)
    if pd.isna(calendar) and header["calendar_months"] is not None:
        calendar = header["calendar_months"]
        if calendar > MOST_CALENDAR_MONTHS:
            notes.append(f"the header's age of {calendar / 12:.0f} years is left out: no child's")
            calendar = np.nan
        elif calendar % 12 == 0:
            notes.append(WHOLE_YEARS)
    return {
        "patient_id": told.get("patient_id") or header["patient_id"],
        "sex": sexes[origin],
        "sex_from": origin,
        "calendar_months": float(calendar),
        "note": "; ".join(notes),
    }


def below(folder: Store, path: str) -> str:
    """A path as it is below the folder; the file's name where the folder is that file."""
    return path.removeprefix(folder.root).lstrip("/") or path.rsplit("/", 1)[-1]


def known_films(results: Store, shards: Store, folds: AbstractSet[int]) -> set[str]:
    """Hashes of the films that a network has learned from: of a single fold not those that it held out.

    Args:
        results: of the model. shards: of its films. folds: of all networks, of every stage.
    """
    held_out: list[str] = []
    if len(folds) == 1 and results.exists("films.csv"):
        held_out = read_films(results)["film_id"].tolist()
    return trained_on(shards, id_column="film_id", held_out=held_out)


def write_answers(
    to: Store,
    parts: Sequence[pa.Table],
    films: FilmSet,
    trained: AbstractSet[str],
    method: Mapping[str, Any],
    name: str,
    caution: str = "",
    repeatability: Mapping[str, Any] | None = None,
) -> list[str]:
    """The tables and the page; lines for a terminal, warnings with "! " before them.

    Args:
        parts: of ``NewFilms``, of all films in order. trained: as ``known_films``.
        method: method.json. name: of the model. caution: of a run that says nothing about patients.
        repeatability: of the run's metrics.json.
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
        to.write_bytes(file, table.to_csv(index=False).encode())
    lines, warnings = _lines(to, ages, refused), _warnings(ages)
    page = AgesPage(to, ages, refused, method, name, (*([caution] if caution else []), *warnings), repeatability or {})
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
                "bone_age": short_age(row["months"]),
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


def _warnings(ages: pd.DataFrame) -> list[str]:
    found = []
    if known := int(ages["trained_on"].sum()):
        found.append(f"leakage: of {number(len(ages), 'film')} {known:,} are in the training data, pixel by pixel")
    if unknown := int(ages["sex_from"].eq("unknown").sum()):
        found.append(
            f"{number(unknown, 'film')} of unknown sex: only the models of both sexes are asked; knowing it is worth "
            "about 1.4 months on RSNA films"
        )
    if beyond := sum(text.startswith("more") for text in ages["normal_band"]):
        found.append(f"{number(beyond, 'film')} with a bone age more than {_BAND} off the calendar age")
    notes = Counter(note for text in ages["note"] for note in text.split("; ") if note)
    return found + [f"{number(count, 'film')}: {note}" for note, count in notes.most_common(NOTES_SHOWN)]
