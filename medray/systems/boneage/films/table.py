"""A CSV of bone ages: which column is which, and what its cells mean."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from medray.shards.films import column_of, image_keys, plain_name

FLAG = "--labels"
"""Of training."""
MOST_MONTHS = 240.0
"""Of bone age: the atlas ends at 19 years, the classes at 240 months."""
MOST_CALENDAR_MONTHS = 300.0

_UNKNOWN = {"", "nan", "na", "n/a", "null", "none", "unknown", "?"}
_NUMBER = re.compile(
    r"[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE
)  # 12,5 of a German Excel, too
_MALE = {
    "true": "M", "t": "M", "1": "M", "1.0": "M", "yes": "M", "y": "M",
    "false": "F", "f": "F", "0": "F", "0.0": "F", "no": "F", "n": "F",
}  # fmt: skip
_SEX = {
    "m": "M", "male": "M", "boy": "M", "boys": "M",
    "f": "F", "female": "F", "girl": "F", "girls": "F",
}  # fmt: skip
_SEX_UNKNOWN = _UNKNOWN | {"u", "o", "x", "other"}

# plain names; of those of films the first that a table has is taken, of all else there may be one
_FILM = ("filename", "file", "path", "image", "imageid", "caseid", "id")
_PATIENT = ("patientid", "patient")
_IS_MALE, _OF_SEX = ("male",), ("sex", "gender")
_AGE = ("boneage", "groundtruthboneage")
_CALENDAR = ("calendarage", "chronologicalage")


@dataclass(frozen=True)
class _Unit:
    """How a name says what unit its column is in."""

    name: str
    in_months: float
    said: bool  # whether the column's name says it


def _units(names: tuple[str, ...]) -> dict[str, _Unit]:
    found = {name: _Unit("months", 1.0, False) for name in names}
    found |= {f"{name}months": _Unit("months", 1.0, True) for name in names}
    return found | {f"{name}years": _Unit("years", 12.0, True) for name in names}


_AGE_UNITS = _units(_AGE) | {"agemonths": _Unit("months", 1.0, True)}
_CALENDAR_UNITS = _units(_CALENDAR)
KNOWN = (
    "of films: id, image, image id, case id, filename, file, path; of bone ages: boneage, bone age (months), age months, "
    "boneage_years; of sex: male, sex, gender; of patients: patient, patient id; of calendar ages: calendar_age_months, "
    "calendar_age_years, chronological age"
)


def meaning(column: str) -> str | None:
    """What a column is read as, for ``read_cells``: two of one meaning cannot both be right."""
    plain = plain_name(column)
    if plain in _AGE_UNITS:
        return "bone age"
    if plain in _CALENDAR_UNITS:
        return "calendar age"
    if plain in (*_IS_MALE, *_OF_SEX):
        return "sex"
    if plain in _PATIENT:
        return "patient"
    return plain if plain in _FILM else None


def films_of(
    table: pd.DataFrame, shown: str, needs_ages: bool = True, flag: str = FLAG
) -> tuple[pd.DataFrame, list[str]]:
    """What a CSV says of films, one row a row of it, by the number of its line; and what is odd, a line each.

    Args:
        table: of ``read_cells`` with ``meaning``. shown: the file's name in errors.
        needs_ages: whether a table without bone ages is an error. New films have none: of them it must say something else.
        flag: by which users name the file; errors and notes begin with it.
    Returns:
        key, patient_id (text or None), age_months, sex ("F", "M" or None), calendar_months; NaN where not known.
    Raises:
        ValueError: a column that is missing, or a cell that cannot be meant; the line is named.
    """
    named = f"{flag} {shown}"
    film, age = column_of(table, _FILM), column_of(table, tuple(_AGE_UNITS))
    if film is None or (age is None and needs_ages) or (not needs_ages and not _tells(table)):
        what = "names the films"
        if film is not None:
            what = "holds bone ages" if needs_ages else "says sex, patient or calendar age"
        raise ValueError(f"{named}: no column {what}; {_columns_shown(table)}; known names are, {KNOWN}")
    empty = table[film].eq("")
    if empty.any():
        raise ValueError(f"{named}: line {table.index[empty][0]} names no film; fill it in or drop the line")
    films = pd.DataFrame({"key": image_keys(table[film])})
    patient = column_of(table, _PATIENT)
    films["patient_id"] = None if patient is None else table[patient].astype(object).where(table[patient].ne(""), None)
    films["age_months"], notes = _ages(table, age, _AGE_UNITS, MOST_MONTHS, named)
    films["sex"] = _sexes(table, named)
    calendar = column_of(table, tuple(_CALENDAR_UNITS))
    films["calendar_months"], more = _ages(table, calendar, _CALENDAR_UNITS, MOST_CALENDAR_MONTHS, named)
    return films, [f"{flag}: {note}" for note in notes + more]


def _tells(table: pd.DataFrame) -> bool:
    """Whether some column says something of new films."""
    return any(column_of(table, names) for names in (_PATIENT, (*_IS_MALE, *_OF_SEX), tuple(_CALENDAR_UNITS)))


def _columns_shown(table: pd.DataFrame) -> str:
    """Its columns; where none has a known name only how many: a table without a header begins with a patient."""
    if any(meaning(name) is not None for name in table.columns):
        return f"its columns are {', '.join(table.columns)[:160]}"
    return f"none of its {len(table.columns)} columns has a known name: is its first line the header?"


def _shown(text: str) -> str:
    """A cell, where it looks like a number or is one short word: in a column that has moved stands a name."""
    return f'"{text}"' if re.fullmatch(r"[+-]?[0-9][\w.,]{0,9}|-?[A-Za-z]{1,7}", text) else f"{len(text)} characters"


def _each(cells: pd.Series, read: Callable[[str], object], refusal: Callable[[str], str], named: str) -> pd.Series:
    """``read`` of every cell, once for cells that are alike; a ValueError that it raises names the line."""
    codes, distinct = pd.factorize(cells)
    values = []
    for code, text in enumerate(distinct):
        try:
            values.append(read(str(text)))
        except ValueError:
            line = cells.index[(codes == code).argmax()]
            raise ValueError(
                f"{named}: line {line}: {cells.name} is {_shown(str(text))}, {refusal(str(text))}"
            ) from None
    return pd.Series([values[code] for code in codes], index=cells.index, dtype=object)


def _ages(
    table: pd.DataFrame, column: str | None, units: dict[str, _Unit], most: float, named: str
) -> tuple[pd.Series | float, list[str]]:
    """Months, and what is odd about them. Whether numbers are months or years is never guessed."""
    if column is None:
        return math.nan, []
    unit = units[plain_name(column)]
    most_of_unit = most / unit.in_months

    def months(text: str) -> float:
        if text.lower() in _UNKNOWN:
            return math.nan
        if not _NUMBER.fullmatch(text) or not 0 <= (value := float(text.replace(",", "."))) <= most_of_unit:
            raise ValueError
        return value * unit.in_months

    def refusal(text: str) -> str:
        wide = _NUMBER.fullmatch(text) and most_of_unit < float(text.replace(",", ".")) <= most
        asked = f"; if these are months, name the column {_stem(column)}_months" if wide else ""
        return (
            f"no number of {unit.name} from 0 to {most_of_unit:g}; correct it, or leave the cell empty where nobody "
            f"knows{asked}"
        )

    found = _each(table[column], months, refusal, named).astype(float)
    largest = found.max()
    if unit.name == "years" or not largest <= most / 12 + 1:
        return found, []
    if not unit.said:
        raise ValueError(
            f"{named}: the largest {column} is {largest:g}: are these years? name the column {_stem(column)}_years; "
            f"or {_stem(column)}_months where they are months"
        )
    return found, [f"the largest {column} is {largest:g}; it is taken for months, as the column's name says"]


def _stem(column: str) -> str:
    """The name for a column that says its unit."""
    plain = re.sub("(months|years)$", "", plain_name(column))
    return {"calendarage": "calendar_age", "chronologicalage": "chronological_age"}.get(plain, "boneage")


def _sexes(table: pd.DataFrame, named: str) -> pd.Series | None:
    column = column_of(table, (*_IS_MALE, *_OF_SEX))
    if column is None:
        return None
    texts = _SEX | _MALE if plain_name(column) in _IS_MALE else _SEX  # of numbers only "male" says which is which

    def sex(text: str) -> str | None:
        plain = " ".join(text.lower().split())
        if plain in _SEX_UNKNOWN:
            return None
        if plain not in texts:
            raise ValueError
        return texts[plain]

    wanted = "True or False" if texts is not _SEX else "M or F (numbers only in a column named male: 1 is a boy)"
    return _each(table[column], sex, lambda _: f"not {wanted}; correct it, or leave the cell empty", named)
