"""One input file at a time: its headers, its pixels, or the reason why there are none."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from medray.shards.source import Encoded, Source, named
from medray.shards.store import File, Store, reason


def scan_file(source: Source, folder: Store, file: File) -> list[dict[str, Any]]:
    """Rows of path, size_bytes, status ("ok" or "quarantined"), reason and the columns of ``source.scan_schema``."""
    found = {"path": file.path, "size_bytes": file.size_bytes, "status": "ok", "reason": None}
    try:
        with folder.open_file(file.path) as stream:
            headers = source.scan(stream)
        if not headers:
            return [set_aside(file, "no image in it")]
        return [found | header for header in named(headers, file.path)]
    except (ValueError, OSError) as error:
        return [set_aside(file, reason(error))]


def set_aside(file: File, why: str) -> dict[str, Any]:
    """The row of a file that has no header."""
    return {"path": file.path, "size_bytes": file.size_bytes, "status": "quarantined", "reason": why}


def encode_file(source: Source, folder: Store, path: str, rows: Sequence[dict[str, Any]]) -> list[Encoded]:
    """What the rows of one file become, in their order."""
    try:
        with folder.open_file(path) as stream:
            return source.encode(stream.read(), rows)
    except (ValueError, OSError) as error:
        return [Encoded(None, reason(error))] * len(rows)


def encode_rows(
    source: Source, folder: Store, rows: Sequence[dict[str, Any]], each: Callable[..., Any] = map
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Rows of an inventory with their pixels.

    Args:
        each: ``map``, or one that works in several threads: a file is a piece of its work.
    Returns:
        The rows that could be decoded, in order, with the columns of ``Source.encode``; id → reason of those that could not.
    """
    of_path: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        of_path.setdefault(row["path"], []).append(row)
    found = list(each(functools.partial(encode_file, source, folder), of_path, of_path.values()))
    encoded = {
        row[source.id_column]: result
        for row, result in zip(itertools.chain(*of_path.values()), itertools.chain(*found), strict=True)
    }
    good, lost = [], {}
    for row in rows:
        result = encoded[row[source.id_column]]
        if result.columns is None:
            lost[row[source.id_column]] = result.note or "no pixels"
        else:
            good.append(row | result.columns)
    return good, lost
