"""What the report says of the method's steps: what each added, the rare class, the ensemble."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from medray.report.figures import HOW, texts
from medray.report.page import Block, Cell, Notice, Picture, Section, Table
from medray.report.sections import listed
from medray.systems.ich.classes import CLASSES
from medray.systems.ich.method import DESCENDED, PLAIN, SEARCHED
from medray.systems.ich.recalibrate import Recalibration
from medray.systems.ich.report import ladder_chart
from medray.systems.ich.report.published import COMPARABLE, RESULTS, VALIDATION, Published

Row = dict[str, Any]


def ladder(rows: list[Row], published: Sequence[Published] = RESULTS, phantom: bool = False) -> Section:
    """Every step's scores and its change against the step before, beside the published steps.

    Args:
        rows: of ``medray.systems.ich.ladder.ladder``, also after JSON.
        published: only the ones on validation folds are shown: validation compares with validation only.
        phantom: the studies are phantoms, and nothing may be compared.
    """
    if not rows:
        return Section("What each step added", "No step has been scored yet.")
    beside = sorted((one for one in published if one.on == VALIDATION), key=_loss, reverse=True)
    drawn = [] if phantom else [_loss(one) for one in beside]
    steps = Table(
        _steps(rows),
        "Weighted log loss, lower is better. A step's change is paired: below 0 it helped, and an interval that spans 0 "
        "leaves open whether it did. Steps that retrain a network also differ by training chance, which the interval "
        "does not contain.",
        wide=("what it adds",),
    )
    caption = (
        "Points and 95% intervals. Right: blue where the whole interval is better than no change, orange where it is "
        "worse, grey where it spans 0 or there is none."
    )
    if drawn:
        caption += " Hollow diamonds: the published validation results of the table above."
    more: list[Block] = [_what_counts(rows)]
    if beside and phantom:
        more.append(Notice("These studies are phantoms: nothing here may be compared with a published figure."))
    more.append(steps)
    if beside:
        more.append(_beside(beside, phantom))
    more.append(Picture(ladder_chart.steps(rows, drawn), caption))
    return Section("What each step added", more=tuple(more))


def _beside(published: Sequence[Published], phantom: bool) -> Table:
    table = pd.DataFrame(
        {
            "published step": [one.system for one in published],
            "weighted log loss": [one.weighted_log_loss for one in published],
            "on": [one.on for one in published],
        }
    )
    if not phantom:
        table["comparable"] = COMPARABLE[VALIDATION]
    caption = (
        "Published results on validation folds; those on a challenge's board or on slices not stated are left out. "
        "Their folds are not these folds."
    )
    return Table(table, caption)


def _loss(one: Published) -> float:
    return float(one.weighted_log_loss)


def _what_counts(rows: list[Row]) -> str:
    first = rows[0]
    folds = first["folds"] if _constant(rows, "folds") else None
    of_folds = "" if folds is None else f" (fold{'s' if len(folds) > 1 else ''} {listed(folds)})"
    text = (
        f"Every step on the same {first['slices']:,} held-out slices of {first['patients']:,} patients{of_folds}, scored "
        "by models that have not seen the patient."
    )
    fewer = [row for row in rows if row["own_slices"] > row["slices"]]
    if fewer:
        shown = listed([f"{row['name']} ({row['own_slices']:,})" for row in fewer])
        text += f" Only slices that every step has count; more were predicted by {shown}."
    return text + f" {HOW} The two ends of a change are drawn together."


def _constant(rows: list[Row], key: str) -> bool:
    return all(row[key] == rows[0][key] for row in rows)


def _steps(rows: list[Row]) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "step": [row["name"] for row in rows],
            "what it adds": [row["adds"] for row in rows],
            "weighted log loss": [_cell(row["weighted_log_loss"], 4) for row in rows],
            "change against the step before": [_cell(row["change"], 4, signed=True) for row in rows],
            "AUC any": [_cell(row["auc_any"], 3) for row in rows],
            "epidural average precision": [_cell(row["average_precision_epidural"], 3) for row in rows],
        }
    )
    # what all steps share stands in the text above
    if not _constant(rows, "slices"):
        table["slices"] = [row["slices"] for row in rows]
    if not _constant(rows, "folds"):
        table["folds"] = [None if row["folds"] is None else listed(row["folds"]) for row in rows]
    return table


def rare_class(rows: list[Row], recalibration: Mapping[str, Row] | None = None) -> Section:
    """What each remedy did to the rare class, and on how much the recalibration rests.

    Args:
        rows: of ``medray.systems.ich.ladder.rare_class``; the first is the one without a remedy.
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
            "mean probability": [_rate(row["mean_probability"]) for row in rows],
            "observed rate": [_rate(row["observed_rate"]) for row in rows],
            "ratio": [None if row["ratio"] is None else f"{row['ratio']:.2f}" for row in rows],
        }
    )
    more: list[Block] = []
    if not first["positives"]:
        more.append(Notice(f"No held-out slice is labelled {name}: what the remedies did cannot be told."))
    caption = (
        f"{first['slices']:,} held-out slices of {first['patients']:,} patients, {first['positives']:,} of them, "
        f"of {first['positive_patients']:,} patients, labelled {name}. A ratio of 1 is right on average."
    )
    more.append(Table(table, caption, wide=("what it adds",)))
    text = (
        f"Repeating the slices labelled {name} makes a model see them more often than they come: its probabilities are "
        "then too high, by about the logarithm of the repeats in log-odds; leaving out slices without any bleed does the "
        "same. Recalibration takes that back and leaves "
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
            _signed(one["biases"][place]),
            _signed(Recalibration.from_json(one).theory[place]) if "repeats" in one else None,  # older files do not say
            one["patients"],
            one["slices"],
            one["positives"][place],
        )
        for key, one in recalibration.items()
    ]
    columns = ["recalibrated", "slope", "bias", "bias by theory", "inner patients", "inner slices", f"with {name}"]
    caption = (
        f"What the recalibration of {name} rests on: slices of patients that the model neither trained on nor is "
        "scored on. The bias by theory is minus the logarithm of the repeats, plus that of the part of the slices without "
        "any bleed that an epoch sees."
    )
    more.append(Table(pd.DataFrame(fits, columns=columns), caption))
    bare = [str(key) for key, *_, positives in fits if not positives]
    if bare:
        by_theory = "its recalibration is what theory says of the rates in training, with a slope of 1"
        more.append(Notice(f"No inner slice with {name} in {listed(bare)}: {by_theory}.", warning=False))
    return Section(f"The rare class: {name}", text, more=tuple(more))


def ensemble(
    weights: Mapping[str, Mapping[Any, float]], comparison: Mapping[str, Mapping[str, Any]], plain: str = ""
) -> Section:
    """The weight of each model by fold, and what searching the weights was worth.

    Args:
        weights: model name → fold (int, or its text after JSON) → its weight that was searched on the other folds.
        comparison: as ``Method.comparison``. plain: why the plain average is the answer.
    """
    folds = sorted({fold for of in weights.values() for fold in of}, key=int)
    table = pd.DataFrame({"model": list(weights)})
    for fold in folds:
        table[f"fold {fold}"] = [_weight(of.get(fold)) for of in weights.values()]
    if len(folds) > 1:
        table["mean"] = [_weight(sum(of.values()) / len(folds)) for of in weights.values()]
    more: list[Block] = []
    several = len(weights) > 1 and len(folds) > 1
    if len(folds) == 1:
        more.append(Notice("There is one fold only, and so no other one to find weights on.", warning=False))
    if several and comparison:
        more.append(_verdict(comparison, len(folds)))
    caption = "Weights that a search has found on the other folds."
    more.append(
        Table(table, caption + (" They are shown beside the answer, and are not its own." if plain and several else ""))
    )
    if comparison:
        rows = [
            (name, f"{one['weighted_log_loss']:.4f}", _cell(one["change"], 4, signed=True))
            for name, one in sorted(comparison.items(), key=lambda item: item[1]["weighted_log_loss"])
        ]
        flattered = (
            "The lowest loss first; changes are against the plain average on the same slices, with 95% intervals over patients. "
            "Which single model is the best was seen on these very slices, and favours it."
        )
        more.append(Table(pd.DataFrame(rows, columns=["blend or model", "weighted log loss", "change"]), flattered))
    answer = (
        f"the plain average of the models ({plain})"
        if plain
        else "an average with weights that were searched on other folds"
    )
    text = "There is one model, which is the answer." if len(weights) == 1 else f"The answer is {answer}."
    return Section("Ensemble", text, more=tuple(more))


def _verdict(comparison: Mapping[str, Mapping[str, Any]], folds: int) -> str:
    """What searching the weights was worth."""
    text = f"Searched weights score {comparison[SEARCHED]['weighted_log_loss']:.4f} and the plain average "
    text += f"{comparison[PLAIN]['weighted_log_loss']:.4f}: {_told(comparison[SEARCHED]['change'])}."
    text += (
        " That flatters the search: the networks on whose predictions a fold's weights were found have learned from this fold's "
        "labels"
    )
    text += ", and with two folds most of the luck that a search has had stays in its score." if folds == 2 else "."
    singles = {name: one for name, one in comparison.items() if name not in (SEARCHED, DESCENDED, PLAIN)}
    best = min(singles, key=lambda name: singles[name]["weighted_log_loss"], default=None)
    if best is not None and singles[best]["weighted_log_loss"] < comparison[PLAIN]["weighted_log_loss"]:
        text += f" One model alone, {best}, has a lower loss than the plain average: {_told(singles[best]['change'])}."
    return text


def _told(change: Mapping[str, Any]) -> str:
    """A change of the loss in words, with its interval."""
    value, interval = texts(dict(change), 4, signed=True)
    if change["low"] is None:
        return f"a change of {value} ({interval})"
    if change["low"] <= 0 <= change["high"]:
        return f"a change of {value} (95% {interval}), which leaves open which of the two is better"
    return f"{'better' if change['value'] < 0 else 'worse'} by {value} (95% {interval})"


def _rate(value: float | None) -> str | None:
    return None if value is None else f"{value:.3%}"


def _weight(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


def _signed(number: float) -> str:
    return f"{number:+.3f}".replace("-", "−")


def _cell(figure: dict[str, Any] | None, digits: int, signed: bool = False) -> Cell | None:
    """A value with its interval as a note."""
    return None if figure is None else Cell(*texts(figure, digits, signed))
