"""Pseudo-labels as files: what a network has written, for a person to look at, and what a person has locked in its place."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from medray.imaging.types import Volume
from medray.imaging.volume_nifti import nifti_bytes
from medray.shards.few_rows import Stored
from medray.shards.store import Store
from medray.systems.fewlabel.pseudo import Merged
from medray.systems.fewlabel.sources import VOLUMES

FLAG = "--locked"
TABLE = "pseudo-labels.csv"
THREADS = 4


def numbers_of_scans(index: pd.DataFrame) -> dict[str, str]:
    """scan_id → what its files are called: a number, since a name may be a patient's."""
    return {scan_id: f"scan{i:05d}" for i, scan_id in enumerate(sorted(index["scan_id"]), start=1)}


def write_pseudo(
    to: Store, made: Stored, index: pd.DataFrame, organs: Sequence[str], labelled: Mapping[str, Sequence[str]]
) -> int:
    """fold<k>/scan…/<organ>.nii.gz for what each fold's networks found of organs that the scan's own source does not label, and
    pseudo-labels.csv: fold, scan, source, organ, mL, confidence, and the file that holds the network's labels ("model").

    Args:
        made: rows of ``PseudoLabels``. index: of the shards. labelled: source → organs that it labels.
    Returns:
        How many masks there are.
    """
    called, known = numbers_of_scans(index), index.set_index("scan_id")
    rows: list[dict[str, Any]] = []

    def write(fold: str, name: str, row: dict[str, Any]) -> None:
        about = known.loc[row["scan_id"]]
        if about["organs_labelled"] == 0 or f"fold{about['fold']}" == fold:  # nothing learns from it
            return
        voxels = np.frombuffer(row["pseudo"], np.uint8).reshape(tuple(row["shape_DHW"]))
        like = Volume(voxels, np.array(about["affine"], dtype=float).reshape(4, 4))
        scan = called[row["scan_id"]]
        for k, organ in enumerate(organs, 1):
            if organ in labelled[about["origin"]] or not (voxels == k).any():
                continue
            to.write_bytes(f"{fold}/{scan}/{organ}.nii.gz", nifti_bytes((voxels == k).astype(np.uint8), like))
            rows.append({
                "fold": int(fold.removeprefix("fold")), "scan": scan, "source": about["origin"], "organ": organ,
                "ml": row["pseudo_ml"][k - 1], "confidence": row["confidence"][k - 1], "model": name,
            })  # fmt: skip

    columns = ["scan_id", "shape_DHW", "pseudo", "confidence", "pseudo_ml"]
    with ThreadPoolExecutor(THREADS) as pool:
        for name in made.files:
            fold, own = name.partition("/")[0], made.store.read_table(name, columns).to_pylist()
            list(pool.map(lambda row, fold=fold, name=name: write(fold, name, row), own))
    table = pd.DataFrame(rows, columns=["fold", "scan", "source", "organ", "ml", "confidence", "model"])
    to.write_csv(TABLE, table.sort_values(["fold", "scan", "organ"], ignore_index=True))
    return len(rows)


def with_locked(merged: Merged, uri: str | None, index: pd.DataFrame) -> Merged:
    """With the masks of a folder ``scan…/<organ>.nii.gz``, called as ``write_pseudo`` calls them, that a person has looked at.

    Raises:
        ValueError: a folder without masks, or one of a scan or an organ that the run does not have.
    """
    if uri is None:
        return merged
    store, of_scan = Store(uri), {called: scan_id for scan_id, called in numbers_of_scans(index).items()}
    locked: dict[str, dict[str, str]] = {}
    digests = []
    for file in store.files():
        inside = file.path.removeprefix(store.root).strip("/").split("/")
        match = VOLUMES.match(inside[-1])
        if match is None or len(inside) < 2:
            continue
        scan, organ = inside[-2], match["stem"]
        if scan not in of_scan:
            raise ValueError(f"{FLAG} {uri}: {scan}/{inside[-1]}: no scan of this run; call it as {TABLE} does")
        if organ not in merged.organs:
            raise ValueError(
                f"{FLAG} {uri}: {scan}/{inside[-1]}: no organ of this run; there are {', '.join(merged.organs)}"
            )
        locked.setdefault(of_scan[scan], {})[organ] = file.path
        with store.open_file(file.path) as stream:
            digests.append(f"{scan}/{organ} {hashlib.sha256(stream.read()).hexdigest()[:16]}")
    if not locked:
        raise ValueError(f"{FLAG} {uri}: no mask in it; wanted scan00001/<organ>.nii.gz, called as in {TABLE}")
    return replace(merged, locked=locked, files=store, digests=tuple(sorted(digests)))
