"""Small parts that several sections share."""

from __future__ import annotations

from medray.report.page import Tile
from medray.systems.ich.report.pictures import Shot


def tile(shot: Shot, title: str, lines: tuple[str, ...], chips: tuple[tuple[str, bool], ...] = ()) -> Tile:
    """A slice as a tile; without its picture, the reason stands in its place."""
    return Tile(shot.image, title, lines if shot.image is not None else (f"No picture: {shot.problem}.",), chips)
