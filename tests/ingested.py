"""Shards and folds of some files, as a job makes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medray.engine.data.inputs import Input
from medray.engine.data.prepare import Folding, Ingest, Private, Strata, prepare
from medray.shards.pseudonym import Pseudonyms
from medray.shards.source import Source
from medray.shards.store import Store

KEY = b"k" * 32


def ingested(
    folder: Path, source: Source, inputs: Sequence[Input], columns: Sequence[str], strata: Strata, folds: int = 2,
    rows_per_shard: int = 4, key: bytes | None = KEY,
) -> Ingest:  # fmt: skip
    """Everything goes below ``folder``: what a job leaves into out/, the map of names into private/."""
    out = Store(folder / "out")
    private = Private(Pseudonyms(key), folder / "private")
    return prepare(
        source, inputs, columns, Folding(strata, folds, seed=0), out, out.sub("shards"), private, rows_per_shard
    )
