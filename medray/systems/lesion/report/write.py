"""The files of a finished model → report.html."""

from __future__ import annotations

import pandas as pd

from medray.report import page
from medray.report.about import About
from medray.shards.store import Store
from medray.systems.lesion.report.pictures import Parts, collect
from medray.systems.lesion.report.sections import lead, report_sections


def write_report(out: Store, about: About, scans: pd.DataFrame, shards: Store, parts: Parts) -> dict[str, bytes]:
    """Write report.html into ``out`` from what ``conclude`` has left there.

    Args:
        scans: as ``scores.scan_table`` gives it. shards: of the scans. parts: where rows of ``masks`` are.
    Returns:
        The charts and image sheets of the page: file name → PNG.
    """
    metrics = out.read_json("metrics.json")
    sections = report_sections(metrics, scans, collect(shards, parts, scans), about)
    name = out.uri.rsplit("/", 1)[-1]
    page_ = page.render("Multiple-sclerosis lesions on MR", f"{name}: {lead(metrics)}", sections)
    out.write_bytes("report.html", page_.encode())
    return page.plots(sections)
