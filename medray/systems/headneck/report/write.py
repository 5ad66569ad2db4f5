"""The files of a finished model → report.html."""

from __future__ import annotations

import pandas as pd

from medray.report import page
from medray.report.about import About
from medray.shards.few_rows import Stored
from medray.shards.store import Store
from medray.systems.headneck.chain import Chain
from medray.systems.headneck.report.pictures import collect
from medray.systems.headneck.report.sections import lead, report_sections


def write_report(out: Store, about: About, chain: Chain, shards: Store, contours: Stored) -> dict[str, bytes]:
    """Write report.html into ``out`` from what ``conclude`` has left there.

    Args:
        shards: of the scans. contours: rows of ``Contours`` of the final network.
    Returns:
        The charts and image sheets of the page: file name → PNG.
    """
    metrics = out.read_json("metrics.json")
    with out.open_file(out.path("scans.csv")) as stream:
        scans = pd.read_csv(stream, dtype={"scan_id": str, "patient_id": str, "visit": str})
    with out.open_file(out.path("organs.csv")) as stream:
        organs = pd.read_csv(stream, dtype={"scan_id": str, "patient_id": str, "visit": str})
    slices = collect(shards, contours, scans, chain.base.organs, chain.small)
    sections = report_sections(metrics, organs[organs["network"] == chain.final], scans, slices, about)
    name = out.uri.rsplit("/", 1)[-1]
    page_ = page.render("Organs at risk on head-and-neck CT", f"{name}: {lead(metrics)}", sections)
    out.write_bytes("report.html", page_.encode())
    return page.plots(sections)
