"""Head-CT DICOM files → windowed slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

import pyarrow as pa

from medray.ich.classes import CLASSES
from medray.imaging.dicom import read_headers, read_slices
from medray.imaging.headmask import head_mask, remove_hardware
from medray.imaging.window import apply_windows, parse_window
from medray.shards.source import Encoded, Source

_MM = {"unit": "mm"}
_POSITION = [
    pa.field("row_spacing_mm", pa.float64(), metadata=_MM),
    pa.field("column_spacing_mm", pa.float64(), metadata=_MM),
]


@dataclass(frozen=True, kw_only=True)
class HeadCT(Source):
    """DICOM of any syntax → Hounsfield units → head without table and holder → windows as channels."""

    windows: tuple[str, ...] = ("brain", "subdural", "bone")
    """Channels of the shards: names (brain, subdural, bone, soft) or level/width in HU (40/80)."""
    remove_hardware: bool = True
    """Set table, head holder and everything else outside the head to air."""

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
            pa.field("slice_id", pa.string(), nullable=False),
            pa.field("patient_id", pa.string(), nullable=False),
            pa.field("study_id", pa.string(), nullable=False),
            pa.field("series_id", pa.string(), nullable=False),
            pa.field("index", pa.int32(), metadata={"meaning": "place in the series, from the feet up"}),
            pa.field("position_mm", pa.float64(), metadata=_MM | {"meaning": "along the stack's normal"}),
            *_POSITION,
            pa.field("rows", pa.int32()),
            pa.field("columns", pa.int32()),
            pa.field("image", pa.binary(), metadata={"axes": "rows, columns, windows", "dtype": "uint8"}),
            *[pa.field(name, pa.int8()) for name in CLASSES],
        ]
    )

    def __post_init__(self) -> None:
        if not self.windows:
            raise ValueError("--windows: at least one is needed")
        for window in self.windows:
            parse_window(window)

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
            columns = {"rows": windowed.shape[0], "columns": windowed.shape[1], "image": windowed.tobytes()}
            encoded.append(Encoded(columns, image.repaired))
        return encoded
