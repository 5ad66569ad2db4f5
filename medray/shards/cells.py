"""Text files that people write by hand or save from a spreadsheet, tables of cells and lists of lines; and tables for them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from typing import Any
from unicodedata import category

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

ZEROS_AND_ONES = {"0": 0.0, "0.0": 0.0, "0.": 0.0, "1": 1.0, "1.0": 1.0, "1.": 1.0}  # 1.0: pandas, beside empty cells
UNKNOWN = {"", "-1", "-1.0", "u", "uncertain", "nan", "na", "n/a", "null", "none"}

MOST_COLUMNS = 1_000
"""Of a table of labels: ten times the widest there is. Tables of features are no labels."""
MOST_BYTES_A_LINE = 1 << 20
MOST_LINES = 20_000_000  # RSNA 2019 has 4.5 million
"""An outline of thousands of corners has a tenth."""
_SEPARATORS = (",", ";", "\t")  # the second is what Excel writes where a comma is the decimal point


def read_cells(
    data: bytes, shown: str, flag: str = "--labels", meaning: Callable[[str], str | None] = str.lower
) -> pd.DataFrame:
    """The cells of a CSV file as text without blanks around them, by the number of their line.

    Commas, semicolons or tabs, whichever the header has most of; a byte order mark, quotes, any line ends. Lines and
    rows without content are left out; empty cells beyond the header's are cut. Columns without a name, or with a name
    that others have too, are called "name (place)".

    Args:
        shown: the file's name in errors. flag: what the user gave it with; errors begin with it.
        meaning: name of a column → what it is read as, of which there may be one only; None where it is not read.
    Raises:
        ValueError: no CSV in UTF-8, no row, a row of another length than the header, two columns of one meaning, more than
            ``MOST_COLUMNS``, a line of more than ``MOST_BYTES_A_LINE``.
    """
    text = _text(data, f"{flag} {shown}", "CSV")
    separator = _separator(text)
    try:
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
        header = next(([" ".join(name.split()) for name in row] for row in lines if any(map(str.strip, row))), [])
    except csv.Error:
        raise ValueError(f"{flag} {shown}: not a CSV file in UTF-8; save it as one") from None
    if len(header) > MOST_COLUMNS:
        raise ValueError(
            f"{flag} {shown}: {len(header):,} columns; at most {MOST_COLUMNS:,}: leave those of the image, the patient and the labels"
        )
    read = [meaning(name) for name in header if name]
    for name in read:
        if name is not None and read.count(name) > 1:
            raise ValueError(f"{flag} {shown}: {read.count(name)} columns are named {name}; keep one")
    rows = _at_once(text, separator, header, lines.line_num)
    if rows is None:
        rows = _one_by_one(lines, header, f"{flag} {shown}")
    if rows.empty:
        raise ValueError(f"{flag} {shown}: there is no row in it")
    names = [n if n and header.count(n) == 1 else f"{n} ({i + 1})" for i, n in enumerate(header)][: rows.shape[1]]
    return rows.set_axis(names, axis=1)


def zeros_and_ones(cells: pd.Series, shown: str, flag: str = "--labels") -> np.ndarray:
    """(rows,) 0, 1 or NaN, for what is in UNKNOWN, of a column of ``read_cells``.

    Raises:
        ValueError: another cell; the line is named.
    """
    codes, distinct = pd.factorize(cells)
    texts = [" ".join(str(text).lower().split()) for text in distinct]
    for code, text in enumerate(texts):
        if text not in ZEROS_AND_ONES and text not in UNKNOWN:
            line = cells.index[(codes == code).argmax()]
            found = f'"{text}"' if _ANSWER.fullmatch(text) else f"text of {len(text)} characters"
            raise ValueError(
                f"{flag} {shown}: line {line}: {cells.name} is {found}, neither 0 nor 1; leave the cell empty (or -1) where it "
                "is unknown"
            )
    return np.array([ZEROS_AND_ONES.get(text, np.nan) for text in texts])[codes]


def read_lines(data: bytes, shown: str, flag: str = "--labels") -> list[tuple[int, list[str]]]:
    """Number and words of each line of a text file that is not blank. Raises ValueError where it is not in UTF-8, or a line has
    more than ``MOST_BYTES_A_LINE``."""
    text = _text(data, f"{flag} {shown}", "text")
    lines = enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), start=1)
    return [(number, words) for number, line in lines if (words := line.split())]


def _text(data: bytes, where: str, kind: str) -> str:
    refusal = f"{where}: not a {kind} file in UTF-8; save it as one"
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(refusal) from None
    if "\0" in text:  # UTF-16 of plain letters, without its mark, is UTF-8 too
        raise ValueError(refusal)
    letters = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero((letters == ord("\n")) | (letters == ord("\r")))
    if len(ends) > MOST_LINES:
        raise ValueError(f"{where}: {len(ends):,} lines, at most {MOST_LINES:,}; no {kind} file of labels has so many")
    if np.diff(ends, prepend=-1, append=len(letters)).max() > MOST_BYTES_A_LINE:
        raise ValueError(
            f"{where}: a line of more than {MOST_BYTES_A_LINE >> 20} MB; no {kind} file of labels has such"
        )
    return text


def _separator(text: str) -> str:
    first = re.search(r"[^\r\n]*\S[^\r\n]*", text)
    unquoted = re.sub(r'"[^"]*"', "", first.group() if first else "")
    return max(_SEPARATORS, key=unquoted.count)


def _at_once(text: str, separator: str, header: list[str], header_line: int) -> pd.DataFrame | None:
    """All rows of a file of which each line is a row: 4.5 million in seconds. None for any other file."""
    body = re.split(r"\r\n|\r|\n", text, maxsplit=header_line)[-1] if '"' not in text else ""
    if not body.strip():
        return None
    try:
        table = pacsv.read_csv(
            pa.BufferReader(body.rstrip("\r\n").encode()),
            pacsv.ReadOptions(column_names=[str(i) for i in range(len(header))]),
            pacsv.ParseOptions(delimiter=separator, quote_char=False, ignore_empty_lines=False),
            pacsv.ConvertOptions(column_types={str(i): pa.large_string() for i in range(len(header))}),
        )
    except pa.ArrowInvalid:  # a line of another length
        return None
    rows = pd.DataFrame(
        {name: pd.array(pc.utf8_trim_whitespace(table[name]), dtype="str") for name in table.schema.names}
    )
    rows.index = pd.RangeIndex(header_line + 1, header_line + 1 + len(rows))
    filled = rows.ne("").any(axis=1)
    return rows if filled.all() else rows[filled]


def _one_by_one(lines: Any, header: list[str], where: str) -> pd.DataFrame:
    """The rest of the rows, however they are quoted, spaced and padded."""
    try:
        rows = [(lines.line_num, [cell.strip() for cell in row]) for row in lines if row]
    except csv.Error:
        raise ValueError(f"{where}: not a CSV file in UTF-8; save it as one") from None
    rows = [(line, row) for line, row in rows if any(row)]
    longest = max((len(row) for _, row in rows), default=0)
    width = len(header)
    while width > longest and not header[width - 1]:
        width -= 1  # the published list of boxes has three more commas in its header than in its rows
    for line, row in rows:
        if len(row) < width or any(row[width:]):
            raise ValueError(f"{where}: line {line} has {len(row)} cells, the header has {width}")
    return pd.DataFrame([row[:width] for _, row in rows], index=[line for line, _ in rows], dtype="str")


_ANSWER = re.compile(
    r"[-+]?\d{1,2}([., ]\d)?%?|([xyntf?]|yes|no|true|false|pos(itive)?|neg(ative)?|present|absent|may ?be|perhaps|possible|unsure)[?+-]?"
)
"""Cells that an error repeats: short numbers and these words. Where columns have slipped, any other may name a patient."""
_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def csv_text(table: pd.DataFrame, digits: int | None = None) -> str:
    """A table without its index, as CSV (RFC 4180) that a spreadsheet only shows: a text that begins as a formula does (=, +, -, @),
    also behind a semicolon, and is no number has a quote before it, and control characters are written as \\u000d.

    Args:
        digits: of numbers; all where not given.
    """
    out = table.rename(columns=_shown)
    for place, kind in enumerate(table.dtypes):
        if not pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind):
            out.isetitem(place, table.iloc[:, place].map(_shown))
    return out.to_csv(index=False, float_format=None if digits is None else f"%.{digits}g")


def _shown(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    plain = "".join(f"\\u{ord(c):04x}" if category(c) in ("Cc", "Cf", "Zl", "Zp") else c for c in value)
    parts = plain.split(";")  # a spreadsheet where the comma is the decimal point makes a cell of each
    if len(parts) == 1 and _NUMBER.fullmatch(plain):
        return plain
    return ";".join(f"'{part}" if _FORMULA.match(part) else part for part in parts)
