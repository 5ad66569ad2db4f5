"""The answer of a finished run for scans that are not of its folds: a piece of work is a patient, with all visits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from medray.imaging.types import Unreadable, Volume
from medray.imaging.volume import read_volume
from medray.imaging.volume_grid import canonical, resampled, same_grid, turned_back
from medray.metrics.change import ChangeRules, changes
from medray.metrics.lesions import Components, Rules
from medray.shards.files import Files, paths_of, read_files
from medray.shards.store import Store, read_file, reason
from medray.systems.lesion.masks import scores
from medray.systems.lesion.nifti import on_own_grid
from medray.systems.lesion.report.pictures import draw, greys, place_of
from medray.systems.lesion.source import BrainMR
from medray.systems.lesion.task import LesionTask
from medray.tasks.derivation import Networks, OutputsOf
from medray.tasks.task import Task
from medray.tasks.volume_rows import probability_of, whole

OTHER_GRID = "the visits are on other grids: register them, and the changes are computed"

_FINDING = pa.struct(
    [
        ("mm3", pa.float64()), ("score", pa.float64()), ("site", pa.string()), ("class", pa.string()),
        *((f"{axis}_mm", pa.float64()) for axis in "xyz"),
    ]
)  # fmt: skip
_CHANGE = pa.struct(
    [
        ("kind", pa.string()), ("before_mm3", pa.float64()), ("after_mm3", pa.float64()),
        *((f"{axis}_mm", pa.float64()) for axis in "xyz"),
    ]
)  # fmt: skip
SCHEMA = pa.schema(
    [
        ("scan_id", pa.string()), ("patient_id", pa.string()), ("visit", pa.string()), ("name", pa.string()),
        ("ml", pa.float64()), ("note", pa.string()), ("reason", pa.string()), ("pixels_hash", pa.string()),
        ("findings", pa.list_(_FINDING)), ("before", pa.string()), ("changes", pa.list_(_CHANGE)),
        ("no_change", pa.string()),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Patient:
    """A piece of work: rows of an inventory, the visits in order. Its files are named by the numbers of scans."""

    first: int  # number of its first scan, from 1
    visits: list[dict[str, Any]]

    @property
    def name(self) -> str:
        return f"patient{self.first:05d}"

    @property
    def names(self) -> list[str]:
        """What the files of each visit begin with: no identifier, which may be one that no path may hold."""
        return [f"scan{self.first + i:05d}" for i in range(len(self.visits))]


@dataclass(frozen=True)
class NewScans:
    """New scans through the network of every fold: an ``OfFiles``. Probabilities are the mean over the folds."""

    method: dict[str, Any]  # method.json
    source: BrainMR
    folder: Store
    pages: int  # so many scans get a picture
    caution: str = ""
    atlas: Volume | None = None  # label map of sites, in the scans' own space
    sites: Mapping[int, str] = field(default_factory=dict)
    change: ChangeRules = field(default_factory=ChangeRules)

    @property
    def runs(self) -> list[tuple[str, int, type[Task]]]:
        return [(self.method["runs"], fold, LesionTask) for fold in self.method["folds"]]

    @property
    def threshold(self) -> float:
        return float(np.mean(list(self.method["thresholds"].values())))

    def read(self, piece: Patient, each: Callable[..., Any]) -> list[tuple[dict[str, Any] | None, Any, Files | None]]:
        """Of each visit the row of shards, or why there is none; the first channel as its file has it; the files."""

        def one(row: dict[str, Any]) -> tuple[dict[str, Any] | None, Any, Files | None]:
            try:
                files = read_files(self.folder, paths_of(row))
                (encoded,) = self.source.encode(files, [row])
                assert encoded.columns is not None
                first = next(name for name in self.source.channels if name in files)
                found = row | encoded.columns | {"note": encoded.note}
                return found, read_volume(files.several(first)), Files({first: files.several(first)})
            except (ValueError, OSError) as error:
                return None, reason(error), None

        return list(each(one, piece.visits))

    def answer(self, networks: Networks, piece: Patient, read: Any, outputs_of: OutputsOf, to: Store) -> pa.Table:
        rows: list[dict[str, Any]] = []
        before: tuple[str, np.ndarray, Volume] | None = None
        for name, visit, (row, like, files) in zip(piece.names, piece.visits, read, strict=True):
            about = {key: visit[key] for key in ("scan_id", "patient_id", "visit")} | {"name": name}
            if row is None:
                rows.append(about | {"reason": like})
                continue
            task = networks[self.runs[0][:2]][0]
            mask, probability, spacing_mm = self._ask(networks, row, outputs_of)
            upright = canonical(like)
            notes = [row["note"]] if row["note"] else []
            notes += self._write(to, name, mask, probability, like, files, task.classes)
            rules = Rules(**self.method["rules"])
            found = scores(mask, np.rint(probability * 255).astype(np.uint8), None, spacing_mm, rules)
            sites = self._sites(mask, upright, rules)
            if self.atlas is not None and sites and not any(sites):
                notes.append("--atlas has no site where this scan's lesions are; is it in the scan's space?")
            findings = [
                {"mm3": one["mm3"], "score": one["score"], "site": site, "class": task.classes[one["class_number"] - 1]}
                | _place(one["centre_DHW"], upright)
                for one, site in zip(found["findings"], sites, strict=True)
            ]
            about |= {"ml": found["ml"], "findings": findings, "pixels_hash": row["pixels_hash"]}
            about |= self._changes(before, mask, upright)
            rows.append(about | {"note": "; ".join(notes) or None})
            before = visit["visit"], mask != 0, upright
            if int(name.removeprefix("scan")) <= self.pages:
                to.write_bytes(f"{name}.png", self._picture(row, mask, about))
        return pa.Table.from_pylist(rows, schema=SCHEMA)

    def refused(self, piece: Patient, why: str) -> pa.Table:
        rows = [
            {key: visit[key] for key in ("scan_id", "patient_id", "visit")} | {"name": name, "reason": why}
            for name, visit in zip(piece.names, piece.visits, strict=True)
        ]
        return pa.Table.from_pylist(rows, schema=SCHEMA)

    def _ask(
        self, networks: Networks, row: dict[str, Any], outputs_of: OutputsOf
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mask (D, H, W) uint8, its probability (D, H, W) float32, spacing."""
        total: Any = 0
        row = {**row, "mask": None, "foreground": None}
        for name, fold, _ in self.runs:
            task, network = networks[name, fold]
            asked = replace(task.reading(self.source), keep="uint8")  # as for held-out scans
            (out,) = outputs_of(asked, network, [row]).to_dict("records")
            total = total + probability_of(out)
        found = total / len(self.runs)
        spacing_mm = np.asarray(row["spacing_mm"], np.float64)
        best = found.max(0)
        mask = np.where(best >= self.threshold, found.argmax(0) + 1, 0).astype(np.uint8)
        return asked.finished(mask, spacing_mm), best, spacing_mm

    def _write(
        self,
        to: Store,
        name: str,
        mask: np.ndarray,
        probability: np.ndarray,
        like: Volume,
        files: Files | None,
        names: Sequence[str],
    ) -> list[str]:
        to.write_bytes(f"{name}_mask.nii.gz", on_own_grid(mask, like))
        to.write_bytes(f"{name}_probability.nii.gz", on_own_grid(probability.astype(np.float32), like))
        if like.kind != "dicom" or files is None:
            return []
        from medray.imaging.volume_seg import MS_LESION, dicom_seg  # highdicom takes seconds

        (own,) = files.named.values()
        classes = [replace(MS_LESION, label=name) for name in names] if len(names) > 1 else [MS_LESION]
        try:
            to.write_bytes(f"{name}_seg.dcm", dicom_seg(turned_back(mask, like), like, list(own), classes))
        except ValueError as error:
            return [f"no DICOM SEG: {reason(error)}"]
        return []

    def _sites(self, mask: np.ndarray, upright: Volume, rules: Rules) -> list[str | None]:
        components = Components.of(mask != 0, upright.voxel_mm3, rules.connectivity, rules.least_predicted_mm3)
        if self.atlas is None:
            return [None] * len(components)
        here = resampled(canonical(self.atlas), upright, order=0).voxels.astype(np.int64)
        # 0 is no site
        return [self.sites.get(int(value), str(int(value)) if value else None) for value in components.sites(here)]

    def _changes(
        self, before: tuple[str, np.ndarray, Volume] | None, mask: np.ndarray, upright: Volume
    ) -> dict[str, Any]:
        if before is None:
            return {}
        visit, was, grid = before
        if not same_grid(grid, upright):
            return {"before": visit, "no_change": OTHER_GRID}
        found = [
            {"kind": one.kind, "before_mm3": one.before_mm3, "after_mm3": one.after_mm3} | _place(one.centre, upright)
            for one in changes(was, mask != 0, upright.voxel_mm3, self.change)
        ]
        return {"before": visit, "changes": found}

    def _picture(self, row: dict[str, Any], mask: np.ndarray, about: dict[str, Any]) -> bytes:
        """The quality page of a scan: every channel at the slice with most lesion, or most brain, outlined."""
        channels, found = whole(row), mask != 0
        at = place_of(found, (channels != 0).any(0))
        tiles = []
        for channel, name in zip(channels, self.source.stored_channels, strict=True):
            tile = draw(greys(channel)[:, :, at], np.zeros(found.shape[:2], bool), found[:, :, at], row["spacing_mm"])
            tiles.append(_with_text(tile, name if channel.any() else f"{name}: nothing there"))
        width = sum(tile.shape[1] for tile in tiles)
        size = f"{about['ml']:.2f} mL, {len(about['findings'])} lesions"
        lines = [
            f"{about['name']}, slice {at + 1} of {mask.shape[2]}: {size}",
            *([self.caution] if self.caution else []),
        ]
        lines.append("the patient's right is on the left")
        page = np.vstack([*(_with_text(np.zeros((26, width, 3), np.uint8), line) for line in lines), np.hstack(tiles)])
        return cv2.imencode(".png", page[..., ::-1])[1].tobytes()


def _with_text(image: np.ndarray, text: str) -> np.ndarray:
    """With white letters in the upper left corner."""
    shown = text.encode("ascii", "replace").decode()
    return np.asarray(cv2.putText(image.copy(), shown, (8, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1))


def read_atlas(uri: str) -> Volume:
    """A label map of sites. Raises ValueError where it cannot be read, or holds other than whole numbers."""
    try:
        atlas = read_volume(read_file(uri), "--atlas")
    except Unreadable as error:
        raise ValueError(f"--atlas {uri}: {error}") from None
    odd = atlas.voxels[atlas.voxels != np.rint(atlas.voxels)]
    if odd.size:
        raise ValueError(f"--atlas {uri}: holds {odd[0]:g}: a label map has whole numbers; save it as one")
    return atlas


def _place(centre: Sequence[float], grid: Volume) -> dict[str, float]:
    """In mm towards right, front and head (RAS+), of an index of the grid."""
    place = grid.affine @ np.array([*centre, 1.0])
    return {f"{axis}_mm": float(value) for axis, value in zip("xyz", place, strict=False)}
