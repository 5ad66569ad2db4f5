"""The files of a finished run → report.html."""

from __future__ import annotations

from collections.abc import Sequence

from medray.report import page
from medray.report.about import About
from medray.shards.store import Store
from medray.systems.ich.report.pictures import collect_pictures
from medray.systems.ich.report.sections import report_sections
from medray.systems.ich.source import HeadCT


def write_report(
    out: Store,
    source: HeadCT,
    about: About,
    variant: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> dict[str, bytes]:
    """Write report.html into ``out`` from what write_results has left there.

    Args:
        source: how to read the few original files that are shown.
        about: its index has one row a slice; of its private rows nothing but the place in the stack is shown.
        variant: what the page calls this version of the method.
        notes: further sentences for the top of the page.
    Returns:
        The charts and image sheets of the page: file name → PNG.
    """
    oof, studies = (out.read_table(f"{name}.parquet").to_pandas() for name in ("oof", "studies"))
    sections = report_sections(
        out.read_json("metrics.json"), oof, studies, dict(about.histories), about.inventory, about.index,
        collect_pictures(source, about.folder, about.inventory, about.private, oof), about.settings, about.phantom, [*about.notices, *notes],
    )  # fmt: skip
    lead = " ".join(["Six probabilities a slice: a cross-validated run", *variant])
    html = page.render("Intracranial hemorrhage on head CT", lead, sections)
    out.write_bytes("report.html", html.encode())
    return page.plots(sections)
