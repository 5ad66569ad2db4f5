"""Sections about films: agreement, signed errors, ages, the worst ones, one on its way through the stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from medray.report.page import Block, Gallery, Section, Table, Tile
from medray.systems.boneage.report import charts
from medray.systems.boneage.report.cells import cell, minus, months
from medray.systems.boneage.report.pictures import REGION_STAGES, WORST, Chain, chosen
from medray.systems.boneage.scores.bands import band_words
from medray.systems.boneage.words import SEXES, age_words, child_word, number

_TABLE_ROWS = 20
_TILE_PX = 280


def agreement(metrics: Mapping[str, Any], films: pd.DataFrame) -> Section:
    """Predicted against true, and Bland–Altman."""
    scored, limits = films[films["error"].notna()], metrics["bias"]["signed"]["all"]["all"]
    text = f"{number(len(scored), 'film')}. The mean difference, predicted − true, is {months(limits)} months"
    if limits["low_months"] is not None:
        between = minus(f"{limits['low_months']:.1f} to {limits['high_months']:.1f}")
        text += f"; 95% limits of agreement {between} months (Bland–Altman)"
    if metrics["bias"]["correlation"] is not None:
        text += f"; Pearson's correlation is {metrics['bias']['correlation']:.3f}"
    return Section("Agreement", f"{text}.", charts.agreement(scored, metrics["answer"], limits))


def signed(metrics: Mapping[str, Any]) -> Section:
    """Who is read as too old or too young."""
    bias = metrics["bias"]
    rows = []
    for band in ("all", *band_words()):
        row: dict[str, Any] = {"true bone age": "all ages" if band == "all" else band}
        for sex in ("girls", "boys"):
            of = bias["signed"][sex][band]
            limits = "" if of["low_months"] is None else minus(f"{of['low_months']:+.1f} to {of['high_months']:+.1f}")
            row |= {
                f"{SEXES[sex]}: films": of["films"],
                f"{sex}: mean": cell(of, signed=True),
                f"{sex}: limits of agreement": limits or None,
            }
        rows.append(row)
    text = (
        "Predicted − true, months: above 0, read as too old. What is wrong for one sex or one age can be hidden in "
        "the mean over all."
    )
    if bias["slope"]["value"] is None:
        text += f" How the error changes with age cannot be told: {bias['slope'].get('reason') or 'too few films'}."
    else:
        before = (
            f" (of the ensemble before the line, by {months(bias['slope_before'])})"
            if metrics["answer"] == "corrected"
            else ""
        )
        text += (
            f" With each year of true age the error changes by {months(bias['slope'])} months{before}. Below 0, the young "
            "are read as too old and the old as too young; some of that comes with any error at all."
        )
    figure = charts.signed_errors(bias["signed"], band_words())
    caption = "95% limits of agreement: between them lie 95% of the differences (Bland–Altman)."
    return Section("Signed error by sex and age", text, figure, more=(Table(pd.DataFrame(rows), caption),))


def ages(films: pd.DataFrame) -> Section:
    """How many films of which age and sex."""
    known = films[films["age_months"].notna()]
    rows = [
        {
            "films of": SEXES[name],
            "films": len(own),
            "youngest, months": own.min(),
            "median": own.median(),
            "oldest": own.max(),
        }
        for name in SEXES
        if len(own := known.loc[known["group"] == name, "age_months"])
    ]
    text = f"The held-out films whose bone age is known: {len(known):,}."
    return Section("Ages by sex", text, charts.ages_by_sex(films), pd.DataFrame(rows))


def worst(films: pd.DataFrame, pictures: Sequence[Chain], answer: str) -> Section:
    """The largest errors, in a table and with what the networks saw."""
    order = _by_error(films)
    shown = order.head(_TABLE_ROWS)
    table = pd.DataFrame(
        {
            "film": shown["film_id"],
            "fold": shown["fold"],
            "sex": [child_word(sex) for sex in shown["sex"]],
            "true, months": shown["age_months"].round(1),
            "predicted": shown[answer].round(1),
            "predicted − true": [minus(f"{error:+.1f}") for error in shown["error"]],
        }
    )
    drawn = {one.film_id: one for one in pictures}
    blocks: list[Block] = []
    for row in order.head(WORST).to_dict("records"):
        if (one := drawn.get(row["film_id"])) is not None:
            named = [(title, image) for title, image in one.tiles if title == "film" or title[0] in REGION_STAGES]
            tiles = tuple(_tile(title, image) for title, image in named)
            blocks.append(Gallery(tiles, _about(row, answer), _TILE_PX))
    rest = (
        f"The first {_TABLE_ROWS} of {len(order):,}"
        if len(order) > _TABLE_ROWS
        else f"All {number(len(order), 'film')}"
    )
    blocks.append(Table(table, f"{rest}, the largest error first; films.csv has every model's age."))
    text = "Some of the largest errors are errors of the label: another child's age, or years where months are meant."
    return Section("The worst films", text, more=tuple(blocks))


def chain(films: pd.DataFrame, pictures: Sequence[Chain], answer: str) -> Section:
    """What the stages made of the film of the median error, or of the first that there is a picture of."""
    drawn = {one.film_id: one for one in pictures}
    wanted = next((film_id for film_id in chosen(films)[:1] if film_id in drawn), next(iter(drawn), None))
    if wanted is None:
        return Section("One film on its way", "No picture of a film was made.")
    one, row = drawn[wanted], films[films["film_id"] == wanted].to_dict("records")
    about = _about(row[0], answer) if row else one.about
    titles = " ".join(title for title, _ in one.tiles)
    text = "The film of the median error." if wanted in chosen(films)[:1] else "A film of which there is a picture."
    if "mask" in titles or "points" in titles:
        text += " Blue is what somebody has drawn or marked, orange what the networks found."
    if "points" in titles:
        text += " Registration lays the thumb, where it was found, on the right."
    text += " Regions are what the age networks read, enlarged."
    return Section(
        "One film on its way", text, more=(Gallery(tuple(_tile(*tile) for tile in one.tiles), about, _TILE_PX),)
    )


def _by_error(films: pd.DataFrame) -> pd.DataFrame:
    known = films[films["error"].notna()]
    return known.assign(off=known["error"].abs()).sort_values(["off", "film_id"], ascending=[False, True])


def _tile(title: str, image: np.ndarray | None) -> Tile:
    return Tile(image, title, () if image is not None else ("did not come so far",))


def _about(row: Mapping[str, Any], answer: str) -> str:
    """ "f012: girl, true 10 years 0 months, predicted 13 years 2 months (+38.1 months); fold 0"."""
    error = row["error"]
    off = "" if pd.isna(error) else minus(f" ({error:+.1f} months)")
    return (
        f"{row['film_id']}: {child_word(row['sex'])}, true {age_words(row['age_months'])}, predicted "
        f"{age_words(row[answer])}{off}; fold {row['fold']}"
    )
