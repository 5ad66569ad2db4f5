"""Volumes of two channels with lesions in them, an .npz file each for either channel and for the mask, and their source."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa

from medray.shards.files import Files
from medray.shards.inventory import Inventory
from medray.shards.source import Encoded, Source

CHANNELS = ("t1", "t2")
_DHW = {"axes": "depth, height, width"}


@dataclass(frozen=True, kw_only=True)
class Volumes(Source):
    """<case>_t1.npz and <case>_t2.npz hold "voxels_DHW" (float32) and "spacing_mm" of the three axes, <case>_mask.npz
    "mask_DHW" (uint8); a case may have none."""

    id_column: ClassVar[str] = "volume_id"
    rows_per_group: ClassVar[int] = 1
    scan_schema: ClassVar[pa.Schema] = pa.schema([pa.field("item_id", pa.string())])
    shard_schema: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("volume_id", pa.string(), nullable=False, metadata={"identifier": "volume"}),
            pa.field("patient_id", pa.string(), nullable=False, metadata={"identifier": "patient"}),
            pa.field("shape_DHW", pa.list_(pa.int32())),
            pa.field("spacing_mm", pa.list_(pa.float64()), metadata=_DHW),
            pa.field("voxels", pa.binary(), metadata={"axes": "channel, depth, height, width", "dtype": "float32"}),
            pa.field("mask", pa.binary(), metadata=_DHW | {"dtype": "uint8", "meaning": "null where nobody has drawn"}),
            pa.field("lesion", pa.int8(), metadata={"meaning": "whether the mask holds any"}),
            pa.field("grade", pa.int8(), metadata={"meaning": "0 or 1, where a source tells it"}),
            pa.field("source", pa.string(), metadata={"meaning": "name of the input, where there are several"}),
        ]
    )

    @property
    def folder(self) -> str:
        return "volumes"

    def scan(self, stream: BinaryIO) -> list[dict[str, Any]]:
        if stream.read(2) != b"PK":
            raise ValueError("not a .npz file")
        return [{"item_id": None}]

    def encode(self, files: Files, rows: Sequence[dict[str, Any]]) -> list[Encoded]:
        channels = [_arrays(files[name]) for name in CHANNELS]
        voxels = [channel["voxels_DHW"] for channel in channels]
        mask = _arrays(files["mask"])["mask_DHW"] if "mask" in files else None
        for name, volume in [*zip(CHANNELS, voxels, strict=True), ("mask", mask)]:
            if volume is not None and volume.shape != voxels[0].shape:
                raise ValueError(f"{name} of {volume.shape} voxels, {CHANNELS[0]} of {voxels[0].shape}")
        columns = {
            "shape_DHW": list(voxels[0].shape),
            "spacing_mm": channels[0]["spacing_mm"].tolist(),
            "voxels": np.stack(voxels).astype(np.float32).tobytes(),
            "mask": None if mask is None else mask.astype(np.uint8).tobytes(),
            "lesion": None if mask is None else int(mask.any()),
        }
        return [Encoded(columns)] * len(rows)


def _arrays(data: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(data), allow_pickle=False) as held:
        return dict(held)


def assemble(scan: pd.DataFrame, labels: Mapping[str, int] | None = None) -> Inventory:
    """<patient>_<number>_<channel>.npz.

    Args:
        labels: grades of volumes. Masks are files: there is nothing to join of them.
    """
    table = scan.sort_values("path").reset_index(drop=True)
    ok = table["status"] == "ok"
    parts = table["item_id"].str.removesuffix(".npz").str.rsplit("_", n=1)
    table["item_id"] = parts.str[0].where(ok)
    cases = {
        case: dict(zip(own["name"], own["path"], strict=True))
        for case, own in table[ok].assign(name=parts.str[1]).groupby("item_id")
    }
    whole = {case: files for case, files in cases.items() if {*CHANNELS} <= {*files}}
    table.loc[ok & ~table["item_id"].isin(whole), ["status", "reason"]] = (
        "quarantined",
        "a channel of its case is missing",
    )
    rows = pd.DataFrame({"volume_id": list(whole), "files": list(whole.values())})
    if labels is not None:
        rows["grade"] = rows["volume_id"].map(labels)
    return Inventory(table, rows.assign(patient_id=rows["volume_id"].str.split("_").str[0]), ())


def with_lesion(index: pd.DataFrame) -> np.ndarray:
    """Folds have about as many volumes with a lesion, without one, and of which nobody knows."""
    return index["lesion"].fillna(-1).to_numpy()


def write_volumes(folder: Path, patients: int = 8, size: int = 20, odd: bool = False) -> None:
    """Bright balls in noise; every volume has a shape and a spacing of its own.

    Args:
        odd: three more patients: one without a mask, one whose mask has another grid, and one without its second channel.
    """
    folder.mkdir(parents=True)
    for patient in range(patients + 3 * odd):
        rng = np.random.default_rng(patient)
        shape = size + rng.integers(0, 5, 3)
        spacing_mm = np.array([1.0, 1.0, 1.0]) if patient % 2 else np.array([2.0, 1.0, 1.0])
        if not patient % 2:
            shape[0] //= 2
        grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1) * spacing_mm
        middle = rng.uniform(0.3, 0.7, 3) * shape * spacing_mm
        mask = (np.linalg.norm(grid - middle, axis=-1) < rng.uniform(4, 6)).astype(np.uint8)
        case = folder / f"patient{patient}_0"
        for sign, name in zip((1, -1), CHANNELS, strict=True):
            voxels = (sign * mask.astype(float) + rng.normal(0, 0.3, shape)).astype(np.float32)
            np.savez(f"{case}_{name}.npz", voxels_DHW=voxels, spacing_mm=spacing_mm)
        np.savez(f"{case}_mask.npz", mask_DHW=mask[1:] if patient == patients + 1 else mask)
    if odd:
        (folder / f"patient{patients}_0_mask.npz").unlink()
        (folder / f"patient{patients + 2}_0_t2.npz").unlink()
    (folder / "broken.npz").write_bytes(b"no volume at all")
