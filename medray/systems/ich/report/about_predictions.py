"""What the report says of the predictions: scores, curves, calibration, single slices, studies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from medray.report.charts import calibration as calibration_chart
from medray.report.charts import roc_and_precision
from medray.report.decisions import of_points
from medray.report.figures import HOW, texts
from medray.report.page import Block, Cell, Figures, Gallery, Notice, Picture, Section, Table, Tile
from medray.report.sections import listed
from medray.systems.ich.classes import CLASSES, PROBABILITIES
from medray.systems.ich.montage import SHORT
from medray.systems.ich.report import charts
from medray.systems.ich.report.pictures import Pictures, Shot
from medray.systems.ich.report.published import COMPARABLE, EXTERNAL_AUC, FIRST_PLACE_AUC, RESULTS
from medray.systems.ich.report.words import tile

_STUDIES_SHOWN = 10
_SHORT_NAMES = {name: short.upper() if name != "any" else short for name, short in zip(CLASSES, SHORT, strict=True)}


def scores(metrics: dict[str, Any], folds: list[int], of_folds: int, phantom: bool, top: list[Block]) -> Section:
    """The run's scores with intervals, and the published ones with what may be compared."""
    counts, study = metrics["counts"], metrics["study"]
    share = f"{len(folds)} of {of_folds} folds"
    headline = Figures(
        (
            ("Weighted log loss", *texts(metrics["weighted_log_loss"], 4)),
            ("AUC, any bleed, slices", *texts(metrics["auc"]["any"], 3)),
            ("AUC, any bleed, studies", *texts(study["auc"], 3)),
            ("Held-out slices", f"{counts['slices']:,}", f"{counts['studies']:,} studies, {counts['patients']:,} patients"),
        )
    )  # fmt: skip
    by_class = pd.DataFrame(
        {
            "class": CLASSES,
            "positive slices": [counts["positive_slices"][name] for name in CLASSES],
            "positive patients": [counts["positive_patients"][name] for name in CLASSES],
            "log loss": [Cell(*texts(metrics["log_loss"][name], 4)) for name in CLASSES],
            "AUC": [Cell(*texts(metrics["auc"][name], 3)) for name in CLASSES],
            "average precision": [Cell(*texts(metrics["average_precision"][name], 3)) for name in CLASSES],
            "first place's AUC": [f"{FIRST_PLACE_AUC[name]:.3f}" for name in CLASSES],
        }
    )
    value, interval = texts(metrics["weighted_log_loss"], 4)
    beside = pd.DataFrame(
        [("this run", Cell(value, interval), f"held-out slices of {share}", "")]
        + [(r.system, r.weighted_log_loss, r.on, COMPARABLE[r.on]) for r in RESULTS],
        columns=["system", "weighted log loss", "on", "comparable"],
    )
    compare = "Validation compares with validation only, and only on the challenge's data."
    if phantom:
        beside, compare = (
            beside.drop(columns="comparable"),
            "This run's figure is of phantoms: none of the others compares with it.",
        )
    return Section(
        "Scores",
        more=(
            *top,
            headline,
            f"Every slice is scored by a model that has not seen its patient ({share}: {listed(folds)}). {HOW} The log loss is "
            f"the challenge's: six binary losses a slice, any counted twice, divided by 7; lower is better.{_of_fewer(metrics)}",
            *_without_searched(metrics),
            Table(by_class, "Slices. The last column is of first place's model on its paper's own test set: context, not the same slices. " + EXTERNAL_AUC),
            Picture(charts.scores_by_class(metrics), "Points and 95% intervals; hollow diamonds are first place's model on its paper's test set. The strokes under average precision mark each class's rate, which guessing would reach."),
            Table(beside, compare),
        ),
    )  # fmt: skip


def _without_searched(metrics: dict[str, Any]) -> list[Block]:
    """The score without the folds that a search has chosen by."""
    rest = metrics.get("without_searched_folds")
    if rest is None or "slices" not in rest:
        return []
    figures = (
        ("weighted_log_loss", "weighted log loss", 4),
        ("auc_any", "AUC, any bleed, slices", 3),
        ("auc_studies", "AUC, any bleed, studies", 3),
    )
    rows = [(words, Cell(*texts(rest[key], digits))) for key, words, digits in figures]
    caption = f"Without fold {listed(rest['folds'])}, by which the search {listed(rest['searches'])} has chosen: {rest['slices']:,} held-out slices."
    return [Table(pd.DataFrame(rows, columns=["score", "without these folds"]), caption)]


def _of_fewer(metrics: dict[str, Any]) -> str:
    """What the weighted log loss leaves out; nothing where every label is known."""
    text, counts = "", metrics["counts"]
    if len(metrics["classes"]) < len(CLASSES):
        text = f" Here it is over {listed(metrics['classes'])} alone, {len(metrics['classes'])} of {len(CLASSES)} classes, since no label of the others is known: it compares with no figure over all of them."
    if metrics["without_positives"]:
        text += f" No slice is labelled {listed(metrics['without_positives'])}: its part of the loss says nothing of how it would be found, and makes the whole lower."
    if any(counts["labelled_slices"][name] < counts["slices"] for name in metrics["classes"]):
        text += " Where a slice's label of a class is unknown, the others make its loss, their weights scaled to sum 1."
    return text


def curves(oof: pd.DataFrame) -> Section:
    """ROC and precision-recall of each class."""
    text = "Slices of all held-out folds together."
    undefined = [name for name in CLASSES if oof[name].nunique() < 2]
    alike = {name: "are all alike" if oof[name].notna().any() else "have no label of it" for name in undefined}
    more = tuple(Notice(f"No curve of {name}: its held-out slices {why}.") for name, why in alike.items())
    return Section("ROC and precision-recall", text, roc_and_precision(oof, charts.COLOURS, "any"), more=more)


def calibration(metrics: dict[str, Any], oof: pd.DataFrame) -> Section:
    """Do predicted probabilities come true?"""
    counts = metrics["counts"]
    rows: list[tuple[Any, ...]] = []
    for name in CLASSES:
        predicted, observed = counts["mean_probability"][name], counts["observed_rate"][name]
        line = metrics["calibration"][name]
        figures = [Cell(*texts(one, 3)) for one in (line["slope"], line["intercept"])]
        figures.append(Cell(*texts(metrics["brier"][name], 4)))
        if predicted is None:
            rows.append((name, None, None, None, *figures))
            continue
        ratio = f"{predicted / observed:.2f}" if observed else None
        rows.append((name, f"{predicted:.3%}", f"{observed:.3%}", ratio, *figures))
    columns = ["class", "mean probability", "observed rate", "ratio", "slope", "intercept", "Brier score"]
    table = pd.DataFrame(rows, columns=columns)
    text = "A probability of 10% should come true on one slice in ten. Above the diagonal the model underestimates, below it overestimates."
    caption = "Bins of equal count; the axes are drawn by the root, since most rates are small. Bars: 95% (Wilson), as if slices were independent, so rather too short."
    chart = Picture(calibration_chart(oof, charts.COLOURS), caption)
    return Section("Calibration", text, more=(chart, Table(table, "Mean prediction against observed rate, all held-out slices. A ratio of 1 and an intercept of 0 are right on average; a slope below 1 means probabilities that are too sure.")))  # fmt: skip


def hardest(pictures: Pictures, oof: pd.DataFrame) -> Section:
    """The slices with the highest weighted log loss, as pictures."""
    if not pictures.hardest:
        return Section("Slices with the highest loss", "There is no held-out slice with labels.")
    rows = _rows_of(oof, [shot.slice_id for shot, _ in pictures.hardest])
    tiles = tuple(_predicted(shot, rows, (f"loss {loss:.3f}",)) for shot, loss in pictures.hardest)
    text = f"Either the model is wrong here, or the label. The head under the windows {' and '.join(pictures.channels)}; true labels stand out, each with its predicted probability."
    return Section("Slices with the highest loss", text, more=(Gallery(tiles, tile_px=300),))


def examples(pictures: Pictures, oof: pd.DataFrame) -> Section:
    """A slice with and one without each type."""
    pairs = [(name, shot) for name, *shots in pictures.examples for shot in shots if shot is not None]
    rows = _rows_of(oof, [shot.slice_id for _, shot in pairs])
    more: list[Block] = []
    tiles = []
    for name, positive, negative in pictures.examples:
        if positive is None:
            more.append(Notice(f"No held-out slice is labelled {name}: there is no example to show."))
            continue
        tiles.append(_predicted(positive, rows, (f"{name}: yes",)))
        if negative is not None:
            tiles.append(_predicted(negative, rows, (f"{name}: no, at the same height in another head",)))
    text = f"For each type a slice that has it (alone where there is one, and predicted the most surely) and one without any bleed. Windows: {' and '.join(pictures.channels)}."
    return Section("Examples of each type", text, more=(*more, Gallery(tuple(tiles), tile_px=400)))


def _rows_of(oof: pd.DataFrame, slice_ids: list[str]) -> dict[str, dict[str, Any]]:
    few = oof[oof["slice_id"].isin(slice_ids)]
    return {row["slice_id"]: row for row in few.to_dict("records")}


def _predicted(shot: Shot, rows: dict[str, dict[str, Any]], lines: tuple[str, ...]) -> Tile:
    row = rows[shot.slice_id]
    chips = tuple((f"{_SHORT_NAMES[name]} {_percent(row[p])}", row[name] == 1) for name, p in zip(CLASSES, PROBABILITIES, strict=True))  # fmt: skip
    first, *rest = lines
    return tile(shot, first, (*rest, f"{shot.slice_id} · fold {row['fold']}, place {row['index']}"), chips)


def _percent(probability: float) -> str:
    return f"{100 * probability:.0f}%" if 0.01 <= probability <= 0.99 else f"{100 * probability:.1f}%"


def studies(metrics: dict[str, Any], studies: pd.DataFrame, oof: pd.DataFrame) -> Section:
    """Scores of whole studies, and why the source's vote is not used."""
    study = metrics["study"]
    known = studies.dropna(subset=["label"])
    rows = [
        (name, Cell(*texts(study[key], 3)))
        for name, key in (
            ("maximum of the 3-slice running mean (the answer)", "auc"),
            ("maximum of the slices", "auc_of_maximum"),
            ("mean of the slices", "auc_of_mean"),
        )
    ]
    caption = f"{study['positive']:,} of {study['studies']:,} labelled studies bleed, of {study['positive_patients']:,} patients."
    text = "A study's score is the highest mean of three neighbouring slices: one slice alone may err, a bleed is seen on several."
    line = {
        "average precision": study["average_precision"], "Brier score": study["brier"],
        "calibration slope": study["calibration"]["slope"], "calibration intercept": study["calibration"]["intercept"],
    }  # fmt: skip
    by_class = [
        (
            name,
            of["positive"],
            of["positive_patients"],
            Cell(*texts(of["auc"], 3)),
            Cell(*texts(of["average_precision"], 3)),
        )
        for name, of in study["by_class"].items()
    ]
    by_fold = [
        (fold, of["studies"], of["positive"], Cell(*texts(of["auc"], 3))) for fold, of in study["by_fold"].items()
    ]
    more: tuple[Block, ...] = (
        Table(pd.DataFrame(rows, columns=["score of a study", "AUC"]), caption),
        Table(
            pd.DataFrame(
                [(name, Cell(*texts(figure, 3))) for name, figure in line.items()], columns=["figure", "value"]
            ),
            "Of the study's score, read as a probability of a bleed: a slope of 1 and an intercept of 0 would be right; the score is "
            "a maximum, and so rather too high.",
        ),
        *of_points(study["operating_points"], "studies"),
        *_worth(study["net_benefit"]),
        Table(
            pd.DataFrame(
                by_class, columns=["class", "positive studies", "positive patients", "AUC", "average precision"]
            ),
            "Each class by its own score of a study; a study is positive where one of its slices is.",
        ),
        Table(pd.DataFrame(by_fold, columns=["fold", "studies", "bleed", "AUC"]), "Fold by fold."),
        _vote(study["source_vote"], oof),
        Table(_wrong_studies(known), "The studies whose score is furthest from their label."),
    )
    return Section("Studies", text, charts.study_scores(studies), more=more)


def _worth(curve: list[dict[str, float]]) -> list[Block]:
    if not curve:
        return []
    rows = [(f"{one['threshold']:.0%}", f"{one['model']:.3f}", f"{one['all']:.3f}") for one in curve]
    columns = ["acting from a probability of", "where the score says so", "on every study"]
    text = (
        "Net benefit: bleeding studies that are acted on, of all studies, less those without a bleed, weighed by the odds at which one "
        "would act. On no study it is 0; where the first column is the highest of the three, the score is worth having. The score "
        "stands for a probability here, which it is only as far as it is calibrated."
    )
    return [Table(pd.DataFrame(rows, columns=columns), text)]


def _vote(vote: dict[str, float | None], oof: pd.DataFrame) -> str:
    """Why the source's rule is shown and never used."""
    sensitivity, specificity = ("undefined" if v is None else f"{v:.3f}" for v in (vote["sensitivity"], vote["specificity"]))  # fmt: skip
    share = oof.groupby("study_id")["any"].mean()
    bleeding = share[share > 0]
    text = f"For comparison, the source's vote: each slice is rounded and the majority decides. Here it has sensitivity {sensitivity} and specificity {specificity}. It is never the answer, since a bleed rarely fills half of a head's slices"
    if len(bleeding):
        lost = int((bleeding < 0.5).sum())
        text += f": with perfect predictions of every slice it would still call {lost:,} of the {len(bleeding):,} bleeding studies here negative"
    return text + "."


def _wrong_studies(known: pd.DataFrame) -> pd.DataFrame:
    error = (known["label"] - known["score"]).abs().to_numpy()
    worst = known.iloc[np.argsort(-error, kind="stable")[:_STUDIES_SHOWN]]
    return pd.DataFrame(
        {
            "study": worst["study_id"].tolist(),
            "fold": worst["fold"].tolist(),
            "slices": worst["slices"].tolist(),
            "bleeds": (worst["label"] == 1).tolist(),
            "score": [f"{value:.3f}" for value in worst["score"]],
            "source's vote": (worst["source_vote_any"] == 1).tolist(),
        }
    )
