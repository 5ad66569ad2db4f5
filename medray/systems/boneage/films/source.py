"""Hand films in PNG, JPEG or DICOM, and the masks and points that people have drawn on them → rows of the shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, BinaryIO, ClassVar

import cv2
import numpy as np
import pyarrow as pa

from medray.imaging.film_mask import read_mask
from medray.imaging.radiograph import read_film, read_film_header
from medray.imaging.resize import shrunk
from medray.imaging.types import Unreadable
from medray.shards.files import Files
from medray.shards.leakage import pixels_hash
from medray.shards.names import check_name
from medray.shards.source import Encoded, Source
from medray.systems.boneage.stages.canvas import POINTS, points_of

FILM, MASK = "film", "mask"
"""Names of an item's files."""
MASKS = "masks"
_LEAST_OUTLINE = 0.005  # of the film: three corners on one place are no hand
_PROPORTIONS = 0.01
"""By how much those of a mask may differ from its film's: what rounding makes of a film that was shrunk to be drawn on."""

_XY = "columns to the right, rows down; pixel centres at whole numbers"


@dataclass(frozen=True, kw_only=True)
class HandFilm(Source):
    """A film → 8 bits of grey (``medray.imaging.radiograph``) → shrunk, the sides' proportion kept; its mask and points with it."""

    size_px: int = 800
    """Shorter side of the stored films at most: what all networks see is made of these."""
    masks: str = MASKS
    """Name of the folders, anywhere below that of the films, with the masks of hands as PNG, named as the films are."""

    id_column: ClassVar[str] = "film_id"
    stack_column: ClassVar[str | None] = None  # a film stands alone
    version: ClassVar[int] = 1
    rows_per_group: ClassVar[int] = 4  # of up to 1.7 MB each, mask included
    row_bytes: ClassVar[int | None] = 600_000
    scan_schema: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("item_id", pa.string(), metadata={"meaning": "SOPInstanceUID; a picture has none"}),
            pa.field("patient_id", pa.string()),
            pa.field("sex", pa.string(), metadata={"meaning": "F or M"}),
            pa.field("calendar_months", pa.float64(), metadata={"unit": "months"}),
            pa.field("film_rows", pa.int32()),
            pa.field("film_columns", pa.int32()),
            pa.field("kind", pa.string(), metadata={"meaning": "png, jpeg or dicom"}),
            pa.field("mode", pa.string(), metadata={"meaning": "of pixels, as Pillow or DICOM names it"}),
        ]
    )
    shard_schema: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("film_id", pa.string(), nullable=False, metadata={"identifier": "film"}),
            pa.field("patient_id", pa.string(), nullable=False, metadata={"identifier": "patient"}),
            pa.field("film_rows", pa.int32(), metadata={"meaning": "of the file's own image"}),
            pa.field("film_columns", pa.int32(), metadata={"meaning": "of the file's own image"}),
            pa.field("rows", pa.int32()),
            pa.field("columns", pa.int32()),
            pa.field("image", pa.binary(), metadata={"axes": "rows, columns", "dtype": "uint8"}),
            pa.field(
                "mask",
                pa.binary(),
                metadata={"axes": "rows, columns", "dtype": "uint8", "meaning": "1 where the hand is"},
            ),
            pa.field("outline_px", pa.list_(pa.float64()), metadata={"meaning": f"x, y, x, y, … of the file: {_XY}"}),
            pa.field(
                "points",
                pa.list_(pa.float64()),
                metadata={"meaning": f"x, y of {', '.join(POINTS)} of the stored film: {_XY}"},
            ),
            pa.field("age_months", pa.float64(), metadata={"unit": "months", "meaning": "bone age"}),
            pa.field("sex", pa.string(), metadata={"meaning": "F or M"}),
            pa.field("calendar_months", pa.float64(), metadata={"unit": "months"}),
            pa.field("has_mask", pa.int8()),
            pa.field("has_points", pa.int8(), metadata={"meaning": "1 where one of the points is known, or more"}),
            pa.field("pixels_hash", pa.string(), metadata={"meaning": "of the film in grey, before it is shrunk"}),
        ]
    )

    def __post_init__(self) -> None:
        if self.size_px < 64:
            raise ValueError(f"--size-px {self.size_px}: must be at least 64")
        if not self.masks:
            raise ValueError("--masks: needs a folder's name, such as masks")
        check_name("--masks", self.masks)

    @property
    def folder(self) -> str:
        """Name of the shards' folder: of the size in them."""
        return f"{self.size_px}px"

    def settings(self) -> dict[str, Any]:
        """What ``folder`` does not name."""
        return {name: value for name, value in self.preparation().items() if name != "size_px"}

    def scan(self, stream: BinaryIO) -> list[dict[str, Any]]:
        header = read_film_header(stream, self.allow_burned_in)
        return [
            {
                "item_id": header.image_id,
                "patient_id": header.patient_id,
                "sex": header.sex if header.sex in ("F", "M") else None,
                "calendar_months": None if header.age_years is None else round(header.age_years * 12, 3),
                "film_rows": header.rows,
                "film_columns": header.columns,
                "kind": header.kind,
                "mode": header.mode,
            }
        ]

    def encode(self, files: Files, rows: Sequence[dict[str, Any]]) -> list[Encoded]:
        """Of rows of the inventory: "points" and "outline_px" in the file's pixels, or None.

        What is drawn and cannot be used is left out, and a note says so: the film stays.
        """
        film = read_film(files[FILM])
        image = shrunk(film.grey, self.size_px)
        whole, stored = film.grey.shape, image.shape
        found = []
        for row in rows:
            points, about_points = _points(row.get("points"), whole, stored)
            mask, about_mask = _mask(files, row.get("outline_px"), whole, stored)
            columns = {
                "film_rows": whole[0],
                "film_columns": whole[1],
                "rows": stored[0],
                "columns": stored[1],
                "image": image.tobytes(),
                "mask": None if mask is None else mask.tobytes(),
                "points": points,
                "has_mask": int(mask is not None),
                "has_points": int(points is not None),
                "pixels_hash": pixels_hash(film.grey),
            }
            notes = [note for note in (film.repaired, *about_mask, about_points) if note]
            found.append(Encoded(columns, "; ".join(notes) or None))
        return found


Shape = tuple[int, ...]


def _points(
    values: Sequence[float | None] | None, whole: Shape, stored: Shape
) -> tuple[list[float] | None, str | None]:
    """Points of the file as points of the stored film, and why there are none where some were given.

    Args:
        values: six; None, too, is a number that is not known: on its way here a NaN becomes one.
        whole, stored: rows and columns.
    """
    if values is None:
        return None, None
    points = points_of([np.nan if value is None else value for value in values])
    size = np.array(whole[::-1])
    if not np.isfinite(points).any():
        return None, None
    if ((points < -0.5) | (points > size - 0.5)).any():
        return None, "a point lies outside of the film: its points are left out"
    scaled = (points + 0.5) * (np.array(stored[::-1]) / size) - 0.5
    return scaled.ravel().tolist(), None


def _mask(
    files: Files, outline_px: Sequence[float] | None, whole: Shape, stored: Shape
) -> tuple[np.ndarray | None, list[str]]:
    """(rows, columns) uint8 0 and 1 of the stored film, or None; and what is wrong with a file or an outline that is not used.
    A file counts before an outline."""
    notes: list[str] = []
    if MASK in files:
        try:
            return _at(_of_file(files[MASK], whole), stored), notes
        except Unreadable as error:
            notes.append(f"mask: {error}: it is left out")
    if outline_px is not None:
        try:
            return _at(_of_outline(outline_px, whole), stored), notes
        except Unreadable as error:
            notes.append(f"outline: {error}: it is left out")
    return None, notes


def _of_file(data: bytes, whole: Shape) -> np.ndarray:
    mask = read_mask(data)
    ratio = (mask.shape[0] / mask.shape[1]) / (whole[0] / whole[1])
    if abs(ratio - 1) > _PROPORTIONS:
        raise Unreadable(
            f"{mask.shape[1]} × {mask.shape[0]} pixels are other proportions than the film's {whole[1]} × {whole[0]}"
        )
    return mask


def _of_outline(outline_px: Sequence[float], whole: Shape) -> np.ndarray:
    corners = np.asarray(outline_px, dtype=np.float64).reshape(-1, 2)
    if ((corners < -1) | (corners > whole[::-1])).any():  # the annotator's pen may rest on the edge
        raise Unreadable("a corner lies outside of the film")
    mask = np.zeros(whole, np.uint8)
    cv2.fillPoly(mask, [np.rint(corners).astype(np.int32)], 1)
    if mask.mean() < _LEAST_OUTLINE:
        raise Unreadable(f"less than {_LEAST_OUTLINE:.1%} of the film lies within it")
    return mask


def _at(mask: np.ndarray, stored: Shape) -> np.ndarray:
    """A mask in the stored film's pixels. Raises Unreadable where it says nothing there."""
    if mask.shape != stored:
        mask = cv2.resize(mask, (stored[1], stored[0]), interpolation=cv2.INTER_NEAREST_EXACT)
    if mask.all() or not mask.any():
        raise Unreadable("it leaves no pixel inside, or none outside")
    return mask


def source_of(identity: Mapping[str, Any]) -> HandFilm:
    """The source that wrote ``identity``. Raises ValueError for one of another version."""
    if identity.get("version") != HandFilm.version:
        raise ValueError(f"the run was trained on films of version {identity.get('version')}; train it again")
    known = {f.name for f in fields(HandFilm)}
    return HandFilm(**{name: value for name, value in identity.items() if name in known})
