"""Head-CT DICOM files → windowed slices."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, ClassVar

import numpy as np
import pyarrow as pa
import tyro

from medray.ich.classes import CLASSES
from medray.imaging.dicom import read_headers, read_slices
from medray.imaging.headmask import head_mask, remove_hardware
from medray.imaging.window import WINDOWS, apply_windows, parse_window
from medray.shards.source import Encoded, Source

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

    id_column: ClassVar[str] = "slice_id"
    stack_column: ClassVar[str] = "series_id"
    # as many neighbouring slices as a training window has batches: each batch gets about one of them. 512x512x3 slices:
    # 6 MB decoded, about 1 MB stored, one ranged read from object storage
    rows_per_group: ClassVar[int] = 8
    scan_schema: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("item_id", pa.string()),
            pa.field("patient_id", pa.string()),
            pa.field("study_id", pa.string()),
            pa.field("series_id", pa.string()),
            pa.field("frame", pa.int32()),
            pa.field("position_xyz_mm", pa.list_(pa.float64()), metadata=_MM),
            pa.field("orientation_rc", pa.list_(pa.float64())),
            *_POSITION,
        ]
    )
    shard_schema: ClassVar[pa.Schema] = pa.schema(
        [
            *[
                pa.field(f"{kind}_id", pa.string(), nullable=False, metadata={"identifier": kind})
                for kind in ("slice", "patient", "study", "series")
            ],
            pa.field("index", pa.int32(), metadata={"meaning": "place in the series, from the feet up"}),
            pa.field("position_mm", pa.float64(), metadata=_MM | {"meaning": "along the stack's normal"}),
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
        for window in self.windows:
            parse_window(window)

    @property
    def folder(self) -> str:
        """Name of the shards' folder: their windows in HU, so that a name and its numbers are the same."""
        return "_".join(f"{_number(w.level)}x{_number(w.width)}" for w in map(parse_window, self.windows))

    def settings(self) -> dict[str, Any]:
        return {"remove_hardware": self.remove_hardware}

    def holding(self, needs: Sequence[str], folders: Sequence[str]) -> HeadCT:
        """This source with the windows of one of the existing shard ``folders`` that holds all that are needed, else
        with just the needed ones. Folders that are not named by windows are somebody else's."""
        distinct = list(dict.fromkeys(map(_name, needs)))
        for folder in folders:
            try:
                windows = [_name(name.replace("x", "/")) for name in folder.split("_")]
            except ValueError:
                continue
            if set(distinct) <= set(windows):
                return replace(self, windows=tuple(windows))
        return replace(self, windows=tuple(distinct))

    def scan(self, stream: BinaryIO) -> list[dict[str, Any]]:
        return [
            {
                "item_id": h.slice_id,
                "patient_id": h.patient_id,
                "study_id": h.study_id,
                "series_id": h.series_id,
                "frame": h.frame,
                "position_xyz_mm": list(h.position_xyz_mm),
                "orientation_rc": list(h.orientation_rc),
                "row_spacing_mm": h.spacing_rc_mm[0],
                "column_spacing_mm": h.spacing_rc_mm[1],
            }
            for h in read_headers(stream)
        ]

    def encode(self, data: bytes, rows: Sequence[dict[str, Any]]) -> list[Encoded]:
        windows = tuple(parse_window(window) for window in self.windows)
        by_frame = {s.header.frame: s for s in read_slices(data)}
        encoded = []
        for row in rows:
            image = by_frame.get(row["frame"])
            if image is None:
                encoded.append(Encoded(None, f"frame {row['frame']} is no longer in the file"))
                continue
            pixels_hu = image.pixels_hu
            if self.remove_hardware:
                pixels_hu = remove_hardware(pixels_hu, head_mask(pixels_hu, image.header.spacing_rc_mm))
            windowed = apply_windows(pixels_hu, windows)
            columns = {
                "rows": windowed.shape[0],
                "columns": windowed.shape[1],
                "image": windowed.tobytes(),
                "pixels_hash": pixels_hash(image.pixels_hu),
            }
            encoded.append(Encoded(columns, image.repaired))
        return encoded


def _name(window: str) -> str:
    """One way to say it: a restart, which has only the folder's numbers, then finds the shards that are its own."""
    parsed = parse_window(window)
    names = (name for name, known in WINDOWS.items() if known == parsed)
    return next(names, f"{_number(parsed.level)}/{_number(parsed.width)}")


def _number(value: float) -> str:
    """The shortest text that reads back as the same number."""
    return repr(float(value)).removesuffix(".0")


def pixels_hash(pixels_hu: np.ndarray) -> str:
    """Equal for equal images, whatever their headers say: a test study that was trained on is found by it.

    Empty for an image of one value: many scans begin with one.
    """
    if pixels_hu.min() == pixels_hu.max():
        return ""
    content = np.ascontiguousarray(pixels_hu)
    return hashlib.blake2b(repr(content.shape).encode() + content.tobytes(), digest_size=16).hexdigest()
