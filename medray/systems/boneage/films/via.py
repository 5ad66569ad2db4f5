"""Exports of the VGG Image Annotator (VIA 2, and 1), in JSON or CSV: points and an outline of the hand for each film.

A point is a region of the shape "point" with an attribute whose value says which one it is: tip, thumb or capitate. A polygon
or polyline is the outline of the hand, whatever it is called. Nothing of a file is executed, and no name of a film is in an
error: they may be patients'.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from medray.shards.films import image_keys, plain_name
from medray.systems.boneage.films.table import FLAG
from medray.systems.boneage.stages.canvas import POINTS

MOST_BYTES = 100_000_000
"""Of an export: that of all 12,611 films of the challenge, each with its points and an outline of a hundred corners, has a
quarter of it."""
NAMES = {
    "tip": "tip", "middle": "tip", "middle finger": "tip", "fingertip": "tip", "finger tip": "tip",
    "thumb": "thumb", "thumb tip": "thumb",
    "capitate": "capitate",
}  # fmt: skip
"""Of points, in lower case, with blanks for "_" and "-"."""

_COLUMNS = (
    "filename",
    "filesize",
    "fileattributes",
    "regioncount",
    "regionid",
    "regionshapeattributes",
    "regionattributes",
)
_SHAPES = ("point", "polygon", "polyline")
_AS_VIA_DOES = "save the annotations of VIA 2 again, as JSON or CSV"


@dataclass
class Drawn:
    """What an export, or several, has of films. ``points``: film → name → x, y; ``outlines``: film → x0, y0, x1, y1, …; in
    the file's pixels, columns to the right and rows down. Films are named as ``image_keys`` does."""

    points: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)
    outlines: dict[str, list[float]] = field(default_factory=dict)
    others: int = 0  # regions of other shapes, which are not read

    def add(self, other: Drawn, shown: str, flag: str = FLAG) -> None:
        """Take in what another export has; what both have must be alike.

        Args:
            shown: name of that export in errors, after ``flag``.
        Raises:
            ValueError: a point or an outline that is elsewhere in the two.
        """
        shown = f"{flag} {shown}"
        for film, points in other.points.items():
            own = self.points.setdefault(film, {})
            if wrong := [name for name in points if own.get(name, points[name]) != points[name]]:
                raise ValueError(
                    _refusal(shown, f"another export has the {wrong[0]} of one film elsewhere; keep one of both")
                )
            own |= points
        for film, outline in other.outlines.items():
            if self.outlines.get(film, outline) != outline:
                raise ValueError(_refusal(shown, "another export has another outline of one film; keep one of both"))
            self.outlines[film] = outline
        self.others += other.others

    def six(self, film: str) -> list[float] | None:
        """x0, y0, x1, y1, x2, y2 in the order of POINTS, NaN for one that is not marked; None for a film without points."""
        points = self.points.get(film)
        if not points:
            return None
        return [value for name in POINTS for value in points.get(name, (math.nan, math.nan))]


def is_export(cells: pd.DataFrame) -> bool:
    """Whether a table of ``read_cells`` is VIA's CSV, by its header."""
    return {plain_name(column) for column in cells.columns} >= {*_COLUMNS}


def read_json(data: bytes, shown: str, flag: str = FLAG) -> Drawn:
    """A project of VIA, or its annotations alone.

    Args:
        shown: the file's name in errors, after ``flag``.
    Raises:
        ValueError: no such JSON, or a region that cannot be meant; the film is named by its place in the file.
    """
    shown = f"{flag} {shown}"
    if len(data) > MOST_BYTES:
        raise ValueError(
            _refusal(shown, f"more than {MOST_BYTES // 1_000_000} MB, no export of VIA has so many; {_AS_VIA_DOES}")
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(_refusal(shown, f"not JSON in UTF-8; {_AS_VIA_DOES}")) from None
    whole = _parsed(text, shown, "")
    films = whole.get("_via_img_metadata", whole) if isinstance(whole, dict) else None
    if isinstance(films, dict) and "project" in films and "metadata" in films:
        raise ValueError(_refusal(shown, "a project of VIA 3; mark the points in VIA 2"))
    if not isinstance(films, dict) or not all(
        isinstance(film, dict) and {"filename", "regions"} <= film.keys() for film in films.values()
    ):
        raise ValueError(
            _refusal(
                shown,
                f'no "_via_img_metadata", nor films with a filename and regions: no export of VIA; {_AS_VIA_DOES}',
            )
        )
    return _drawn(_of_json(films.values(), shown), shown)


def read_csv(cells: pd.DataFrame, shown: str, flag: str = FLAG) -> Drawn:
    """VIA's CSV, a line a region.

    Args:
        cells: of ``read_cells``. shown, flag: as in ``read_json``.
    Raises:
        ValueError: a cell that is no JSON, or a region that cannot be meant; the line is named.
    """
    shown = f"{flag} {shown}"
    return _drawn(_of_csv(cells, shown), shown)


Region = tuple[str, str, Any, Any]
"""Where it stands in the file, name of the film, its shape and its attributes as JSON has them."""


def _of_json(films: Iterable[Mapping[str, Any]], shown: str) -> Iterator[Region]:
    for number, film in enumerate(films, start=1):
        regions = film["regions"]
        if isinstance(regions, dict):  # VIA 1: by number
            regions = list(regions.values())
        if not isinstance(regions, list) or not isinstance(film["filename"], str):
            raise ValueError(_refusal(shown, f"film {number}: no list of regions; {_AS_VIA_DOES}"))
        for region in regions:
            if not isinstance(region, dict):
                raise ValueError(_refusal(shown, f"film {number}: no list of regions; {_AS_VIA_DOES}"))
            yield f"film {number}", film["filename"], region.get("shape_attributes"), region.get("region_attributes")


def _of_csv(cells: pd.DataFrame, shown: str) -> Iterator[Region]:
    by_plain = {plain_name(column): column for column in cells.columns}
    wanted = [by_plain[name] for name in ("filename", "regionshapeattributes", "regionattributes")]
    for line, (film, shape, attributes) in zip(cells.index, cells[wanted].to_numpy().tolist(), strict=True):
        where = f"line {line}"
        if found := _parsed(
            shape or "{}", shown, f"{where}: region_shape_attributes is "
        ):  # {}: a film without regions
            yield where, film, found, _parsed(attributes or "{}", shown, f"{where}: region_attributes is ")


def _drawn(regions: Iterable[Region], shown: str) -> Drawn:
    found = Drawn()
    names: list[str] = []
    for where, film, shape, attributes in regions:
        if not film.strip():
            raise ValueError(_refusal(shown, f"{where}: it has no filename; {_AS_VIA_DOES}"))
        names.append(film)
        kind = str(shape.get("name", "")).lower() if isinstance(shape, dict) else ""
        if kind not in _SHAPES:
            found.others += 1
        elif kind == "point":
            name = _name(attributes, where, shown)
            place = _numbers([shape.get("cx"), shape.get("cy")], where, shown)
            own = found.points.setdefault(film, {})
            if name in own:
                raise ValueError(
                    _refusal(shown, f"{where}: a second point called {name} on one film; delete one of them")
                )
            own[name] = (place[0], place[1])
        else:
            if film in found.outlines:
                raise ValueError(
                    _refusal(shown, f"{where}: a second outline of one film; keep the one of the hand that is read")
                )
            found.outlines[film] = _corners(shape, where, shown)
    keys = dict(zip(names, image_keys(pd.Series(names, dtype="str")).tolist(), strict=True))
    if len({*keys.values()}) < len(keys):
        raise ValueError(
            _refusal(shown, "two of its films have one name but for its ending (a.png, a.jpg); rename one of them")
        )
    return Drawn(
        {keys[film]: own for film, own in found.points.items()},
        {keys[film]: own for film, own in found.outlines.items()},
        found.others,
    )


def _name(attributes: Any, where: str, shown: str) -> str:
    texts: list[str] = []
    for value in attributes.values() if isinstance(attributes, dict) else ():
        if isinstance(value, dict):  # of checkboxes: name → whether it is ticked
            texts += [str(text) for text, ticked in value.items() if ticked]
        elif isinstance(value, str):
            texts.append(value)
    found = {NAMES[plain] for text in texts if (plain := _plain(text)) in NAMES}
    if len(found) == 1:
        return found.pop()
    what = "two names" if found else "no name that is known"
    raise ValueError(  # what stands there may be anything, a name too
        _refusal(shown, f"{where}: a point with {what}; call it tip, thumb or capitate in one of its attributes")
    )


def _plain(text: str) -> str:
    return " ".join(text.lower().replace("_", " ").replace("-", " ").split())


def _corners(shape: Mapping[str, Any], where: str, shown: str) -> list[float]:
    x, y = shape.get("all_points_x"), shape.get("all_points_y")
    if not isinstance(x, list) or not isinstance(y, list) or len(x) != len(y) or len(x) < 3:
        raise ValueError(
            _refusal(shown, f"{where}: an outline of fewer than three corners; draw it again, or delete it")
        )
    return _numbers([value for corner in zip(x, y, strict=True) for value in corner], where, shown)


def _numbers(values: list[Any], where: str, shown: str) -> list[float]:
    refusal = _refusal(shown, f"{where}: a coordinate is no finite number; draw the region again, or delete it")
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        raise ValueError(refusal)
    try:
        found = [float(value) for value in values]
    except OverflowError:
        raise ValueError(refusal) from None
    if not all(map(math.isfinite, found)):
        raise ValueError(refusal)
    return found


def _parsed(text: str, shown: str, what: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise ValueError(_refusal(shown, f"{what}not JSON as VIA writes it; {_AS_VIA_DOES}")) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; of a key that stands twice Python would keep the last one, and say nothing."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _refusal(shown: str, why: str) -> str:
    """``shown`` begins with the flag."""
    return f"{shown}: {why}"
