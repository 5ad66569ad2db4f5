"""One file at a time its headers, one item at a time its pixels, or the reason why there are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medray.shards.files import Row, read_files
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
