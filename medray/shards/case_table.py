"""A table of cases, and where the files are that it names: in its own folder, and below."""

from __future__ import annotations

import posixpath

from medray.shards.store import File, Store

TABLES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")


def is_table(uri: str) -> bool:
    """Whether a path or URI names a table, and not a folder."""
    return uri.partition("?")[0].lower().endswith(TABLES)


def files_of(uri: str) -> str:
    """Where the files of a table's cases are: its own folder; of a folder, itself."""
    path, _, options = uri.partition("?")
    if not is_table(uri):
        return uri
    folder = path.rpartition("/")[0] or ("/" if path.startswith("/") else ".")
    return f"{folder}?{options}" if options else folder


def files_below(folder: Store, flag: str, without: Store | None = None) -> list[File]:
    """``Store.files`` of a folder that a flag names: so says the error."""
    try:
        return folder.files(without)
    except ValueError as error:
        raise ValueError(f"{flag} {error}") from None


def path_in(folder: Store, cell: str) -> str | None:
    """A cell's path as ``Store.files`` lists it. What lies outside of the folder is not listed, and so never read."""
    if not cell:
        return None
    if "://" in cell:
        return Store(cell).root
    return posixpath.normpath(cell if cell.startswith("/") else f"{folder.root}/{cell}")
