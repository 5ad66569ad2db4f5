"""Source: what a system's input files are, and how one becomes rows of a shard."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, ClassVar

import pyarrow as pa


@dataclass(frozen=True)
class Encoded:
    """One row's columns of the shard schema that come from pixels, or the reason why there are none."""

    columns: dict[str, Any] | None
    note: str | None = None  # what was repaired, or why the row is set aside


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """Its fields say how pixels are prepared: two folders of shards with equal fields hold equal pixels."""

    scan_schema: ClassVar[pa.Schema]  # what a header tells; "item_id" is unique
    shard_schema: ClassVar[pa.Schema]

    def identity(self) -> dict[str, Any]:
        return {"source": type(self).__name__, **asdict(self)}

    @abstractmethod
    def scan(self, stream: BinaryIO) -> list[dict[str, Any]]:
        """Rows of ``scan_schema`` of one file, without decoding pixels. Raises ValueError with a one-line reason."""

    @abstractmethod
    def encode(self, data: bytes, rows: Sequence[dict[str, Any]]) -> list[Encoded]:
        """Pixels of those rows of one file, in order. Raises ValueError where the whole file is unusable."""
