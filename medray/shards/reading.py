"""One file at a time its headers, one item at a time its pixels, or the reason why there are none."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, BinaryIO

from medray.shards.files import Row, from_text, paths_of, read_files
from medray.shards.source import Encoded, Source, named
from medray.shards.store import File, Store, reason

SAMPLED_BYTES = 4096
MANY_VALUES = 16
"""Of bytes in a sample that tells files apart."""
_PLACES = [number / 2**level for level in range(1, 7) for number in range(1, 2**level, 2)]


def scan_file(source: Source, folder: Store, file: File) -> list[dict[str, Any]]:
    """Rows of path, size_bytes, status ("ok" or "quarantined"), reason, content (``sampled``; of readable files) and the columns
    of ``source.scan_schema``."""
    found = {"path": file.path, "size_bytes": file.size_bytes, "status": "ok", "reason": None}
    try:
        with folder.open_file(file.path) as stream:
            headers = source.scan(stream)
            content = sampled(stream, file.size_bytes)
        if not headers:
            return [set_aside(file, "no image in it")]
        headers = named(headers, file.path)
        check_identifiers(headers, {"item_id", *source.kinds()})
        return [found | {"content": content} | header for header in headers]
    except (ValueError, OSError) as error:
        return [set_aside(file, reason(error))]


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def check_identifiers(headers: Sequence[Mapping[str, Any]], names: Iterable[str]) -> None:
    """Raises ValueError for an identifier with a line end or another control character: in a table it would be a row more."""
    for header, name in itertools.product(headers, names):
        if isinstance(value := header.get(name), str) and _CONTROL.search(value):
            raise ValueError(f"{name} holds control characters")


def sampled(stream: BinaryIO, size_bytes: int) -> str:
    """A digest of what is in the middle of a file: of an image, pixels. What is written in its order is in none that a list of
    names and identifiers tells.

    Where there is next to nothing (air, padding, a mask) a quarter is tried, three quarters, an eighth and so on.
    """
    found = hashlib.blake2b(digest_size=8)
    for place in _PLACES:
        stream.seek(max(0, int(size_bytes * place) - SAMPLED_BYTES // 2))
        data = stream.read(SAMPLED_BYTES)
        found.update(data)
        if len(set(data)) >= MANY_VALUES or size_bytes <= SAMPLED_BYTES:
            break
    return found.hexdigest()


def set_aside(file: File, why: str) -> dict[str, Any]:
    """The row of a file that has no header."""
    return {"path": file.path, "size_bytes": file.size_bytes, "status": "quarantined", "reason": why}


def encode_item(
    source: Source, folder: Store, paths: Mapping[str, Sequence[str]], rows: Sequence[Row]
) -> list[Encoded]:
    """What the rows that share these files become, in their order.

    Args:
        paths: name → files, as ``files.paths_of``.
    """
    try:
        return source.encode(read_files(folder, paths), rows)
    except (ValueError, OSError) as error:
        return [Encoded(None, reason(error))] * len(rows)


def encode_rows(
    source: Source, folder: Store, rows: Sequence[dict[str, Any]], each: Callable[..., Any] = map
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Rows of an inventory with their pixels.

    Args:
        each: ``map``, or one that works in several threads: the files of an item are a piece of its work.
    Returns:
        The rows that could be decoded, in order, with the columns of ``Source.encode``; id → reason of those that could not.
    """
    of_files: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        of_files.setdefault(json.dumps(paths_of(row)), []).append(row)
    paths = map(from_text, of_files)
    found = list(each(functools.partial(encode_item, source, folder), paths, of_files.values()))
    encoded = {
        row[source.id_column]: result
        for row, result in zip(itertools.chain(*of_files.values()), itertools.chain(*found), strict=True)
    }
    good, lost = [], {}
    for row in rows:
        result = encoded[row[source.id_column]]
        if result.columns is None:
            lost[row[source.id_column]] = result.note or "no pixels"
        else:
            good.append(row | result.columns)
    return good, lost
