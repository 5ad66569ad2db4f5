"""Labels of hand films: a CSV of bone ages, and beside it exports of VIA with points and outlines."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd
import pyarrow.fs as pafs

from medray.shards.cells import read_cells
from medray.shards.packed import read_unpacked, read_unpacked_in
from medray.shards.source import Source
from medray.shards.store import Store
from medray.systems.boneage.films import via
from medray.systems.boneage.films.source import MASKS, HandFilm
from medray.systems.boneage.films.table import FLAG, films_of, meaning

_TABLES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")


@dataclass(frozen=True)
class Labels:
    """What people say of films, and what was odd about their files. Identifiers are the files' own.

    ``table`` has one row a film: patient_id (text or None), age_months (NaN where unknown), sex ("F", "M" or None),
    calendar_months (NaN), points (x0 y0 x1 y1 x2 y2 of tip, thumb and capitate in the file's pixels, NaN for one that is not
    marked; None without) and outline_px (x y x y …, or None). Its index is the film's name as the file gives it, without the
    image's extension. A film that only an export names has a row, too.
    """

    table: pd.DataFrame
    warnings: tuple[str, ...] = ()  # one line each, without identifiers
    masks: str = MASKS  # name of the folders with mask files below that of the films


def read_labels(uri: str, new_films: bool = False, flag: str = FLAG) -> Labels:
    """Read a CSV, or a folder with one CSV of ages and any number of VIA exports (.json, .csv), by path or URI.

    Args:
        new_films: of these the CSV needs no bone ages, but a sex, patient or calendar age; what is drawn on them is not read.
        flag: by which users name the files; errors begin with it.
    Raises:
        ValueError: no such file, no CSV of ages or two of them, a film given twice with other values, and as
            ``table.films_of``, ``via.read_json`` and ``via.read_csv``.
    """
    store, content = Store(uri), "films" if new_films else "ages"
    if store.filesystem.get_file_info(store.root).type != pafs.FileType.Directory:
        data, shown = read_unpacked(uri, flag)
        cells = None if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") else read_cells(data, shown, flag, meaning)
        if cells is None or via.is_export(cells):
            raise ValueError(
                f"{flag} {shown}: an export of VIA has no {'sexes' if new_films else 'ages'}; name a folder that holds it "
                f"and a CSV of {content}"
            )
        return _labels(cells, shown, via.Drawn(), not new_films, flag)
    tables: list[tuple[pd.DataFrame, str]] = []
    drawn = via.Drawn()
    for name in store.names():
        shown = f"{store.uri}/{name}"
        if name.lower().endswith(".json") and not new_films:
            _check_size(store, name, f"{flag} {shown}")
            drawn.add(via.read_json(*read_unpacked_in(store, name, flag), flag), shown, flag)
        elif name.lower().endswith(_TABLES):
            cells = read_cells(*read_unpacked_in(store, name, flag), flag, meaning)
            if via.is_export(cells):
                if new_films:
                    continue
                drawn.add(via.read_csv(cells, shown, flag), shown, flag)
            else:
                tables.append((cells, shown))
    if not tables:
        where = "there, or name it" if new_films else "beside the exports of VIA"
        raise ValueError(f"{flag} {store.uri}: there is no CSV of {content} in this folder; put one {where}")
    if len(tables) > 1:
        names = " and ".join(shown.rsplit("/", 1)[-1] for _, shown in tables[:2])
        raise ValueError(
            f"{flag} {store.uri}: {names} are both a CSV of {content}, and no export of VIA; keep one in this folder"
        )
    return _labels(*tables[0], drawn, not new_films, flag)


def labels_for(labels: Labels, source: Source) -> Labels:
    """Labels that know in which folders the source's masks lie."""
    assert isinstance(source, HandFilm)
    return replace(labels, masks=source.masks)


def _check_size(store: Store, name: str, named: str) -> None:
    """Before memory is asked for it."""
    if (store.filesystem.get_file_info(store.path(name)).size or 0) > via.MOST_BYTES:
        raise ValueError(f"{named}: larger than any export of VIA; take it out of this folder")


def _labels(cells: pd.DataFrame, shown: str, drawn: via.Drawn, needs_ages: bool, flag: str) -> Labels:
    films, warnings = films_of(cells, shown, needs_ages, flag)
    distinct = films.drop_duplicates()
    twice = distinct[distinct["key"].duplicated(keep=False)]
    if len(twice):
        one, other = twice.index[twice["key"] == twice["key"].iloc[0]][:2]
        raise ValueError(f"{flag} {shown}: lines {one} and {other} are one film with other values; keep one of them")
    if repeated := len(films) - len(distinct):
        warnings.append(f"{repeated} repeated label rows, merged")
    if drawn.others:
        warnings.append(
            f"{drawn.others} regions of the exports of VIA are neither points nor polygons: they are not read"
        )
    table = distinct.set_index("key")
    more = [film for film in dict.fromkeys([*drawn.points, *drawn.outlines]) if film not in table.index]
    table = table.reindex(table.index.append(pd.Index(more, name="key", dtype=table.index.dtype)))
    for name in ("patient_id", "sex"):
        table[name] = table[name].astype(object).where(table[name].notna(), None)
    for name, found in (("points", drawn.six), ("outline_px", drawn.outlines.get)):
        table[name] = pd.Series([found(film) for film in table.index], index=table.index, dtype=object)
    return Labels(table, tuple(warnings))
