"""Input files → inventory, shards, folds: everything before the first training step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from medray.engine import shard
from medray.engine.progress import say, warn
from medray.engine.samples import Rows, read_index
from medray.shards.folds import assign_folds
from medray.shards.inventory import Inventory, name_pairs, renamed
from medray.shards.pseudonym import Pseudonyms, write_map
from medray.shards.source import Source
from medray.shards.store import File, Store

Assemble = Callable[[pd.DataFrame], Inventory]


@dataclass(frozen=True)
class Prepared:
    """Rows of the shards, and for each of them the small columns and the fold."""

    rows: Rows
    index: pd.DataFrame  # slice_id, patient_id, study_id, series_id, labels, fold: one row for each of ``rows``
    inventory: pd.DataFrame  # as in inventory.parquet
    private: pd.DataFrame  # the same rows with the files' own paths and identifiers: for the driver only

    @property
    def fold_of_patient(self) -> dict[str, int]:
        patients = self.index.drop_duplicates("patient_id")
        return dict(zip(patients["patient_id"], patients["fold"].tolist(), strict=True))


def prepare(
    source: Source,
    assemble: Assemble,
    labels: list[str],
    folder: Store,
    files: list[File],
    out: Store,
    shards: Store,
    pseudonyms: Pseudonyms,
    private: Path,
    folds: int | None,
    rows_per_shard: int,
    seed: int,
) -> Prepared:
    """Scan, shard and fold; what an earlier start has finished is found and kept.

    Args:
        assemble: the system's way from a table of headers to an Inventory.
        labels: label columns of the shards; the folds are balanced on them.
        folder: where the input files are. files: all of them. out: where inventory.parquet and folds.parquet go.
        shards: where the shards go.
        private: this user's folder with the key; header tables and the map of names stay there.
        folds: None for data that is only predicted.
    Raises:
        ValueError: no usable file, or fewer patients than folds.
    """
    inventory = assemble(shard.scan(source, folder, files, Store(private / "headers")))
    for line in inventory.warnings:
        warn(line)
    slices = renamed(inventory.rows, pseudonyms)
    slices["private_path"] = inventory.rows["path"]
    slices["stack_key"] = inventory.rows.groupby("series_id")["item_id"].transform("min")
    written = shard.write(source, folder, slices, shards, rows_per_shard, seed)
    table = _with_results(inventory, written, pseudonyms)
    shown = renamed(table, pseudonyms)[["path", "size_bytes", "frame", "item_id", "status", "reason"]]
    shown = shown.rename(columns={"item_id": "slice_id"})
    out.write_table("inventory.parquet", pa.Table.from_pandas(shown, preserve_index=False))
    if pseudonyms.key is not None:
        where = write_map(private, out.uri, name_pairs(table, pseudonyms))
        say(f"  identifiers are pseudonyms; the way back is {where}")
    _say_statuses(table)

    rows, index = read_index(shards, ["slice_id", "patient_id", "study_id", "series_id", *labels])
    index["fold"] = -1
    if folds is not None:
        index["fold"] = _fold(inventory, index, labels, folds, seed, pseudonyms, out)
    return Prepared(rows, index, shown, table)


def _with_results(inventory: Inventory, written: pd.DataFrame, pseudonyms: Pseudonyms) -> pd.DataFrame:
    """The inventory's table after decoding: more may be quarantined, some were repaired."""
    table = inventory.table.copy()
    used = table.index.isin(inventory.rows.index)
    names = [pseudonyms.of("slice", item) if use else "" for item, use in zip(table["item_id"], used, strict=True)]
    result = written.set_index("slice_id").reindex(names)
    note = result["note"].fillna("").to_numpy(dtype=object)
    lost = used & (result["written"].fillna(True).to_numpy() == 0)
    mended = used & ~lost & (note != "") & table["status"].eq("ok").to_numpy()
    for rows, status in ((lost, "quarantined"), (mended, "repaired")):
        table.loc[rows, "status"] = status
        table.loc[rows, "reason"] = note[rows]
    return table


def _say_statuses(table: pd.DataFrame) -> None:
    counts = table["status"].value_counts()
    say("  files  " + ", ".join(f"{n:,} {status}" for status, n in counts.items()))
    for reason, count in table.loc[table["status"] == "quarantined", "reason"].value_counts().head(5).items():
        say(f"    quarantined: {count:,} × {reason}")


def _fold(
    inventory: Inventory,
    index: pd.DataFrame,
    labels: list[str],
    folds: int,
    seed: int,
    pseudonyms: Pseudonyms,
    out: Store,
) -> np.ndarray:
    """The fold of each row. Assigned by the patients' own identifiers: another key leaves the folds as they are."""
    slices = inventory.rows
    own = dict(zip(pseudonyms.all("slice", slices["slice_id"]), slices["patient_id"], strict=True))
    patients = index["slice_id"].map(own).to_numpy()
    by_patient = assign_folds(patients, index[labels].to_numpy(dtype=np.float64), folds, seed)
    table = pa.table({"patient_id": pseudonyms.all("patient", by_patient.index), "fold": by_patient.to_numpy()})
    out.write_table("folds.parquet", table)
    fold = by_patient.loc[patients].to_numpy()
    for name in labels:
        empty = [k for k in range(folds) if not (index.loc[fold == k, name] == 1).any()]
        if empty:
            warn(f"no {name} in fold {', '.join(map(str, empty))}: its AUC there is undefined")
    return fold
