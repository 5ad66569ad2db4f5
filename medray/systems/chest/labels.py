"""Label files of chest radiographs: ChestX-ray14's Data_Entry, its three lists, or any CSV with findings as columns."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow.fs as pafs

from medray.shards.cells import read_lines
from medray.shards.films import image_keys
from medray.shards.packed import read_unpacked, read_unpacked_in
from medray.shards.store import Store
from medray.systems.chest.classes import FINDINGS
from medray.systems.chest.table import films_of, nih_patients, read_rows

_ENTRY = ("Data_Entry_2017*.csv", "Data_Entry_2017*.csv.gz")
_THREE = {"train": "train_list.txt", "val": "val_list.txt", "test": "test_list.txt"}
_OFFICIAL = {"train": "train_val_list.txt", "test": "test_list.txt"}

OFFICIAL, THREE, OWN = "the official lists", "the three lists", "the table's own split"


@dataclass(frozen=True)
class Labels:
    """Labels by film, and what was odd about the files. Identifiers are the files' own.

    ``table`` has one row a film: patient_id, age_years, sex, view, split (text or None), and the 14 findings: 0, 1, or
    NaN where unknown. Its index is the film's name as the file gives it, without the image's extension.
    """

    table: pd.DataFrame
    conflicts: dict[str, str]  # name → why all of its labels are set aside
    split: str | None  # whose split the column "split" is; None where there is none, and folds are to be drawn
    warnings: tuple[str, ...] = ()  # one line each, without identifiers


def read_labels(uri: str) -> Labels:
    """Read a label file, or a folder of them, by path or URI; gzip or plain.

    * a folder with train_list.txt, val_list.txt and test_list.txt, each line a file name and 14 times 0 or 1: the three
      lists. A Data_Entry_2017*.csv in the same folder adds patient, age, sex and view, and no labels;
    * a folder with a Data_Entry_2017*.csv, or that file: ChestX-ray14 as it is published. With the official
      train_val_list.txt and test_list.txt beside it these are the split, and there is no val;
    * any other CSV: a column of images (Image Index, path or image), one of patients, and "Finding Labels" or a column
      for each of some findings; also view, age, sex and split, if there. An empty cell, -1 and "uncertain" are unknown.

    A film that the file gives twice with different labels, or "No Finding" and a finding, keeps no label.

    Raises:
        ValueError: no such file, other class names, a cell that says nothing known, a patient in two of the splits.
    """
    store = Store(uri)
    kind = store.filesystem.get_file_info(store.root).type
    if kind in (pafs.FileType.File, pafs.FileType.NotFound):  # what is not there says so when it is read
        data, shown = read_unpacked(uri)
        name = shown.rsplit("/", 1)[-1]
        if any(fnmatch.fnmatch(name, pattern) for pattern in _ENTRY):
            return _from_entry(data, shown, _beside(uri))
        return _merged(films_of(read_rows(data, shown), shown), OWN, shown)
    names = store.names()
    lists = {split: _named(names, name) for split, name in _THREE.items()}
    entries = [n for n in names if any(fnmatch.fnmatch(n, pattern) for pattern in _ENTRY)]
    if len(entries) > 1:
        raise ValueError(f"--labels {store.uri}: {len(entries)} files are named Data_Entry_2017*.csv; give one of them")
    if all(lists.values()) and not _named(names, _OFFICIAL["train"]):
        entry = read_unpacked_in(store, entries[0]) if entries else None
        return _from_three(
            {split: read_unpacked_in(store, str(name)) for split, name in lists.items()}, entry, store.uri
        )
    if entries:
        data, shown = read_unpacked_in(store, entries[0])
        return _from_entry(data, shown, store)
    raise ValueError(
        f"--labels {store.uri}: neither {', '.join(_THREE.values())} nor Data_Entry_2017*.csv is in this folder; "
        "give one with them, or a CSV file"
    )


def _beside(uri: str) -> Store:
    path, _, options = uri.partition("?")
    folder = path.rstrip("/").rpartition("/")[0] or ("/" if path.startswith("/") else ".")
    return Store(f"{folder}?{options}" if options else folder)


def _named(names: list[str], name: str) -> str | None:
    return next((n for n in (name, f"{name}.gz") if n in names), None)


def _from_entry(data: bytes, shown: str, folder: Store) -> Labels:
    films = films_of(read_rows(data, shown), shown)
    films["patient_id"] = _padded(films["patient_id"])
    names = folder.names()
    lists = {split: _named(names, name) for split, name in _OFFICIAL.items()}
    if not all(lists.values()):
        return _merged(films, OWN, shown)
    split_of: list[pd.Series] = []
    for split, name in lists.items():
        text, where = read_unpacked_in(folder, str(name))
        rows = [words for _, words in read_lines(text, where)]
        if any(len(row) != 1 for row in rows):
            raise ValueError(
                f"--labels {where}: the official list has file names only, these lines have more; for the three lists "
                f"with labels remove {_OFFICIAL['train']} and give the folder"
            )
        keys = image_keys(pd.Series([row[0] for row in rows], dtype="str"))
        split_of.append(pd.Series(split, index=keys))
    both = pd.concat(split_of)
    twice = both.groupby(level=0).nunique() > 1
    if twice.any():
        raise ValueError(
            f"--labels {folder.uri}: {int(twice.sum())} films are in both official lists; keep one line of each"
        )
    split = films["key"].map(both[~both.index.duplicated()])
    if split.isna().all():
        raise ValueError(
            f"--labels {folder.uri}: none of the {len(both):,} names in the official lists is a film of {shown}; they must be "
            "written alike (00000013_005.png), or take the lists away and folds are drawn by patient"
        )
    films["split"] = split.astype(object).where(split.notna(), None)
    return _merged(films, OFFICIAL, shown)


def _padded(patients: pd.Series) -> pd.Series:
    """ "13" as it stands in the names of images, "00000013"."""
    return patients.where(~patients.str.fullmatch(r"\d{1,8}"), patients.str.zfill(8))


def _from_three(lists: dict[str, tuple[bytes, str]], entry: tuple[bytes, str] | None, shown: str) -> Labels:
    films = pd.concat([_list(data, where, split) for split, (data, where) in lists.items()], ignore_index=True)
    warnings = []
    films["patient_id"] = nih_patients(films["key"])
    for name, value in (("age_years", np.nan), ("sex", None), ("view", None)):
        films[name] = value
    if entry is not None:
        table = films_of(read_rows(*entry), entry[1]).drop_duplicates("key").set_index("key")
        table["patient_id"] = _padded(table["patient_id"])
        described = table.reindex(films["key"]).reset_index(drop=True)
        for name in ("patient_id", "age_years", "sex", "view"):
            films[name] = described[name].where(described[name].notna(), films[name])
        differ = (described[list(FINDINGS)] != films[list(FINDINGS)]) & described[list(FINDINGS)].notna()
        if differ.to_numpy().any():
            warnings.append(
                f"{int(differ.to_numpy().sum())} labels of {int(differ.any(axis=1).sum())} films differ between the lists "
                f"and Data_Entry (two releases of the data set): the lists' are taken"
            )
    nameless = films["patient_id"].isna()
    if nameless.any():
        raise ValueError(
            f"--labels {shown}: {int(nameless.sum())} names in the lists are none of ChestX-ray14's (00000013_005.png), so "
            "their patients are unknown; give a CSV with columns image, patient, split and the findings instead"
        )
    films["no_finding"] = np.nan
    return _merged(films, THREE, shown, warnings)


def _list(data: bytes, shown: str, split: str) -> pd.DataFrame:
    lines = read_lines(data, shown)
    for number, words in lines:
        if len(words) != len(FINDINGS) + 1:
            raise ValueError(
                f"--labels {shown}: line {number}: a line must be a file name and {len(FINDINGS)} times 0 or 1, in the "
                f"order {', '.join(FINDINGS)}"
            )
        if not {"0", "1"}.issuperset(words[1:]):
            raise ValueError(f"--labels {shown}: line {number}: a label is neither 0 nor 1")
    if not lines:
        raise ValueError(f"--labels {shown}: there is no line in it")
    rows = [words for _, words in lines]
    films = pd.DataFrame(np.array([words[1:] for words in rows]) == "1", columns=list(FINDINGS), dtype=np.float64)
    films.insert(0, "key", image_keys(pd.Series([words[0] for words in rows], dtype="str")))
    films["split"] = split
    return films


def _merged(films: pd.DataFrame, split: str, shown: str, warnings: list[str] | None = None) -> Labels:
    """One row a film; what contradicts itself is set aside, and a patient is in one split."""
    warnings = list(warnings or [])
    columns = list(FINDINGS)
    positive = films[columns].eq(1).any(axis=1)
    both = films["no_finding"].eq(1) & positive
    conflicts = dict.fromkeys(films.loc[both, "key"], '"No Finding" and a finding')
    # "No Finding" answers for the cells that were left empty, not for findings that the table does not speak of
    asked = films[columns].notna().any().to_numpy()
    blank = films[columns].isna() & films["no_finding"].eq(1).to_numpy()[:, None] & asked
    films[columns] = films[columns].mask(blank, 0.0)

    distinct = films.drop(columns="no_finding").drop_duplicates()
    repeated = len(films) - len(distinct)
    if repeated:
        warnings.append(f"{repeated} repeated label rows, merged")
    twice = distinct["key"].duplicated(keep=False)
    conflicts |= dict.fromkeys(distinct.loc[twice, "key"], "the label file gives it twice, and not the same")
    table = distinct.drop_duplicates("key").set_index("key")
    table.loc[table.index.isin(list(conflicts)), columns] = np.nan
    if conflicts:
        warnings.append(f"{len(conflicts)} films whose labels contradict each other: their labels are set aside")
    has_split = table["split"].notna().any()
    if has_split:
        _one_split_a_patient(distinct, shown)
    table["age_years"] = table["age_years"].astype(np.float64)
    ordered = ["patient_id", "age_years", "sex", "view", "split", *columns]
    return Labels(table[ordered], conflicts, split if has_split else None, tuple(warnings))


def _one_split_a_patient(films: pd.DataFrame, shown: str) -> None:
    splits = films.dropna(subset=["split"]).groupby("patient_id")["split"].nunique()
    count = int((splits > 1).sum())
    if count:
        raise ValueError(
            f"--labels {shown}: {count} patients have films in two of the splits, so that scores would flatter; put all films "
            "of a patient into one, or leave the split out and folds are drawn by patient"
        )
