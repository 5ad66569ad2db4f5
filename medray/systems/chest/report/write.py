"""The files of a finished model → report.html."""

from __future__ import annotations

from collections.abc import Mapping

from medray.nn.backbone import Backbone
from medray.report import page
from medray.report.about import About
from medray.shards.store import Store
from medray.systems.chest.report.pictures import collect
from medray.systems.chest.report.sections import headline, report_sections
from medray.systems.chest.source import Radiograph
from medray.systems.chest.task import FilmTask


def write_report(
    out: Store,
    task: FilmTask,
    networks: Mapping[int, Backbone],
    source: Radiograph,
    about: About,
) -> dict[str, bytes]:
    """Write report.html into ``out`` from what ``conclude`` has left there.

    Args:
        networks: fold → its network, in evaluation mode.
        source: how to read the few original films that are shown.
    Returns:
        The charts and image sheets of the page: file name → PNG.
    """
    metrics, oof = out.read_json("metrics.json"), out.read_table("oof.parquet").to_pandas()
    pictures = collect(task, networks, source, about.folder, about.private, about.inventory["image_id"], oof)
    sections = report_sections(metrics, oof, pictures, about)
    name = out.uri.rsplit("/", 1)[-1]
    out.write_bytes("report.html", page.render("Chest X-ray", f"{name}: {headline(metrics)}", sections).encode())
    return page.plots(sections)
