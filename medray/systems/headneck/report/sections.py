"""The report's sections, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from medray.metrics.intervals import LEAST_PATIENTS
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
    name_axes,
)
from medray.report.sections import files, learning
from medray.report.sections import settings as made
from medray.systems.headneck.scores.ladder import NEAR_MM

WORDS = {"dice": "Dice", "surface_dice": "surface Dice", "hd95_mm": "HD95, mm"}
DIGITS = {"dice": 3, "surface_dice": 3, "hd95_mm": 1}
RUNG_WORDS = {
    "unet": "plain 3D U-Net", "weighted": "the same, organs weighed against the rest", "four": "S-Net with four down-samplings",
    "snet": "S-Net", "no-ct": "+ small organs' networks, without the CT itself", "outlines": "+ small organs' networks",
    "large": "+ networks for every organ", "joint": "+ shape: all four trained together",
}  # fmt: skip
GROUP_WORDS = {"all": "all organs", "small": "small organs", "large": "the others"}
FEW_PATIENTS = 10


def report_sections(
    metrics: dict[str, Any], organs: pd.DataFrame, scans: pd.DataFrame, slices: Sequence[Slice], about: About
) -> list[Section]:
    """All sections of the page.

    Args:
        metrics: as metrics.json. organs: organs.csv of the final network. scans: as scans.csv.
    """
    return [
        _scores(metrics, about),
        _gallery(slices, len(scans)),
        _by_organ(metrics, about.phantom),
        _ladder(metrics),
        *([_peaks(metrics)] if metrics["peaks"] else []),
        _volumes(organs),
        _by_scan(scans),
        learning(about.histories, "loss", "scans", "", "an inner part of the training patients"),
        files(about.inventory, "scan_id"),
        made(dict(about.settings)),
    ]


def caution(counts: Mapping[str, int]) -> str:
    """What so few patients do not allow."""
    return "" if counts["patients"] >= FEW_PATIENTS else f" {counts['patients']} patients: no claim of quality."


def _scores(metrics: dict[str, Any], about: About) -> Section:
    counts, groups = metrics["counts"], metrics["means"][metrics["final"]]
    top: list[Block] = [Notice(one) for one in about.notices]
    shown = [(f"Dice, {GROUP_WORDS[group]}", *texts(scores["dice"], 3)) for group, scores in groups.items()]
    found = counts["drawn"] - counts["not_found"]
    shown.append(("organs found at all", f"{found:,} of {counts['drawn']:,}", ""))
    rows = [
        {"mean over": GROUP_WORDS[group]} | {WORDS[s]: Cell(*texts(scores[s], DIGITS[s])) for s in WORDS}
        for group, scores in groups.items()
    ]
    text = (
        f"{counts['scored_scans']:,} held-out scans of {counts['patients']:,} patients, {counts['drawn']:,} organs that somebody "
        f"has drawn; each scan was contoured by networks that have not seen its patient.{caution(counts)} A mean is over organs, each "
        "of which is a mean over scans. An organ that nobody has drawn in a scan is not scored there; one that was drawn and not "
        "found has a Dice of 0, and the image's diagonal as its distance. Surface Dice is the share of both surfaces that lies within the "
        "organ's tolerance; HD95 the larger of the two directions' 95th percentiles; surfaces are voxels' centres, so that both "
        "cannot be finer than the grid. Intervals are of 95%, by resampling patients."
    )
    if metrics["undrawn"]:
        text += f" Drawn in no held-out scan, and not scored: {', '.join(metrics['undrawn'])}."
    return Section("Scores", more=(*top, Figures(tuple(shown)), text, Table(pd.DataFrame(rows))))


def _gallery(slices: Sequence[Slice], scans: int) -> Section:
    shown = len({one.title for one in slices})
    text = (
        "Blue is what was drawn, orange what was found; where both lie on each other, orange is on top, be they of two organs. A number "
        f"tells the organ. {shown} of {scans:,} scans, evenly from the worst to the best, seen from the feet: the patient's right is on "
        "the left. What was found of an organ that nobody has drawn is not shown."
    )
    tiles = tuple(Tile(one.image, one.title, one.lines) for one in slices)
    return Section("Scans to look at", text, more=(Gallery(tiles, tile_px=300),))


def _by_organ(metrics: dict[str, Any], phantom: bool) -> Section:
    order = sorted(metrics["by_organ"].items(), key=lambda item: item[1]["drawn_ml"] or 0.0)
    rows = [
        {
            "organ": name + (" (small)" if name in metrics["small"] else ""),
            "drawn, mL": None if one["drawn_ml"] is None else round(one["drawn_ml"], 2),
            "scans": one["scans"],
            "not found": one["empty"],
            **{WORDS[score]: Cell(*texts(one[score], DIGITS[score])) for score in WORDS},
            "tolerance, mm": one["tolerance_mm"],
        }
        | ({} if phantom else {f"human {WORDS[s]}": one["human"] and one["human"][s] for s in ("dice", "hd95_mm")})
        for name, one in order
        if one["scans"]
    ]
    figure, axes = chart(10, 0.9 + 0.27 * len(rows))
    axis = axes[0, 0]
    known = [(name, one) for name, one in order if one["scans"]]
    for place, (_, one) in enumerate(known):
        dice = one["dice"]
        if dice["low"] is not None:
            axis.plot([dice["low"], dice["high"]], [place, place], color=PALETTE[0], linewidth=2)
        axis.plot([dice["value"]], [place], "o", color=PALETTE[0], label="found against drawn" if not place else None)
        if one["human"] and not phantom:
            axis.plot([one["human"]["dice"]], [place], "|", color=PALETTE[1], markersize=13, markeredgewidth=2)
    if any(one["human"] for _, one in known) and not phantom:
        axis.plot(
            [],
            [],
            "|",
            color=PALETTE[1],
            markersize=11,
            markeredgewidth=2,
            label="human against human, 1 other patient",
        )
    axis.set_yticks(range(len(known)), [name for name, _ in known])
    axis.set_ylim(len(known) - 0.4, -0.6)  # as in the table: the smallest above
    axis.set_xlim(-0.02, 1.02)
    legend(axis, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2)
    axis.set_xlabel("Dice")
    text = (
        "From the smallest to the largest. "
        if phantom
        else (
            "From the smallest to the largest. Human against human is one CT of another data set, drawn by an oncologist and a "
            "radiographer (Nikolov et al.), by the same metrics: n = 1, a yardstick. "
        )
    )
    text += (
        "The tolerance of an organ is what 95% of the surfaces of two raters of one CT lie within, of both sides the mean; 2 mm "
        "where they have not drawn it. On a coarser grid a surface Dice at such a tolerance asks for the very same voxels."
    )
    return Section("By organ", text, figure, pd.DataFrame(rows))


def _ladder(metrics: dict[str, Any]) -> Section:
    groups = [g for g in GROUP_WORDS if any(g in of for of in metrics["means"].values())]
    rows = [
        {"network": RUNG_WORDS[rung]}
        | {f"Dice, {GROUP_WORDS[g]}": Cell(*texts(of[g]["dice"], 3)) for g in groups if g in of}
        | {"HD95, mm": Cell(*texts(of["all"]["hd95_mm"], 1))}
        for rung, of in metrics["means"].items()
    ]
    blocks: list[Block] = [Table(pd.DataFrame(rows))]
    if metrics["ladder"]:
        steps = [
            {"network": RUNG_WORDS[step["rung"]], "against": RUNG_WORDS[step["against"]]}
            | {f"Dice, {GROUP_WORDS[g]}": Cell(*texts(of["dice"], 3, signed=True)) for g, of in step["groups"].items()}
            | {"HD95, mm": Cell(*texts(step["groups"]["all"]["hd95_mm"], 1, signed=True))}
            for step in metrics["ladder"]
        ]
        blocks.append(Table(pd.DataFrame(steps), "Differences on the same scans, with intervals over patients."))
    text = "Every network was trained on the same scans and scored on the same held-out ones."
    text += " Each was trained once, with one seed: intervals tell how scans differ, not how trainings do."
    if len(rows) < len(RUNG_WORDS):
        text += " --rungs trains the others of the ladder too."
    return Section("The ladder", text, more=tuple(blocks))


def _peaks(metrics: dict[str, Any]) -> Section:
    rows = [
        {
            "organ": name,
            "scans": one["scans"],
            f"peaks of {metrics['gate']:g} or more": one["confident"],
            f"of these within {NEAR_MM:g} mm of its middle": one["near"],
            "median distance from its middle, mm": None if one["median_mm"] is None else round(one["median_mm"], 1),
        }
        for name, one in metrics["peaks"].items()
    ]
    text = (
        "An organ's own network is asked where its heatmap has a confident peak; elsewhere S-Net's answer stays. An organ that is cut "
        "by the image's edge has no middle that could be compared."
    )
    return Section("Where small organs are", text, table=pd.DataFrame(rows))


def _volumes(organs: pd.DataFrame) -> Section:
    known = organs[organs["drawn_ml"].notna() & (organs["drawn_ml"] > 0)]
    figure, axes = chart(6, 3.6)
    axis = axes[0, 0]
    sizes = pd.concat([known["drawn_ml"], known["ml"][known["ml"] > 0]])
    least = float(sizes.min())
    shown = known["ml"].where(known["ml"] > 0, least / 4)
    axis.plot(
        [least / 2, known["drawn_ml"].max() * 1.5],
        [least / 2, known["drawn_ml"].max() * 1.5],
        color="#999999",
        linewidth=0.8,
    )
    axis.scatter(known["drawn_ml"], shown, s=14, color=PALETTE[0], alpha=0.7)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("drawn, mL")
    name_axes(axis, "found, mL")
    lost = int((known["ml"] == 0).sum())
    off = np.log(known["ml"][known["ml"] > 0] / known["drawn_ml"][known["ml"] > 0])
    text = f"{len(known):,} organs in {known['scan_id'].nunique():,} scans"
    text += f", of which {lost:,} were not found (at the bottom)" if lost else ""
    if known["patient_id"].nunique() >= LEAST_PATIENTS and len(off):
        text += f"; half of {'the others' if lost else 'them'} lie within a factor of {np.exp(np.abs(off).median()):.2f} of what was drawn"
    below = int((off < 0).sum())
    text += f". {below:,} of {len(off):,} that were found are smaller than drawn, {int((off > 0).sum()):,} larger"
    own = known.assign(ratio=known["ml"] / known["drawn_ml"]).groupby("organ")["ratio"]
    table = pd.DataFrame({"scans": own.size(), "found / drawn, median": own.median().round(2)}).reset_index()
    caption = "An organ that is found too small, or too large, in most scans is so by training, not by chance."
    return Section("Volumes", f"{text}.", figure, more=(Table(table.sort_values("found / drawn, median"), caption),))


def _by_scan(scans: pd.DataFrame) -> Section:
    shown = scans.sort_values("dice")[["scan_id", "fold", "organs", "dice", "surface_dice", "hd95_mm"]].head(40)
    rest = f"The first 40 of {len(scans):,} scans, the worst first" if len(scans) > 40 else f"All {len(scans):,} scans"
    table = shown.rename(columns={"organs": "organs drawn", **WORDS}).round(3)
    return Section("By scan", more=(Table(table, f"{rest}; organs.csv has every organ of every network."),))


def lead(metrics: dict[str, Any]) -> str:
    counts = metrics["counts"]
    dice = line(metrics["means"][metrics["final"]]["all"]["dice"], 3)
    return f"Dice {dice}, {counts['organs']} organs, {counts['scored_scans']} scans of {counts['patients']} patients"
