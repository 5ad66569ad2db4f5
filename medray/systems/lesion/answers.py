"""Answers for new scans → scans.csv, lesions.csv, changes.csv, set_aside.csv."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import pandas as pd
import pyarrow as pa

from medray.shards.inventory import Inventory, set_aside
from medray.shards.leakage import seen_in_training, trained_on
from medray.shards.store import Store
from medray.systems.lesion.cases import Cases, in_order
from medray.systems.lesion.new_scans import Patient
from medray.systems.lesion.results import write_csv

NOTES_SHOWN = 5
PHANTOMS = "this run was trained on phantoms: its masks say nothing about patients"


def patients_of(inventory: Inventory) -> list[Patient]:
    """The patients in the order of their identifiers, each with the visits in order."""
    found, first = [], 1
    for _, own in inventory.rows.groupby("patient_id", sort=True):
        visits = own.assign(order=own["visit"].astype(int)).sort_values("order").drop(columns="order")
        found.append(Patient(first, visits.to_dict("records")))
        first += len(visits)
    return found


def known_scans(results: Store, shards: Store, folds: Sequence[int]) -> set[str]:
    """Hashes of the scans that a network has learned from: of a single one not those that it held out.

    Args:
        results: of the model. shards: of its scans. folds: of its networks.
    """
    held_out: list[str] = []
    if len(folds) == 1 and results.exists("scans.csv"):
        held_out = pd.read_csv(io.BytesIO(results.read_bytes("scans.csv")), dtype=str)["scan_id"].tolist()
    return trained_on(shards, id_column="scan_id", held_out=held_out)


def write_answers(
    to: Store,
    parts: Sequence[pa.Table],
    cases: Cases,
    inventory: Inventory,
    trained: AbstractSet[str],
    repeatability: dict[str, Any],
) -> list[str]:
    """The tables; lines for a terminal, warnings with "! " before them.

    Args:
        parts: of ``NewScans``. cases: for the visits' own names.
        trained: as ``shards.leakage.trained_on``.
        repeatability: of the run's metrics.json.
    Raises:
        ValueError: no scan could be read.
    """
    rows = [row for part in parts for row in part.to_pylist()]
    lost = [row for row in rows if row["reason"]]
    good = [row for row in rows if not row["reason"]]
    aside = set_aside(inventory.table)
    refused = pd.DataFrame([{"path": row["scan_id"], "status": "quarantined", "reason": row["reason"]} for row in lost])
    to.write_csv("set_aside.csv", pd.concat([aside, refused]))
    if not good:
        raise ValueError(f"no scan could be read; first reason: {lost[0]['reason']}; {to.uri}/set_aside.csv has all")
    visits = _names_of_visits(cases)
    table = pd.DataFrame(good)
    table["trained_on"] = seen_in_training(table, trained)
    table["lesions"] = [len(row["findings"]) for row in good]
    table["visit"] = [visits.get((row["patient_id"], row["visit"]), row["visit"]) for row in good]
    write_csv(to, "scans.csv", table[["scan_id", "patient_id", "visit", "ml", "lesions", "trained_on", "name", "note"]])
    lesions = [
        {"scan_id": row["scan_id"], "patient_id": row["patient_id"], "visit": visit, "number": i} | finding
        for row, visit in zip(good, table["visit"], strict=True)
        for i, finding in enumerate(row["findings"], start=1)
    ]
    columns = ["scan_id", "patient_id", "visit", "number", "class", "mm3", "score", "site", "x_mm", "y_mm", "z_mm"]
    named = pd.DataFrame(lesions, columns=columns).rename(columns={"score": "probability"})
    write_csv(to, "lesions.csv", named)
    changed = [
        line for row in good if row["before"] is not None for line in _changes_of(row, visits, good, repeatability)
    ]
    columns = [
        "patient_id", "visit_before", "visit_after", "kind", "before_mm3", "after_mm3", "x_mm", "y_mm", "z_mm",
        "repeatability_mm3", "repeatability_pairs", "note",
    ]  # fmt: skip
    write_csv(to, "changes.csv", pd.DataFrame(changed, columns=columns))
    lines = [
        f"  {len(good):,} scans → {to.uri}: scans.csv, lesions.csv, changes.csv, masks and pictures; {len(lost):,} scans could "
        "not be read"
    ]
    if table["trained_on"].any():
        lines.append(
            f"! leakage: {int(table['trained_on'].sum())} of the scans are in the training data, pixel by pixel"
        )
    notes = Counter(note for row in good for note in (row["note"] or "").split("; ") if note)
    lines += [f"! {count:,} scans: {note}" for note, count in notes.most_common(NOTES_SHOWN)]
    if unlike := [row["no_change"] for row in good if row["no_change"]]:
        lines.append(f"! {len(unlike):,} of the visits: {unlike[0]}")
    if changed and repeatability.get("ml") is None:
        lines.append("! changes.csv: this run had no two visits of a held-out patient: no repeatability is known")
    return lines


def _changes_of(
    row: dict[str, Any], visits: dict[tuple[str, str], str], good: list[dict[str, Any]], repeatability: dict[str, Any]
) -> list[dict[str, Any]]:
    """The total first, with what 95% of such changes are below by error alone, then lesion by lesion."""
    patient = row["patient_id"]
    about = {
        "patient_id": patient,
        "visit_before": visits.get((patient, row["before"]), row["before"]),
        "visit_after": visits.get((patient, row["visit"]), row["visit"]),
    }
    before = next(r for r in good if r["patient_id"] == patient and r["visit"] == row["before"])
    known = repeatability.get("ml")
    total = {"kind": "all lesions", "before_mm3": before["ml"] * 1000, "after_mm3": row["ml"] * 1000}
    total |= {"repeatability_mm3": None if known is None else known * 1000, "note": row["no_change"]}
    total |= {"repeatability_pairs": repeatability.get("pairs")}
    return [about | total, *(about | change for change in row["changes"] or [])]


def _names_of_visits(cases: Cases) -> dict[tuple[str, str], str]:
    """Patient and number of a visit → its own name."""
    return {
        (patient, str(i)): name
        for patient, own in cases.table.groupby("patient")
        for i, name in enumerate(in_order(own["visit"].tolist()), start=1)
        if name
    }
