"""The files of a finished method → report.html."""

from __future__ import annotations

from medray.report import page
from medray.report.about import About
from medray.shards.store import Store
from medray.systems.boneage.report.pictures import chosen, collect
from medray.systems.boneage.report.sections import lead, report_sections
from medray.systems.boneage.results import read_films, read_refused
from medray.systems.boneage.scores.ensemble import Ensemble
from medray.systems.boneage.stages.rows import Stages


def write_report(out: Store, about: About, stages: Stages) -> dict[str, bytes]:
    """Write report.html into ``out`` from what ``results.conclude`` has left there.

    Args:
        stages: as ``pictures.collect`` takes them; a film that none of them has is shown in words.
    Returns:
        The charts and image sheets of the page: file name → PNG.
    """
    metrics = out.read_json("metrics.json")
    ensemble = Ensemble.from_json(out.read_json("method.json")["ensemble"])
    films = read_films(out)
    pictures = collect(chosen(films), stages)
    sections = report_sections(metrics, ensemble, films, read_refused(out), pictures, about)
    name = out.uri.rsplit("/", 1)[-1]
    html = page.render("Bone age from hand films", f"{name}: {lead(metrics)}", sections)
    out.write_bytes("report.html", html.encode())
    return page.plots(sections)
