"""A CSV of films: which column is which, and what its cells mean."""

from __future__ import annotations

import numpy as np
import pandas as pd

from medray.imaging.film import OLDEST_YEARS, known_view
from medray.shards.cells import UNKNOWN, ZEROS_AND_ONES, read_cells, zeros_and_ones
from medray.shards.films import column_of, image_keys, plain_name
from medray.systems.chest.classes import FINDINGS, NO_FINDING, finding_named, unknown_findings

# plain names of the columns that are read, besides those of findings; the first that a table has is taken
_IMAGE = ("imageindex", "path", "image", "imageid", "imagepath", "filename", "file", "sopinstanceuid", "dicomid")
_PATIENT = ("patientid", "patient", "subjectid")
_AGE = ("patientage", "age", "ageyears")
_SEX = ("patientsex", "patientgender", "sex", "gender")
_VIEW = ("viewposition", "view", "appa", "projection")
_SIDE = ("frontallateral",)  # CheXpert's, whose column of views is empty for a lateral film
_SPLIT = ("split",)
_STRINGS = ("findinglabels",)
_NO_FINDING = (plain_name(NO_FINDING),)
_KNOWN = {*_IMAGE, *_PATIENT, *_AGE, *_SEX, *_VIEW, *_SIDE, *_SPLIT, *_STRINGS, *_NO_FINDING}

_SPLITS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validate": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_OLDEST_YEARS = 120


def read_rows(data: bytes, shown: str, flag: str = "--labels") -> pd.DataFrame:
    """The cells of a CSV as text, by the number of their line. Raises ValueError as ``read_cells``, where two columns
    that are read have one name."""
    return read_cells(data, shown, flag, _meaning)


def _meaning(column: str) -> str | None:
    plain = plain_name(finding_named(column) or column)
    return plain if plain in _KNOWN or finding_named(column) else None


def films_of(table: pd.DataFrame, shown: str) -> pd.DataFrame:
    """One row a row of the CSV: key, patient_id, age_years, sex, view, split, no_finding, and the 14 findings.

    Labels are 0, 1, or NaN where they are unknown or the table has no such column; split is None without one.

    Raises:
        ValueError: a column that is needed is missing, a column of labels is named like no finding, a cell says nothing
            that medray knows.
    """
    image, patient = column_of(table, _IMAGE), column_of(table, _PATIENT)
    if image is None or patient is None:
        what = (
            "names the images (Image Index, path, image)"
            if image is None
            else "names the patients (Patient ID, patient)"
        )
        why = "" if image is None else "; without it films of one patient would be trained on and scored"
        raise ValueError(f"--labels {shown}: no column {what}; its columns are {', '.join(table.columns)[:160]}{why}")
    empty = table[image].eq("") | table[patient].eq("")
    if empty.any():
        line = table.index[empty][0]
        raise ValueError(f"--labels {shown}: line {line}: image or patient is empty; fill it in or drop the line")
    films = pd.DataFrame({"key": image_keys(table[image]), "patient_id": table[patient]})
    films["age_years"] = _ages(table)
    films["sex"] = _first_letter(table, _SEX)
    films["view"] = _views(table)
    films["split"] = _splits(table, shown)
    strings = column_of(table, _STRINGS)
    labels = _from_columns(table, shown) if strings is None else _from_strings(table[strings], shown)
    return pd.concat([films, labels], axis=1)


def image_column(table: pd.DataFrame) -> str | None:
    return column_of(table, _IMAGE)


def _from_columns(table: pd.DataFrame, shown: str) -> pd.DataFrame:
    """Labels out of a column for each of some findings."""
    columns = {found: c for c in table.columns if (found := finding_named(c)) is not None}
    others = [c for c in table.columns if finding_named(c) is None and plain_name(c) not in _KNOWN]
    strangers = [c for c in others if _looks_like_labels(table[c])]
    if strangers:
        raise ValueError(f"--labels {shown}: {unknown_findings(strangers)}; rename such a column, or drop it")
    if not columns:
        raise ValueError(f"--labels {shown}: no column is named like a finding ({', '.join(FINDINGS)}); rename yours")
    empty = np.full(len(table), np.nan)
    labels = pd.DataFrame(
        {f: zeros_and_ones(table[columns[f]], shown) if f in columns else empty for f in FINDINGS}, index=table.index
    )
    none = column_of(table, _NO_FINDING)
    labels["no_finding"] = empty if none is None else zeros_and_ones(table[none], shown)
    return labels


def _looks_like_labels(cells: pd.Series) -> bool:
    distinct = {str(text).strip().lower() for text in cells.unique()}
    return distinct <= ZEROS_AND_ONES.keys() | UNKNOWN and bool(distinct & ZEROS_AND_ONES.keys())


def _from_strings(cells: pd.Series, shown: str) -> pd.DataFrame:
    """Labels out of "Effusion|Mass" and "No Finding": what is not named is absent."""
    codes, distinct = pd.factorize(cells)
    rows = np.zeros((len(distinct), len(FINDINGS) + 1))
    for place, text in enumerate(distinct):
        names = [name.strip() for name in str(text).split("|")]
        unknown = [n for n in names if finding_named(n) is None and plain_name(n) not in _NO_FINDING]
        if unknown:
            line = cells.index[codes == place][0]
            raise ValueError(f"--labels {shown}: line {line}: {unknown_findings(unknown)}, and {NO_FINDING}")
        for name in names:
            found = finding_named(name)
            rows[place, -1 if found is None else FINDINGS.index(found)] = 1
    return pd.DataFrame(rows[codes], columns=[*FINDINGS, "no_finding"], index=cells.index)


def _ages(table: pd.DataFrame) -> pd.Series | float:
    column = column_of(table, _AGE)
    if column is None:
        return np.nan
    # older releases of Data_Entry write "058Y", and a few ages of several hundred years
    years = pd.to_numeric(table[column].str.removesuffix("Y"), errors="coerce")
    return years.where(years.between(0, _OLDEST_YEARS)).clip(upper=OLDEST_YEARS)


def _first_letter(table: pd.DataFrame, names: tuple[str, ...]) -> pd.Series | None:
    column = column_of(table, names)
    return None if column is None else _or_none(table[column].str.upper().str[:1])


def _views(table: pd.DataFrame) -> pd.Series | None:
    column, side = column_of(table, _VIEW), column_of(table, _SIDE)
    views = pd.Series("", index=table.index) if column is None else table[column].str.upper()
    if side is not None:
        lateral = table[side].str.lower().eq("lateral")
        views = views.mask(lateral, "LATERAL")
    return _or_none(views.map({view: known_view(view) or "" for view in views.unique()}))


def _splits(table: pd.DataFrame, shown: str) -> pd.Series | None:
    column = column_of(table, _SPLIT)
    if column is None:
        return None
    plain = table[column].str.lower()
    wrong = ~plain.isin([*_SPLITS, ""])
    if wrong.any():
        line = table.index[wrong][0]
        raise ValueError(
            f'--labels {shown}: line {line}: split "{plain[wrong].iloc[0][:40]}" is not train, val or test'
        )
    return _or_none(plain.map(lambda name: _SPLITS.get(name, "")))


def _or_none(texts: pd.Series) -> pd.Series:
    return texts.astype(object).where(texts.ne(""), None)


def nih_patients(keys: pd.Series) -> pd.Series:
    """The patient in a name such as 00000013_005; NaN where a name is none of ChestX-ray14's."""
    return keys.str.rsplit("/", n=1).str[-1].str.extract(r"^(\d{8})_\d{3}$")[0]
