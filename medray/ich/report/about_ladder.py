"""What the report says of the method's steps: what each added, the rare class, the ensemble."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from medray.ich.classes import CLASSES
from medray.ich.report import ladder_chart
from medray.ich.report.published import COMPARABLE, RESULTS, VALIDATION, Published
from medray.ich.report.words import listed
from medray.page import Block, Cell, Notice, Picture, Section, Table

Row = dict[str, Any]


def ladder(rows: list[Row], published: Sequence[Published] = RESULTS, phantom: bool = False) -> Section:
    """Every step's scores and its change against the step before, beside the published steps.

    Args:
        rows: of ``medray.ich.ladder.ladder``, also after JSON.
        published: only the ones on validation folds are shown: validation compares with validation only.
        phantom: the studies are phantoms, and nothing may be compared.
    """
    if not rows:
        return Section("What each step added", "No step has been scored yet.")
    beside = sorted((one for one in published if one.on == VALIDATION), key=_loss, reverse=True)
    drawn = [] if phantom else [_loss(one) for one in beside]
    caption = (
        "Points and 95% intervals. Right: blue where the whole interval is better than no change, orange where it is "
        "worse, grey where it spans 0."
    )
    if drawn:
        caption += " Hollow diamonds: the published validation results of the table below."
    more: list[Block] = [
        _what_counts(rows),
        Table(
            _steps(rows),
            "Weighted log loss, lower is better. A step's change is paired: below 0 it helped, and an interval that "
            "spans 0 leaves open whether it did.",
        ),
        Picture(ladder_chart.steps(rows, drawn), caption),
    ]
    if beside:
        if phantom:
            more.append(Notice("These studies are phantoms: nothing here may be compared with a published figure."))
        comparable = "no: phantoms" if phantom else COMPARABLE[VALIDATION]
        table = [(one.system, one.weighted_log_loss, one.on, comparable) for one in beside]
        columns = ["published step", "weighted log loss", "on", "comparable"]
        caption = (
            "Published results on validation folds; those on a challenge's board or on slices not stated are left out. "
            "Their folds are not these folds."
        )
        more.append(Table(pd.DataFrame(table, columns=columns), caption))
    return Section("What each step added", more=tuple(more))


def _loss(one: Published) -> float:
    return float(one.weighted_log_loss)


def _what_counts(rows: list[Row]) -> str:
    first = rows[0]
    text = (
        f"Every step on the same {first['slices']:,} held-out slices of {first['patients']:,} patients, scored by "
        "models that have not seen the patient."
    )
    fewer = [row for row in rows if row["own_slices"] > row["slices"]]
    if fewer:
        shown = listed([f"{row['name']} ({row['own_slices']:,})" for row in fewer])
        text += f" Only slices that every step has count; more were predicted by {shown}."
    return text + " Intervals hold 95% of bootstrap samples over patients; the two ends of a change are drawn together."


def _steps(rows: list[Row]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "step": [row["name"] for row in rows],
            "what it adds": [row["adds"] for row in rows],
            "weighted log loss": [_cell(row["weighted_log_loss"], 4) for row in rows],
            "change against the step before": [_cell(row["change"], 4, signed=True) for row in rows],
            "AUC any": [_cell(row["auc_any"], 3) for row in rows],
            "epidural average precision": [_cell(row["average_precision_epidural"], 3) for row in rows],
            "slices": [row["slices"] for row in rows],
            "folds": [None if row["folds"] is None else listed(row["folds"]) for row in rows],
        }
    )


def rare_class(rows: list[Row], recalibration: Mapping[str, Row] | None = None) -> Section:
    """What each remedy did to the rare class, and on how much the recalibration rests.

    Args:
        rows: of ``medray.ich.ladder.rare_class``; the first is the one without a remedy.
        recalibration: run or fold → ``Recalibration.to_json()``; None where nothing was recalibrated.
    """
    if not rows:
        return Section("The rare class", "No remedy has been scored yet.")
    first = rows[0]
    name = first["class"]
    table = pd.DataFrame(
        {
            "remedy": [row["name"] for row in rows],
            "what it adds": [row["adds"] for row in rows],
            "log loss": [_cell(row["log_loss"], 4) for row in rows],
            f"change against {first['name']}": [_cell(row["change"], 4, signed=True) for row in rows],
            "average precision": [_cell(row["average_precision"], 3) for row in rows],
            "mean probability": [f"{row['mean_probability']:.3%}" for row in rows],
            "observed rate": [f"{row['observed_rate']:.3%}" for row in rows],
            "ratio": [None if row["ratio"] is None else f"{row['ratio']:.2f}" for row in rows],
        }
    )
    more: list[Block] = []
    if not first["positives"]:
        more.append(Notice(f"No held-out slice is labelled {name}: what the remedies did cannot be told."))
    caption = (
        f"{first['slices']:,} held-out slices of {first['patients']:,} patients, {first['positives']:,} of them "
        f"labelled {name}. A ratio of 1 is right on average."
    )
    more.append(Table(table, caption))
    text = (
        f"Repeating the slices labelled {name} makes a model see them more often than they come: its probabilities are "
        "then too high, by about the logarithm of the repeats in log-odds. Recalibration takes that back and leaves "
        "the order of a model's slices as it was; each fold has its own, so the average precision over all folds may "
        "move a little."
    )
    if not recalibration:
        return Section(f"The rare class: {name}", text + " Nothing was recalibrated here.", more=tuple(more))
    place = CLASSES.index(name)
    fits = [
        (
            key,
            f"{one['slopes'][place]:.3f}",
            f"{one['biases'][place]:+.3f}".replace("-", "−"),
            one["patients"],
            one["slices"],
            one["positives"][place],
        )
        for key, one in recalibration.items()
    ]
    columns = ["recalibrated", "slope", "bias", "inner patients", "inner slices", f"with {name}"]
    caption = (
        f"What the recalibration of {name} rests on: slices of patients that the model neither trained on nor is "
        "scored on."
    )
    more.append(Table(pd.DataFrame(fits, columns=columns), caption))
    bare = [str(key) for key, *_, positives in fits if not positives]
    if bare:
        unsure = "its recalibration is little more than what theory says of the repeats"
        more.append(Notice(f"No inner slice with {name} in {listed(bare)}: {unsure}.", warning=False))
    return Section(f"The rare class: {name}", text, more=tuple(more))


def ensemble(weights: Mapping[str, Mapping[Any, float]], losses: Mapping[str, float]) -> Section:
    """The weight of each model by fold, and what searching the weights was worth.

    Args:
        weights: model name → fold (int, or its text after JSON) → its weight in the blend of that fold.
        losses: way of blending, or model → weighted log loss.
    """
    folds = sorted({fold for of in weights.values() for fold in of}, key=int)
    table = pd.DataFrame({"model": list(weights)})
    for fold in folds:
        table[f"fold {fold}"] = [_weight(of.get(fold)) for of in weights.values()]
    if len(folds) > 1:
        table["mean"] = [_weight(sum(of.values()) / len(folds)) for of in weights.values()]
    more: list[Block] = []
    if len(folds) == 1:
        alone = "There is one fold only, and so no other one to find weights on: all models weigh the same."
        more.append(Notice(alone, warning=False))
    more.append(Table(table, "The weights that blend each fold; they were found on the other folds."))
    if losses:
        compared = pd.DataFrame({"blend": list(losses), "weighted log loss": [f"{v:.4f}" for v in losses.values()]})
        flattered = (
            "Whoever picks the best single model after scoring, on these slices, flatters it; nested weights are not."
        )
        more.append(Table(compared, flattered))
    text = "A weighted average of the models. No fold's labels have a say in the weights that it is scored with."
    return Section("Ensemble", text, more=tuple(more))


def _weight(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


def _cell(figure: dict[str, float | None] | None, digits: int, signed: bool = False) -> Cell | None:
    """A value with its interval as a note."""
    if figure is None:
        return None
    value, low, high = figure["value"], figure["low"], figure["high"]
    if value is None:
        return Cell("–", "undefined")

    def text(number: float) -> str:
        return (f"{number:+.{digits}f}" if signed else f"{number:.{digits}f}").replace("-", "−")

    return Cell(text(value), "" if low is None or high is None else f"{text(low)} to {text(high)}")
