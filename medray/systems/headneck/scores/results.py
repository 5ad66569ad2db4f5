"""Contours of held-out scans → scans.csv, organs.csv, metrics.json, method.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from medray.metrics import organs as of_organs
from medray.report.figures import line
from medray.shards.store import Store
from medray.systems.headneck.chain import Chain
from medray.systems.headneck.scores.ladder import NEAR_MM, by_organ, ladder, means, organ_table, peaks
from medray.systems.headneck.source import PlanningCT
from medray.tasks.new_scans.answers import training_ml


def conclude(
    out: Store,
    chain: Chain,
    source: PlanningCT,
    predictions: Mapping[str, pd.DataFrame],
    shards: pd.DataFrame,
    folds: Sequence[int],
    files: Mapping[str, str],
) -> dict[str, Any]:
    """Score the held-out scans, and write the tables and method.json, which a prediction of new scans needs.

    Args:
        predictions: rung → out-of-fold outputs of its networks. shards: scan_id, fold and organs_ml of every scan.
        folds: that were trained. files: scan_id → beginning of the names of its files.
    Returns:
        The content of metrics.json.
    Raises:
        ValueError: in no held-out scan an organ is drawn.
    """
    tables = {rung: organ_table(rows, chain.base.organs) for rung, rows in predictions.items()}
    final = tables[chain.final]
    if final["drawn_ml"].isna().all():
        raise ValueError("no held-out scan has an organ drawn: nothing can be scored; name more masks")
    drawn = final[final["drawn_ml"].notna()]
    long = pd.concat([table.assign(network=rung) for rung, table in tables.items()], ignore_index=True)
    out.write_csv("organs.csv", long[["network", *final.columns]])
    scans = drawn.groupby(["scan_id", "patient_id", "visit", "fold"], as_index=False).agg(
        organs=("organ", "size"), dice=("dice", "mean"), surface_dice=("surface_dice", "mean"), hd95_mm=("hd95_mm", "mean")
    )  # fmt: skip
    out.write_csv("scans.csv", scans.assign(files=scans["scan_id"].map(files)))
    gate = chain.fields.gate
    metrics: dict[str, Any] = {
        "counts": {
            "scans": final["scan_id"].nunique(), "scored_scans": drawn["scan_id"].nunique(),
            "patients": drawn["patient_id"].nunique(), "organs": drawn["organ"].nunique(), "drawn": len(drawn),
            "not_found": int((drawn["ml"] == 0).sum()),
        },
        "final": chain.final,
        "small": list(chain.small),
        "gate": gate,
        "means": means(tables, chain.small),
        "by_organ": by_organ(final),
        "ladder": ladder(tables, chain.small),
        "peaks": peaks(final, gate),
        "undrawn": [organ for organ in chain.base.organs if organ not in set(drawn["organ"])],
    }  # fmt: skip
    out.write_json("metrics.json", metrics)
    learned = (
        shards[shards["fold"] != folds[0]] if len(folds) == 1 else shards
    )  # of several folds each is learned by some
    method = {
        "runs": chain.run(chain.final), "kind": chain.final, "folds": sorted(folds), "source": source.identity(),
        "organs": list(chain.base.organs), "small": list(chain.small), "training_ml": training_ml(learned, chain.base.organs),
    }  # fmt: skip
    out.write_json("method.json", method)
    return metrics


def summary(metrics: Mapping[str, Any]) -> list[str]:
    """The figures of metrics.json as lines for a terminal."""
    counts, final = metrics["counts"], metrics["means"][metrics["final"]]
    lines = [
        f"{counts['scored_scans']:,} held-out scans of {counts['patients']:,} patients, {counts['organs']} organs: of "
        f"{counts['drawn']:,} that were drawn {counts['not_found']:,} were not found"
    ]
    words = {"dice": ("Dice", 3), "surface_dice": ("surface Dice", 3), "hd95_mm": ("HD95, mm", 1)}
    for group, name in (("all", "all organs"), ("small", "small organs"), ("large", "the others")):
        for score, (text, digits) in words.items():
            if group in final and (score == "dice" or group == "all"):
                lines.append(f"{f'{text}, {name}':<26}{line(final[group][score], digits)}")
    for step in metrics["ladder"]:
        if step["rung"] == metrics["final"]:
            for group in [g for g in ("small", "all") if g in step["groups"]][:1]:
                lines.append(
                    f"{step['rung']} against {step['against']}, Dice, {group} organs: {line(step['groups'][group]['dice'], 3)}"
                )
    if metrics["peaks"]:
        scans, sure, near = (
            sum(one[name] for one in metrics["peaks"].values()) for name in ("scans", "confident", "near")
        )
        lines.append(
            f"peaks of small organs: {sure:,} of {scans:,} confident, {near:,} of these within {NEAR_MM:g} mm of the middle"
        )
    return lines


def flat(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The values of metrics.json under names like "oof/dice_small", for MLflow."""
    found = of_organs.flat(metrics["means"], metrics["final"])
    for organ, one in metrics["by_organ"].items():
        found[f"oof/dice_{organ}"] = one["dice"]["value"]
    return {name: value for name, value in found.items() if value is not None}
