"""One HTML page without a script and without anything outside itself: sections of text, tables, charts and images.

A chart is a matplotlib Figure made by ``chart`` (the object API: no pyplot, nothing global). In the page it is an SVG
whose ink follows the reader's light or dark mode; ``png`` gives the same chart on white.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import cv2
import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medray.report.look import CSS, POLICY, TEMPLATE

INK, FAINT, GRID, ACCENT, WARNING = "#1b2430", "#6b7787", "#dbe0e7", "#2f6fdf", "#e4572e"
"""Colours of a chart. The first three become the page's own, so that they suit a light and a dark one."""

PALETTE = ("#e4572e", "#2f8fe0", "#16a394", "#9b6be0", "#d99a06", INK, "#d6569b", "#7a9a2e")
"""Distinct on white and on black."""

PHANTOM_WARNING = (
    "These images are phantoms: drawn by a program, not taken of anybody. The scores below say that the machinery learns; "
    "they say nothing about patients, and no figure here may be compared with a published one."
)


@dataclass(frozen=True)
class Cell:
    """A cell of a table with a second, fainter text, such as a value and its interval."""

    text: str
    note: str = ""


@dataclass(frozen=True)
class Table:
    frame: pd.DataFrame  # any cell: number, text, Cell, or None/NaN, which becomes a dash
    caption: str = ""
    wide: tuple[str, ...] = ()  # columns of running text: they are not squeezed to a word a line


@dataclass(frozen=True)
class Picture:
    figure: Figure
    caption: str = ""


@dataclass(frozen=True)
class Tile:
    """An image with words below it."""

    image: np.ndarray | None  # (rows, columns) or (rows, columns, 3) uint8; None shows ``lines`` in its place
    title: str = ""
    lines: tuple[str, ...] = ()
    chips: tuple[tuple[str, bool], ...] = ()  # short texts; True ones stand out


@dataclass(frozen=True)
class Gallery:
    tiles: tuple[Tile, ...]
    caption: str = ""
    tile_px: int = 240  # least width of a tile; as many as fit stand side by side


@dataclass(frozen=True)
class Notice:
    """A paragraph in a box that nobody overlooks."""

    text: str
    warning: bool = True


@dataclass(frozen=True)
class Figures:
    """A row of headline numbers: (name, value, what else)."""

    items: tuple[tuple[str, str, str], ...]


Block = str | Table | Picture | Gallery | Notice | Figures


@dataclass(frozen=True)
class Section:
    """Under one heading: a text, a chart, a table, and then whatever else, in this order."""

    title: str
    text: str = ""
    figure: Figure | None = None
    table: pd.DataFrame | None = None
    more: tuple[Block, ...] = ()

    @property
    def blocks(self) -> list[Block]:
        blocks: list[Block] = [self.text] if self.text else []
        blocks += [Picture(self.figure)] if self.figure is not None else []
        blocks += [Table(self.table)] if self.table is not None else []
        return blocks + list(self.more)


def render(title: str, lead: str, sections: Sequence[Section]) -> str:
    """The page as HTML. Every text is escaped."""
    drawn = [
        {
            "id": f"s{number}",
            "title": section.title,
            "blocks": [_block(block, f"s{number}b{i}") for i, block in enumerate(section.blocks)],
        }
        for number, section in enumerate(sections, start=1)
    ]
    return TEMPLATE.render(title=title, lead=lead, sections=drawn, css=Markup(CSS), policy=Markup(POLICY))


IMAGES = "images/"
"""What ``plots`` names begin with that show images, which may be patients'."""


def plots(sections: Sequence[Section]) -> dict[str, bytes]:
    """Every chart and, in the folder IMAGES, every gallery's images as a picture: file name → PNG."""
    found: dict[str, bytes] = {}
    for section in sections:
        for block in section.blocks:
            data, folder = b"", ""
            if isinstance(block, Picture):
                data = png(block.figure)
            elif isinstance(block, Gallery):
                data, folder = sheet(block.tiles, max(1, 1200 // block.tile_px)), IMAGES
            name = folder + re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-")
            if data:
                found[f"{name}.png" if f"{name}.png" not in found else f"{name}-{len(found)}.png"] = data
    return found


# ---- charts --------------------------------------------------------------------------------------------------------


def chart(
    width_in: float, height_in: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, np.ndarray]:
    """A figure and its (rows, columns) axes in the page's style. Ten inches fill the page's width.

    Args:
        options: of Figure.subplots.
    """
    figure = Figure(figsize=(width_in, height_in), layout="constrained", facecolor="none")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for axis in axes.flat:
        style(axis)
    return figure, axes


def style(axis: Axes) -> None:
    axis.set_facecolor("none")
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(FAINT)
    axis.tick_params(colors=FAINT, labelcolor=INK, labelsize=8, length=3)
    axis.grid(True, color=GRID, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.xaxis.label.set(color=INK, fontsize=8.5)
    axis.yaxis.label.set(color=INK, fontsize=8.5)


def name_axes(axis: Axes, text: str) -> None:
    axis.set_title(text, fontsize=9.5, color=INK, fontweight="bold", loc="left", pad=8)


def legend(axis: Axes, **options: Any) -> None:
    axis.legend(**({"frameon": False, "fontsize": 8, "labelcolor": INK} | options))


def png(figure: Figure, dpi: int = 110) -> bytes:
    """A chart as a picture on white."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()


def sheet(tiles: Sequence[Tile], columns: int) -> bytes:
    """The images of tiles side by side on black, without their words, as PNG; empty where there is none."""
    images = [tile.image if tile.image.ndim == 3 else np.stack([tile.image] * 3, -1) for tile in tiles if tile.image is not None]  # fmt: skip
    if not images:
        return b""
    height, width = (max(image.shape[i] for image in images) + 4 for i in (0, 1))
    canvas = np.zeros((-(-len(images) // columns) * height, min(columns, len(images)) * width, 3), np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * height, i % columns * width
        canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    return cv2.imencode(".png", canvas[..., ::-1])[1].tobytes()


def _svg(figure: Figure, name: str) -> Markup:
    buffer = BytesIO()
    # These two settings have no other place than matplotlib's global ones; they are put back at once. Text stays
    # text (small, selectable), and a fixed salt gives the same bytes for the same chart.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    text = buffer.getvalue().decode()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    # several drawings share the page's ids
    text = re.sub(r'((?<=\sid=")|(?<=href="#)|(?<=url\(#))(?=[\w.-])', f"{name}-", text)
    for colour, variable in ((INK, "ink"), (FAINT, "faint"), (GRID, "grid")):
        text = text.replace(colour, f"var(--{variable})")
    return Markup(text)


# ---- what the template is given ------------------------------------------------------------------------------------


def _block(block: Block, name: str) -> dict[str, Any]:
    if isinstance(block, str):
        return {"kind": "text", "text": block}
    if isinstance(block, Picture):
        width = 100 * min(1.0, block.figure.get_figwidth() / 10)
        return {"kind": "picture", "svg": _svg(block.figure, name), "width": f"{width:.0f}", "caption": block.caption}
    if isinstance(block, Table):
        return {"kind": "table", "caption": block.caption, **_table(block.frame, block.wide)}
    if isinstance(block, Gallery):
        tiles = [{"image": _webp(t.image), "title": t.title, "lines": t.lines, "chips": t.chips} for t in block.tiles]
        return {"kind": "gallery", "tiles": tiles, "caption": block.caption, "tile_px": block.tile_px}
    if isinstance(block, Notice):
        return {"kind": "notice", "text": block.text, "warning": block.warning}
    return {"kind": "figures", "items": block.items}


def _webp(image: np.ndarray | None) -> str | None:
    if image is None:
        return None
    pixels = image if image.ndim == 2 else np.ascontiguousarray(image[..., ::-1])  # OpenCV's order is BGR
    data = cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, 82])[1].tobytes()
    return f"data:image/webp;base64,{base64.b64encode(data).decode()}"


_NUMBER = re.compile(r"[−+-]?[\d.,]+(\s?(%|HU|mm|s|kB|MB|GB))?")
_NOTHING = "–"


def _table(frame: pd.DataFrame, wide: tuple[str, ...] = ()) -> dict[str, Any]:
    columns = [[_cell(value) for value in frame.iloc[:, i].tolist()] for i in range(frame.shape[1])]
    right = [
        any(cell.text != _NOTHING for cell in column)
        and all(cell.text == _NOTHING or _NUMBER.fullmatch(cell.text) for cell in column)
        for column in columns
    ]
    rows = [[(cell, right[i]) for i, cell in enumerate(row)] for row in zip(*columns, strict=True)]
    kinds = [f"{'right' * right[i]} {'wide' * (name in wide)}".strip() for i, name in enumerate(frame.columns)]
    return {"header": list(zip(map(str, frame.columns), kinds, strict=True)), "rows": rows}


def _cell(value: Any) -> Cell:
    if isinstance(value, Cell):
        return value
    if value is None or value is pd.NA or (isinstance(value, float | np.floating) and math.isnan(value)):
        return Cell(_NOTHING)
    if isinstance(value, bool | np.bool_):
        return Cell("yes" if value else "no")
    if isinstance(value, int | np.integer):
        return Cell(f"{value:,}")
    if isinstance(value, float | np.floating):
        return Cell(f"{value:,.4g}")
    return Cell(str(value))
