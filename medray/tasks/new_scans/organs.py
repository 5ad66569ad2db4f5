"""The organs of a finished run's networks in new CTs: a piece of work is a scan."""

from __future__ import annotations

import textwrap
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from medray.imaging.types import Volume
from medray.imaging.volume import read_volume
from medray.imaging.volume_grid import reoriented, turned_back
from medray.report.organ_slices import slices_of, with_text
from medray.shards.files import paths_of, read_files
from medray.shards.inventory import Inventory
from medray.shards.source import Source
from medray.shards.store import Store, reason
from medray.tasks.contour_files import on_grid_of_file, write_contours
from medray.tasks.ct_rows import AIR_HU, AXES, MOST_HU
from medray.tasks.derivation import Networks, OutputsOf
from medray.tasks.organs import OrgansTask
from medray.tasks.task import Task
from medray.tasks.volume_rows import probability_of

CT = "ct"
LEAST_PX = 360
"""A picture's width: of a scout one sees little, and reads why."""
_LETTER_PX, _LINE_PX = 9, 26

_ORGAN = pa.struct([("organ", pa.string()), ("ml", pa.float64()), ("cut", pa.bool_())])
SCHEMA = pa.schema(
    [
        ("scan_id", pa.string()), ("patient_id", pa.string()), ("visit", pa.string()), ("name", pa.string()),
        pa.field("organs", pa.list_(_ORGAN), metadata={"meaning": "all; cut where a voxel is at an edge of the image"}),
        pa.field("files", pa.int32(), metadata={"meaning": "how many were written"}),
        ("seconds", pa.float64()), ("note", pa.string()), ("reason", pa.string()), ("pixels_hash", pa.string()),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class NewScan:
    """A piece of work."""

    number: int  # from 1
    row: dict[str, Any]  # of an inventory

    @property
    def name(self) -> str:
        """What its files begin with: no identifier, which may be one that no path may hold."""
        return f"scan{self.number:05d}"


def scans_of(inventory: Inventory) -> list[NewScan]:
    """In the order of their identifiers."""
    rows = inventory.rows.sort_values(["patient_id", "scan_id"], kind="stable").to_dict("records")
    return [NewScan(number, row) for number, row in enumerate(rows, start=1)]


@dataclass(frozen=True)
class NewOrgans(ABC):
    """New scans through the network of every fold: an ``OfFiles``. Probabilities are the mean over the folds."""

    method: dict[str, Any]  # method.json
    source: Source
    folder: Store
    pages: int  # so many scans get a picture
    caution: str = ""

    @property
    @abstractmethod
    def runs(self) -> list[tuple[str, int, type[Task]]]:
        """Name, fold and kind of the finished runs that are asked."""

    @property
    def small(self) -> list[str]:
        """Organs of which a picture shows one from near."""
        return list(self.method["small"])

    def asked(self, task: OrgansTask, fold: int) -> OrgansTask:
        """The task of a fold's run, as it is to answer."""
        return task

    def read(self, piece: NewScan, each: Callable[..., Any]) -> tuple[dict[str, Any], Volume, list[bytes]] | str:
        """The row of shards, the CT as its files have it, and their bytes; or why there is none."""
        try:
            files = read_files(self.folder, paths_of(piece.row))
            (encoded,) = self.source.encode(files, [piece.row])
            assert encoded.columns is not None
            row = piece.row | encoded.columns | {"note": encoded.note}
            return row, read_volume(files.several(CT), CT), files.several(CT)
        except (ValueError, OSError) as error:
            return reason(error)

    def answer(self, networks: Networks, piece: NewScan, read: Any, outputs_of: OutputsOf, to: Store) -> pa.Table:
        if isinstance(read, str):
            return self.refused(piece, read)
        start = time.perf_counter()
        row, like, files = read
        masks = _masks(*self._ask(networks, row, outputs_of), row, like)
        # a start with another run that was killed may have drawn an organ that this one does not find
        to.sub(piece.name).clear()
        for kind in ("_rtstruct.dcm", "_seg.dcm"):
            to.delete(f"{piece.name}{kind}")
        why_not = write_contours(to, piece.name, masks, like, files)
        found = sum(bool(mask.any()) for mask in masks.values())
        if piece.number <= self.pages:
            to.write_bytes(f"{piece.name}.png", self._picture(piece.name, masks, like))
        about = _about(piece) | {
            "organs": [
                {"organ": organ, "ml": float(mask.sum()) * like.voxel_mm3 / 1000, "cut": at_edge(mask)}
                for organ, mask in masks.items()
            ],
            "files": found + (2 - len(why_not) if found and like.kind == "dicom" else 0),
            "note": "; ".join([*([row["note"]] if row["note"] else []), *why_not]) or None,
            "pixels_hash": row["pixels_hash"],
            "seconds": time.perf_counter() - start,
        }
        return pa.Table.from_pylist([about], schema=SCHEMA)

    def refused(self, piece: NewScan, why: str) -> pa.Table:
        return pa.Table.from_pylist([_about(piece) | {"reason": why}], schema=SCHEMA)

    def _ask(self, networks: Networks, row: dict[str, Any], outputs_of: OutputsOf) -> tuple[OrgansTask, np.ndarray]:
        """The task of a fold, and the probabilities (organs, D, H, W) float32 on the grid of the row."""
        total: Any = 0
        for name, fold, _ in self.runs:
            task, network = networks[name, fold]
            asked = replace(self.asked(task.reading(self.source), fold), keep="uint8")  # as for held-out scans
            (out,) = outputs_of(asked, network, [row]).to_dict("records")
            total = total + probability_of(out)
        return asked, total / np.float32(len(self.runs))

    def _picture(self, name: str, masks: Mapping[str, np.ndarray], like: Volume) -> bytes:
        """What was written: as ``slices_of`` shows it."""
        upright = reoriented(like, AXES)
        image = (np.clip(upright.voxels, AIR_HU, MOST_HU).astype(np.float32) - AIR_HU) / 1000
        found = {organ: reoriented(Volume(mask, like.affine), AXES).voxels for organ, mask in masks.items()}
        slices = slices_of(image, {}, found, upright.spacing_mm, self.small, name)
        missing = [organ for organ, mask in masks.items() if not mask.any()]
        tiles = [with_text(one.image, one.lines[0].partition(" of ")[0].partition(",")[0]) for one in slices]
        tiles.append(
            np.zeros((*tiles[0].shape[:1], max(0, LEAST_PX - sum(tile.shape[1] for tile in tiles)), 3), np.uint8)
        )
        width = sum(tile.shape[1] for tile in tiles)
        words = [f"{name}: {len(masks) - len(missing)} of {len(masks)} organs found"]
        words += [f"not found: {', '.join(missing)}"] if missing else []
        words += [": ".join(filter(None, one.lines)) for one in slices]
        words += [self.caution] if self.caution else []
        words += ["the patient's right is on the left"]
        lines = [line for text in words for line in textwrap.wrap(text, width // _LETTER_PX)]
        strips = [with_text(np.zeros((_LINE_PX, width, 3), np.uint8), line) for line in lines]
        return cv2.imencode(".png", np.vstack([*strips, np.hstack(tiles)])[..., ::-1])[1].tobytes()


def _masks(task: OrgansTask, probability: np.ndarray, row: Mapping[str, Any], like: Volume) -> dict[str, np.ndarray]:
    """Organ → (D, H, W) bool with the axes of the file, on its grid. Where the run has another grid, probabilities are brought
    back: outlines come back smooth, of a mask in steps."""
    grid = Volume(np.zeros(probability.shape[1:], np.uint8), np.array(row["affine"], dtype=float).reshape(4, 4))

    def each() -> Iterator[np.ndarray]:
        for one in probability:
            yield on_grid_of_file(one, grid, like)

    return {organ: turned_back(mask, like, AXES) for organ, mask in task.organs_in(each()).items()}


def at_edge(mask: np.ndarray) -> bool:
    """Whether a voxel of (D, H, W) bool is on the first or last slice, row or column."""
    return any(bool(mask.take(end, axis).any()) for axis in range(3) for end in (0, -1))


def _about(piece: NewScan) -> dict[str, Any]:
    return {key: piece.row[key] for key in ("scan_id", "patient_id", "visit")} | {"name": piece.name}
