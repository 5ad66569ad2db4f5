"""Pseudo-labels as files: what a network has written, for a person to look at, and what a person has locked in its place."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from medray.imaging.types import Unreadable, Volume
from medray.imaging.volume import read_volume
from medray.imaging.volume_nifti import nifti_bytes
from medray.shards.few_rows import Stored
from medray.shards.store import Store
from medray.systems.fewlabel.pseudo import Merged
from medray.systems.fewlabel.sources import VOLUMES
from medray.tasks.ct_rows import on_grid_of

FLAG = "--locked"
COLUMNS = ("fold", "scan", "scan_id", "source", "organ", "ml", "confidence", "locked", "model", "file", "sha256")
TABLE = "pseudo-labels.csv"
THREADS = 4


def names_of_scans(index: pd.DataFrame) -> dict[str, str]:
    """scan_id → what its files are called, whichever other scans there are: no name, which may be a patient's."""
    return {scan_id: f"scan-{_sha256(str(scan_id).encode())[:12]}" for scan_id in index["scan_id"]}


def write_pseudo(
    to: Store,
    made: Stored,
    index: pd.DataFrame,
    organs: Sequence[str],
    locked: Mapping[str, Mapping[str, str]] | None = None,
) -> tuple[int, int]:
    """fold<k>/scan-…/<organ>.nii.gz for what each fold's networks found of organs that nobody has labelled by themselves in the
    scan, and pseudo-labels.csv: COLUMNS, of which model is the file that holds the network's labels, and locked is 1 where a
    person's mask is learned from in its place.

    What an earlier start has written is replaced; a mask that has been changed since stays as it is.

    Args:
        made: rows of ``PseudoLabels``. index: of the shards. locked: as in ``Merged``.
    Returns:
        How many masks there are, and how many of them somebody has changed.
    """
    called, known = names_of_scans(index), index.set_index("scan_id")
    changed = _removed(to)
    rows: list[dict[str, Any]] = []

    def write(fold: str, name: str, row: dict[str, Any]) -> None:
        about = known.loc[row["scan_id"]]
        if about["organs_labelled"] == 0 or f"fold{about['fold']}" == fold:  # nothing learns from it
            return
        voxels = np.frombuffer(row["pseudo"], np.uint8).reshape(tuple(row["shape_DHW"]))
        like = Volume(voxels, np.array(about["affine"], dtype=float).reshape(4, 4))
        scan = called[row["scan_id"]]
        for k, organ in enumerate(organs, 1):
            if _is_known(about["organs_ml"][k - 1]) or not (voxels == k).any():
                continue
            file, data = f"{fold}/{scan}/{organ}.nii.gz", nifti_bytes((voxels == k).astype(np.uint8), like)
            if file not in changed:
                to.write_bytes(file, data)
            rows.append({
                "fold": int(fold.removeprefix("fold")), "scan": scan, "scan_id": row["scan_id"], "source": about["origin"], "organ": organ,
                "ml": row["pseudo_ml"][k - 1], "confidence": row["confidence"][k - 1],
                "locked": int(organ in (locked or {}).get(row["scan_id"], {})), "model": name, "file": file, "sha256": _sha256(data),
            })  # fmt: skip

    columns = ["scan_id", "shape_DHW", "pseudo", "confidence", "pseudo_ml"]
    with ThreadPoolExecutor(THREADS) as pool:
        for name in made.files:
            fold, own = name.partition("/")[0], made.store.read_table(name, columns).to_pylist()
            list(pool.map(lambda row, fold=fold, name=name: write(fold, name, row), own))
    table = pd.DataFrame(rows, columns=COLUMNS)
    to.write_csv(TABLE, table.sort_values(["fold", "scan", "organ"], ignore_index=True))
    return len(rows), len(changed)


def _removed(to: Store) -> set[str]:
    """Masks of an earlier start are removed; those that are not as it wrote them are left, and named."""
    if not to.exists(TABLE):
        return set()
    before, changed = pd.read_csv(io.BytesIO(to.read_bytes(TABLE)), dtype=str), set()
    for file, digest in zip(before["file"], before["sha256"], strict=True):
        if not to.exists(file):
            continue
        if _sha256(to.read_bytes(file)) == digest:
            to.delete(file)
        else:
            changed.add(str(file))
    return changed


def with_locked(merged: Merged, uri: str | None, index: pd.DataFrame) -> Merged:
    """With the masks of a folder ``scan-…/<organ>.nii.gz``, called as ``write_pseudo`` calls them, that a person has looked at.

    Raises:
        ValueError: a folder without masks, or the one that networks write into; a mask of a scan or an organ that the run does not
            have, of an organ that the scan's own source labels, on another grid, two of one organ, or two that
            overlap.
    """
    if uri is None:
        return merged
    store, of_scan = Store(uri), {called: scan_id for scan_id, called in names_of_scans(index).items()}
    path, _, options = uri.partition("?")
    above = path.rstrip("/").rpartition("/")[0] or "."
    if any(place.exists(TABLE) for place in (store, Store(f"{above}?{options}" if options else above))):
        raise ValueError(
            f"{FLAG} {uri}: networks write there, and not all in it has been looked at; copy what has been corrected into a folder of its own"
        )
    known = index.set_index("scan_id")
    locked: dict[str, dict[str, str]] = {}
    digests = []
    last, drawn = "", dict[str, np.ndarray]()  # of one scan, as its files follow each other
    for file in store.files():
        inside = file.path.removeprefix(store.root).strip("/").split("/")
        match = VOLUMES.match(inside[-1])
        if match is None or len(inside) < 2:
            continue
        scan, organ = inside[-2], match["stem"]
        at = f"{FLAG} {uri}: {scan}/{inside[-1]}"
        if scan not in of_scan:
            raise ValueError(f"{at}: no scan of this run; call it as {TABLE} does")
        if organ not in merged.organs:
            raise ValueError(f"{at}: no organ of this run; there are {', '.join(merged.organs)}")
        about, own = known.loc[of_scan[scan]], locked.setdefault(of_scan[scan], {})
        if organ in own:
            raise ValueError(f"{at}: there are two masks of it; leave one")
        if _is_known(about["organs_ml"][merged.organs.index(organ)]):
            raise ValueError(f"{at}: the scan's own source labels it, and true labels win; leave it out")
        with store.open_file(file.path) as stream:
            data = stream.read()
        try:
            found = on_grid_of(_grid(about), read_volume([data], organ), organ) > 0
        except Unreadable as error:
            raise ValueError(f"{at}: {error}") from None
        drawn = drawn if scan == last else {}
        for other, voxels in drawn.items():
            if both := int((voxels & found).sum()):
                raise ValueError(
                    f"{at}: {both:,} voxels of it are {other}'s, too; a voxel is of one organ, draw them apart"
                )
        last, drawn[organ] = scan, found
        own[organ] = file.path
        digests.append(f"{scan}/{organ} {_sha256(data)[:16]}")
    if not locked:
        raise ValueError(f"{FLAG} {uri}: no mask in it; wanted scan-…/<organ>.nii.gz, called as in {TABLE}")
    return replace(merged, locked=locked, files=store, digests=tuple(sorted(digests)))


def _grid(about: Any) -> Volume:
    """Of a scan, a row of the index."""
    shape = tuple(int(n) for n in about["shape_DHW"])
    return Volume(np.zeros(shape, np.uint8), np.array(about["affine"], dtype=float).reshape(4, 4))


def _is_known(ml: float | None) -> bool:
    """Whether somebody has labelled an organ of this volume by itself."""
    return ml is not None and not np.isnan(ml)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
