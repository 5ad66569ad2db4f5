"""Small parts that several sections share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medray.ich.report.pictures import Shot
from medray.page import Tile


def listed(values: Sequence[Any]) -> str:
    """Values as a text, with commas."""
    return ", ".join(str(value) for value in values)


def tile(shot: Shot, title: str, lines: tuple[str, ...], chips: tuple[tuple[str, bool], ...] = ()) -> Tile:
    """A slice as a tile; without its picture, the reason stands in its place."""
    return Tile(shot.image, title, lines if shot.image is not None else (f"No picture: {shot.problem}.",), chips)
