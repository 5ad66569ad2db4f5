"""Head-CT DICOM files → windowed slices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, BinaryIO, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import tyro

from medray.imaging.deface import deface
from medray.imaging.dicom import read_headers, read_slices
from medray.imaging.headmask import head_mask, remove_hardware
from medray.imaging.types import Header
from medray.imaging.window import WINDOWS, apply_windows, parse_window
from medray.shards.files import Files
from medray.shards.leakage import pixels_hash_unless_flat
from medray.shards.source import Encoded, Source
from medray.systems.ich.classes import CLASSES

_MM = {"unit": "mm"}
_POSITION = [
    pa.field("row_spacing_mm", pa.float64(), metadata=_MM),
    pa.field("column_spacing_mm", pa.float64(), metadata=_MM),
]


@dataclass(frozen=True, kw_only=True)
class HeadCT(Source):
    """DICOM of any syntax → Hounsfield units → head without table and holder → windows as channels."""

    windows: tyro.conf.Suppress[tuple[str, ...]] = ("brain", "subdural", "bone")  # of the shards; the job sets them
    remove_hardware: bool = True
    """Set table, head holder and everything else outside the head to air."""
    deface: bool = False
    """Set what lies outside the skull to air: nose, lips, ears, skin, and scalp hematomas with them. Not for skulls that surgery has
    opened wide."""

    id_column: ClassVar[str] = "slice_id"
    stack_column: ClassVar[str] = "stack_id"
    version: ClassVar[int] = 2
    # as many neighbouring slices as a training window has batches: each batch gets about one of them. 512x512x3 slices:
    # 6 MB decoded, about 1 MB stored, one ranged read from object storage
    rows_per_group: ClassVar[int] = 8
    row_bytes: ClassVar[int | None] = 150_000
    scan_schema: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("item_id", pa.string()),
            pa.field("patient_id", pa.string()),
            pa.field("study_id", pa.string()),
            pa.field("series_id", pa.string()),
            pa.field("frame", pa.int32()),
            pa.field("rows", pa.int32()),
            pa.field("columns", pa.int32()),
            pa.field("position_xyz_mm", pa.list_(pa.float64()), metadata=_MM),
            pa.field("orientation_rc", pa.list_(pa.float64())),
            *_POSITION,
            pa.field("image_type", pa.list_(pa.string())),
            pa.field("frame_of_reference_id", pa.string()),
            pa.field("series_number", pa.float64()),
            pa.field("acquisition_number", pa.float64()),
            pa.field("instance_number", pa.float64()),
            pa.field("stack_name", pa.string()),
            pa.field("temporal_index", pa.float64()),
            pa.field("kernel", pa.string()),
            pa.field("peak_kv", pa.float64(), metadata={"unit": "kV"}),
            pa.field("thickness_mm", pa.float64(), metadata=_MM),
            pa.field("slice_location_mm", pa.float64(), metadata=_MM),
            pa.field("acquired", pa.string()),
            pa.field("created", pa.string()),
        ]
    )
    shard_schema: ClassVar[pa.Schema] = pa.schema(
        [
            *[
                pa.field(f"{kind}_id", pa.string(), nullable=False, metadata={"identifier": kind})
                for kind in ("slice", "patient", "study", "series", "stack")
            ],
            pa.field("index", pa.int32(), metadata={"meaning": "place in the stack, from the feet up"}),
            pa.field(
                "position_mm", pa.float64(), metadata=_MM | {"meaning": "along the stack's normal; null where unknown"}
            ),
            *_POSITION,
            pa.field("rows", pa.int32()),
            pa.field("columns", pa.int32()),
            pa.field("image", pa.binary(), metadata={"axes": "rows, columns, windows", "dtype": "uint8"}),
            pa.field("pixels_hash", pa.string(), metadata={"meaning": "of the HU before anything is removed"}),
            *[pa.field(name, pa.int8()) for name in CLASSES],
        ]
    )

    def __post_init__(self) -> None:
        if not self.windows:
            raise ValueError("--windows: at least one is needed")
        if self.deface and not self.remove_hardware:
            raise ValueError("--no-remove-hardware --deface: a head holder would pass for bone; leave one of them out")
        for window in self.windows:
            parse_window(window)

    @property
    def folder(self) -> str:
        """Name of the shards' folder: their windows in HU, so that a name and its numbers are the same."""
        return "_".join(f"{_number(w.level)}x{_number(w.width)}" for w in map(parse_window, self.windows))

    def settings(self) -> dict[str, Any]:
        return {"remove_hardware": self.remove_hardware} | self._defaced

    def preparation(self) -> dict[str, Any]:
        own = super().preparation()
        return {name: value for name, value in own.items() if name != "deface"} | self._defaced

    @property
    def _defaced(self) -> dict[str, Any]:
        """Nothing where faces stay: shards of before it could be asked for are the same."""
        return {"deface": True} if self.deface else {}

    def prepared(self, pixels_hu: np.ndarray, spacing_rc_mm: tuple[float, float]) -> np.ndarray:
        """(rows, columns) HU as windows are applied to it."""
        if self.remove_hardware:
            pixels_hu = remove_hardware(pixels_hu, head_mask(pixels_hu, spacing_rc_mm))
        return deface(pixels_hu, spacing_rc_mm) if self.deface else pixels_hu

    def holding(self, needs: Sequence[str], there: Sequence[Mapping[str, Any]]) -> HeadCT:
        """This source with the windows of existing shards that hold all that are needed and differ in nothing else, else
        with just the needed ones."""
        distinct = list(dict.fromkeys(map(_name, needs)))
        for identity in there:
            if identity == self.identity() | {"windows": identity.get("windows")}:
                windows = tuple(map(_name, identity["windows"]))
                if set(distinct) <= set(windows):
                    return replace(self, windows=windows)
        return replace(self, windows=tuple(distinct))

    def scan(self, stream: BinaryIO) -> list[dict[str, Any]]:
        return [row_of(header) for header in read_headers(stream, self.allow_burned_in)]

    def encode(self, files: Files, rows: Sequence[dict[str, Any]]) -> list[Encoded]:
        windows = tuple(parse_window(window) for window in self.windows)
        by_frame = {s.header.frame: s for s in read_slices(files.only)}
        encoded = []
        for row in rows:
            image = by_frame.get(row["frame"])
            if image is None:
                encoded.append(Encoded(None, f"frame {row['frame']} is no longer in the file"))
                continue
            windowed = apply_windows(self.prepared(image.pixels_hu, image.header.spacing_rc_mm), windows)
            columns = {
                "rows": windowed.shape[0],
                "columns": windowed.shape[1],
                "image": windowed.tobytes(),
                "pixels_hash": pixels_hash_unless_flat(image.pixels_hu),
            }
            encoded.append(Encoded(columns, image.repaired))
        return encoded


_AS_THEY_ARE = tuple(f.name for f in fields(Header) if f.name not in ("slice_id", "spacing_rc_mm"))


def row_of(header: Header) -> dict[str, Any]:
    """A header as a row of ``HeadCT.scan_schema``."""
    values = {name: getattr(header, name) for name in _AS_THEY_ARE}
    row = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    spacing = dict(zip(("row_spacing_mm", "column_spacing_mm"), header.spacing_rc_mm, strict=True))
    return {"item_id": header.slice_id} | row | spacing


def headers_of(scan: pd.DataFrame, groups: Iterable[np.ndarray]) -> Iterator[list[Header]]:
    """The headers that rows of ``HeadCT.scan_schema`` were made of, group by group: memory holds those of one.

    Args:
        groups: of positions of rows.
    """
    slice_id, *spacing = (_cells(scan[name]) for name in ("item_id", "row_spacing_mm", "column_spacing_mm"))
    others = {name: _cells(scan[name]) for name in _AS_THEY_ARE}
    for rows in groups:
        yield [
            Header(
                slice_id=slice_id[row],
                spacing_rc_mm=(spacing[0][row], spacing[1][row]),
                **{name: cells[row] for name, cells in others.items()},
            )
            for row in rows
        ]


def _cells(column: pd.Series) -> np.ndarray:
    """(rows,) objects as the headers had them: pandas makes NaN of None, and arrays of tuples."""
    if len(column) and isinstance(column.iloc[0], (list, np.ndarray)):
        return column.map(tuple).to_numpy(dtype=object)
    return column.astype(object).where(column.notna(), None).to_numpy()


def _name(window: str) -> str:
    """One way to say it: a restart, which has only the folder's numbers, then finds the shards that are its own."""
    parsed = parse_window(window)
    names = (name for name, known in WINDOWS.items() if known == parsed)
    return next(names, f"{_number(parsed.level)}/{_number(parsed.width)}")


def _number(value: float) -> str:
    """The shortest text that reads back as the same number."""
    return repr(float(value)).removesuffix(".0")
