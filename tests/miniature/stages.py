"""What lies between two stages of the miniature: answers of the first one's networks, and volumes cut to what they found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa

from miniature.patches import CHANNELS
from miniature.volumes import Volumes


@dataclass(frozen=True)
class Answers:
    """By a network: the mask of each volume."""

    id_column: ClassVar[str] = "volume_id"
    schema: ClassVar[pa.Schema] = pa.schema(
        [("volume_id", pa.string()), ("patient_id", pa.string()), ("found", pa.binary())]
    )

    def identity(self) -> dict[str, Any]:
        return {"answers": 1}

    def outputs(self, task: Any, network: Any, batch: dict[str, Any]) -> dict[str, Any]:
        found = task.outputs(network, batch)
        return {"volume_id": found["volume_id"], "patient_id": found["patient_id"], "found": found["mask"]}

    def pack(self, outputs: pd.DataFrame) -> pa.Table:
        return pa.Table.from_pandas(outputs, schema=self.schema, preserve_index=False)


@dataclass(frozen=True)
class Cut:
    """By a function of a volume and of the mask that was found in it: the box around that, and some voxels more."""

    margin: int = 4

    id_column: ClassVar[str] = "volume_id"
    columns: ClassVar[tuple[str, ...]] = (
        "volume_id", "patient_id", "shape_DHW", "spacing_mm", "voxels", "mask", "lesion", "found",
    )  # fmt: skip
    schema: ClassVar[pa.Schema] = pa.schema([Volumes.shard_schema.field(name) for name in columns if name != "found"])

    def identity(self) -> dict[str, Any]:
        return {"cut": 1, "margin": self.margin}

    def rows(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        shape = tuple(row["shape_DHW"])
        found = np.frombuffer(row["found"], np.uint8).reshape(shape)
        if not found.any():
            raise ValueError("nothing was found in it")
        places = np.argwhere(found)
        box = tuple(
            slice(max(0, low - self.margin), high + 1 + self.margin)
            for low, high in zip(places.min(0), places.max(0), strict=True)
        )
        voxels = np.frombuffer(row["voxels"], np.float32).reshape(CHANNELS, *shape)[(slice(None), *box)]
        mask = None if row["mask"] is None else np.frombuffer(row["mask"], np.uint8).reshape(shape)[box]
        cut = {"shape_DHW": list(voxels.shape[1:]), "voxels": voxels.tobytes()}
        cut |= {"mask": None if mask is None else mask.tobytes()}
        return [{name: row[name] for name in self.schema.names} | cut]
