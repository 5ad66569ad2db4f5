"""Planning CT with its organs, as masks or as a structure set → voxels in HU steps, and which organs each voxel is of."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, BinaryIO, ClassVar

import numpy as np
import pyarrow as pa
import tyro

from medray.imaging.contours import Slices
from medray.imaging.elements import begins_like_dicom
from medray.imaging.structure_set import TWICE, StructureSet, is_structure_set, read_structure_set
from medray.imaging.types import Unreadable, Volume
from medray.imaging.volume import read_volume, read_volume_header
from medray.shards.files import Files
from medray.shards.source import Encoded, Source
from medray.systems.headneck.names import organ_of, own_names
from medray.tasks.ct_rows import (
    DHW,
    FIELDS,
    LOST_ON_GRID,
    check_spacing,
    columns_of,
    on_common_axes,
    on_grid_of,
    places_of,
)
from medray.tasks.volume_rows import UNKNOWN

CT, STRUCTURES = "ct", "structures"
BETWEEN = "\\"
"""Several series that a structure set was drawn on."""
MOST_ORGANS = 62
BY_PROGRAM = "contours that a program found, as their structure set says: a network learns its errors where nobody has corrected them"
MOST_LOST = 0.25
"""Part of an organ's contours, or of its slices, that may be missing."""


@dataclass(frozen=True, kw_only=True)
class PlanningCT(Source):
    """A CT and what is drawn on it. What nobody has drawn in a case is unknown there, and no background."""

    organs: tyro.conf.Suppress[tuple[str, ...]] = ()  # TG-263 names; the job sets them
    names: tuple[str, ...] = ()
    """Organs of names that the table does not know, as written=organ: "Ohrspeichel re=Parotid_R"."""
    spacing_mm: tuple[float, float, float] | None = None
    """Resample to this (slices, rows, columns): 2.5 1 1 is the source's. The scan's own grid where not given."""

    def __post_init__(self) -> None:
        check_spacing(self.spacing_mm)

    id_column: ClassVar[str] = "scan_id"
    version: ClassVar[int] = 3
    rows_per_group: ClassVar[int] = 1
    scan_schema: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("item_id", pa.string(), metadata={"meaning": "of a DICOM file: its SOPInstanceUID"}),
            pa.field("kind", pa.string(), metadata={"meaning": "nifti, nrrd, dicom or structures"}),
            pa.field("series_id", pa.string(), metadata={"meaning": "its own; of structures, that of their images"}),
            pa.field("patient", pa.string()),
            pa.field("drawn", pa.list_(pa.string()), metadata={"meaning": "of structures: their names"}),
        ]
    )
    shard_schema: ClassVar[pa.Schema] = pa.schema(
        [
            *FIELDS,
            pa.field("mask", pa.large_binary(), metadata=DHW | {"dtype": "uint8", "meaning": "numbers of sets"}),
            pa.field("sets", pa.list_(pa.int64()), metadata={"meaning": "of each number the organs in it, bit by bit"}),
            pa.field("drawn", pa.list_(pa.int8()), metadata={"meaning": "1 of organs that are drawn in this case"}),
            pa.field("organs_ml", pa.list_(pa.float64()), metadata={"unit": "mL", "meaning": "null where not drawn"}),
            pa.field("organs_drawn", pa.int32()),
        ]
    )  # fmt: skip

    @property
    def folder(self) -> str:
        return "scans"

    @property
    def own_names(self) -> dict[str, str]:
        """As it is written → organ. Raises ValueError for what is no pair."""
        return own_names(self.names)

    def scan(self, stream: BinaryIO) -> list[dict[str, Any]]:
        first = stream.read(2048)
        stream.seek(0)
        if begins_like_dicom(first) and is_structure_set(first):
            found = read_structure_set(stream.read())
            series = BETWEEN.join(sorted(found.series_ids)) or None  # of a CT and what was registered to it
            return [{
                "item_id": None, "kind": STRUCTURES, "series_id": series, "patient": found.patient_id or None,
                "drawn": [one.name for one in found.structures if one.contours_mm],
            }]  # fmt: skip
        header = read_volume_header(stream, self.allow_burned_in)
        if header.modality not in ("", "CT"):  # a plan's folder holds its MR and PET too
            raise Unreadable(f"DICOM of modality {header.modality}, not CT")
        return [{
            "item_id": header.slice_id or None, "kind": header.kind, "series_id": header.series_id or None,
            "patient": header.patient_id or None, "drawn": None,
        }]  # fmt: skip

    def encode(self, files: Files, rows: Sequence[dict[str, Any]]) -> list[Encoded]:
        given = read_volume(files.several(CT), CT)
        masks, notes = self._masks(files, given)
        drawn = [*masks]
        scan, masks = on_common_axes(given, masks, self.spacing_mm)
        notes += [f"{organ}: {LOST_ON_GRID}" for organ in drawn if organ not in masks]
        columns, odd = columns_of(scan, given)
        columns |= self._columns(masks, scan.voxels.shape, scan.voxel_mm3)
        notes += odd
        return [Encoded(columns, "; ".join(notes) or None)] * len(rows)

    def _masks(self, files: Files, scan: Volume) -> tuple[dict[str, np.ndarray], list[str]]:
        """Organ → (D, H, W) bool on the scan's own grid; what was left out, and why. An empty one is not drawn."""
        masks: dict[str, np.ndarray] = {}
        notes: list[str] = []
        if STRUCTURES in files:
            found = read_structure_set(files[STRUCTURES])
            header = read_volume_header(io.BytesIO(files.several(CT)[0]))
            frame = header.frame_of_reference_id
            if header.series_id and found.series_ids and header.series_id not in found.series_ids:
                raise Unreadable("the structure set was drawn on another series than this CT; give its own")
            if header.patient_id and found.patient_id and header.patient_id != found.patient_id:
                raise Unreadable("the structure set names another patient than the CT; give its own")
            if frame and found.frame_of_reference_ids and frame not in found.frame_of_reference_ids:
                raise Unreadable("the structure set is of another frame of reference than the CT; give its own")
            masks, notes = self._drawn(found, scan)
        for organ in self.organs:
            if organ not in files:
                continue
            mask = on_grid_of(scan, read_volume(files.several(organ), organ), organ)
            values = np.unique(mask)
            if len(values) > 2 or (len(values) == 2 and 0 not in values):
                raise Unreadable(
                    f"{organ}: a mask with the values {values[:4].tolist()}: 0 and one other; give a file an organ"
                )
            masks[organ] = mask > 0
        for organ in [organ for organ, mask in masks.items() if not mask.any()]:
            notes.append(f"{organ}: an empty mask; taken as not drawn")
            del masks[organ]
        return masks, notes

    def _drawn(self, found: StructureSet, scan: Volume) -> tuple[dict[str, np.ndarray], list[str]]:
        slices, masks, notes = Slices.of(scan), {}, []
        for structure in found.structures:
            organ = organ_of(structure.name, self.own_names)
            if organ not in self.organs:
                continue
            if not structure.contours_mm:
                if structure.left_out:
                    notes.append(f"{organ}: {_said(structure.left_out)}; taken as not drawn")
                continue
            mask, why = structure.mask(slices)
            if organ in masks:
                raise Unreadable(f"{organ}: two structures of it; leave one, or name them in --names")
            no_contours = sum(structure.left_out.values())  # points and lines, of which there may be any number
            lost = sum(count for reason, count in why.items() if not reason.startswith(("cut", TWICE))) - no_contours
            if structure.contours_mm and lost >= len(structure.contours_mm):
                raise Unreadable(
                    f"{organ}: none of its contours lies on this CT ({_said(why)}); give its own structure set"
                )
            if why:
                notes.append(f"{organ}: {_said(why)}")
            if why_not := _in_part(mask, lost, len(structure.contours_mm)):
                notes.append(f"{organ}: {why_not}; taken as not drawn")
                continue
            masks[organ] = mask
        if any(one.automatic and organ_of(one.name, self.own_names) in masks for one in found.structures):
            notes.append(BY_PROGRAM)
        return masks, notes

    def _columns(self, masks: Mapping[str, np.ndarray], shape: tuple[int, ...], voxel_mm3: float) -> dict[str, Any]:
        drawn = [int(organ in masks) for organ in self.organs]
        if not any(drawn):
            names = ("mask", "sets", "foreground", "foreground_class")
            return dict.fromkeys(names) | {"drawn": drawn, "organs_ml": [None] * len(drawn), "organs_drawn": 0}
        sets, mask = _numbered_sets({k: masks[o] for k, o in enumerate(self.organs) if o in masks}, shape)
        if len(sets) >= UNKNOWN:
            raise Unreadable(f"organs that overlap in {len(sets)} ways; at most {UNKNOWN - 1}: draw them apart")
        return {
            "mask": mask.tobytes(), "sets": sets, "drawn": drawn,
            **places_of({k + 1: masks[organ] for k, organ in enumerate(self.organs) if organ in masks}),
            "organs_ml": [float(masks[o].sum()) * voxel_mm3 / 1000 if o in masks else None for o in self.organs],
            "organs_drawn": sum(drawn),
        }  # fmt: skip


def _numbered_sets(masks: Mapping[int, np.ndarray], shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(n,) int64 sets of organs, bit by bit, rising from 0, of none; (D, H, W) uint8: of each voxel the number of its set.

    Of the voxels that are of an organ alone: 64 bits of every voxel of a planning CT would be gigabytes.
    """
    places = np.flatnonzero(np.logical_or.reduce([*masks.values()]))
    bits = np.zeros(len(places), np.int64)
    for k, mask in masks.items():
        bits |= mask.reshape(-1)[places].astype(np.int64) << k
    sets, numbers = np.unique(np.append(0, bits), return_inverse=True)
    out = np.zeros(shape, np.uint8)
    out.reshape(-1)[places] = numbers[1:]
    return sets, out


def _in_part(mask: np.ndarray, lost: int, contours: int) -> str | None:
    """Why a structure is not the whole organ: it would teach that the rest of it is none."""
    if lost > MOST_LOST * contours:
        return f"{lost} of {contours} contours are lost"
    slices = np.flatnonzero(mask.any((1, 2)))
    if not len(slices):
        return None  # said elsewhere
    gaps = int(np.ptp(slices)) + 1 - len(slices)
    return f"{gaps} slices between its contours have none" if gaps > MOST_LOST * len(slices) else None


def _said(why: Mapping[str, int]) -> str:
    return ", ".join(f"{count} contours: {reason}" for reason, count in why.items())


def source_of(identity: Mapping[str, Any]) -> PlanningCT:
    """The source that wrote ``identity``. Raises ValueError for one of another version."""
    if identity.get("version") != PlanningCT.version:
        raise ValueError(f"the run was trained on scans of version {identity.get('version')}; train it again")
    known = {f.name for f in fields(PlanningCT)}
    values: dict[str, Any] = {k: _tuples(v) for k, v in identity.items() if k in known}
    return PlanningCT(**values)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(one) for one in value) if isinstance(value, list) else value
