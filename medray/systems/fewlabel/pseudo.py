"""Pseudo-labels: what a network of one source finds in another source's scans, and rows to learn from that hold both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy import ndimage

from medray.imaging.types import Unreadable, Volume
from medray.imaging.volume import read_volume
from medray.shards.store import Store
from medray.systems.fewlabel.methods import ApartTask
from medray.systems.fewlabel.possible import set_of, with_pseudo
from medray.systems.fewlabel.source import FewLabelCT
from medray.tasks.ct_rows import DHW, on_grid_of, places_of
from medray.tasks.volume_rows import mask_of, probability_of

Region = Literal["band", "everywhere"]
SCHEMA = pa.schema(
    [
        pa.field("scan_id", pa.string(), nullable=False),
        pa.field("patient_id", pa.string()),
        pa.field("shape_DHW", pa.list_(pa.int32())),
        pa.field("pseudo", pa.large_binary(), metadata=DHW | {"dtype": "uint8", "meaning": "classes, 0 where none"}),
        pa.field("confidence", pa.list_(pa.float32()), metadata={"meaning": "of each organ its mean probability; null where none"}),
        pa.field("told", pa.list_(pa.int8()), metadata={"meaning": "1 of organs that a network was taught"}),
        pa.field("pseudo_ml", pa.list_(pa.float64()), metadata={"unit": "mL"}),
        pa.field("dice", pa.list_(pa.float64()), metadata={"meaning": "against what can be scored; for the report alone"}),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class PseudoLabels:
    """Of every scan the organs that the networks of all sources find, the most probable one in each voxel: a derivation."""

    threshold: float = 0.5
    """From this probability on a voxel has a pseudo-label."""

    id_column: ClassVar[str] = "scan_id"

    def identity(self) -> dict[str, Any]:
        return {"pseudo-labels": 2, "threshold": self.threshold}

    def outputs(self, task: ApartTask, network: Any, batch: dict[str, Any]) -> dict[str, Any]:
        asked = replace(task, keep="uint8", threshold=self.threshold)
        found = asked.outputs(network, batch)
        told = [int(asked.is_told(organ)) for organ in task.organs]
        columns: dict[str, Any] = {name: found[name] for name in ("scan_id", "patient_id", "shape_DHW")}
        for name in ("pseudo", "confidence", "pseudo_ml", "dice", "told"):
            columns[name] = np.empty(len(found["scan_id"]), dtype=object)
        for i in range(len(found["scan_id"])):
            row = {name: values[i] for name, values in found.items()}
            # what the scan's own source knows that a voxel is not hides nothing that it may be
            may_be, probability = np.asarray(batch["may_be"][i]), probability_of(row)
            open_to = (p * ((may_be >> k) & 1) for k, p in enumerate(probability, 1))
            organs = list(asked.organs_in(open_to).values())
            pseudo = np.zeros(may_be.shape, np.uint8)
            for number, one in enumerate(organs, 1):
                pseudo[one] = number
            columns["pseudo"][i] = pseudo.tobytes()
            columns["confidence"][i] = [
                float(p[one].mean()) if one.any() else None for p, one in zip(probability, organs, strict=True)
            ]
            ml = float(np.prod(batch["spacing_mm"][i])) / 1000
            drawn = task.drawn_in(batch, i)
            columns["dice"][i] = [_dice(one, *drawn.of(number)) for number, one in enumerate(organs, 1)]
            columns["told"][i] = told
            columns["pseudo_ml"][i] = [float(one.sum()) * ml for one in organs]
        return columns

    def pack(self, outputs: pd.DataFrame) -> pa.Table:
        return pa.Table.from_pylist(outputs[SCHEMA.names].to_dict("records"), schema=SCHEMA)


def _dice(found: np.ndarray, drawn: np.ndarray, known: np.ndarray) -> float:
    """NaN where it is not known, or nowhere."""
    total = int(drawn[known].sum()) + int(found[known].sum())
    return 2 * int((found & drawn & known).sum()) / total if total else float("nan")


@dataclass(frozen=True)
class Merged:
    """Rows to learn from: of each scan the true labels, the pseudo-labels where none tells, and where networks may teach each
    other (τ). A derivation by a function, from rows of the shards joined with those of ``PseudoLabels``."""

    organs: tuple[str, ...]
    region: Region = "band"
    band_mm: float = 20.0
    least_confidence: float = 0.0
    locked: Mapping[str, Mapping[str, str]] | None = None
    """scan_id → organ → file of a mask that a person has looked at."""
    files: Store | None = None
    """Where these are."""
    digests: tuple[str, ...] = ()
    """Of them."""

    @property
    def locked_masks(self) -> int:
        """How many pseudo-labels are a person's."""
        return sum(map(len, (self.locked or {}).values()))

    id_column: ClassVar[str] = "scan_id"
    columns: ClassVar[Sequence[str]] = (*FewLabelCT.shard_schema.names, "pseudo", "confidence", "told")
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            *FewLabelCT.shard_schema,
            pa.field("confidence", pa.list_(pa.float32())),
            pa.field("made_by_person", pa.list_(pa.int8()), metadata={"meaning": "1 of organs that are locked"}),
        ]
    )

    def identity(self) -> dict[str, Any]:
        return {
            "merged": 3, "organs": list(self.organs), "region": self.region, "band_mm": self.band_mm,
            "least_confidence": self.least_confidence, "locked": list(self.digests),
        }  # fmt: skip

    def rows(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The row as it is where nothing is labelled. An organ whose pseudo-label is unsure, or that no network was taught, stays
        possible where nothing else tells. Raises Unreadable for a locked mask of another grid."""
        kept = {name: _plain(row[name]) for name in FewLabelCT.shard_schema.names}
        if row["mask"] is None:
            return [kept | {"confidence": None, "made_by_person": None}]
        shape = tuple(row["shape_DHW"])
        pseudo = np.frombuffer(row["pseudo"], np.uint8).reshape(shape).copy()
        unsure = {
            k
            for k, (sure, told) in enumerate(zip(row["confidence"], row["told"], strict=True), 1)
            if not told or (sure is not None and sure < self.least_confidence)
        }
        pseudo[np.isin(pseudo, [*unsure])] = 0
        confidence, by_person = list(row["confidence"]), [0] * len(self.organs)
        locked = np.zeros(shape, bool)
        for organ, path in (self.locked or {}).get(row["scan_id"], {}).items():
            number = self.organs.index(organ) + 1
            drawn = self._locked(path, organ, row)
            pseudo[pseudo == number] = 0
            pseudo[drawn] = number
            locked |= drawn
            unsure.discard(number)
            confidence[number - 1], by_person[number - 1] = 1.0, 1
        near = self._near(pseudo, row["spacing_mm"]) & ~locked  # what a person has drawn is as good as a true label
        mask, sets = with_pseudo(mask_of(row), row["sets"], pseudo, near, len(self.organs) + 1, unsure)
        # where networks teach each other, what a person has drawn is known not to lie
        sets[0] &= ~set_of([number for number, person in enumerate(by_person, 1) if person])
        own = mask_of(row)
        table = np.array(row["sets"], np.int64)
        true = {k: (table[own] == 1 << k) for k in range(1, len(self.organs) + 1)}
        told = {k: true[k] | ((pseudo == k) & ((table[own] >> k) & 1 > 0)) for k in true}
        return [
            kept
            | {"mask": mask.tobytes(), "sets": sets, "confidence": confidence, "made_by_person": by_person}
            | places_of({k: one for k, one in told.items() if one.any()})
        ]

    def _near(self, pseudo: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
        """(D, H, W) bool: a band about the pseudo-labelled organs and within them, or everywhere."""
        if self.region == "everywhere":
            return np.ones(pseudo.shape, bool)
        if not pseudo.any():
            return np.zeros(pseudo.shape, bool)
        return np.asarray(ndimage.distance_transform_edt(pseudo == 0, sampling=spacing_mm) <= self.band_mm)

    def _locked(self, path: str, organ: str, row: Mapping[str, Any]) -> np.ndarray:
        """(D, H, W) bool of the grid of the row."""
        assert self.files is not None
        like = Volume(np.zeros(tuple(row["shape_DHW"]), np.uint8), np.array(row["affine"], dtype=float).reshape(4, 4))
        with self.files.open_file(path) as stream:
            mask = read_volume([stream.read()], organ)
        try:
            return on_grid_of(like, mask, organ) > 0
        except Unreadable as error:
            raise Unreadable(f"locked pseudo-label: {error}") from None


def _plain(value: Any) -> Any:
    """Bytes of what a reader gives as a view of a file's buffer."""
    return value.to_pybytes() if isinstance(value, pa.Buffer) else value
