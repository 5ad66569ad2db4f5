"""The page of new films: ages, pictures, curves of children with several films, refused films. It has no identifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd

from medray.report import page
from medray.shards.store import Store
from medray.systems.boneage.predict.readers import group_of, readers, regions_of
from medray.systems.boneage.report.children import CURVES, OVER_TIME, curves, with_several_films
from medray.systems.boneage.scores.calendar_age import NORMAL_SHARE
from medray.systems.boneage.scores.ensemble import Ensemble
from medray.systems.boneage.words import SEXES, child_word, number

PICTURES, ROWS = 60, 300
"""So many films are drawn, so many listed; the CSV files have all."""
_TILE_PX = 420
_REGIONS = {"A": "the whole hand", "B": "the carpals", "C": "metacarpals and proximal phalanges"}


@dataclass(frozen=True)
class AgesPage:
    """What the page is of."""

    to: Store
    """Where the pictures are."""
    ages: pd.DataFrame
    """As ages.csv."""
    refused: pd.DataFrame
    """As refused.csv."""
    method: Mapping[str, Any]
    """method.json."""
    name: str
    """Of the model."""
    warnings: Sequence[str]
    repeatability: Mapping[str, Any]
    """Of the run's metrics.json: months, pairs; nothing where it is not known."""


def render(about: AgesPage) -> str:
    """The page as HTML, which needs nothing beside itself."""
    sections = [_ages(about), _films(about), _curves(about), _refused(about), _made(about)]
    lead = f"{number(len(about.ages), 'film')} by {about.name}; {number(len(about.refused), 'file')} refused"
    return page.render("Bone ages of new films", lead, [section for section in sections if section is not None])


def _ages(about: AgesPage) -> page.Section:
    notices = tuple(page.Notice(f"{line[0].upper()}{line[1:]}.") for line in about.warnings)
    if about.ages.empty:
        return page.Section("Ages", "No film has an answer.", more=notices)
    shown = about.ages.head(ROWS)
    rows = []
    for row in shown.to_dict("records"):
        sex_from = "" if row["sex_from"] == "unknown" else f"by {row['sex_from']}"
        known = not pd.isna(row["difference_months"])
        rows.append(
            {
                "film": row["name"],
                "sex": page.Cell(child_word(row["sex"]), sex_from),
                "bone age": page.Cell(row["bone_age"], f"{row['bone_age_months']:.1f} months"),
                "95% interval, months": None if pd.isna(row["high_months"]) else interval(row),
                "calendar age, months": None if pd.isna(row["calendar_months"]) else f"{row['calendar_months']:.1f}",
                "difference, months": f"{row['difference_months']:+.1f}".replace("-", "−") if known else None,
                "normal band": row["normal_band"] or None,
                "hand": row["hand"],
                "note": row["note"] or None,
            }
        )
    rest = f"The first {ROWS} of {len(about.ages):,}; ages.csv has all" if len(about.ages) > ROWS else "As in ages.csv"
    caption = f"{rest}, whose columns name and path say which film is which."
    wide = ("normal band", "hand", "note")
    return page.Section("Ages", more=(*notices, page.Table(pd.DataFrame(rows), caption, wide)))


def interval(row: Mapping[str, Any]) -> str:
    """ "110.2 to 136.6"."""
    return f"{row['low_months']:.1f} to {row['high_months']:.1f}"


def _films(about: AgesPage) -> page.Section | None:
    tiles = []
    for row in about.ages.head(PICTURES).to_dict("records"):
        picture = _picture(about.to, row["name"])
        if picture is not None:
            lines = (row["hand"], *([row["note"]] if row["note"] else []))
            beyond = [(row["normal_band"], True)] if row["normal_band"].startswith("more") else []
            tiles.append(page.Tile(picture, f"{row['name']}: {row['bone_age']}", lines, tuple(beyond)))
    if not tiles:
        return None
    text = _about_pictures(about)
    if len(tiles) < len(about.ages):
        text += f"\n{len(tiles)} of {number(len(about.ages), 'film')} are shown."
    return page.Section("Films", text, more=(page.Gallery(tuple(tiles), tile_px=_TILE_PX),))


def _about_pictures(about: AgesPage) -> str:
    """What is on them, which depends on the stages of the run and on the models that have read these films."""
    points = about.method["how"] == "points"
    drawn = ["the outline of the hand"] if about.method["masks"] else []
    drawn += [
        "the three points by which it is registered (tip of the middle finger, tip of the thumb, capitate)"
    ] * points
    done = ["background removed"] if about.method["masks"] else []
    done += ["contrast equalised", *(["thumb on the right"] if points else [])]
    asked = readers(Ensemble.from_json(about.method["ensemble"]))
    regions = regions_of(model for group in _groups(about) for model in asked.get(group, []))
    frames = ", ".join(f"{name} ({_REGIONS[name]})" for name in regions)
    return (
        f"Left the film{', with ' * bool(drawn)}{' and '.join(drawn)}. Right what the age networks are shown: "
        f"{', '.join(done)}; the {'frames are' if len(regions) > 1 else 'frame is'} what they read of it: {frames}."
    )


def _groups(about: AgesPage) -> list[str]:
    """Of the films that have an answer."""
    found = {group_of(sex) for sex in about.ages["sex"]}
    return [name for name in SEXES if name in found]


def _curves(about: AgesPage) -> page.Section | None:
    children = with_several_films(about.ages)
    if not children:
        return None
    text = OVER_TIME
    if (months := about.repeatability.get("months")) is not None:
        pairs = number(about.repeatability["pairs"], "pair")
        text += (
            f"\nBy error alone 95% of pairs of films of a child differ by less than {months:.1f} months beyond what "
            f"calendar age explains ({pairs} of held-out films)."
        )
    if len(children) > CURVES:
        text += f"\n{CURVES} of {len(children):,} children are shown."
    return page.Section("Children with several films", text, curves(children[:CURVES]))


def _refused(about: AgesPage) -> page.Section | None:
    if about.refused.empty:
        return None
    rows = about.refused.head(ROWS)
    table = pd.DataFrame({"film": rows["name"], "stage": rows["stage"], "reason": rows["reason"]})
    count = number(len(about.refused), "file")
    text = f"{count} without an answer. refused.csv names each; a file that is no film has no name here."
    tiles = []
    for row in rows[rows["name"].notna()].head(PICTURES).to_dict("records"):
        picture = _picture(about.to, row["name"])
        if picture is not None:
            tiles.append(page.Tile(picture, f"{row['name']}: {row['stage']}", (row["reason"],)))
    gallery = (page.Gallery(tuple(tiles), "How far they came.", _TILE_PX),) if tiles else ()
    return page.Section("Refused", text, more=(page.Table(table, wide=("reason",)), *gallery))


def _made(about: AgesPage) -> page.Section:
    method, ensemble = about.method, Ensemble.from_json(about.method["ensemble"])
    rows = []
    asked = readers(ensemble)
    for name in _groups(about):
        group = ensemble.groups[name]
        weights = dict(zip(group.members, group.weights, strict=True))
        used = [f"{model} {weights[model]:.0%}" for model in asked[name]]
        width = "none" if group.half_width is None else f"± {group.half_width:.1f} months"
        why = group.reasons.get("interval", "")
        rows.append(
            {
                "films of": SEXES[name], "models and their weights": ", ".join(used) or None,
                "95% interval": page.Cell(width, why), "fitted on films": group.films,
            }
        )  # fmt: skip
    stages = [
        "the hand is found by a network" if method["masks"] else "the whole film is read, its marks too",
        {
            "points": "three points, found by another, lay it on the canvas, thumb on the right",
            "canvas": "films are taken to lie on the canvas already",
            "film": "no hand is registered",
        }[method["how"]],
    ]
    line = "The answer is corrected for the pull to the mean. " if ensemble.correct else ""
    folds = len(method["folds"])
    mean = (
        f"the age is the mean of the networks of {number(folds, 'fold')}"
        if folds > 1
        else "networks of one fold read the age"
    )
    text = (
        f"Model {about.name}: {stages[0]}; {stages[1]}; {mean}, those of several "
        f"models weighted as below. {line}Ages are those that the readers of the training films would give (in RSNA "
        "2017 by the atlas of Greulich and Pyle). The interval is as wide as held 95% of the held-out films of the "
        "run; it does not know of films that are unlike those. The normal band is "
        f"{NORMAL_SHARE:.0%} of the calendar age to both sides."
    )
    return page.Section("How the ages were made", text, table=pd.DataFrame(rows) if rows else None)


def _picture(to: Store, name: str) -> np.ndarray | None:
    """(rows, columns, 3) of a film that has one."""
    if not to.exists(f"{name}.png"):
        return None
    found = cv2.imdecode(np.frombuffer(to.read_bytes(f"{name}.png"), np.uint8), cv2.IMREAD_COLOR)
    return None if found is None else np.ascontiguousarray(found[..., ::-1])
