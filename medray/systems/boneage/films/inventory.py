"""From the headers of all files and the labels to the films that can be used, with their masks, and why the others cannot."""

from __future__ import annotations

import os
from typing import Any

import pandas as pd

from medray.shards.films import film_names, first_known, image_keys, mark, rows_of
from medray.shards.inventory import Inventory, Refused
from medray.systems.boneage.films.labels import Labels
from medray.systems.boneage.films.source import FILM, MASK, MASKS
from medray.systems.boneage.films.table import MOST_CALENDAR_MONTHS

_DRAWN = ("points", "outline_px")
_COLUMNS = (
    "film_id", "patient_id", "film_rows", "film_columns", "age_months", "sex", "calendar_months", *_DRAWN, "files",
)  # fmt: skip


def assemble(scan: pd.DataFrame, labels: Labels | None) -> Inventory:
    """Join headers with labels and masks, and find duplicates.

    A film belongs to a row of the labels by its SOPInstanceUID or by its path: by as many folders of it as the row gives, or
    by the file's name alone where no other row has it. A film without an age is "unlabelled": its age is predicted, never
    trained on; what is drawn on it is used. What the labels say of patient, sex and calendar age comes before what a DICOM
    header says. Files in a folder called ``labels.masks`` are masks; each belongs to the film of its name.

    Args:
        scan: path, size_bytes, status ("ok" or "quarantined"), reason, and the columns of HandFilm.scan_schema.
        labels: None for films without labels, whose masks are not used.
    Returns:
        ``rows`` has an item's files as "film" and "mask", and "points" and "outline_px" in the film file's own pixels.
    Raises:
        Refused: no usable film, or labels of which none belongs to a film.
    """
    table = scan.sort_values("path", kind="stable").reset_index(drop=True)
    folders, in_masks = _places(table, MASKS if labels is None else labels.masks)
    readable = table["status"].eq("ok") & ~in_masks
    if not readable.any():
        raise Refused(_nothing_usable(table, in_masks), table)
    films = table[readable].copy()
    paths = image_keys(films["path"])
    keys = pd.Series(None, index=films.index, dtype=object)
    if labels is not None:
        names = _said(labels)
        keys = rows_of(films["item_id"], paths, names)
        if keys.isna().all():
            raise Refused(
                f"--labels: none of its {len(names):,} films is one of the {len(films):,} that are there; they must name "
                "the files (1437 or 1437.png, or with folders) or be SOPInstanceUIDs",
                table,
            )
    films["item_id"] = film_names(films, paths, keys)
    twice = films["item_id"].duplicated()
    mark(films, twice, "duplicate", "the same image as another file")
    used = films[~twice].copy()
    warnings: list[str] = []
    for name in ("age_months", *_DRAWN):
        used[name] = None
    if labels is not None:
        warnings += _join(used, paths[~twice], keys[~twice], labels)
    used["age_months"] = used["age_months"].astype(float)
    warnings += _about_people(used)

    masks = table[in_masks & table["status"].eq("ok")].copy()
    if labels is None:
        mark(masks, masks["status"].notna(), "unused", "a mask: prediction needs none")
        of_film: dict[Any, Any] = {}
    else:
        of_film, more = _pair(masks, used, folders)
        warnings += more
    masks["item_id"] = pd.Series({place: used.at[film, "item_id"] for film, place in of_film.items()}, dtype=object)
    table["item_id"] = table["item_id"].where(~table["status"].eq("ok"), None)
    for part in (films, used, masks):
        table.loc[part.index, ["item_id", "status", "reason"]] = part[["item_id", "status", "reason"]]
    used["film_id"] = used["item_id"]
    used[["film_rows", "film_columns"]] = used[["film_rows", "film_columns"]].astype(int)
    used["files"] = [
        {FILM: path} | ({MASK: table.at[of_film[film], "path"]} if film in of_film else {})
        for film, path in used["path"].items()
    ]
    notes = _about_exports(used, labels)
    return Inventory(table, used[list(_COLUMNS)].reset_index(drop=True), tuple(warnings), tuple(notes))


def _about_exports(films: pd.DataFrame, labels: Labels | None) -> list[str]:
    """How much of what exports of VIA say was found among the films; nothing where there is no export."""
    if labels is None or labels.table[list(_DRAWN)].isna().all(axis=None):
        return []
    told = [
        f"{what} of {films[name].notna().sum():,} films ({labels.table[name].notna().sum():,} in the exports)"
        for name, what in zip(_DRAWN, ("points", "outlines"), strict=True)
    ]
    return [f"exports of VIA: {', '.join(told)}"]


def _places(table: pd.DataFrame, name: str) -> tuple[pd.Series, pd.Series]:
    """Of each file, its folders and name below the folder that all are in, without those called ``name``; and whether there
    are such."""
    above = os.path.commonpath([os.path.dirname(path) for path in table["path"]]) if len(table) else ""
    if os.path.basename(above) == name:
        raise Refused(
            f"all {len(table):,} files lie in a folder called {name}, in which masks are looked for; name the folder that the "
            "films lie in, too, or give this one another name",
            table,
        )
    parts = image_keys(table["path"]).str.slice(len(above)).str.strip("/").str.split("/")
    in_masks = pd.Series([name in own[:-1] for own in parts], index=table.index, dtype=bool)
    return pd.Series([[part for part in own[:-1] if part != name] + own[-1:] for own in parts], table.index), in_masks


def _nothing_usable(table: pd.DataFrame, in_masks: pd.Series) -> str:
    if table.empty:
        return "there is no file"
    counts = table.loc[~in_masks, "reason"].value_counts()
    if counts.empty:
        return f"all {len(table):,} files lie in folders with masks: there is no film"
    return f"none of {int((~in_masks).sum())} files is a usable film; most often: {counts.index[0]} ({counts.iloc[0]})"


def _said(labels: Labels) -> pd.Index:
    """Names of films that the CSV has: all but those that only exports of VIA name."""
    said = labels.table.drop(columns=list(_DRAWN)).notna().any(axis=1)
    return labels.table.index[said | labels.table[list(_DRAWN)].isna().all(axis=1)]


def _join(films: pd.DataFrame, paths: pd.Series, keys: pd.Series, labels: Labels) -> list[str]:
    """Fill in what the labels say of films; what is odd, a line each."""
    known = keys.notna()
    joined = labels.table.reindex(keys.where(known, "")).set_axis(films.index)
    films["age_months"] = joined["age_months"]
    split = _one_name(joined, films)
    for name in ("patient_id", "sex"):
        films[name] = first_known(joined[name], films[name])
    films["calendar_months"] = joined["calendar_months"].fillna(films["calendar_months"].astype(float))

    # an export may name a film otherwise than the CSV: by its file's name where that has a SOPInstanceUID
    elsewhere, doubtful = set(labels.table.index[labels.table[list(_DRAWN)].notna().any(axis=1)]), set()
    for name in _DRAWN:
        own = labels.table[name].dropna()
        rows = rows_of(films["item_id"], paths, own.index)
        elsewhere -= set(rows)
        several = rows.notna() & rows.duplicated(keep=False)
        doubtful |= set(rows[several])
        films[name] = own.reindex(rows.where(~several, "")).set_axis(films.index).astype(object)
        films[name] = films[name].where(films[name].notna(), None)
    drawn = films[list(_DRAWN)].notna().any(axis=1)
    ageless = known & films["age_months"].isna()
    for rows, why in ((~known, "not in the label file"), (ageless, "the label file knows no age of it")):
        mark(films, rows & ~drawn, "unlabelled", why)
        mark(films, rows & drawn, "unlabelled", f"{why}: only what is drawn on it is learned from")
    counts = [
        (int((~_said(labels).isin([*keys.dropna()])).sum()), "films of the label file are not there"),
        (len(elsewhere), "films that exports of VIA have points or outlines of are not there: those of other films"),
        (len(doubtful), "names in exports of VIA could be of several films: their points and outlines are left out"),
        (int((~known).sum()), "films are not in the label file: they are predicted, never trained on"),
        (int(ageless.sum()), "films have no age in the label file: they are predicted, never trained on"),
    ]
    counts.append(
        (split, "patients of DICOM headers have several names in the label file: their films may be in several folds")
    )
    return [*labels.warnings, *(f"{count:,} {what}" for count, what in counts if count)]


def _one_name(joined: pd.DataFrame, films: pd.DataFrame) -> int:
    """A film without a patient in the label file gets the name that the label file has for others of its header's patient: a
    child under two names would be in two folds. Returns how many patients have several names there."""
    header = films["patient_id"]
    names = (
        pd.DataFrame({"header": header, "name": joined["patient_id"]})
        .dropna()
        .drop_duplicates()
        .groupby("header")["name"]
    )
    single = names.first()[names.size() == 1]
    films["patient_id"] = header.map(single.to_dict()).where(header.isin(single.index), header)
    return int((names.size() > 1).sum())


def _about_people(films: pd.DataFrame) -> list[str]:
    """Films of nobody count as patients of their own; ages that no child has go; what was done, a line each."""
    odd = films["calendar_months"].astype(float) > MOST_CALENDAR_MONTHS
    films["calendar_months"] = films["calendar_months"].astype(float).where(~odd)
    nameless = films["patient_id"].isna()
    films["patient_id"] = films["patient_id"].astype(object).where(~nameless, films["item_id"])
    films["sex"] = films["sex"].astype(object).where(films["sex"].notna(), None)
    counts = [
        (
            int(odd.sum()),
            f"films have a calendar age above {MOST_CALENDAR_MONTHS:g} months in their header: it is left out",
        ),
        (int(films["sex"].isna().sum()), "films of unknown sex: only the models of both sexes read them"),
        (int(nameless.sum()), "films name no patient: each counts as one of its own"),
    ]
    return [f"{count:,} {what}" for count, what in counts if count]


def _pair(masks: pd.DataFrame, films: pd.DataFrame, folders: pd.Series) -> tuple[dict[Any, Any], list[str]]:
    """Film → mask, by the places of both in the table; marks the masks that are of no film, or not of one alone."""
    by_name: dict[str, list[Any]] = {}
    for film, item in films["item_id"].items():
        for name in {folders[film][-1], item}:
            by_name.setdefault(name, []).append(film)
    found: dict[Any, list[Any]] = {}
    lost: dict[Any, tuple[str, str]] = {}
    for mask, kind in masks["kind"].items():
        candidates = by_name.get(folders[mask][-1], [])
        if len(candidates) > 1:  # by as many folders as the mask has
            own = folders[mask]
            candidates = [film for film in candidates if folders[film] == own] or [
                film for film in candidates if folders[film][-len(own) :] == own
            ]
        if not candidates:
            lost[mask] = ("unused", "a mask of no film that is used")
        elif kind != "png":
            lost[mask] = ("quarantined", "a mask that is no PNG: other formats blur its edge")
        elif len(candidates) > 1:
            lost[mask] = (
                "quarantined",
                "a mask of several films of one name: put it into the same folders as its film",
            )
        else:
            found.setdefault(candidates[0], []).append(mask)
    for several in found.values():
        if len(several) > 1:
            lost |= dict.fromkeys(several, ("quarantined", "two masks of one film: keep one"))
    for mask, (status, reason) in lost.items():
        masks.loc[mask, ["status", "reason"]] = [status, reason]
    unused = sum(status == "unused" for status, _ in lost.values())
    aside = [reason for status, reason in lost.values() if status == "quarantined"]
    lines = [f"{unused:,} masks are of no film that is used"] if unused else []
    lines += [f"{len(aside):,} masks are set aside; the first reason: {aside[0]}"] if aside else []
    return {film: own[0] for film, own in found.items() if len(own) == 1}, lines
