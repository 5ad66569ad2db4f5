"""Cases of lesions in files as a test wants them: NIfTI of a small brain, a table that names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from volume_files import nifti

from medray.shards.case_table import files_of
from medray.shards.files import Files
from medray.shards.inventory import Inventory
from medray.shards.reading import scan_file
from medray.shards.store import Store
from medray.systems.lesion.cases import read_cases
from medray.systems.lesion.inventory import assemble
from medray.systems.lesion.source import BrainMR

SHAPE = (16, 18, 20)
LAS = np.diag([-1.0, 1.0, 2.0, 1.0])
LAS[:3, 3] = 90, -126, -72
PERMUTED = np.array([[0, 0, 1.5, -20], [-2.0, 0, 0, 30], [0, 1, 0, -40], [0, 0, 0, 1]])
"""Axes towards back, head and right."""


def brain(number: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """float32 with values below 0 in the brain, 0 around it."""
    voxels = np.zeros(shape, np.float32)
    inner = tuple(size - 2 for size in shape)
    voxels[1:-1, 1:-1, 1:-1] = np.random.default_rng(number).normal(0.5, 1, inner)
    return voxels


def lesion(at: Sequence[int] = (5, 6, 7), size: int = 2, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """uint8, a box of 1."""
    mask = np.zeros(shape, np.uint8)
    mask[tuple(slice(start, start + size) for start in at)] = 1
    return mask


def las(voxels: np.ndarray) -> bytes:
    """With qform 1 and sform 0, as many a scan has it."""
    return nifti(voxels, LAS, sform=0, qform=1)


def files(**named: bytes | list[bytes]) -> Files:
    return Files({name: data if isinstance(data, list) else [data] for name, data in named.items()})


def write_table(folder: Path, rows: Sequence[Mapping[str, str]], name: str = "table.csv") -> Path:
    columns = list(rows[0])
    lines = [",".join(columns), *(",".join(row[column] for column in columns) for row in rows)]
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


def write(folder: Path, name: str, data: bytes) -> str:
    """The file, whose path from the folder on is given back."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return name


def inventory_of(images: Path) -> Inventory:
    """Of a table or a folder, as the jobs read headers and join them, without Ray."""
    folder, source = Store(files_of(str(images))), BrainMR()
    rows = [row for file in folder.files() for row in scan_file(source, folder, file)]
    return assemble(pd.DataFrame(rows), read_cases(str(images)))
