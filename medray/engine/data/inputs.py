"""Input: a folder of files with labels of its own; and one inventory of several, where each knows what it knows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from medray.engine.data import shard
from medray.shards.files import paths_of
from medray.shards.inventory import Inventory, Refused
from medray.shards.source import Source
from medray.shards.store import File, Store

Assemble = Callable[[pd.DataFrame], Inventory]


@dataclass(frozen=True)
class Input:
    """Where a job has several, each has a name: the column "source" of the inventory and, if the schema has one, of the
    shards. A patient whose identifier two of them have is one patient, whose rows stay in one fold."""

    name: str  # "" for the only one
    folder: Store
    files: Sequence[File]
    assemble: Assemble  # the system's way from a table of headers, with this input's labels, to an Inventory

    def inventory(self, source: Source, cache: Store) -> Inventory:
        """Raises Refused with the name in front."""
        try:
            found = self.assemble(shard.scan(source, self.folder, list(self.files), cache))
        except Refused as refused:
            if not self.name:
                raise
            raise Refused(f"{self.name}: {refused}", refused.table.assign(source=self.name)) from None
        if not self.name:
            return found
        warnings, notes = (tuple(f"{self.name}: {line}" for line in lines) for lines in (found.warnings, found.notes))
        return Inventory(found.table.assign(source=self.name), found.rows.assign(source=self.name), warnings, notes)


def joined(source: Source, inputs: Sequence[Input], cache: Store) -> Inventory:
    """The inventory of all inputs; what one of them does not know of its rows is missing there.

    Raises:
        Refused: of an input.
        ValueError: two inputs have one name, or rows of one id.
    """
    names = [one.name for one in inputs]
    if len(inputs) > 1 and ("" in names or len({*names}) < len(names)):
        raise ValueError(f"inputs {', '.join(map(repr, names))}: each of several needs a name of its own")
    found = [one.inventory(source, cache) for one in inputs]
    if len(found) == 1:
        return found[0]
    for (first, one), (second, other) in itertools.combinations(zip(names, found, strict=True), 2):
        shared = set(one.rows[source.id_column]) & set(other.rows[source.id_column])
        if shared:
            raise ValueError(
                f"{first} and {second}: {len(shared):,} rows have the same {source.id_column} in both; "
                "rename the files of one, or leave the copies out"
            )
    if any("files" in one.rows for one in found):
        found = [_with_names(one) for one in found]
    starts = itertools.accumulate((len(one.table) for one in found), initial=0)
    placed = [_placed(one, start) for one, start in zip(found, starts, strict=False)]
    return Inventory(
        pd.concat([one.table for one in placed]),
        pd.concat([one.rows for one in placed]),
        tuple(line for one in placed for line in one.warnings),
        tuple(line for one in placed for line in one.notes),
    )


def _with_names(one: Inventory) -> Inventory:
    """Items of one file as those of several are."""
    if "files" in one.rows:
        return one
    return replace(one, rows=one.rows.assign(files=[paths_of({"path": path}) for path in one.rows["path"]]))


def _placed(one: Inventory, start: int) -> Inventory:
    """With an index that begins at ``start``, where ``rows`` are still those of ``table``."""
    places = pd.Series(range(start, start + len(one.table)), index=one.table.index)
    rows = one.rows if "files" in one.rows else one.rows.set_axis(places.loc[one.rows.index], axis=0)
    return replace(one, table=one.table.set_axis(places, axis=0), rows=rows)
