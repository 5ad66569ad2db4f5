"""Contours of held-out scans by a finished network: a derivation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa

from medray.tasks.organs import OrgansTask
from medray.tasks.packed_masks import packed
from medray.tasks.volume_rows import probability_of

_VOXELS = pa.struct([("organ", pa.string()), ("box_DHW", pa.list_(pa.int32())), ("bits", pa.binary())])
SCHEMA = pa.schema(
    [
        *[pa.field(name, pa.string()) for name in ("scan_id", "patient_id", "visit")],
        pa.field("shape_DHW", pa.list_(pa.int32())),
        pa.field("organs", pa.list_(_VOXELS), metadata={"meaning": "bits of the box around each organ"}),
    ]
)


@dataclass(frozen=True)
class Contours:
    """Of every scan the voxels of all organs."""

    changes: tuple[tuple[str, Any], ...] = ()
    """Fields of the task that are other than in its run, such as which of two networks answers."""

    id_column: ClassVar[str] = "scan_id"

    def identity(self) -> dict[str, Any]:
        return {"contours": 1, **dict(self.changes)}

    def outputs(self, task: OrgansTask, network: Any, batch: dict[str, Any]) -> dict[str, Any]:
        found = replace(task, keep="uint8", **dict(self.changes)).outputs(network, batch)
        columns: dict[str, Any] = {name: found[name] for name in ("scan_id", "patient_id", "visit", "shape_DHW")}
        columns["organs"] = np.empty(len(found["scan_id"]), dtype=object)
        for i in range(len(found["scan_id"])):
            masks = organs_of(task, {name: values[i] for name, values in found.items()})
            columns["organs"][i] = [{"organ": organ} | packed(mask) for organ, mask in masks.items()]
        return columns

    def pack(self, outputs: pd.DataFrame) -> pa.Table:
        return pa.Table.from_pylist(outputs[SCHEMA.names].to_dict("records"), schema=SCHEMA)


def organs_of(task: OrgansTask, output: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Organ → (D, H, W) bool, of a row of outputs whose probabilities were kept."""
    probability = probability_of(output)
    mask = np.frombuffer(output["mask"], np.uint8).reshape(probability.shape[1:])
    return {organ: task.voxels_of(number, probability, mask) for number, organ in enumerate(task.organs, 1)}
