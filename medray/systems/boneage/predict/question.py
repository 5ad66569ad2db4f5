"""What is asked: of which films, by which run, and what a table, their headers and a flag say of them."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from medray.shards.films import image_keys, rows_of
from medray.shards.inventory import Inventory, set_aside
from medray.shards.leakage import trained_on
from medray.shards.store import File, Store
from medray.systems.boneage.films.labels import Labels, read_labels
from medray.systems.boneage.films.source import FILM
from medray.systems.boneage.films.table import MOST_CALENDAR_MONTHS
from medray.systems.boneage.predict.new_films import FILMS_PER_PIECE, Films
from medray.systems.boneage.predict.readers import group_of
from medray.systems.boneage.results import read_films

WHOLE_YEARS = "its calendar age is the header's, full years as it seems: up to 11 months too low"
_OF_BONE_AGE = {"models", "folds", "stage_folds", "masks", "points", "how", "clip", "source", "ensemble"}
"""What method.json of such a run has."""


def check_method(out: Store, name: str, method: Mapping[str, Any]) -> None:
    """Raise ValueError where method.json is of a job of another kind."""
    if not method.keys() >= _OF_BONE_AGE:
        raise ValueError(f"--run {out.uri}: {name} reads no bone ages; name the --out of a finished boneage_cv.py")


def files_in(folder: Store, to: Store) -> list[File]:
    """All files of --images, but those of --to below it. Raises ValueError where there are none."""
    try:
        return folder.files(to)
    except ValueError as error:
        raise ValueError(f"--images {error}; name a film, or a folder of films") from None


@dataclass(frozen=True)
class FilmSet:
    """The films that are asked about, under their own identifiers, and the files that are none."""

    rows: list[dict[str, Any]]
    """path, shown (the path below --images), film_id, patient_id (None where nobody says), sex, sex_from,
    calendar_months, note; in order of path."""
    aside: pd.DataFrame  # path (below --images), reason
    warnings: tuple[str, ...] = ()

    @property
    def groups(self) -> frozenset[str]:
        """Groups that the films are of: girls, boys, unknown."""
        return frozenset(group_of(row["sex"]) for row in self.rows)

    def pieces(self) -> list[Films]:
        return [Films(i + 1, self.rows[i : i + FILMS_PER_PIECE]) for i in range(0, len(self.rows), FILMS_PER_PIECE)]


def read_table(uri: str) -> Labels:
    """As ``read_labels`` for new films."""
    return read_labels(uri, new_films=True, flag="--table")


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
    warnings: list[str] = []
    if table is not None:
        keys = rows_of(items, image_keys(paths), table.table.index)
        if keys.isna().all():
            raise ValueError(
                f"--table: none of its {len(table.table):,} films is one of the {len(keys):,} that are there; it must "
                "name the files (1437 or 1437.png, or with folders) or be of SOPInstanceUIDs"
            )
        warnings = [*table.warnings]
        if missing := int(keys.isna().sum()):
            warnings.append(f"{missing:,} of {len(keys):,} films are not in --table")
        if shared := int(keys.dropna().duplicated(keep=False).sum()):
            warnings.append(f"{shared:,} films share a row of --table: what it says is taken for each of them")
    headers = inventory.table.set_index("path").loc[paths, ["patient_id", "sex", "calendar_months"]].to_dict("records")
    rows = []
    for path, key, film_id, header in zip(paths, keys, items, headers, strict=True):
        told: Mapping[str, Any] = {} if table is None or key is None else table.table.loc[key]
        about = _about(told, {name: None if pd.isna(value) else value for name, value in header.items()}, sex)
        rows.append({"path": path, "shown": below(folder, path), "film_id": film_id} | about)
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
