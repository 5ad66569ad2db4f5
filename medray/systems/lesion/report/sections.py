"""The report's sections, in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Chart

from medray.metrics.intervals import LEAST_PATIENTS
from medray.report.about import About
from medray.report.figures import line, texts
from medray.report.page import (
    PALETTE,
    Block,
    Figures,
    Gallery,
    Notice,
    Section,
    Table,
    Tile,
    chart,
    name_axes,
)
from medray.report.sections import files, learning
from medray.report.sections import settings as made
from medray.systems.lesion.published import PUBLISHED
from medray.systems.lesion.report.pictures import Slice

_WORDS = {
    "dice": "Dice", "ppv": "positive predictive value", "sensitivity": "sensitivity", "iou": "intersection over union",
    "volume_difference": "volume difference, of the true volume", "hd95_mm": "95% Hausdorff distance, mm",
    "assd_mm": "average surface distance, mm", "lesion_recall": "lesions found (LTPR)",
    "lesion_false_rate": "findings that are no lesion (LFPR)", "lesion_f1": "lesion F1",
}  # fmt: skip
FEW_PATIENTS = 10


def report_sections(
    metrics: dict[str, Any], scans: pd.DataFrame, slices: Sequence[Slice], about: About
) -> list[Section]:
    """All sections of the page.

    Args:
        metrics: as metrics.json. scans: as scans.csv. slices: from ``pictures.collect``.
    """
    settings = (
        {name: value for name, value in about.settings.items()}
        | {"thresholds": metrics["thresholds"]}
        | metrics["rules"]
    )
    drawn = scans[scans["true_ml"].notna()]
    return [
        _scores(metrics, about),
        _gallery(slices),
        _by_scan(scans),
        _by_size(metrics),
        _by_place(metrics),
        _volume(metrics, drawn),
        _free_response(metrics),
        _published(metrics),
        learning(about.histories, "loss", "held-out scans", "", "an inner part of the training patients"),
        files(about.inventory, "scan_id"),
        made(settings),
    ]


def caution(counts: dict[str, int]) -> str:
    """What so few patients do not allow."""
    if counts["patients"] >= FEW_PATIENTS:
        return ""
    return f" {counts['patients']} patients: no claim of quality."


def _scores(metrics: dict[str, Any], about: About) -> Section:
    counts, means = metrics["counts"], metrics["means"]
    top: list[Block] = [Notice(one) for one in about.notices]
    shown = [("Dice", *texts(means["dice"], 3)), ("lesion F1", *texts(means["lesion_f1"], 3))]
    recall = f"{counts['found']:,} of {counts['lesions']:,}"
    shown.append(("lesions found", recall, f"{counts['false']:,} of {counts['findings']:,} findings are no lesion"))
    rows = [
        {"score": _WORDS[name], "mean": texts(figure, 3)[0], "95% interval": texts(figure, 3)[1], "scans": figure["scans"]}
        for name, figure in means.items()
    ]  # fmt: skip
    rows += [
        {"score": f"Dice of {name} alone", "mean": texts(figure, 3)[0], "95% interval": texts(figure, 3)[1], "scans": figure["scans"]}
        for name, figure in metrics.get("dice_by_class", {}).items()
    ]  # fmt: skip
    text = (
        f"{counts['scans']:,} held-out scans with a mask, of {counts['patients']:,} patients; each was predicted by the network "
        f"that has not seen its patient.{caution(counts)} Means over the scans for which a score is defined: "
        f"{counts['scans_without_lesion']} scans have no lesion, in {counts['scans_without_finding']} nothing was found. Where "
        "one of the two is empty, Dice is 0 and a distance is the diagonal of the image; a predictive value is 0 where lesions are "
        "and nothing was found, which the rate of findings that are no lesion leaves out. Intervals are of 95%, by resampling "
        "patients."
    )
    return Section("Scores", more=(*top, Figures(tuple(shown)), text, Table(pd.DataFrame(rows))))


def _gallery(slices: Sequence[Slice]) -> Section:
    tiles = tuple(
        Tile(
            one.image,
            f"Dice {one.dice:.3f}" if one.dice is not None and one.dice == one.dice else "",
            (one.scan_id, one.about),
        )
        for one in slices
    )
    text = (
        "Blue is what was drawn, orange what was found; where both lie on each other, orange is on top. From the worst scan to the "
        "best, the first channel, seen from the feet: the patient's right is on the left."
    )
    return Section("Scans to look at", text, more=(Gallery(tiles, tile_px=300),))


def _by_scan(scans: pd.DataFrame) -> Section:
    names = [
        "scan_id",
        "visit",
        "fold",
        "true_ml",
        "ml",
        "dice",
        "lesions",
        "lesion_recall",
        "findings",
        "findings_false",
    ]
    shown = scans.sort_values("dice", na_position="last")[names].head(40).rename(
        columns={"true_ml": "drawn, mL", "ml": "found, mL", "lesion_recall": "part found", "findings_false": "false"}
    )  # fmt: skip
    rest = f"The first 40 of {len(scans):,} scans, the worst first" if len(scans) > 40 else f"All {len(scans):,} scans"
    return Section("By scan", more=(Table(shown.round(3), f"{rest}; scans.csv has all scores."),))


def _by_size(metrics: dict[str, Any]) -> Section:
    rows = metrics["recall_by_size"]
    names = [
        f"{r['from_mm3']:g}–{r['to_mm3']:g}" if r["to_mm3"] is not None else f"{r['from_mm3']:g} and more" for r in rows
    ]
    figure, axes = chart(10, 2.8)
    axis = axes[0, 0]
    parts = [r["found"] / r["lesions"] if r["lesions"] else 0.0 for r in rows]
    axis.bar(names, parts, color=PALETTE[0], width=0.6)
    for i, row in enumerate(rows):
        axis.annotate(f"{row['found']} of {row['lesions']}", (i, parts[i]), ha="center", va="bottom", fontsize=8)
    axis.set_ylim(0, 1.12)
    axis.set_xlabel("volume of the lesion, mm³")
    name_axes(axis, "part of the lesions that was found")
    return Section(
        "By size of the lesion",
        "A lesion is found where the prediction covers enough of it (the rules under How it was made).",
        figure,
    )


def _by_place(metrics: dict[str, Any]) -> Section:
    rows = [
        {
            "below the brain's surface, mm": f"{r['from_mm']:g}–{r['to_mm']:g}" if r["to_mm"] else f"{r['from_mm']:g} and more",
            "lesions": r["lesions"], "found": r["found"], "false findings": r["false"],
        }
        for r in metrics["by_depth"]
    ]  # fmt: skip
    text = (
        "Near the surface false findings are often cortex or edges, deep ones choroid plexus or the ventricles' walls."
    )
    return Section("By place", text, table=pd.DataFrame(rows))


def _volume(metrics: dict[str, Any], drawn: pd.DataFrame) -> Section:
    volume = metrics["volume"]
    figure, axes = chart(10, 3.2, 1, 2)
    true, found = drawn["true_ml"].to_numpy(dtype=float), drawn["ml"].to_numpy(dtype=float)
    left, right = axes[0]
    most = max(1e-3, float(np.max([true, found])) * 1.05)
    left.plot([0, most], [0, most], color="#999999", linewidth=0.8)
    left.scatter(true, found, s=18, color=PALETTE[0])
    left.set_xlabel("drawn, mL")
    name_axes(left, "found, mL")
    right.scatter((true + found) / 2, found - true, s=18, color=PALETTE[0])
    for value in (volume["bias_ml"], volume["low_ml"], volume["high_ml"]):
        if value is not None:
            right.axhline(value, color=PALETTE[1], linewidth=1, linestyle="-" if value == volume["bias_ml"] else "--")
    right.set_xlabel("mean of both, mL")
    name_axes(right, "found − drawn, mL")
    limits = volume["low_ml"] is not None
    text = f"{len(drawn)} scans. The mean difference is {volume['bias_ml']:+.2f} mL"
    text += (
        f"; 95% limits of agreement {volume['low_ml']:.2f} to {volume['high_ml']:.2f} mL (Bland–Altman)"
        if limits
        else ""
    )
    if volume["correlation"] is not None:
        text += f"; Pearson's correlation of the volumes is {volume['correlation']:.3f}"
    return Section("Volume of all lesions", f"{text}.", figure)


def _free_response(metrics: dict[str, Any]) -> Section:
    points = metrics["free_response"]
    text = "Findings of at least a given probability: how many lesions they find, and how many are false."
    if not points:
        return Section("Free response", "No lesion was drawn in a held-out scan.")
    figure: Chart
    figure, axes = chart(6, 3.2)
    axis = axes[0, 0]
    axis.step([p["false_a_scan"] for p in points], [p["recall"] for p in points], where="post", color=PALETTE[0])
    axis.set_ylim(0, 1.02)
    axis.set_xlabel("false findings a scan")
    name_axes(axis, "part of the lesions that was found")
    return Section("Free response", text, figure)


def _published(metrics: dict[str, Any]) -> Section:
    isbi = metrics["isbi"]
    counts = metrics["counts"]
    few = (
        f"not given: {counts['patients']} patients allow no correlation"
        if counts["patients"] < LEAST_PATIENTS
        else "undefined"
    )
    value = few if isbi["score"] is None else f"{isbi['score']:.3f} ({counts['scans']} scans)"
    text = (
        f"The ISBI 2015 score of these scans is {value}: DSC/8 + PPV/8 + (1 − LFPR)/4 + LTPR/4 + Corr/4, 1 at best. The "
        "published scores are scaled so that a human rater has 90, on the challenge's own test scans: they do not compare "
        "with it, nor do figures of other scans with these."
    )
    return Section("Beside published figures", text, table=pd.DataFrame(PUBLISHED))


def lead(metrics: dict[str, Any]) -> str:
    counts = metrics["counts"]
    return f"Dice {line(metrics['means']['dice'], 3)}, {counts['scans']} scans of {counts['patients']} patients"
