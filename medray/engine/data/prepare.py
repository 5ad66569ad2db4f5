"""Input files → inventory, shards, folds: everything before the first training step."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from medray.engine.data import shard
from medray.engine.data.inputs import Input, joined
from medray.engine.data.samples import Shards, read_index
from medray.engine.job.progress import say, warn
from medray.shards.digest import digest
from medray.shards.files import from_text, texts_of
from medray.shards.folds import assign_folds, check_lists, given_folds
from medray.shards.inventory import Inventory, Refused, name_pairs, renamed
from medray.shards.leakage import PIXELS_HASH
from medray.shards.pseudonym import MadeWith, Pseudonyms, write_map
from medray.shards.same_images import MOST_PATIENTS, shared
from medray.shards.source import Source
from medray.shards.store import Store

REASONS_SHOWN = 8

Strata = Callable[[pd.DataFrame], np.ndarray]


@dataclass(frozen=True)
class Ingest(Shards):
    """All rows of the shards, and what became of each input file."""

    inventory: pd.DataFrame  # as in inventory.parquet
    private: pd.DataFrame  # the same rows with the files' own paths and identifiers: for the driver only


@dataclass(frozen=True)
class Folding:
    """Which patients are held out together."""

    strata: Strata  # of the system; the folds are balanced on them
    folds: int | None  # None for data that is only predicted
    seed: int  # also of the order of the shards
    held_out: str = "test"  # which of the given lists, where the inventory has lists; "val" for a search


@dataclass(frozen=True)
class Private:
    """What does not leave this user."""

    pseudonyms: Pseudonyms
    folder: Path  # with the key; header tables and the map of names stay there
    owner: str = ""  # fingerprint of the key that the project's is derived from


def prepare(
    source: Source, inputs: Sequence[Input], columns: Sequence[str], folding: Folding, out: Store, shards: Store,
    private: Private, rows_per_shard: int, check: Callable[[list[str]], None] = lambda names: None,
) -> Ingest:  # fmt: skip
    """Scan, shard and fold; what an earlier start has finished is found and kept.

    Args:
        inputs: folders of files with their labels; one index is made of all.
        columns: small columns of the shards, for the index.
        out: where inventory.parquet and folds.parquet go.
        shards: where the shards go.
        check: is given their names before any of them, or of the tables, is written anew; it may raise ValueError.
    Raises:
        ValueError: no usable file, fewer patients than folds, or a patient in two of the given lists. inventory.parquet
            is there then, and the message names it.
    """
    pseudonyms = private.pseudonyms
    try:
        inventory = joined(source, inputs, Store(private.folder / "headers"))
    except Refused as refused:
        _write_inventory(source, refused.table, out, private)
        raise ValueError(f"{refused}; {_where(out)} by its header; no pixels were read") from None
    for line in inventory.notes:
        say(f"  {line}")
    for line in inventory.warnings:
        warn(line)
    kinds = source.kinds()
    folders = {one.name: one.folder for one in inputs}
    contents = _contents(source, inventory)
    written = shard.write(
        source, folders, _to_write(source, inventory, contents, folders, pseudonyms), shards, rows_per_shard, folding.seed,
        check,
    )  # fmt: skip
    table = _with_results(source, inventory, written, pseudonyms)
    table, shown = _write_inventory(source, table, out, private, inventory.rows)

    own_columns = [name for name in (*kinds, "source", PIXELS_HASH) if name in source.shard_schema.names]
    rows, index = read_index(shards, list(dict.fromkeys([*own_columns, *columns])))
    index["fold"] = -1
    if folding.folds is not None:
        own = pseudonyms.all(kinds["item_id"], inventory.rows[source.id_column])
        everyone = inventory.rows.assign(dealt=_dealt(inventory.rows["patient_id"], contents["content"], pseudonyms))
        known = everyone.set_index(pd.Index(own)).loc[index[source.id_column]]
        try:
            if "split" in known:
                index["fold"], index["inner"] = _given(known, index, folding, out)
                _say_shared_lists(index)
            else:
                known, index["group"] = _together(known, index, folding.folds, source.id_column)
                index["fold"] = _fold(known, index, folding, pseudonyms, out)
        except ValueError as error:
            raise ValueError(f"{error}; {_where(out)}") from error
    return Ingest(rows, index, shown, table)


def _write_inventory(
    source: Source, table: pd.DataFrame, out: Store, private: Private, rows: pd.DataFrame | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """inventory.parquet, its map of names, and a count of its statuses; the table, and as it is written, in one order.

    Under pseudonyms nothing in it is to be told by a list of the files: it has their order, and a size is a power of two.
    """
    kinds, pseudonyms = source.kinds(), private.pseudonyms
    shown = renamed(table, pseudonyms, kinds)
    if pseudonyms.key is not None:
        by = [name for name in ("path", "frame") if name in shown]
        shown = shown.sort_values(by, kind="stable", na_position="first")
        table = table.loc[shown.index]
        shown["size_bytes"] = 2 ** np.round(np.log2(shown["size_bytes"].clip(lower=1))).astype(np.int64)
    shown = shown[[c for c in ("source", "path", "size_bytes", "frame", "item_id", "status", "reason") if c in shown]]
    shown = shown.rename(columns={"item_id": source.id_column})
    out.write_table("inventory.parquet", pa.Table.from_pandas(shown, preserve_index=False))
    if pseudonyms.key is not None:
        # of files and of items: those of several files know their patient, the files do not
        pairs = name_pairs([table] if rows is None else [table, rows], pseudonyms, kinds)
        made_with = MadeWith(private.owner, pseudonyms.fingerprint or "")
        where = write_map(private.folder, out.absolute, pairs, made_with)
        say(f"  identifiers are pseudonyms; the way back is {where}")
    _say_statuses(table, out)
    return table, shown


def _where(out: Store) -> str:
    return f"{out.uri}/inventory.parquet says what became of each file"


def _to_write(
    source: Source, inventory: Inventory, contents: pd.DataFrame, folders: Mapping[str, Store], pseudonyms: Pseudonyms
) -> pd.DataFrame:
    """The inventory's rows as ``shard.write`` wants them; ``contents`` as ``_contents`` gives them."""
    rows = inventory.rows
    table = renamed(rows, pseudonyms, source.kinds()).drop(columns="files", errors="ignore")
    # stacks of the same content stand in the order of names that only the key tells
    names = contents["stack"].map({stack: pseudonyms.of("stack", stack) for stack in contents["stack"].unique()})
    table = table.assign(private_files=texts_of(rows), stack_key=(contents["content"] + " " + names).to_numpy())
    table["input"] = rows.get("source", "")
    if "files" in rows:
        table["files_key"] = _files_key(inventory, rows, folders, pseudonyms)
    table["about_bytes"] = source.row_bytes or _bytes_of_files(source, inventory, table["private_files"])
    return table.assign(index=0) if source.stack_column is None else table


def _contents(source: Source, inventory: Inventory) -> pd.DataFrame:
    """Of each row, under its index: "stack", what tells stacks apart, and "content", a digest of what the files of its stack hold
    (``reading.sampled``). Nobody who has a list of the files or of the patients has its order, which is the same under each key."""
    rows, own = inventory.rows, source.id_column
    ids = rows[own]
    stack = ids if source.stack_column is None else ids.groupby(rows[source.stack_column]).transform("min")
    links = inventory.links(own)
    told = pd.DataFrame({
        "stack": links["item"].map(dict(zip(ids, stack, strict=True))).to_numpy(),
        "content": inventory.table.loc[links["place"], "content"].fillna("").to_numpy(),
    })  # fmt: skip
    told = told.drop_duplicates().sort_values(["stack", "content"])
    content = told.groupby("stack")["content"].agg("".join).map(digest)
    return pd.DataFrame({"stack": stack, "content": stack.map(content)})


def _files_key(
    inventory: Inventory, rows: pd.DataFrame, folders: Mapping[str, Store], pseudonyms: Pseudonyms
) -> list[str]:
    """Of each item a word that is another one where it has other files, or one of them has another size: a mask that was
    mended. Their folder may be moved as a whole. Keyed, as paths name patients."""
    sizes = dict(zip(inventory.table["path"], inventory.table["size_bytes"].tolist(), strict=True))
    own = rows["source"] if "source" in rows else [""] * len(rows)
    named = [
        {
            n: [(path.removeprefix(folders[one].root), sizes.get(path)) for path in paths]
            for n, paths in from_text(text).items()
        }
        for one, text in zip(own, texts_of(rows), strict=True)
    ]
    return [pseudonyms.of("file", json.dumps(one, sort_keys=True)) for one in named]


def _bytes_of_files(source: Source, inventory: Inventory, texts: pd.Series) -> np.ndarray:
    """(rows,) the size of the files of each; rows of the same files have equal shares of it."""
    links = inventory.links(source.id_column)
    sizes = inventory.table.loc[links["place"], "size_bytes"].groupby(links["item"].to_numpy()).sum()
    return (sizes.loc[inventory.rows[source.id_column]].to_numpy() / texts.groupby(texts).transform("size")).to_numpy()


def _with_results(source: Source, inventory: Inventory, written: pd.DataFrame, pseudonyms: Pseudonyms) -> pd.DataFrame:
    """The inventory's table after decoding: a file of which no item could be encoded is quarantined, and others were
    repaired."""
    table, links = inventory.table.copy(), inventory.links(source.id_column)
    names = pseudonyms.all(source.kinds()["item_id"], links["item"])
    links[["note", "written"]] = written.set_index("id").loc[names, ["note", "written"]].to_numpy(dtype=object)
    links["written"] = links["written"].astype(bool)
    used = links.groupby("place")["written"].any()
    lost = ~links["place"].map(used)
    noted = links[links["note"].fillna("").ne("") & (lost | links["written"])]
    reasons = noted.groupby("place")["note"].first()
    mended = reasons.index[used.loc[reasons.index] & table.loc[reasons.index, "status"].eq("ok")]
    for places, status in ((used.index[~used], "quarantined"), (mended, "repaired")):
        table.loc[places, "status"] = status
        table.loc[places, "reason"] = reasons.reindex(places)
    return table


def _say_statuses(table: pd.DataFrame, out: Store) -> None:
    counts = table["status"].value_counts()
    say("  files  " + ", ".join(f"{n:,} {status}" for status, n in counts.items()))
    reasons = table.loc[table["status"] == "quarantined", "reason"].value_counts()
    for reason, count in reasons.head(REASONS_SHOWN).items():
        say(f"    quarantined: {count:,} × {reason}")
    if len(reasons) > REASONS_SHOWN:
        say(f"    quarantined: {reasons.iloc[REASONS_SHOWN:].sum():,} for {len(reasons) - REASONS_SHOWN} other reasons")
    mended = (
        table.loc[table["status"] == "repaired", "reason"].str.replace(r"\d[\d.,]*", "…", regex=True).value_counts()
    )
    for reason, count in mended.head(REASONS_SHOWN).items():
        say(f"    repaired: {count:,} × {reason}")
    say(f"  each file and its reason: {out.uri}/inventory.parquet")


def _together(known: pd.DataFrame, index: pd.DataFrame, folds: int, id_column: str) -> tuple[pd.DataFrame, np.ndarray]:
    """Patients who have an image in common are dealt as one; rows with that, and the number of each one's group.

    Raises:
        ValueError: fewer such groups than folds, of patients enough.
    """
    patients = index["patient_id"].to_numpy()
    if PIXELS_HASH not in index:
        return known, pd.factorize(patients)[0]
    found = shared(patients, index[PIXELS_HASH].to_numpy(), index[id_column].to_numpy())
    group = found.group.loc[patients].to_numpy()
    if found.images:
        warn(
            f"images that are pixel by pixel the same under several patients: {found.images:,}, of {found.patients:,} patients, such "
            f"as {' and '.join(map(str, found.example))}; such patients stay in one fold: look whether they are one person, or a file lies there twice"
        )
    if found.common:
        warn(
            f"images of more than {MOST_PATIENTS} patients each, as a test picture is: {found.common:,}; they hold nobody together: "
            "leave them out"
        )
    if found.group.nunique() < folds <= len(found.group):
        raise ValueError(
            f"--folds {folds}: {len(found.group)} patients have images that are pixel by pixel the same, and are "
            f"{found.group.nunique()} for the folds; look whether files lie there under several names"
        )
    first = known["dealt"].groupby(group).min()
    return known.assign(dealt=first.loc[group].to_numpy()), group


def _say_shared_lists(index: pd.DataFrame) -> None:
    """Of given lists nothing is changed: a warning that counts the images that training has and the held-out list has, too."""
    if PIXELS_HASH not in index:
        return
    known = index[index[PIXELS_HASH].notna() & index[PIXELS_HASH].ne("")]
    of_list = known.groupby(PIXELS_HASH)["fold"].nunique()
    if count := int((of_list > 1).sum()):
        warn(
            f"images that are pixel by pixel in the training list and in the held-out list: {count:,}; they flatter the scores"
        )


def _dealt(patients: pd.Series, content: pd.Series, pseudonyms: Pseudonyms) -> pd.Series:
    """Of each row the name by which its patient is dealt to a fold: its own where names are public. Else a digest of what its
    files hold, as whoever has a list of the patients could deal it, too; another key leaves the folds as they are."""
    if pseudonyms.key is None:
        return patients
    of_patient = content.groupby(patients).agg(lambda own: digest(sorted(set(own))))
    names = {patient: f"{of_patient[patient]} {pseudonyms.of('patient', patient)}" for patient in of_patient.index}
    return patients.map(names)


def _fold(known: pd.DataFrame, index: pd.DataFrame, folding: Folding, pseudonyms: Pseudonyms, out: Store) -> np.ndarray:
    """The fold of each row, as its patient is "dealt"."""
    fold = _balanced(known["dealt"].to_numpy(), index, folding).loc[known["dealt"]].to_numpy()
    table = pa.table({"patient_id": pseudonyms.all("patient", known["patient_id"]), "fold": fold})
    by_patient = table.group_by("patient_id").aggregate([("fold", "max")]).rename_columns(["patient_id", "fold"])
    out.write_table("folds.parquet", by_patient.sort_by("patient_id"))
    return fold


def _balanced(patients: np.ndarray, index: pd.DataFrame, folding: Folding) -> pd.Series:
    assert folding.folds is not None
    return assign_folds(patients, folding.strata(index), folding.folds, folding.seed)


def _given(known: pd.DataFrame, index: pd.DataFrame, folding: Folding, out: Store) -> tuple[np.ndarray, np.ndarray]:
    """Fold and inner of each row by the given lists: fold 0 is what is held out, fold 1 the rest. Lists without val give a
    search folds of the training list.

    Raises:
        ValueError: as ``given_folds``.
    """
    patients, split = known["patient_id"].to_numpy(), known["split"].to_numpy(dtype=object)
    if folding.held_out == "val" and not (split == "val").any():
        fold, inner = np.where(split == "train", 0, -1), np.zeros(len(split), dtype=bool)
        check_lists(patients, split)
        train = split == "train"
        dealt = known["dealt"].to_numpy()[train]
        fold[train] = _balanced(dealt, index[train], folding).loc[dealt].to_numpy()
    else:
        fold, inner = given_folds(patients, split, folding.held_out)
    table = pa.table({"patient_id": index["patient_id"], "split": known["split"].to_numpy(dtype=object)})
    by_patient = table.group_by("patient_id").aggregate([("split", "max")]).rename_columns(["patient_id", "split"])
    out.write_table("folds.parquet", by_patient.sort_by("patient_id"))
    return fold, inner
