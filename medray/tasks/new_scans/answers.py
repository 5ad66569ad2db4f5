"""Answers for new scans → scans.csv, organs.csv, set_aside.csv."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from medray.shards.inventory import Inventory, set_aside
from medray.shards.leakage import seen_in_training, trained_on
from medray.shards.store import Store

NOTES_SHOWN = 5
ENOUGH_SCANS, FEW_TIMES = 20, 2.0
"""The least and the most of fewer scans are passed by chance by one in ten of the next: then a volume must be so many times less
or more to be told."""
FEW_SCANS = 3
"""Fewer say nothing of what always is."""
SCAN_COLUMNS = (
    "scan_id", "patient_id", "visit", "name", "organs_found", "organs_not_found", "seconds", "trained_on", "note",
)  # fmt: skip
PHANTOMS = "this run was trained on phantoms: its contours say nothing about patients"
NOT_FOUND = "not found"
BELOW, ABOVE = "below every training volume", "above every training volume"
FAR_BELOW, FAR_ABOVE = "below half of every training volume", "above twice every training volume"
"""Of organs that fewer than ``ENOUGH_SCANS`` have."""
UNKNOWN = "drawn in no training scan"
CUT = "cut by the edge of the image"
METAL = "metal"


def training_ml(shards: pd.DataFrame, organs: Sequence[str]) -> dict[str, dict[str, float]]:
    """Organ → least and most of its volume in scans that are learned from, in mL, and in how many it is drawn.

    Args:
        shards: their organs_ml; null where an organ is not known, 0 where it is known to be absent.
    """
    table = np.array(shards["organs_ml"].tolist(), dtype=float).reshape(len(shards), len(organs))
    found = {}
    for organ, values in zip(organs, table.T, strict=True):
        there = values[values > 0]
        if len(there):
            found[organ] = {"least": float(there.min()), "most": float(there.max()), "scans": len(there)}
    return found


def known_scans(results: Store, shards: Store, folds: Sequence[int], never: Sequence[str] = ()) -> set[str]:
    """Hashes of the scans that a network has learned from: of a single one not those that it held out.

    Args:
        results: of the model. shards: of its scans. folds: of its networks. never: scans that none has learned from.
    """
    held_out = list(never)
    if len(folds) == 1 and results.exists("organs.csv"):
        held_out += pd.read_csv(io.BytesIO(results.read_bytes("organs.csv")), dtype=str)["scan_id"].unique().tolist()
    return trained_on(shards, id_column="scan_id", held_out=held_out)


def check_apart(to: Store, images: Store) -> None:
    """Raises ValueError where results would lie among the scans: the next training there would read them as drawn by somebody."""
    if f"{to.root}/".startswith(f"{images.root}/"):
        raise ValueError(
            f"--to {to.uri}: lies among --images, where found contours would pass for drawn ones; choose another place"
        )


def write_answers(
    to: Store,
    parts: Sequence[pa.Table],
    inventory: Inventory,
    trained: AbstractSet[str],
    training_ml: Mapping[str, Mapping[str, float]],
) -> list[str]:
    """The tables; lines for a terminal, warnings with "! " before them.

    Args:
        parts: of ``NewOrgans``. trained: as ``shards.leakage.trained_on``. training_ml: of method.json.
    Raises:
        ValueError: no scan could be read.
    """
    rows = [row for part in parts for row in part.to_pylist()]
    lost, good = [row for row in rows if row["reason"]], [row for row in rows if not row["reason"]]
    refused = pd.DataFrame([{"path": row["scan_id"], "status": "quarantined", "reason": row["reason"]} for row in lost])
    to.write_csv("set_aside.csv", pd.concat([set_aside(inventory.table), refused]))
    if not good:
        raise ValueError(f"no scan could be read; first reason: {lost[0]['reason']}; {to.uri}/set_aside.csv has all")
    table = pd.DataFrame(good)
    table["trained_on"] = seen_in_training(table, trained)
    table["organs_found"] = [sum(one["ml"] > 0 for one in row["organs"]) for row in good]
    table["organs_not_found"] = ["; ".join(one["organ"] for one in row["organs"] if not one["ml"]) for row in good]
    to.write_csv("scans.csv", table[[*SCAN_COLUMNS]])
    flagged = [(row, one, flags_of(one, training_ml.get(one["organ"]))) for row in good for one in row["organs"]]
    to.write_csv("organs.csv", pd.DataFrame([_line_of(*one, training_ml) for one in flagged]))

    found, files = int(table["organs_found"].sum()), int(table["files"].sum())
    lines = [
        f"  {len(good):,} scans → {to.uri}: scans.csv, organs.csv, contours and pictures; {len(lost):,} scans could not be "
        "read",
        f"  {found:,} of {len(flagged):,} organs found, {files:,} files; {table['seconds'].mean():.1f} s a scan",
    ]
    for kind in (NOT_FOUND, BELOW, FAR_BELOW, ABOVE, FAR_ABOVE, UNKNOWN, CUT):
        organs = Counter(one["organ"] for _, one, flags in flagged if any(flag.startswith(kind) for flag in flags))
        always = [organ for organ, count in organs.items() if kind == CUT and count == len(good) >= FEW_SCANS]
        if always:  # a cord leaves every image, and nobody would read on
            lines.append(f"  {kind} in every scan, as long organs are: {', '.join(always)}")
            organs = Counter({organ: count for organ, count in organs.items() if organ not in always})
        if organs:
            shown = ", ".join(f"{organ} {count:,}" for organ, count in organs.most_common(NOTES_SHOWN))
            more = f" and {len(organs) - NOTES_SHOWN} more" if len(organs) > NOTES_SHOWN else ""
            lines.append(f"! {organs.total():,} of {len(flagged):,} organs: {kind} ({shown}{more})")
    if table["trained_on"].any():
        lines.append(
            f"! leakage: {int(table['trained_on'].sum()):,} of the scans are in the training data, pixel by pixel"
        )
    notes = Counter(note for row in good for note in (row["note"] or "").split("; ") if note)
    metal = sum(count for note, count in notes.items() if note.startswith(METAL))
    if metal:
        lines.append(f"! {metal:,} scans: {METAL}, which hides what is near it; scans.csv says how much")
    others = [(note, count) for note, count in notes.most_common() if not note.startswith(METAL)]
    return lines + [f"! {count:,} scans: {note}" for note, count in others[:NOTES_SHOWN]]


def flags_of(one: Mapping[str, Any], training: Mapping[str, float] | None) -> list[str]:
    """What is odd about an organ of a scan.

    Args:
        one: ml, and cut: whether it is at an edge of the image.
        training: least and most of its volume in the run's scans, in mL, and in how many it was drawn; None for none.
    """
    if not one["ml"]:
        return [NOT_FOUND]
    flags = [] if training else [UNKNOWN]
    few = training is not None and training["scans"] < ENOUGH_SCANS
    times, below, above = (FEW_TIMES, FAR_BELOW, FAR_ABOVE) if few else (1.0, BELOW, ABOVE)
    if training and one["ml"] * times < training["least"]:
        flags.append(f"{below} (least {training['least']:.3g} mL, {training['scans']} scans)")
    if training and one["ml"] > training["most"] * times:
        flags.append(f"{above} (most {training['most']:.3g} mL, {training['scans']} scans)")
    return [*flags, *([CUT] if one["cut"] else [])]


def _line_of(
    row: Mapping[str, Any],
    one: Mapping[str, Any],
    flags: Sequence[str],
    training_ml: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    known = training_ml.get(one["organ"], {})
    return {
        "scan_id": row["scan_id"], "patient_id": row["patient_id"], "visit": row["visit"], "organ": one["organ"],
        "ml": one["ml"], "least_ml": known.get("least"), "most_ml": known.get("most"), "scans": known.get("scans", 0),
        "flag": "; ".join(flags),
    }  # fmt: skip
