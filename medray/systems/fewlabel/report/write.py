"""The files of a finished model → report.html."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from medray.report import page
from medray.report.about import About
from medray.shards.few_rows import Stored
from medray.shards.store import Store
from medray.systems.fewlabel.chain import Chain
from medray.systems.fewlabel.cost import cost_table
from medray.systems.fewlabel.report.pictures import collect
from medray.systems.fewlabel.report.sections import lead, report_sections
from medray.systems.fewlabel.results import source_table
from medray.systems.fewlabel.source import FewLabelCT


def write_report(
    out: Store,
    about: About,
    chain: Chain,
    source: FewLabelCT,
    shards: Store,
    contours: Sequence[Stored],
    pseudo: pd.DataFrame,
) -> dict[str, bytes]:
    """Write report.html into ``out`` from what ``conclude`` has left there.

    Args:
        shards: of the scans. contours: rows of ``tasks.contours`` of the final network. pseudo: ``results.pseudo_table``.
    Returns:
        The charts and image sheets of the page: file name → PNG.
    """
    metrics = out.read_json("metrics.json")
    with out.open_file(out.path("organs.csv")) as stream:
        organs = pd.read_csv(stream, dtype={"scan_id": str, "patient_id": str, "origin": str})
    slices = collect(shards, contours, organs[organs["network"] == chain.final], chain.base.organs, metrics["small"])
    sources = source_table(about.index, source)
    cost = cost_table(chain, sum(bool(origin.organs) for origin in source.origins))
    sections = report_sections(metrics, slices, sources, pseudo, cost, about)
    name = out.uri.rsplit("/", 1)[-1]
    page_ = page.render("Organs from sources with few labels", f"{name}: {lead(metrics)}", sections)
    out.write_bytes("report.html", page_.encode())
    return page.plots(sections)
