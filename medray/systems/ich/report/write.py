"""The files of a finished run → report.html."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from medray.report import page
from medray.shards.store import Store
from medray.systems.ich.report.pictures import collect_pictures
from medray.systems.ich.report.sections import report_sections
from medray.systems.ich.source import HeadCT


def write_report(
    out: Store,
    source: HeadCT,
    folder: Store,
    inventory: pd.DataFrame,
    private: pd.DataFrame,
    labels: pd.DataFrame,
    histories: dict[str, list[dict[str, Any]]],
    settings: dict[str, Any],
    phantom: bool = False,
    notes: Sequence[str] = (),
    lead: str = "a cross-validated run",
) -> dict[str, bytes]:
    """Write report.html into ``out`` from what write_results has left there.

    Args:
        source, folder: how and where to read the few original files that are shown.
        inventory: as in inventory.parquet.
        private: the rows of inventory.parquet with the files' own path, frame, stack_id and index; nothing but index of it is shown.
        labels: one row a slice of the shards: patient_id, study_id, CLASSES (NaN where unlabelled), fold.
        histories: run name → entries of its history.json.
        settings: name → value, shown as they are.
        phantom: the studies are phantoms, and the page says so.
        lead: what kind of run this is, in a few words.
        notes: further sentences for the top of the page.
    Returns:
        The charts and image sheets of the page: file name → PNG.
    """
    oof, studies = (out.read_table(f"{name}.parquet").to_pandas() for name in ("oof", "studies"))
    sections = report_sections(
        out.read_json("metrics.json"), oof, studies, histories, inventory, labels,
        collect_pictures(source, folder, inventory, private, oof), settings, phantom, notes,
    )  # fmt: skip
    html = page.render("Intracranial hemorrhage on head CT", f"Six probabilities a slice: {lead}", sections)
    out.write_bytes("report.html", html.encode())
    return page.plots(sections)
