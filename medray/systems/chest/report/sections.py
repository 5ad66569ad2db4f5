"""The report's sections, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from medray.metrics.intervals import LEAST_AT_SENSITIVITY
from medray.report.about import About
from medray.report.charts import calibration, roc_and_precision
from medray.report.decisions import cells
from medray.report.figures import HOW, line, texts
from medray.report.page import PALETTE, Block, Cell, Figures, Gallery, Notice, Picture, Section, Table, Tile
from medray.report.sections import files, learning, listed
from medray.report.sections import settings as made
from medray.systems.chest.published import CHEXNET, PUBLISHED, SOURCE_F1, SOURCE_KAPPA
from medray.systems.chest.report.pictures import KINDS, Pictured
from medray.systems.chest.scores import MIN_CLASS

_CHOSEN_ON = "the validation list (without one, on a part of the training patients)"
_DRAWN = 6  # targets with curves: more colours cannot be told apart


def report_sections(
    metrics: Mapping[str, Any],
    oof: pd.DataFrame,
    pictures: Sequence[Pictured],
    about: About,
) -> list[Section]:
    """All sections of the page.

    Args:
        metrics: as metrics.json. oof: as oof.parquet. pictures: from ``collect``.
    """
    targets = list(metrics["targets"])
    drawn = sorted(targets, key=lambda t: -metrics["targets"][t]["positives"])[:_DRAWN]
    colours = dict(zip(drawn, PALETTE, strict=False))
    return [
        _scores(metrics, about.notices),
        *([_views(metrics)] if metrics["by_view"] else []),
        _decisions(metrics),
        _gallery(pictures),
        learning(about.histories, "mean log loss", "held-out or validation films", "mean AUC", _CHOSEN_ON),
        Section(
            "ROC and precision-recall", f"The {len(drawn)} targets with the most positive films.",
            roc_and_precision(oof, colours),
        ),
        _calibration(metrics, oof, colours),
        files(about.inventory, "image_id"),
        made(about.settings),
    ]  # fmt: skip


def _shown(target: str) -> str:
    return target.replace("_", " ")


def _cell(figure: Mapping[str, Any], why: bool = True) -> Cell:
    """``why``: also say why it is undefined, which stands once a line."""
    value, note = texts(figure, 3)
    return Cell(value, note if why or figure["value"] is not None else "")


def _scores(metrics: Mapping[str, Any], notices: Sequence[str]) -> Section:
    mean = metrics["mean_auc"]
    value, interval = texts(mean, 3)
    rows = []
    for name, of in metrics["targets"].items():
        row = {"target": _shown(name), "positive films": of["positives"], "positive patients": of["positive_patients"]}
        row |= {"AUC": _cell(of["auc"])}
        row |= {"average precision": _cell(of["average_precision"], why=False)}
        row |= {"specificity at 95% sensitivity": _cell(of["specificity_at_95_sensitivity"], why=False)}
        row |= {"log loss": Cell(*texts(of["log_loss"], 4))}
        published = (CHEXNET.auc or {}).get(name)
        rows.append(row | {"CheXNet's AUC": None if published is None else f"{published:.4f}"})
    beside = [("this model", Cell(value, interval), metrics["split"])]
    for p in PUBLISHED:
        low, high = p.mean_auc
        beside.append((p.name, Cell(f"{low:.4f}" if low == high else f"{low:.4f} to {high:.4f}"), p.split))
    blocks: list[Block] = [
        *(Notice(one) for one in notices),
        Figures((
            ("Mean AUC", value, interval),
            ("over", f"{len(mean['over'])} of {len(metrics['targets'])} targets", f"with {MIN_CLASS} positive films or more"),
            ("Held-out films", f"{metrics['films']:,}", f"{metrics['patients']:,} patients"),
            ("Split", metrics["split"], ""),
        )),
        f"Every film is scored by a network that has not seen its patient. {HOW} A specificity at a given sensitivity needs {LEAST_AT_SENSITIVITY}.",
        Table(pd.DataFrame(rows), "CheXNet's figures are of its own random split of patients, not of these films: context."),
        Table(
            pd.DataFrame(beside, columns=["system", "mean AUC", "split"]),
            "Figures compare within one split only, and only on the whole of its test list. The three lists and a random split differ by more than systems do.",
        ),
    ]  # fmt: skip
    if (rest := metrics.get("without_searched_folds")) and "films" in rest:
        value, interval = texts(rest["mean_auc"], 3)
        blocks.append(
            f"Without fold {listed(rest['folds'])}, by which a search has chosen: mean AUC {value} ({interval}), {rest['films']:,} films."
        )
    return Section("Scores", more=tuple(blocks))


def _views(metrics: Mapping[str, Any]) -> Section:
    views = metrics["by_view"]
    rows = []
    for target in metrics["targets"]:
        row: dict[str, Any] = {"target": _shown(target)}
        for view, of_view in views.items():
            row |= {f"{view}: AUC": _cell(of_view["targets"][target]["auc"])}
        rows.append(row)
    mean: dict[str, Any] = {"target": "mean"}
    for view, of_view in views.items():
        cell, over = _cell(of_view["mean_auc"]), len(of_view["mean_auc"]["over"])
        mean[f"{view}: AUC"] = (
            replace(cell, note=f"{cell.note}; over {over} target{'s' * (over != 1)}") if over else cell
        )
    rows.append(mean)
    counts = ", ".join(f"{of_view['films']:,} {view}" for view, of_view in views.items())
    text = (
        f"{counts}. AP films are taken at the bedside, of sicker patients: a model may know the view rather than the finding, "
        "and an AUC over both flatters it then. Means over different targets do not compare."
    )
    return Section("By View Position", text, table=pd.DataFrame(rows))


def _decisions(metrics: Mapping[str, Any]) -> Section:
    rows = []
    for name, of in metrics["targets"].items():
        found = of.get("decisions")
        if found is None or found["threshold"] is None:
            continue
        figures = cells(found, ("f1", "sensitivity", "specificity", "ppv", "npv"))
        rows.append({"target": _shown(name), "threshold": f"{found['threshold']:.3f}", **figures})
    without = [_shown(name) for name in metrics["targets"] if _shown(name) not in {row["target"] for row in rows}]
    kappas = ", ".join(f"{name} {value}" for name, value in SOURCE_KAPPA.items())
    text = f"At the threshold of the highest F1 on the validation films, never on these. Context: the source reports F1 {SOURCE_F1} and Cohen's kappa {kappas} against senior radiologists, without saying on how many films or at which threshold."
    if not rows:
        text = "No threshold: there are no validation films, or too few of a class among them."
    elif without:
        text += (
            f"\nNo threshold, since too few of the validation films are positive (or negative): {', '.join(without)}."
        )
    more: list[Block] = [Table(pd.DataFrame(rows))] if rows else []
    return Section("Decisions", text, more=(*more, *_agreement(metrics["agreement"])))


def _agreement(pairs: Sequence[Mapping[str, Any]]) -> list[Block]:
    """Cohen's kappa by target, over all films and of each View Position."""
    if not pairs:
        return []
    targets = list(dict.fromkeys(name for pair in pairs for name in pair["targets"]))
    views = sorted({view for pair in pairs for view in pair["by_view"]})
    rows = []
    for target in targets:
        for view in ("", *views):
            row: dict[str, Any] = {"target": _shown(target), "films": view or "all"}
            for pair in pairs:
                found = (pair["by_view"].get(view, {}) if view else pair["targets"]).get(target)
                row[" – ".join(pair["between"])] = None if found is None else _kappa(found)
            rows.append(row)
    text = "Cohen's kappa: agreement beyond what chance gives. 1 is full agreement, 0 none beyond chance. Of the films that both answer; the model answers by the thresholds above."
    return [text, Table(pd.DataFrame(rows))]


def _kappa(found: Mapping[str, Any]) -> Cell:
    if found["kappa"] is None:
        return Cell("–", found["reason"])
    value, note = texts(found["figure"], 3)
    return Cell(value, f"{note}; {found['films']:,} films, {found['agreement']:.1%} alike")


def _gallery(pictures: Sequence[Pictured]) -> Section:
    more: list[Block] = []
    for kind in KINDS:
        tiles = tuple(
            Tile(p.image, f"{_shown(p.target)} {p.probability:.1%}", ((p.image_id, p.problem) if p.problem else (p.image_id,)) if p.image is not None else (f"No picture: {p.problem}.",), ((kind, kind != "found"),))
            for p in pictures if p.kind == kind
        )  # fmt: skip
        if tiles:
            caption = {
                "found": "Found: the label says so, and the model is surest of it.",
                "false alarm": "False alarms: the label says no, and the model is surest of yes. Some are errors of the labels, which were read from reports by a program.",
                "missed": "Missed: the label says yes, and the model is surest of no.",
            }[kind]
            more.append(Gallery(tiles, caption, 260))
    if not more:
        more.append(Notice("No positive film is held out: there is nothing to show."))
    text = "Heat is Grad-CAM of the named target by the network that held the film out: red is this film's strongest evidence. Colours of two films do not compare. The line marks what the network saw. Of a target without a threshold as many films count as found as there are positive ones."
    return Section("Where it looked", text, more=tuple(more))


def _calibration(metrics: Mapping[str, Any], oof: pd.DataFrame, colours: Mapping[str, str]) -> Section:
    rows = []
    for name, of in metrics["targets"].items():
        error = of["calibration"]["expected_calibration_error"]
        known = oof[oof[name].notna()]
        if error is not None:
            mean, rate = known[f"p_{name}"].mean(), known[name].mean()
            line_of = {name: Cell(*texts(of["calibration"][name], 3)) for name in ("slope", "intercept")}
            rows.append({"target": _shown(name), "mean probability": f"{mean:.1%}", "observed rate": f"{rate:.1%}", **line_of, "expected calibration error": f"{error:.4f}"})  # fmt: skip
    text = "A probability of 10% should come true on one film in ten. Above the diagonal the model underestimates, below it overestimates. A slope of 1 and an intercept of 0 would be right; a slope below 1 means probabilities that are too sure. The expected calibration error has no interval: of few films chance alone makes it large."
    chart = Picture(calibration(oof, colours), "Bins of equal count; bars: 95% (Wilson), as if films were independent.")
    return Section("Calibration", text, more=(chart, Table(pd.DataFrame(rows))))


def headline(metrics: Mapping[str, Any]) -> str:
    return f"mean AUC {line(metrics['mean_auc'], 3)}, {metrics['split']}"
