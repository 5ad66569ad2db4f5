"""Masks of scans by a finished network: what is kept of each, on the grid of the shards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy import ndimage

from medray.metrics.lesions import Components, Rules, is_hit, match_lesions
from medray.metrics.overlap import Overlap
from medray.metrics.surface import SurfaceDistances
from medray.systems.lesion.task import LesionTask
from medray.tasks.volume_rows import UNKNOWN

SCORES = ("dice", "ppv", "sensitivity", "iou", "volume_difference", "hd95_mm", "assd_mm")
_LESION = pa.struct([("mm3", pa.float64()), ("found", pa.bool_()), ("score", pa.float64()), ("depth_mm", pa.float64())])
_FINDING = pa.struct(
    [
        ("mm3", pa.float64()), ("true", pa.bool_()), ("score", pa.float64()),
        ("centre_DHW", pa.list_(pa.float64())), ("depth_mm", pa.float64()), ("class_number", pa.int16()),
    ]
)  # fmt: skip
SCHEMA = pa.schema(
    [
        *[pa.field(name, pa.string()) for name in ("scan_id", "patient_id", "visit")],
        pa.field("shape_DHW", pa.list_(pa.int32())),
        pa.field("spacing_mm", pa.list_(pa.float64())),
        pa.field("mask", pa.large_binary(), metadata={"axes": "D, H, W", "dtype": "uint8"}),
        pa.field("probability", pa.large_binary(), metadata={"axes": "D, H, W", "dtype": "uint8, 255 is 1"}),
        pa.field("threshold", pa.float64()),
        pa.field("ml", pa.float64(), metadata={"unit": "mL"}),
        pa.field("true_ml", pa.float64(), metadata={"unit": "mL", "meaning": "null where nobody has drawn"}),
        *[pa.field(name, pa.float64()) for name in SCORES],
        pa.field("dice_by_class", pa.list_(pa.float64()), metadata={"meaning": "of each class by itself"}),
        pa.field("lesions", pa.list_(_LESION), metadata={"meaning": "of the truth"}),
        pa.field("findings", pa.list_(_FINDING), metadata={"meaning": "what was predicted"}),
    ]
)
SMALL = tuple(name for name in SCHEMA.names if name not in ("mask", "probability"))
"""Columns without voxels."""


@dataclass(frozen=True)
class Masks:
    """A derivation: every scan's mask at a threshold, its probabilities, and its scores against the mask that was drawn."""

    threshold: float
    rules: Rules = field(default_factory=Rules)

    id_column: ClassVar[str] = "scan_id"

    def identity(self) -> dict[str, Any]:
        return {"masks": 2, "threshold": self.threshold} | asdict(self.rules)

    def outputs(self, task: LesionTask, network: Any, batch: dict[str, Any]) -> dict[str, Any]:
        asked = replace(task, threshold=self.threshold, keep="uint8")
        found = asked.outputs(network, batch)
        rows = []
        for i, scan_id in enumerate(batch["scan_id"]):
            truth = np.asarray(batch["own_mask"][i])
            shape = truth.shape
            mask = np.frombuffer(found["mask"][i], np.uint8).reshape(shape)
            probability = np.frombuffer(found["probability"][i], np.uint8).reshape(-1, *shape).max(0)
            spacing_mm = np.asarray(batch["spacing_mm"][i], np.float64)
            rows.append(
                {name: str(batch[name][i]) for name in ("patient_id", "visit")}
                | {"scan_id": str(scan_id), "shape_DHW": list(shape), "spacing_mm": spacing_mm.tolist()}
                | {"dice_by_class": [_plain(float(found[f"dice_{name}"][i])) for name in task.classes]}
                | {"mask": mask.tobytes(), "probability": probability.tobytes(), "threshold": self.threshold}
                | scores(mask, probability, truth, spacing_mm, self.rules, np.asarray(batch["inside"][i]) != 0)
            )
        columns: dict[str, Any] = {}
        for name in rows[0]:
            column = np.empty(len(rows), dtype=object)
            column[:] = [row[name] for row in rows]
            columns[name] = column
        return columns

    def pack(self, outputs: pd.DataFrame) -> pa.Table:
        rows = outputs.to_dict("records")
        plain = [{name: _plain(row[name]) for name in SCHEMA.names} for row in rows]
        return pa.Table.from_pylist(plain, schema=SCHEMA)


def scores(
    mask: np.ndarray,
    probability: np.ndarray,
    truth: np.ndarray | None,
    spacing_mm: np.ndarray,
    rules: Rules,
    brain: np.ndarray | None = None,
) -> dict[str, Any]:
    """Of one scan; of classes together, as any lesion.

    Args:
        mask: (D, H, W) uint8 of class numbers. probability: (D, H, W) uint8. truth: as the mask; UNKNOWN, or None, where
            nobody has drawn. spacing_mm: (3,) brain: (D, H, W) bool, for depths below its surface.
    Returns:
        ml, findings, and where the truth is known true_ml, lesions and SCORES; else None. Of a scan with a truth all of them are
        of its known part.
    """
    drawn_at_all = truth is not None and not (truth == UNKNOWN).all()
    if drawn_at_all:
        mask = np.where(truth == UNKNOWN, 0, mask)
    voxel_mm3 = float(np.prod(spacing_mm))
    ml = float(np.count_nonzero(mask)) * voxel_mm3 / 1000
    nothing: dict[str, Any] = {"ml": ml, "true_ml": None, "lesions": None} | dict.fromkeys(SCORES)
    found = Components.of(mask != 0, voxel_mm3, rules.connectivity, rules.least_predicted_mm3)
    highest = np.zeros(len(found) + 1)
    np.maximum.at(highest, found.labels.ravel(), probability.ravel() / 255)
    depths = _depths(brain, spacing_mm)
    about: list[dict[str, Any]] = [
        {"mm3": mm3, "true": None, "score": score, "centre_DHW": centre.tolist(), "depth_mm": depths(centre)}
        | {"class_number": int(number)}  # that most of its voxels have
        for mm3, score, centre, number in zip(
            found.mm3.tolist(), highest[1:].tolist(), found.centres(), found.sites(mask), strict=True
        )
    ]
    if truth is None or not drawn_at_all:
        return nothing | {"findings": about}
    drawn, predicted = (truth != 0) & (truth != UNKNOWN), mask != 0
    match = match_lesions(drawn, predicted, voxel_mm3, rules, probability / 255)
    overlap, surface = Overlap.of(drawn, predicted), SurfaceDistances.of(drawn, predicted, spacing_mm.tolist())
    there = Components.of(drawn, voxel_mm3, rules.connectivity, rules.least_truth_mm3)
    covered = [np.bincount(found.labels[where], minlength=len(found) + 1)[1:] for where in (there.labels > 0, drawn)]
    true, over = (is_hit(voxels, found.voxels, rules) for voxels in covered)
    for place, finding in enumerate(about):  # over a lesion that is too small to count: neither true nor false
        finding["true"] = bool(true[place]) if true[place] or not over[place] else None
    return {
        "ml": ml,
        "true_ml": float(np.count_nonzero(drawn)) * voxel_mm3 / 1000,
        "dice": overlap.dice,
        "ppv": overlap.predictive_value,
        "sensitivity": overlap.sensitivity,
        "iou": overlap.iou,
        "volume_difference": overlap.volume_difference,
        "hd95_mm": surface.hausdorff95_mm,
        "assd_mm": surface.average_mm,
        "lesions": [
            {"mm3": float(mm3), "found": bool(hit), "score": float(score) if np.isfinite(score) else None}
            | {"depth_mm": depths(centre)}
            for mm3, hit, score, centre in zip(
                match.truth_mm3, match.found, match.truth_score, there.centres(), strict=True
            )
        ],
        "findings": about,
    }


def _depths(brain: np.ndarray | None, spacing_mm: np.ndarray) -> Callable[[np.ndarray], float | None]:
    """Index → how far it lies below the surface of the brain, mm."""
    if brain is None:
        return lambda place: None
    depth = ndimage.distance_transform_edt(brain, sampling=spacing_mm.tolist())
    assert isinstance(depth, np.ndarray)
    return lambda place: float(depth[tuple(np.round(place).astype(int))])


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value
