"""The report's sections, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from medray.report.about import About
from medray.report.figures import line, texts
from medray.report.organ_slices import Slice
from medray.report.page import (
    PALETTE,
    Block,
    Cell,
    Figures,
    Gallery,
    Notice,
    Section,
    Table,
    Tile,
    chart,
    legend,
)
from medray.report.sections import files, learning
from medray.report.sections import settings as made
from medray.systems.fewlabel.results import GROUP_WORDS, better

RUNG_WORDS = {
    "apart": "a network a source", "background": "what is not labelled taken for background", "marginal": "marginal loss",
    "exclusion": "marginal and exclusion loss", "conditional": "one network, told the organ", "self": "pseudo-labels",
    "cotraining": "co-training: two networks that teach each other",
}  # fmt: skip
FEW_PATIENTS = 10


def report_sections(
    metrics: dict[str, Any],
    slices: Sequence[Slice],
    sources: pd.DataFrame,
    pseudo: pd.DataFrame,
    cost: pd.DataFrame,
    about: About,
) -> list[Section]:
    """All sections of the page.

    Args:
        metrics: as metrics.json. sources: ``results.source_table``. pseudo: ``results.pseudo_table``, empty where there are
            none. cost: ``cost.cost_table``.
    """
    return [
        _scores(metrics, about),
        _gallery(slices),
        _by_organ(metrics),
        _ladder(metrics),
        _sources(sources),
        *([_pseudo(pseudo)] if len(pseudo) else []),
        _cost(cost),
        learning(about.histories, "loss", "scans", "", "an inner part of the training patients"),
        files(about.inventory, "scan_id"),
        made(dict(about.settings)),
    ]


def _scores(metrics: dict[str, Any], about: About) -> Section:
    counts, groups = metrics["counts"], metrics["means"][metrics["final"]]
    top: list[Block] = [Notice(one) for one in about.notices]
    shown = [(f"Dice, {GROUP_WORDS[group]}", *texts(scores["dice"], 3)) for group, scores in groups.items()]
    caution = "" if counts["patients"] >= FEW_PATIENTS else f" {counts['patients']} patients: no claim of quality."
    text = (
        f"{counts['scored_scans']:,} held-out scans of {counts['patients']:,} patients by {RUNG_WORDS[metrics['final']]}; "
        f"{counts['known']:,} organs of them are known, not found of these: {counts['not_found']:,}.{caution} A mean is over "
        "organs, each of which is a mean over scans. An organ that is not known in a scan is not scored there. HD95 is the larger of "
        "the two directions' 95th percentiles of the distance between surfaces; an organ that was not found has the image's diagonal. "
        f"Intervals are of 95%, by resampling patients of one training of each network ({_folds(about)}): another seed may reverse a "
        "difference."
    )
    if metrics["final"] == "cotraining":
        told = ", ".join(
            f"fold {fold} the {metrics['answers'][fold]} ({by['scans']} scans, {', '.join(by['organs']) or 'no organ'})"
            for fold, by in metrics["chosen_by"].items()
        )
        text += f" Of the two running means the better one on inner scans, of organs that their own source labels, answers: {told}."
    warning = [Notice(line.removeprefix("! ")) for line in better(metrics)]
    return Section("Scores", more=(*top, *warning, Figures(tuple(shown)), text))


def _folds(about: About) -> str:
    """Which folds were held out."""
    folds = sorted({int(name.rpartition("/fold")[2]) for name in about.histories})
    return f"fold {folds[0]} held out" if len(folds) == 1 else f"{len(folds)} folds"


def _gallery(slices: Sequence[Slice]) -> Section:
    text = (
        "Blue is what is known, orange what was found; where both lie on each other, orange is on top, be they of two organs. A number tells the organ. From "
        "the worst scan to the best, seen from the feet: the patient's right is on the left."
    )
    return Section(
        "Scans to look at", text, more=(Gallery(tuple(Tile(o.image, o.title, o.lines) for o in slices), tile_px=300),)
    )


def _by_organ(metrics: dict[str, Any]) -> Section:
    rungs = list(metrics["by_organ"])
    organs = sorted(metrics["by_organ"][metrics["final"]].items(), key=lambda item: item[1]["drawn_ml"] or 0.0)
    organs = [(name, one) for name, one in organs if one["scans"]]
    tables = []
    for group, score, title in (
        ("own", "dice", "Dice in scans whose own source labels the organ"),
        ("other", "dice", "Dice in scans of the other sources"),
        ("all", "hd95_mm", "HD95 in mm, all scans"),
    ):
        rows = [
            {"organ": name, "mL": round(one["drawn_ml"], 1)}
            | {
                rung: Cell(*texts(found[group][score], 3 if score == "dice" else 1))
                if group in (found := metrics["by_organ"][rung][name]["scores"])
                else None
                for rung in rungs
            }
            for name, one in organs
        ]
        if any(row[rung] is not None for row in rows for rung in rungs):
            tables.append(Table(pd.DataFrame(rows), f"{title}, from the smallest to the largest."))
    figure, axes = chart(10, 1.0 + 0.32 * len(organs))
    axis = axes[0, 0]
    for k, rung in enumerate(rungs):
        places = np.arange(len(organs)) + (k - (len(rungs) - 1) / 2) * 0.7 / len(rungs)
        every = [metrics["by_organ"][rung][name]["scores"].get("all") for name, _ in organs]
        values = [np.nan if one is None else one["dice"]["value"] for one in every]
        axis.plot(values, places, "o", markersize=5, color=PALETTE[k % len(PALETTE)], label=rung)
    axis.set_yticks(range(len(organs)), [name for name, _ in organs])
    axis.set_ylim(len(organs) - 0.4, -0.6)
    axis.set_xlim(-0.02, 1.02)
    axis.set_xlabel("Dice, all scans")
    legend(axis, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(rungs))
    return Section("By organ", "", figure, more=tuple(tables))


def _ladder(metrics: dict[str, Any]) -> Section:
    groups = [g for g in GROUP_WORDS if any(g in of for of in metrics["means"].values())]
    rows = [
        {"network": rung, "is": RUNG_WORDS[rung]}
        | {f"Dice, {GROUP_WORDS[g]}": Cell(*texts(of[g]["dice"], 3)) for g in groups if g in of}
        | {f"HD95, mm, {GROUP_WORDS[g]}": Cell(*texts(of[g]["hd95_mm"], 1)) for g in ("all", "small") if g in of}
        for rung, of in metrics["means"].items()
    ]
    blocks: list[Block] = [Table(pd.DataFrame(rows))]
    if metrics["ladder"]:
        steps = [
            {"network": step["rung"], "against": step["against"]}
            | {f"Dice, {GROUP_WORDS[g]}": Cell(*texts(of["dice"], 3, signed=True)) for g, of in step["groups"].items()}
            for step in metrics["ladder"]
        ]
        blocks.append(Table(pd.DataFrame(steps), "Differences on the same scans, with intervals over patients."))
    text = "Every network has had as many steps and crops, and was scored on the same held-out scans. They stand in the ladder's order, not by score."
    if len(rows) < len(RUNG_WORDS):
        text += " --rungs trains the others of the ladder too."
    return Section("The ladder", text, more=tuple(blocks))


def _sources(sources: pd.DataFrame) -> Section:
    text = (
        "Voxels and spacing are medians of a source's scans; HU are the 5th, 50th and 95th percentile of the body without air. Behind an organ stands in how many cases it has a voxel. Where sources "
        "differ, a network of one finds less in the scans of another, and pseudo-labels are worse."
    )
    return Section("Sources", text, table=sources)


def _pseudo(pseudo: pd.DataFrame) -> Section:
    text = (
        "What each source's network has found in the other sources' training scans. Confidence is the mean probability of the voxels that "
        "it took for the organ; Dice is against masks for scores, where there are any, which nothing has learned from, and 0 where the organ "
        "was not found. A network learns from poor ones too: --least-confidence leaves unsure ones out, --locked takes corrected ones."
    )
    return Section("Pseudo-labels", text, table=pseudo)


def _cost(cost: pd.DataFrame) -> Section:
    text = (
        "A network a source and the conditional network need more passes the more sources or organs there are; the others answer for all "
        "organs in one. Seconds are those of one pass of one window on this machine's CPU, the least of three, times the passes. "
        "Memory is that of all weights and of what is alive of a pass's layers at once."
    )
    return Section("What an answer costs", text, table=cost)


def lead(metrics: Mapping[str, Any]) -> str:
    counts = metrics["counts"]
    every = metrics["means"][metrics["final"]].get("all")
    dice = "not known" if every is None else line(every["dice"], 3)
    return f"Dice {dice}, {counts['organs']} organs, {counts['scored_scans']} scans of {counts['patients']} patients"
