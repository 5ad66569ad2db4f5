"""Files of held-out scans' contours: each on the grid of its own CT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd

from medray.imaging.types import Volume
from medray.imaging.volume import read_volume
from medray.shards.few_rows import Stored
from medray.shards.pseudonym import Pseudonyms
from medray.shards.store import Store
from medray.systems.headneck.cases import Cases, scan_name
from medray.systems.headneck.source import CT
from medray.tasks.contour_files import on_file_grid, write_contours
from medray.tasks.packed_masks import unpacked

THREADS = 4


def ct_files(cases: Cases, private: pd.DataFrame, pseudonyms: Pseudonyms) -> dict[str, list[str]]:
    """scan_id → the files of its CT.

    Args:
        private: every input file with its own path, and the scan that it is of (item_id).
    """
    used = private[private["status"].isin(["ok", "repaired"])].sort_values("path", kind="stable")
    if cases.table is None:  # DICOM headers tell
        slices = used[used["kind"] == "dicom"].groupby("item_id")["path"].agg(list)
        return {pseudonyms.of("scan", str(name)): paths for name, paths in slices.items()}
    there, below = set(used["path"]), dict[str, list[str]]()
    for path in used["path"]:
        below.setdefault(path.rpartition("/")[0], []).append(path)
    found = {}
    for case in cases.table.to_dict("records"):
        own = [case[CT]] if case[CT] in there else below.get(case[CT], [])
        if own:
            found[pseudonyms.of("scan", scan_name(case))] = own
    return found


def write_all(
    to: Store,
    folder: Store,
    of_scan: Mapping[str, Sequence[str]],
    contours: Stored,
    grids: pd.DataFrame,
    named: bool,
) -> dict[str, str]:
    """The contours of all scans, a few at a time.

    Args:
        folder: of the input files. of_scan: as ``ct_files`` gives it. contours: rows of ``Contours``.
        grids: scan_id and affine of the shards. named: DICOM too, which names the patient: where identifiers are public.
    Returns:
        scan_id → beginning of the names of its files: a number, since a name may be a patient's.
    """
    called = {scan_id: f"scan{i:05d}" for i, scan_id in enumerate(sorted(of_scan), start=1)}
    affine_of = dict(zip(grids["scan_id"], grids["affine"], strict=True))

    def write(row: dict[str, Any]) -> None:
        data = []
        for path in of_scan[row["scan_id"]]:
            with folder.open_file(path) as stream:
                data.append(stream.read())
        like = read_volume(data, CT)
        shape = tuple(row["shape_DHW"])
        grid = Volume(np.zeros(shape, np.uint8), np.array(affine_of[row["scan_id"]], dtype=float).reshape(4, 4))
        masks = {one["organ"]: on_file_grid(unpacked(one, shape), grid, like) for one in row["organs"]}
        write_contours(to, called[row["scan_id"]], masks, like, data, named)

    with ThreadPoolExecutor(THREADS) as pool:
        for name in contours.files:
            rows = contours.store.read_table(name, ["scan_id", "shape_DHW", "organs"]).to_pylist()
            list(pool.map(write, [row for row in rows if row["scan_id"] in called]))
    return called
