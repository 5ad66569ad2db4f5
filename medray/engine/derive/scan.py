"""The headers of new files: here for a few, over the cluster for many; and what becomes of those that are not used."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pandas as pd

from medray.engine.data import shard
from medray.engine.job.options import KEY_DIR
from medray.engine.nodes.cluster import connect
from medray.shards.inventory import Refused, set_aside
from medray.shards.pseudonym import private_folder
from medray.shards.reading import scan_file
from medray.shards.source import Source
from medray.shards.store import File, Store

LITTLE_FILES = 512
LITTLE_BYTES = 512 << 20
"""Up to these, files are read and answered in this process: about a dozen head-CT studies. A choice: scan and start of Ray
took some 80 s on two busy cores, in which one process answers for a few hundred slices with small networks."""
READ_AHEAD = 8  # threads of a process that scans alone
SET_ASIDE = "set_aside.csv"  # path, status, reason: what a job that predicts leaves of the files that it does not use


def little(files: Sequence[File]) -> bool:
    """Whether new files are so few that starting Ray takes longer than answering. Never in a job that was submitted to a
    cluster: that runs, and may have the GPUs that this process has not."""
    small = len(files) <= LITTLE_FILES and sum(file.size_bytes for file in files) <= LITTLE_BYTES
    return small and not os.environ.get("RAY_ADDRESS")


def scan_new(source: Source, folder: Store, files: Sequence[File]) -> pd.DataFrame:
    """``shard.scan``, or ``scan_here`` where the files are few.

    Text may be burned into them: the answer goes back to whoever owns them, and no shards are made.
    """
    source = replace(source, allow_burned_in=True)
    if len(files) <= LITTLE_FILES:
        return scan_here(source, folder, files)
    connect()
    return shard.scan(source, folder, list(files), Store(private_folder(KEY_DIR.expanduser()) / "headers"))


def scan_here(source: Source, folder: Store, files: Sequence[File]) -> pd.DataFrame:
    """``shard.scan`` in this process, without Ray."""
    with ThreadPoolExecutor(READ_AHEAD) as pool:
        rows = [row for of_file in pool.map(lambda file: scan_file(source, folder, file), files) for row in of_file]
    return pd.DataFrame(rows, columns=[*shard.FOUND.names, *source.scan_schema.names])


@contextmanager
def reasons_kept(to: Store) -> Iterator[None]:
    """Where files are refused as a whole, leave the reason of each in ``to``, and say so in the error's one line."""
    try:
        yield
    except Refused as refused:
        to.write_csv(SET_ASIDE, set_aside(refused.table))
        raise ValueError(f"{refused}; {to.uri}/{SET_ASIDE} says what became of each file") from None
