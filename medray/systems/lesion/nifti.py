"""Answers as NIfTI files on the grid of the scan's own file, with its header."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from medray.imaging.types import Volume
from medray.imaging.volume import read_volume
from medray.imaging.volume_grid import turned_back
from medray.imaging.volume_nifti import nifti_bytes
from medray.shards.pseudonym import Pseudonyms
from medray.shards.store import File, Store
from medray.systems.lesion.cases import Cases, scan_name

THREADS = 4
_COLUMNS = ["scan_id", "shape_DHW", "mask", "probability"]


def files_of_scans(cases: Cases, files: Sequence[File], pseudonyms: Pseudonyms) -> dict[str, list[str]]:
    """scan_id → the files of its first channel that is there, on whose grid the answer is.

    Args:
        files: all of the input, as ``Store.files`` lists them.
    """
    found: dict[str, list[str]] = {}
    below: dict[str, list[str]] = {}
    for file in files:
        below.setdefault(file.path.rpartition("/")[0], []).append(file.path)
    there = {file.path for file in files}
    for case in cases.table.to_dict("records"):
        for name in cases.channels:
            path = case[name]
            own = [] if not isinstance(path, str) else [path] if path in there else below.get(path, [])
            if own:
                found[pseudonyms.of("scan", scan_name(case))] = own
                break
    return found


def read_first(folder: Store, paths: Sequence[str]) -> Volume:
    """The volume of a file, or of the DICOM files of a folder. Raises ValueError or OSError where it cannot be read."""
    data = []
    for path in paths:
        with folder.open_file(path) as stream:
            data.append(stream.read())
    return read_volume(data)


def on_own_grid(answer: np.ndarray, like: Volume) -> bytes:
    """
    Args:
        answer: (D, H, W), axes towards right, front and head. like: the scan, as its file has it.
    """
    return nifti_bytes(turned_back(answer, like), like)


def write_all(
    to: Store,
    folder: Store,
    of_scan: Mapping[str, Sequence[str]],
    parts: Sequence[tuple[Store, Mapping[int, Sequence[str]]]],
) -> dict[str, str]:
    """Masks and probabilities of all scans, a few at a time.

    Args:
        folder: of the input files. of_scan: as ``files_of_scans`` gives it.
        parts: where rows of ``masks`` are: a store, and fold → names of its files.
    Returns:
        scan_id → beginning of the names of its files: a number, since a name may be a patient's.
    """
    names = {scan_id: f"scan{i:05d}" for i, scan_id in enumerate(sorted(of_scan), start=1)}

    def write(row: dict[str, Any]) -> None:
        write_masks(to, names[row["scan_id"]], row, read_first(folder, of_scan[row["scan_id"]]))

    with ThreadPoolExecutor(THREADS) as pool:
        for store, of_fold in parts:
            for name in (name for own in of_fold.values() for name in own):
                list(pool.map(write, store.read_table(name, _COLUMNS).to_pylist()))
    return names


def write_masks(to: Store, name: str, row: Mapping[str, Any], like: Volume) -> None:
    """<name>_mask.nii.gz and <name>_probability.nii.gz (float32, 0 to 1) of a row of ``masks``."""
    shape = tuple(row["shape_DHW"])
    mask = np.frombuffer(row["mask"], np.uint8).reshape(shape)
    probability = np.frombuffer(row["probability"], np.uint8).reshape(shape)
    to.write_bytes(f"{name}_mask.nii.gz", on_own_grid(mask, like))
    to.write_bytes(f"{name}_probability.nii.gz", on_own_grid(probability.astype(np.float32) / 255, like))
