"""Volumes of tissue with lesions in them, one .npz file each, and the source that reads them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa

from medray.shards.inventory import Inventory
from medray.shards.source import Encoded, Source

_DHW = {"axes": "depth, height, width"}


@dataclass(frozen=True, kw_only=True)
class Volumes(Source):
    """A file holds "voxels_DHW" (float32), "mask_DHW" (uint8) and "spacing_mm" of the three axes."""

    id_column: ClassVar[str] = "volume_id"
    rows_per_group: ClassVar[int] = 1
    scan_schema: ClassVar[pa.Schema] = pa.schema([pa.field("item_id", pa.string())])
    shard_schema: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("volume_id", pa.string(), nullable=False, metadata={"identifier": "volume"}),
            pa.field("patient_id", pa.string(), nullable=False, metadata={"identifier": "patient"}),
            pa.field("shape_DHW", pa.list_(pa.int32())),
            pa.field("spacing_mm", pa.list_(pa.float64()), metadata=_DHW),
            pa.field("voxels", pa.binary(), metadata=_DHW | {"dtype": "float32"}),
            pa.field("mask", pa.binary(), metadata=_DHW | {"dtype": "uint8"}),
            pa.field("lesion", pa.int8(), metadata={"meaning": "whether the mask holds any"}),
        ]
    )

    @property
    def folder(self) -> str:
        return "volumes"

    def scan(self, stream: BinaryIO) -> list[dict[str, Any]]:
        if stream.read(2) != b"PK":
            raise ValueError("not a .npz file")
        return [{"item_id": None}]

    def encode(self, data: bytes, rows: Sequence[dict[str, Any]]) -> list[Encoded]:
        with np.load(io.BytesIO(data), allow_pickle=False) as held:
            voxels, mask, spacing_mm = held["voxels_DHW"], held["mask_DHW"], held["spacing_mm"]
        if voxels.shape != mask.shape:
            raise ValueError(f"voxels {voxels.shape}, mask {mask.shape}")
        columns = {
            "shape_DHW": list(voxels.shape), "spacing_mm": spacing_mm.tolist(), "lesion": int(mask.any()),
            "voxels": voxels.astype(np.float32).tobytes(), "mask": mask.astype(np.uint8).tobytes(),
        }  # fmt: skip
        return [Encoded(columns)] * len(rows)


def assemble(scan: pd.DataFrame, labels: None = None) -> Inventory:
    """<patient>_<number>.npz. The masks are in the files: there are no labels to join."""
    table = scan.sort_values("path").reset_index(drop=True)
    rows = table[table["status"] == "ok"].copy()
    rows["volume_id"], rows["patient_id"] = rows["item_id"], rows["item_id"].str.split("_").str[0]
    return Inventory(table, rows, ())


def with_lesion(index: pd.DataFrame) -> np.ndarray:
    """Folds have about as many volumes with a lesion, without one, and of which nobody knows."""
    return index["lesion"].fillna(-1).to_numpy()


def write_volumes(folder: Path, patients: int = 8, size: int = 20) -> None:
    """Bright balls in noise; every volume has a shape and a spacing of its own."""
    folder.mkdir(parents=True)
    for patient in range(patients):
        rng = np.random.default_rng(patient)
        shape = size + rng.integers(0, 5, 3)
        spacing_mm = np.array([1.0, 1.0, 1.0]) if patient % 2 else np.array([2.0, 1.0, 1.0])
        if not patient % 2:
            shape[0] //= 2
        grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1) * spacing_mm
        middle = rng.uniform(0.3, 0.7, 3) * shape * spacing_mm
        mask = (np.linalg.norm(grid - middle, axis=-1) < rng.uniform(4, 6)).astype(np.uint8)
        voxels = (mask + rng.normal(0, 0.3, shape)).astype(np.float32)
        np.savez(folder / f"patient{patient}_0.npz", voxels_DHW=voxels, mask_DHW=mask, spacing_mm=spacing_mm)
    (folder / "broken.npz").write_bytes(b"no volume at all")
