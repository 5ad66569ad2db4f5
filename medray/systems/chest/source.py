"""Chest films in PNG, JPEG or DICOM → grey images whose shorter side is small enough to train on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, ClassVar

import pyarrow as pa
import tyro

from medray.imaging.radiograph import read_film, read_film_header
from medray.imaging.resize import shrunk
from medray.shards.files import Files
from medray.shards.leakage import pixels_hash
from medray.shards.source import Encoded, Source
from medray.systems.chest.classes import FINDINGS

_DESCRIPTION = [
    pa.field("view", pa.string(), metadata={"meaning": "View Position: PA, AP, ..."}),
    pa.field("age_years", pa.float64(), metadata={"unit": "years"}),
    pa.field("sex", pa.string()),
    pa.field("film_rows", pa.int32(), metadata={"meaning": "of the file's own image"}),
    pa.field("film_columns", pa.int32(), metadata={"meaning": "of the file's own image"}),
]


@dataclass(frozen=True, kw_only=True)
class Radiograph(Source):
    """One film a file → 8 bits of grey (``medray.imaging.radiograph``) → shrunk, the sides' proportion kept."""

    size_px: tyro.conf.Suppress[int] = 256  # shorter side of the stored image at most; the tasks' needs set it

    id_column: ClassVar[str] = "image_id"
    stack_column: ClassVar[str | None] = None  # a film stands alone
    version: ClassVar[int] = 2
    rows_per_group: ClassVar[int] = 32  # of 64 KB each: two megabytes
    row_bytes: ClassVar[int | None] = 64_000
    scan_schema: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("item_id", pa.string(), metadata={"meaning": "SOPInstanceUID; a picture has none"}),
            pa.field("patient_id", pa.string()),
            *_DESCRIPTION,
            pa.field("kind", pa.string(), metadata={"meaning": "png, jpeg or dicom"}),
            pa.field("mode", pa.string(), metadata={"meaning": "of pixels, as Pillow or DICOM names it"}),
        ]
    )
    shard_schema: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("image_id", pa.string(), nullable=False, metadata={"identifier": "image"}),
            pa.field("patient_id", pa.string(), nullable=False, metadata={"identifier": "patient"}),
            *_DESCRIPTION,
            pa.field("rows", pa.int32()),
            pa.field("columns", pa.int32()),
            pa.field("image", pa.binary(), metadata={"axes": "rows, columns", "dtype": "uint8"}),
            pa.field("pixels_hash", pa.string(), metadata={"meaning": "of the film in grey, before it is shrunk"}),
            *[pa.field(name, pa.int8()) for name in FINDINGS],
        ]
    )

    def __post_init__(self) -> None:
        if self.size_px < 32:
            raise ValueError(f"--size-px {self.size_px}: must be at least 32")

    @property
    def folder(self) -> str:
        """Name of the shards' folder: of the size in them."""
        return f"{self.size_px}px"

    def settings(self) -> dict[str, Any]:
        """What ``folder`` does not name: nothing."""
        return {name: value for name, value in self.preparation().items() if name != "size_px"}

    def holding(self, needs: Sequence[str], there: Sequence[Mapping[str, Any]]) -> Radiograph:
        """This source with the size that is needed ("256px"), the largest where there are several. Not with a larger one
        that happens to be there: results must not depend on that."""
        return replace(self, size_px=max(map(_size, needs))) if needs else self

    def scan(self, stream: BinaryIO) -> list[dict[str, Any]]:
        header = read_film_header(stream, self.allow_burned_in)
        return [
            {
                "item_id": header.image_id,
                "patient_id": header.patient_id,
                "view": header.view,
                "age_years": header.age_years,
                "sex": header.sex,
                "film_rows": header.rows,
                "film_columns": header.columns,
                "kind": header.kind,
                "mode": header.mode,
            }
        ]

    def encode(self, files: Files, rows: Sequence[dict[str, Any]]) -> list[Encoded]:
        film = read_film(files.only)
        image = shrunk(film.grey, self.size_px)
        columns = {
            "rows": image.shape[0],
            "columns": image.shape[1],
            "image": image.tobytes(),
            "pixels_hash": pixels_hash(film.grey),
        }
        return [Encoded(columns, film.repaired) for _ in rows]


def _size(name: str) -> int:
    return int(name.removesuffix("px"))
