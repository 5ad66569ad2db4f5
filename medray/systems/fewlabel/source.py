"""A CT and what its source has labelled on it → voxels in HU steps, and what each of them may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, BinaryIO, ClassVar

import numpy as np
import pyarrow as pa
import tyro

from medray.imaging.types import Unreadable, Volume
from medray.imaging.volume import read_volume, read_volume_header
from medray.shards.files import Files
from medray.shards.source import Encoded, Source
from medray.systems.fewlabel.possible import set_of
from medray.systems.fewlabel.sources import CT, NONE, Origin
from medray.tasks.ct_rows import (
    BODY_HU,
    DHW,
    FIELDS,
    LOST_ON_GRID,
    check_spacing,
    columns_of,
    on_common_axes,
    on_grid_of,
    places_of,
)

LABELS, SCORED = "labels", "scored"
"""What the names of the files of masks begin with; the label as it is written follows."""
Group = tuple[str, ...]
"""Organs that a source has drawn as one; mostly of one."""
MOST_ORGANS = 60
"""Numbers of masks keep below ``possible.UNTRUE``."""


@dataclass(frozen=True, kw_only=True)
class FewLabelCT(Source):
    """Scans of several sources, each with the organs that its source labels."""

    organs: tyro.conf.Suppress[tuple[str, ...]] = ()  # of all sources; the job sets them, here and below
    origins: tyro.conf.Suppress[tuple[Origin, ...]] = ()
    spacing_mm: tuple[float, float, float] | None = None
    """Resample to this (slices, rows, columns). The scan's own grid where not given: sources of other grids then look unlike."""

    def __post_init__(self) -> None:
        check_spacing(self.spacing_mm)

    id_column: ClassVar[str] = "scan_id"
    version: ClassVar[int] = 4
    rows_per_group: ClassVar[int] = 1
    scan_schema: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("item_id", pa.string(), metadata={"meaning": "of a DICOM file: its SOPInstanceUID"}),
            pa.field("kind", pa.string(), metadata={"meaning": "nifti, nrrd or dicom"}),
            pa.field("series_id", pa.string()),
            pa.field("patient", pa.string(), metadata={"meaning": "of a DICOM file: its PatientID"}),
        ]
    )
    shard_schema: ClassVar[pa.Schema] = pa.schema(
        [
            *FIELDS,
            pa.field("origin", pa.string(), metadata={"meaning": "name of its source"}),
            pa.field("mask", pa.large_binary(), metadata=DHW | {"dtype": "uint8", "meaning": "numbers of sets"}),
            pa.field(
                "sets", pa.list_(pa.int64()), metadata={"meaning": "of each number the classes a voxel may be of, bit by bit"}
            ),
            pa.field("scored", pa.large_binary(), metadata=DHW | {"dtype": "uint8", "meaning": "classes, for scores alone"}),
            pa.field("scored_organs", pa.list_(pa.int8()), metadata={"meaning": "1 of organs that can be scored"}),
            pa.field("organs_ml", pa.list_(pa.float64()), metadata={"unit": "mL", "meaning": "null where not labelled"}),
            pa.field("organs_labelled", pa.int32()),
            pa.field("body_hu", pa.list_(pa.float64()), metadata={"meaning": "5%, middle, 95% of the body without air"}),
        ]
    )  # fmt: skip

    @property
    def folder(self) -> str:
        return "scans"

    def origin(self, name: str) -> Origin:
        return next(one for one in self.origins if one.name == name)

    def scan(self, stream: BinaryIO) -> list[dict[str, Any]]:
        header = read_volume_header(stream, self.allow_burned_in)
        if header.modality not in ("", "CT"):
            raise Unreadable(f"DICOM of modality {header.modality}, not CT")
        return [{
            "item_id": header.slice_id or None, "kind": header.kind, "series_id": header.series_id or None,
            "patient": header.patient_id or None,
        }]  # fmt: skip

    def encode(self, files: Files, rows: Sequence[dict[str, Any]]) -> list[Encoded]:
        return [self._encoded(files, row) for row in rows]

    def _encoded(self, files: Files, row: Mapping[str, Any]) -> Encoded:
        origin, notes = self.origin(row["origin"]), list[str]()
        given = read_volume(files.several(CT), CT)
        found = {kind: self._drawn(kind, files, given, origin) for kind in (LABELS, SCORED)}
        parts = {kind: _apart(own, self._order(kind, origin), notes) for kind, own in found.items() if own is not None}
        flat = {(kind, group): mask for kind, own in parts.items() for group, mask in own.items()}
        scan, turned = on_common_axes(given, {str(i): mask for i, mask in enumerate(flat.values())}, self.spacing_mm)
        for i, (kind, group) in enumerate(flat):
            if str(i) in turned:
                parts[kind][group] = turned[str(i)]
            else:
                del parts[kind][group]
                notes.append(f"{'+'.join(group)}: {LOST_ON_GRID}")
        columns, odd = columns_of(scan, given)
        columns |= self._label_columns(parts.get(LABELS), scan)
        columns |= self._scored_columns(parts.get(SCORED, parts.get(LABELS)), scan.voxels.shape)
        own = scan.voxels[_body(columns)]
        own = own[own > BODY_HU] if (own > BODY_HU).any() else own  # the margin of air about it would say most
        columns["body_hu"] = np.percentile(own, (5, 50, 95)).tolist()
        return Encoded(columns, "; ".join([*notes, *odd]) or None)

    def _order(self, kind: str, origin: Origin) -> Sequence[Group]:
        """Of labels that overlap the first has the voxels."""
        return origin.groups if kind == LABELS else [(organ,) for organ in self.organs]

    def _drawn(self, kind: str, files: Files, scan: Volume, origin: Origin) -> dict[Group, np.ndarray] | None:
        """Group of organs → (D, H, W) bool on the scan's own grid; None where nobody has labelled.

        An organ of which a case has no mask is unknown there; one that is in no voxel of a mask is known to be absent.
        """
        found: dict[Group, np.ndarray] = {}
        written = [name for name in files.named if name.partition(" ")[0] == kind]
        for name in written:
            label = name.partition(" ")[2]
            mask = on_grid_of(scan, read_volume(files.several(name), label or kind), label or kind)
            values = [int(v) if v == int(v) else v for v in np.unique(mask).tolist() if v != 0]
            if label and len(values) > 1:
                raise Unreadable(f"{label}: a mask with the values {values[:4]}: 0 and one other; give a file a label")
            for called, drawn in [(label, mask != 0)] if label else [(str(v), mask == v) for v in values]:
                group = self._organs_of(called, origin, kind)
                if group is None:
                    raise Unreadable(
                        f"label {called} of {origin.name} is declared nowhere; name its organ in mapping, or {called}={NONE}"
                    )
                if group:
                    found[group] = found[group] | drawn if group in found else drawn
            if not label:  # a mask of numbers speaks of all that its source labels
                whole = tuple(g for _, g in origin.scored_mapping if g) if kind == SCORED else ()
                whole = whole or origin.groups
                found |= {group: np.zeros(mask.shape, bool) for group in whole if group not in found}
        return found if written else None

    def _organs_of(self, label: str, origin: Origin, kind: str) -> tuple[str, ...] | None:
        organs = origin.organs_of(label, kind == SCORED)
        if organs is None and kind == SCORED:  # for scores any organ of the run may be there, and others do not matter
            return next(((organ,) for organ in self.organs if organ.lower() == label.lower()), ())
        return organs

    def _label_columns(self, own: Mapping[Group, np.ndarray] | None, scan: Volume) -> dict[str, Any]:
        """What each voxel may be: where an organ is labelled in a case, all other voxels are known not to be it."""
        if not own:
            nothing = {"mask": None, "sets": None, "organs_ml": [None] * len(self.organs), "organs_labelled": 0}
            return nothing | places_of({})
        number_of = {organ: number for number, organ in enumerate(self.organs, 1)}
        labelled = {organ for group in own for organ in group}
        rest = set_of([0, *(number for organ, number in number_of.items() if organ not in labelled)])
        mask = np.zeros(scan.voxels.shape, np.uint8)
        for number, drawn in enumerate(own.values(), 1):
            mask[drawn] = number
        ml = {group[0]: float(drawn.sum()) * scan.voxel_mm3 / 1000 for group, drawn in own.items() if len(group) == 1}
        return {
            "mask": mask.tobytes(), "sets": [rest, *(set_of([number_of[organ] for organ in group]) for group in own)],
            "organs_ml": [ml.get(organ) for organ in self.organs], "organs_labelled": len(labelled),
            **places_of({number_of[group[0]]: drawn for group, drawn in own.items() if drawn.any()}),
        }  # fmt: skip

    def _scored_columns(self, found: Mapping[Group, np.ndarray] | None, shape: tuple[int, ...]) -> dict[str, Any]:
        """Classes for scores: of the masks for scores, or else of the labels; groups that were drawn as one are not scored."""
        known = [int(found is not None and (organ,) in found) for organ in self.organs]
        mask = np.zeros(shape, np.uint8)
        for number, organ in enumerate(self.organs, 1):
            if found is not None and (organ,) in found:
                mask[found[organ,]] = number
        return {"scored": mask.tobytes() if any(known) else None, "scored_organs": known}


def _apart(found: Mapping[Group, np.ndarray], order: Sequence[Group], notes: list[str]) -> dict[Group, np.ndarray]:
    """Each voxel of one group, in this order: the first has what labels share."""
    taken: np.ndarray | None = None
    out, twice = {}, 0
    for group in [group for group in order if group in found]:
        mask = found[group]
        if taken is not None:
            twice += int((mask & taken).sum())
            mask = mask & ~taken
        taken = mask if taken is None else taken | mask
        out[group] = mask
    if twice:
        notes.append(f"labels overlap in {twice:,} voxels: the first of the source's organs has them")
    return out


def _body(columns: Mapping[str, Any]) -> np.ndarray:
    shape = tuple(columns["shape_DHW"])
    bits = np.unpackbits(np.frombuffer(columns["brain"], np.uint8), count=int(np.prod(shape)))
    return bits.reshape(shape).astype(bool)


def source_of(identity: Mapping[str, Any]) -> FewLabelCT:
    """The source that wrote ``identity``. Raises ValueError for one of another version."""
    if identity.get("version") != FewLabelCT.version:
        raise ValueError(f"the run was trained on scans of version {identity.get('version')}; train it again")
    known = {f.name for f in fields(FewLabelCT)}
    values: dict[str, Any] = {k: _tuples(v) for k, v in identity.items() if k in known}
    origins = tuple(
        Origin(one["name"], *(_tuples(one[part]) for part in ("organs", "mapping", "scored_mapping")))
        for one in identity.get("origins", ())
    )
    return FewLabelCT(**values | {"origins": origins})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(one) for one in value) if isinstance(value, list | tuple) else value
