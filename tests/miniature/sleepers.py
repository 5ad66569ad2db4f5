"""A task whose reading waits, as for a disk, and gives batches of a real size: it takes memory and tasks, and no cores."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medray.engine.samples import Rows, read_index
from medray.shards.store import Store
from medray.task import Example, Task


@dataclass(frozen=True, kw_only=True)
class Sleeper(Task):
    """Notes when each batch was made, in a file of its process below ``notes``."""

    id_column: ClassVar[str] = "item_id"
    columns: ClassVar[tuple[str, ...]] = ("item_id",)

    notes: str
    size_px: int = 480
    seconds: float = 1.5

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

    def network(self) -> Any: ...

    def losses(self, network: Any, batch: Any) -> Any: ...

    def outputs(self, network: Any, batch: Any) -> Any: ...

    def metrics(self, outputs: Any) -> Any: ...


def write_items(folder: Path, count: int) -> Rows:
    """Shards of ``count`` rows that hold an id."""
    ids = [f"item{i:05d}" for i in range(count)]
    pq.write_table(pa.table({"item_id": ids}), folder / "part.parquet", row_group_size=64)
    return read_index(Store(folder), ["item_id"])[0]


def notes_of(folder: Path) -> np.ndarray:
    """(batches, 3): when each was begun and made, and OpenCV's threads in that process."""
    return np.concatenate([np.loadtxt(path, ndmin=2) for path in folder.iterdir()])
