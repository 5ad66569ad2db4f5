"""Held-out scans by every network → organs.csv, metrics.json, method.json; pseudo-labels → files that a person can look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from medray.metrics import organs as of_organs
from medray.report.figures import line
from medray.shards.few_rows import Stored
from medray.shards.folders import fold_folder
from medray.shards.store import Store
from medray.systems.fewlabel import pseudo_files
from medray.systems.fewlabel.chain import ORDER, Chain
from medray.systems.fewlabel.pseudo import Merged
from medray.systems.fewlabel.scores import Chosen, by_organ, chosen, ladder, means, of_answer, organ_table, small_ones
from medray.systems.fewlabel.source import FewLabelCT
from medray.systems.fewlabel.sources import Origin
from medray.tasks.new_scans.answers import training_ml

GROUP_WORDS = {
    "all": "all organs", "own": "labelled by the scan's own source", "other": "not labelled by its own source", "small": "smaller half",
}  # fmt: skip


def labelled_by(origins: Sequence[Origin]) -> dict[str, tuple[str, ...]]:
    """Source → organs that it labels by themselves."""
    return {one.name: tuple(group[0] for group in one.groups if len(group) == 1 and one.organs) for one in origins}


def source_table(index: pd.DataFrame, source: FewLabelCT) -> pd.DataFrame:
    """One row a source: cases, what it labels, voxels, spacing and intensities, whose differences make pseudo-labels worse.

    Args:
        index: of the shards.
    """
    rows = []
    if lost := [origin.name for origin in source.origins if origin.name not in set(index["origin"])]:
        raise ValueError(
            f"--sources: source {lost[0]}: every case was set aside when it was read, for the reason that is printed above; mend its "
            "files or its line of the table"
        )
    held = has_organs(index, source)
    for origin in source.origins:
        own = index[index["origin"] == origin.name]
        shapes, spacings, hu = (np.array(own[name].tolist(), float) for name in ("shape_DHW", "spacing_mm", "body_hu"))
        rows.append({
            "source": origin.name,
            "cases": len(own),
            "labelled": int((own["organs_labelled"] > 0).sum()),
            "organs (cases that have it)": ", ".join(
                f"{group[0]} ({held.at[origin.name, group[0]]})" if len(group) == 1 else "+".join(group) for group in origin.groups
            )
            if origin.organs
            else "none",
            "voxels": " × ".join(f"{n:.0f}" for n in np.median(shapes, 0)),
            "spacing, mm": " × ".join(f"{n:.2f}" for n in np.median(spacings, 0)),
            "HU without air": "{:.0f}, {:.0f}, {:.0f}".format(*np.median(hu, 0)),
        })  # fmt: skip
    return pd.DataFrame(rows)


def source_lines(index: pd.DataFrame, source: FewLabelCT) -> list[str]:
    """``source_table`` for a terminal; warnings with "! " before them."""
    lines = [f"  {line}" for line in source_table(index, source).to_string(index=False).splitlines()]
    held = has_organs(index, source)
    for name, organs in labelled_by(source.origins).items():
        for organ in organs:
            if not held.at[name, organ]:
                lines.append(
                    f"! source {name}: {organ} is in no voxel of its masks, and each of its labelled cases teaches that it is absent; see "
                    "the mapping, or leave it out of organs"
                )
    return lines


def has_organs(index: pd.DataFrame, source: FewLabelCT) -> pd.DataFrame:
    """Source × organ: in how many of its cases the organ has a voxel."""
    there = np.array(index["organs_ml"].tolist(), dtype=float).reshape(len(index), len(source.organs)) > 0
    return pd.DataFrame(there, columns=list(source.organs)).groupby(index["origin"].to_numpy()).sum()


def pseudo_table(made: Stored | None, index: pd.DataFrame, source: FewLabelCT, folds: Sequence[int]) -> pd.DataFrame:
    """One row an organ and source that does not label it: scans, how many have the organ by a pseudo-label, its confidence and
    its Dice where that can be told. Of the scans that the first of ``folds`` learns from.

    Args:
        made: rows of ``PseudoLabels``; None where there are none. index: of the shards.
    """
    if made is None:
        return pd.DataFrame()
    fold = folds[0]
    learned = index[(index["fold"] != fold) & (index["organs_labelled"] > 0)].set_index("scan_id")["origin"]
    names = [name for name in made.files if name.startswith(fold_folder(fold))]
    columns = ["scan_id", "confidence", "pseudo_ml", "dice"]
    found = pd.concat([made.store.read_table(name, columns).to_pandas() for name in names], ignore_index=True)
    found = found[found["scan_id"].isin(learned.index)]
    origin = found["scan_id"].map(learned)
    rows = []
    for k, organ in enumerate(source.organs):
        for name, labelled in labelled_by(source.origins).items():
            own = found[origin == name]
            if organ in labelled or own.empty:
                continue
            confidence, ml, dice = (own[column].str[k].astype(float) for column in ("confidence", "pseudo_ml", "dice"))
            rows.append({
                "organ": organ, "in scans of": name, "scans": len(own), "with pseudo-labels": int((ml > 0).sum()),
                "confidence": round(confidence.mean(), 3), "mL, median": round(ml[ml > 0].median(), 1),
                "Dice": round(dice.mean(), 3),
            })  # fmt: skip
    return pd.DataFrame(rows)


def write_pseudo(out: Store, made: Stored, index: pd.DataFrame, merged: Merged) -> list[str]:
    """pseudo/ in the folder of results: ``pseudo_files.write_pseudo``; lines of what there is.

    Args:
        merged: what is learned from them.
    """
    count, changed = pseudo_files.write_pseudo(out.sub("pseudo"), made, index, merged.organs, merged.locked)
    locked = merged.locked_masks
    lines = [
        f"{count:,} pseudo-labels to look at: {out.uri}/pseudo, with {pseudo_files.TABLE}; --locked takes corrected ones"
        + (f"; locked by a person: {locked:,}" if locked else "")
    ]
    if changed:
        lines.append(
            f"! {changed:,} masks there have been changed by somebody and are left so; nothing learns from them unless a folder of "
            "their own holds them, which --locked names"
        )
    return lines


def answers(
    inner: Mapping[int, pd.DataFrame], source: FewLabelCT, shards: pd.DataFrame, folds: Sequence[int]
) -> dict[int, Chosen]:
    """Fold → which of the two running means of co-training answers, by the inner scans."""
    origin_of = dict(zip(shards["scan_id"], shards["origin"], strict=True))
    return {fold: chosen(inner.get(fold), source.organs, origin_of, labelled_by(source.origins)) for fold in folds}


def conclude(
    out: Store,
    chain: Chain,
    source: FewLabelCT,
    predictions: Mapping[str, pd.DataFrame],
    answer_of: Mapping[int, Chosen],
    shards: pd.DataFrame,
    folds: Sequence[int],
    merged: Merged,
) -> dict[str, Any]:
    """Score the held-out scans, and write the tables and method.json, which a prediction of new scans needs.

    Args:
        predictions: rung → out-of-fold outputs. answer_of: of co-training, by fold. shards: index of every scan.
        folds: that were trained. merged: true and pseudo-labels, of which some may be a person's.
    Returns:
        The content of metrics.json.
    Raises:
        ValueError: of no held-out scan an organ is known.
    """
    origin_of = dict(zip(shards["scan_id"], shards["origin"], strict=True))
    labelled, organs = labelled_by(source.origins), chain.base.organs
    tables = {}
    for rung, rows in predictions.items():
        if rung == "cotraining":
            parts = [of_answer(own, answer_of[int(fold)].answer) for fold, own in rows.groupby("fold")]
            rows = pd.concat(parts, ignore_index=True)
        tables[rung] = organ_table(rows, organs, origin_of, labelled)
    final = tables[chain.final]
    known = final[final["drawn_ml"].notna()]
    if known.empty:
        raise ValueError(
            "of no held-out scan an organ is known: nothing can be scored; give masks in the column scored"
        )
    long = pd.concat([table.assign(network=rung) for rung, table in tables.items()], ignore_index=True)
    out.write_csv("organs.csv", long[["network", *final.columns]])
    small = small_ones(final)
    metrics: dict[str, Any] = {
        "counts": {
            "scans": final["scan_id"].nunique(), "scored_scans": known["scan_id"].nunique(),
            "patients": known["patient_id"].nunique(), "organs": known["organ"].nunique(), "known": len(known),
            "not_found": int(((known["ml"] == 0) & (known["drawn_ml"] > 0)).sum()),
        },
        "final": chain.final,
        "small": small,
        "answers": {str(fold): one.answer for fold, one in answer_of.items()},
        "chosen_by": {str(fold): {"scans": one.scans, "organs": list(one.organs)} for fold, one in answer_of.items()},
        "means": means(tables, small),
        "by_organ": {rung: by_organ(table) for rung, table in tables.items()},
        "ladder": ladder(tables, small),
    }  # fmt: skip
    out.write_json("metrics.json", metrics)
    learned = shards[shards["organs_labelled"] > 0]
    learned = learned[learned["fold"] != folds[0]] if len(folds) == 1 else learned  # of several each is learned by some
    out.write_json("method.json", {
        "runs": chain.run(chain.final), "kind": chain.final, "folds": sorted(folds), "source": source.identity(),
        "organs": list(organs), "answers": metrics["answers"],
        "small": small, "training_ml": training_ml(learned, organs), "locked": merged.locked_masks,
    })  # fmt: skip
    return metrics


def summary(metrics: Mapping[str, Any]) -> list[str]:
    """The figures of metrics.json as lines for a terminal."""
    counts = metrics["counts"]
    lines = [
        f"{counts['scored_scans']:,} held-out scans of {counts['patients']:,} patients, {counts['organs']} organs; of "
        f"{counts['known']:,} that are known {counts['not_found']:,} were not found by {metrics['final']}"
    ]
    for rung, groups in metrics["means"].items():
        shown = [
            f"{GROUP_WORDS[group]} {line(groups[group]['dice'], 3)}" for group in groups if group in ("all", "other")
        ]
        lines.append(f"{f'Dice, {rung}':<20}{'; '.join(shown)}")
    for step in metrics["ladder"]:
        if step["rung"] == metrics["final"] and "all" in step["groups"]:
            lines.append(f"{step['rung']} against {step['against']}, Dice: {line(step['groups']['all']['dice'], 3)}")
    return [*lines, *better(metrics)]


def better(metrics: Mapping[str, Any]) -> list[str]:
    """A line where another network of the ladder has a better mean Dice than the one that answers, and not by chance where the
    ladder compares them."""
    dice = {rung: groups["all"]["dice"]["value"] for rung, groups in metrics["means"].items() if "all" in groups}
    final = metrics["final"]
    best = max(dice, key=dice.__getitem__, default=final)
    if final not in dice or dice[best] <= dice[final]:
        return []
    for step in metrics["ladder"]:
        gain = step["groups"].get("all", {}).get("dice", {"low": None})
        between = gain["low"] is not None and gain["low"] <= 0 <= gain["high"]
        if between and {step["rung"], step["against"]} == {best, final}:
            return []
    kept = [rung for rung in ORDER if rung in metrics["means"]]
    kept = kept[: kept.index(best) + 1]
    return [
        f"! {best} has the better mean Dice on these scans ({dice[best]:.3f}, {final} {dice[final]:.3f}), and predictions ask {final}; "
        f"where you trust that, the same command with --rungs {' '.join(kept)} trains nothing anew, and {best} answers (table and report are of these alone then)"
    ]


def flat(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The values of metrics.json under names like "oof/dice_other", for MLflow."""
    found = of_organs.flat(metrics["means"], metrics["final"])
    return {name: value for name, value in found.items() if value is not None}
