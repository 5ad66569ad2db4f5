"""Somebody who has all that a job leaves in --out, and a list of the hospital's patients or files, but not the key."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from medray.shards.pseudonym import read_map
from medray.shards.store import Store

FEW = 8
"""Names whose order says nothing yet: so many are in the order of a list once in 40,320 times."""
SEEDS = range(20)
"""Of shuffles that anybody can repeat."""


def tells(out: Path, private: Path) -> list[str]:
    """What the order of names gives away, one line for each column: names stand as their identifiers do in a sorted list, or as
    a public shuffle leaves that list."""
    known = read_map(private, Store(out).uri)
    assert len(known) >= FEW, "no map of names: nothing would be found"
    by_kind = {kind: own.set_index("pseudonym")["identifier"] for kind, own in known.groupby("kind")}
    found = []
    for name, table in _tables(out):
        for column in table.columns:
            values = table[column].dropna()
            for kind, identifiers in by_kind.items():
                names = [str(value) for value in values.unique() if str(value) in identifiers.index]
                if len(names) >= FEW and (why := order_of(identifiers.loc[names].tolist())):
                    found.append(f"{name}: {column} ({kind}): {why}")
    return found


def order_of(identifiers: list[str]) -> str:
    """ "" where they stand in no order that a list of them tells."""
    count = len(identifiers)
    rank = {value: place for place, value in enumerate(sorted(identifiers))}
    places = np.array([rank[value] for value in identifiers])
    rises = int((np.diff(places) > 0).sum())
    if abs(rises - (count - 1) / 2) > 4 * math.sqrt((count + 1) / 12):
        return f"{rises} of {count - 1} rise, as in a sorted list"
    for seed in SEEDS:
        shuffled = np.random.default_rng(seed).permutation(count)
        for guess in (shuffled, np.argsort(shuffled)):
            if (hits := int((guess == places).sum())) >= max(8, count / 3):  # one is there by chance
                return f"{hits} of {count} stand where a shuffle with seed {seed} puts them"
    return ""


def _tables(out: Path) -> Iterator[tuple[str, pd.DataFrame]]:
    for path in sorted(out.rglob("*.parquet")):
        names = [
            field.name for field in pq.read_schema(path) if str(field.type) in ("string", "large_string", "double")
        ]
        yield path.relative_to(out).as_posix(), pq.read_table(path, columns=names).to_pandas()
    for path in sorted(out.rglob("*.csv")):
        yield path.relative_to(out).as_posix(), pd.read_csv(io.BytesIO(path.read_bytes()), dtype=str)
    shards = sorted(out.glob("shards/*.parquet")) + sorted(out.glob("shards/*/*.parquet"))
    if shards:
        tables = [pq.read_table(p, columns=[n for n in pq.read_schema(p).names if n.endswith("_id")]) for p in shards]
        yield "shards, one after another", pd.concat([table.to_pandas() for table in tables])
