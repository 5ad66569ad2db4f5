"""A task whose reading waits, as for a disk, and gives batches of a real size: it takes memory and tasks, and no cores."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from torch import nn

from medray.engine.data.samples import Rows, read_index
from medray.shards.store import Store
from medray.tasks.task import At, Example, Task


@dataclass(frozen=True, kw_only=True)
class Sleeper(Task):
    """Notes when each batch was made, in a file of its process below ``notes``."""

    id_column: ClassVar[str] = "item_id"
    columns: ClassVar[tuple[str, ...]] = ("item_id",)

    notes: str
    size_px: int = 480
    seconds: float = 1.5

    def labelled(self, index: pd.DataFrame) -> np.ndarray:
        return np.ones(len(index), dtype=bool)

    def train_example(self, row: Mapping[str, Any], rng: np.random.Generator) -> Example:
        return {"item_id": row["item_id"]}

    def example(self, row: Mapping[str, Any]) -> Example:
        return {"item_id": row["item_id"]}

    def collate(self, examples: list[Example]) -> dict[str, Any]:
        began = time.time()
        time.sleep(self.seconds)
        with open(Path(self.notes) / str(os.getpid()), "a") as notes:
            notes.write(f"{began} {time.time()} {cv2.getNumThreads()}\n")
        shape = (len(examples), 3, self.size_px, self.size_px)
        return super().collate(examples) | {"image": np.zeros(shape, np.uint8)}

    def network(self) -> nn.Module:
        return nn.Linear(1, 1)

    def losses(self, network: Any, batch: Any, at: At) -> Any: ...

    def outputs(self, network: Any, batch: Any) -> Any: ...

    def metrics(self, outputs: Any) -> Any: ...


@dataclass(frozen=True)
class GPUNotes:
    """A derivation that takes a second a batch and notes where; nothing is computed."""

    id_column: ClassVar[str] = "item_id"

    notes: str

    def identity(self) -> dict[str, Any]:
        return {}

    def outputs(self, task: Any, network: Any, batch: dict[str, Any]) -> dict[str, Any]:
        began = time.time()
        time.sleep(1)
        (gpu,), here = ray.get_gpu_ids(), ray.get_runtime_context().get_node_id()
        note = {"pid": os.getpid(), "node": here, "gpu": gpu, "visible": os.environ["CUDA_VISIBLE_DEVICES"]}
        note |= {"network": float(network.bias), "began": began, "ended": time.time()}
        with open(Path(self.notes) / str(os.getpid()), "a") as notes:
            notes.write(json.dumps(note) + "\n")
        return {"item_id": batch["item_id"]}

    def pack(self, outputs: pd.DataFrame) -> pa.Table:
        return pa.Table.from_pandas(outputs)


def write_items(folder: Path, count: int, name: str = "part") -> Rows:
    """Shards of ``count`` rows that hold an id."""
    ids = [f"item{i:05d}" for i in range(count)]
    pq.write_table(pa.table({"item_id": ids}), folder / f"{name}.parquet", row_group_size=64)
    return read_index(Store(folder), ["item_id"])[0]


def notes_of(folder: Path) -> np.ndarray:
    """(batches, 3): when each was begun and made, and OpenCV's threads in that process."""
    return np.concatenate([np.loadtxt(path, ndmin=2) for path in folder.iterdir()])
