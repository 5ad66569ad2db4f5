"""The named files of an item: where they are, and their bytes.

A row of an inventory that has a column "files" is an item of several: name → path, or name → list of paths, such as
``{"flair": …, "mask": …}`` or ``{"slices": [ … ]}``; a name whose path is None is not there. A row without is an item of the one
file that its "path" says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pandas as pd

from medray.shards.store import Store, reason

ONE = "file"
"""Name of the file of an item that is one file."""

Row = dict[str, Any]
Key = TypeVar("Key")


@dataclass(frozen=True)
class Files:
    """The bytes of an item's files: ``files["flair"]`` of a single one, ``files.several("slices")`` in their order,
    ``"mask" in files``."""

    named: Mapping[str, Sequence[bytes]]

    @classmethod
    def of(cls, data: bytes) -> Files:
        """An item of one file."""
        return cls({ONE: [data]})

    @property
    def only(self) -> bytes:
        """Of an item of one file."""
        return self[ONE]

    def __contains__(self, name: str) -> bool:
        return name in self.named

    def __getitem__(self, name: str) -> bytes:
        """Raises ValueError where there is no such file, or more than one."""
        found = self.named.get(name, ())
        if len(found) != 1:
            raise ValueError(f"{name}: {len(found)} files, not one")
        return found[0]

    def several(self, name: str) -> list[bytes]:
        return list(self.named.get(name, ()))


def paths_of(row: Mapping[str, Any]) -> dict[str, list[str]]:
    """Name → paths of a row of an inventory."""
    files = row.get("files")
    if not isinstance(files, Mapping):
        return {ONE: [row["path"]]}
    listed = {
        name: [paths] if isinstance(paths, str) else list(paths) for name, paths in files.items() if paths is not None
    }
    return {name: listed[name] for name in sorted(listed) if listed[name]}


def texts_of(rows: pd.DataFrame) -> list[str]:
    """(rows,) the files of each row as one text: equal for rows that share exactly these files. ``from_text`` leads back."""
    columns = [rows[name] for name in ("path", "files") if name in rows]
    names = [str(column.name) for column in columns]
    return [json.dumps(paths_of(dict(zip(names, cells, strict=True)))) for cells in zip(*columns, strict=True)]


def from_text(text: str) -> dict[str, list[str]]:
    paths: dict[str, list[str]] = json.loads(text)
    return paths


def read_files(folder: Store, paths: Mapping[str, Sequence[str]]) -> Files:
    """Raises OSError and ValueError as ``Store.open_file``; where there are several names, with the one that it is."""
    held: dict[str, list[bytes]] = {}
    for name, own in paths.items():
        try:
            held[name] = [_read(folder, path) for path in own]
        except (ValueError, OSError) as error:
            if len(paths) == 1:
                raise
            raise ValueError(f"{name}: {reason(error)}") from None
    return Files(held)


def _read(folder: Store, path: str) -> bytes:
    with folder.open_file(path) as stream:
        return stream.read()
