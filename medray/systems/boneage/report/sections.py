"""The report's sections, in order; the ones about scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from medray.report.about import About
from medray.report.figures import texts
from medray.report.page import Block, Cell, Figures, Notice, Picture, Section, Table
from medray.report.sections import files, learning
from medray.report.sections import settings as made
from medray.systems.boneage.published import PUBLISHED, SOURCE_ALL, SOURCE_TABLE, WHAT_COMPARES
from medray.systems.boneage.report import about_ensemble, about_films, charts, children
from medray.systems.boneage.report.cells import HOW, cell, months
from medray.systems.boneage.report.pictures import Chain
from medray.systems.boneage.scores.bands import band_words
from medray.systems.boneage.scores.ensemble import Ensemble
from medray.systems.boneage.words import METHODS, SEXES, caution, number


def report_sections(
    metrics: Mapping[str, Any],
    ensemble: Ensemble,
    films: pd.DataFrame,
    refused: pd.DataFrame,
    pictures: Sequence[Chain],
    about: About,
) -> list[Section]:
    """All sections of the page.

    Args:
        metrics: as metrics.json. films, refused: as films.csv and refused.csv. pictures: from ``pictures.collect``.
    """
    return [
        _scores(metrics, about.notices),
        _by_model(metrics),
        _by_age(metrics),
        _published(metrics),
        about_films.agreement(metrics, films),
        about_films.signed(metrics),
        about_films.ages(films),
        about_films.worst(films, pictures, metrics["answer"]),
        about_films.chain(films, pictures, metrics["answer"]),
        about_ensemble.weights(metrics, ensemble),
        about_ensemble.interval(metrics, ensemble),
        about_ensemble.calendar(metrics),
        *([several] if (several := children.section(films, metrics["answer"])) is not None else []),
        about_ensemble.refused(refused, metrics),
        _learning(about.histories),
        files(about.inventory, "film_id"),
        made(dict(about.settings)),
    ]


def lead(metrics: Mapping[str, Any]) -> str:
    """The page's first line: the error with its interval and how many films it is of."""
    counts, figure = metrics["counts"], metrics["mae"][metrics["answer"]]["all"]
    of = f"{number(counts['scored'], 'held-out film')} of {number(counts['patients'], 'patient')}"
    return f"mean absolute error {months(figure)} months, {of}{caution(counts)}"


def _scores(metrics: Mapping[str, Any], notices: Sequence[str]) -> Section:
    counts, maes, answer = metrics["counts"], metrics["mae"], metrics["answer"]
    blocks: list[Block] = [Notice(one) for one in notices]
    if few := caution(counts).removeprefix("; "):
        blocks.append(Notice(f"{few}. What stands below says what the machinery did with these films, no more."))
    there = [part for part in SEXES if counts[part]]
    shown = [("MAE, months", *texts(maes[answer]["all"], 2))]
    shown += [(f"of {SEXES[part]}", *texts(maes[answer][part], 2)) for part in there]
    shown.append(("Held-out films", f"{counts['scored']:,}", number(counts["patients"], "patient")))
    shown.append((METHODS["constant"], *texts(maes["constant"]["all"], 2)))
    line_ = (
        "after a line that undoes the pull to the mean"
        if answer == "corrected"
        else "without a line against the pull to the mean"
    )
    text = (
        f"The mean absolute error is {months(maes[answer]['all'])} months on "
        f"{number(counts['scored'], 'held-out film')} of {number(counts['patients'], 'patient')}. Each film was read "
        "by networks that have not seen its patient, and answered by weights that were found on films of other "
        f"patients, {line_}. The networks whose answers gave these weights have learned from this film: that flatters a little, most with "
        f"two folds. {HOW}"
    )
    left = [(counts["without_age"], "no known age"), (counts["without_answer"], "no prediction")]
    text += "".join(f" {number(count, 'film')} with {what} not scored." for count, what in left if count)
    rows = [
        {"months of error": METHODS[name] + (" (the answer)" if name == answer else "")}
        | {"all": cell(maes[name]["all"])}
        | {SEXES[part]: cell(maes[name][part]) for part in there}
        for name in METHODS
    ]
    more = [
        {"difference of errors, film by film": pair["of"], "months": cell(pair, signed=True), "films": pair["films"]}
        for pair in metrics["pairs"]
        if pair["lead"]
    ]
    below = "Below 0 the first is better. The best member of each sex was chosen on these very films, which favours it."
    blocks += [Figures(tuple(shown)), text, Table(pd.DataFrame(rows)), Table(pd.DataFrame(more), below)]
    if metrics["quality"]:
        quality = [{"stage before": what, **of} for what, of in metrics["quality"].items()]
        blocks.append(
            Table(
                pd.DataFrame(quality),
                "On films of all folds where somebody has drawn, each by a network that has not seen its patient.",
            )
        )
    return Section("Scores", more=tuple(blocks))


def _by_model(metrics: Mapping[str, Any]) -> Section:
    maes = metrics["mae"]
    rows = [
        {"model": name, "all that it reads": cell(maes[name]["all"], films=True)}
        | {SEXES[part]: cell(maes[name][part]) for part in ("girls", "boys")}
        for name in metrics["models"]
    ]
    whole = {"region": "region", "head": "head", "sexes": "models of"}
    means = [
        {
            "mean of the models of": f"{words} {name.removeprefix(what + ' ')}",
            "all that one of them reads": cell(of["all"], films=True),
        }
        | {SEXES[part]: cell(of[part]) for part in ("girls", "boys")}
        for what, words in whole.items()
        for name, of in maes.items()
        if name.startswith(f"{what} ")
    ]
    pairs = [
        {"difference of errors, film by film": pair["of"], "months": cell(pair, signed=True), "films": pair["films"]}
        for pair in metrics["pairs"]
        if not pair["lead"]
    ]
    text = "Mean absolute error, months. A model of one sex reads its films only: compare down a column of one sex."
    blocks: list[Block] = [Table(pd.DataFrame(rows)), Table(pd.DataFrame(means))]
    if pairs:
        below = "A model of one sex against the same one of both, on films of that sex: below 0 the first is better."
        blocks.append(Table(pd.DataFrame(pairs), below))
    return Section("By region, head and sex", text, more=tuple(blocks))


def _by_age(metrics: Mapping[str, Any]) -> Section:
    maes, answer = metrics["mae"], metrics["answer"]
    rows = [
        {"true bone age": band, "films": maes[answer][band]["films"]}
        | {METHODS[name]: cell(maes[name][band]) for name in METHODS}
        for band in band_words()
    ]
    return Section("By age", "Mean absolute error, months, by the true bone age.", table=pd.DataFrame(rows))


def _published(metrics: Mapping[str, Any]) -> Section:
    own = metrics["source_table"]
    columns = [f"{sexes} {head}" for sexes in ("both", "boys", "girls") for head in ("regression", "classification")]
    order = [*sorted({*own, *SOURCE_TABLE} - {"ensemble"}), "ensemble"]
    here = [
        {"region": row} | {column: cell(own.get(row, {}).get(column), films=True) for column in columns}
        for row in order
    ]
    theirs = [
        {"region": row} | {column: _two(SOURCE_TABLE.get(row, {}).get(column)) for column in columns} for row in order
    ]
    every = metrics["mae"][metrics["answer"]]["all"]
    text = (
        "Mean absolute error, months: one model a cell; in the last line the ensemble of a column's regions, its "
        f"weights nested. All models together: {months(every)}, {number(every['films'], 'film')}."
    )
    blocks: tuple[Block, ...] = (
        text,
        Table(pd.DataFrame(here), "This run."),
        Table(pd.DataFrame(theirs), f"The source's, on 1,000 images that it held out; all of it {SOURCE_ALL:.2f}."),
        Notice(WHAT_COMPARES, warning=False),
        Table(pd.DataFrame(PUBLISHED), wide=("system", "films and truth", "compares with")),
    )  # fmt: skip
    return Section("Laid out as the source's table", more=blocks)


def _two(months: float | None) -> Cell:
    return Cell("–" if months is None else f"{months:.2f}")


def _learning(histories: Mapping[str, list[dict[str, Any]]]) -> Section:
    """The house's section; where epochs were scored, that was by the mean absolute error, which has a chart of its
    own."""
    section = learning(histories, "loss", "held-out films", "", "an inner part of the training patients")
    drawn = charts.errors_by_epoch(histories)
    if drawn is None:
        return section
    text = (
        "The training loss is over augmented examples while the weights still move; the mean absolute error below "
        "is of the rows that were scored after each epoch."
    )
    return replace(section, text=text, more=(Picture(drawn), *section.more))
