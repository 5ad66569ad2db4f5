"""Input files of any name and kind, from the listing to pixels, by each way on which a job reads them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from chest_films import dicom, noise

from medray.engine.derive.scan import scan_here
from medray.imaging.phantom import PhantomSet
from medray.shards.files import texts_of
from medray.shards.part import Parts
from medray.shards.reading import encode_rows, scan_file
from medray.shards.source import Source
from medray.shards.store import Store
from medray.systems.chest.answers import Films
from medray.systems.chest.inventory import assemble as assemble_films
from medray.systems.chest.source import Radiograph
from medray.systems.ich.inventory import assemble
from medray.systems.ich.source import HeadCT


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder with a link to nothing and a pipe."""
    folder = tmp_path / "files"
    folder.mkdir()
    os.mkfifo(folder / "pipe.dcm")
    (folder / "broken.dcm").symlink_to("/nowhere/x.dcm")
    return folder


def put(folder: Path, data: bytes) -> None:
    """Write a file under a name that is no UTF-8."""
    with open(os.fsencode(folder) + b"/Sch\xe4del.dcm", "wb") as stream:
        stream.write(data)


def a_slice(phantoms: PhantomSet) -> bytes:
    broken = set(phantoms.broken_files)
    return next(p for p in sorted(phantoms.dicom.rglob("*.dcm")) if p.name not in broken).read_bytes()


EXPECTED = {
    "Sch‛E4del.dcm": ("ok", None),
    "broken.dcm": ("quarantined", "a link that leads nowhere"),
    "pipe.dcm": ("quarantined", "a pipe, not a file"),
}


def statuses(scan: list[dict[str, Any]]) -> dict[str, tuple[str, str | None]]:
    return {os.path.basename(row["path"]): (row["status"], row["reason"]) for row in scan}


def scanned_by_a_task(source: Source, store: Store) -> list[dict[str, Any]]:
    return [row for file in store.files() for row in scan_file(source, store, file)]


def written_by_a_task(source: Source, store: Store, rows: pd.DataFrame, to: Path) -> list[dict[str, Any]]:
    columns = [name for name in source.shard_schema.names if name in rows]
    table = rows.assign(input="", private_files=texts_of(rows)).to_dict("records")
    assert Parts(source, {"": store}, Store(to), columns).write("a.parquet", table)["written"].all()
    return pq.read_table(to / "a.parquet").to_pylist()


def test_slices(odd: Path, phantoms: PhantomSet, tmp_path: Path) -> None:
    put(odd, a_slice(phantoms))
    store, source = Store(odd), HeadCT()
    scan = scan_here(source, store, store.files())
    assert statuses(scan.replace({np.nan: None}).to_dict("records")) == EXPECTED
    assert statuses(scanned_by_a_task(source, store)) == EXPECTED
    rows = assemble(scan, None).rows
    here, lost = encode_rows(source, store, rows.to_dict("records"))
    assert not lost
    (there,) = written_by_a_task(source, store, rows, tmp_path / "shards")
    assert here[0]["image"] == there["image"]


def test_films(odd: Path, tmp_path: Path) -> None:
    put(odd, dicom(noise()))
    store, source = Store(odd), Radiograph()
    scan = scan_here(source, store, store.files())
    assert statuses(scan.replace({np.nan: None}).to_dict("records")) == EXPECTED
    assert statuses(scanned_by_a_task(source, store)) == EXPECTED
    rows = assemble_films(scan, None).rows
    (film,) = written_by_a_task(source, store, rows, tmp_path / "shards")
    assert film["image"] == noise().tobytes()
    films = Films.found({store: store.files()}, source, scan_here)
    with films.rows[0]["folder"].open_file(films.rows[0]["path"]) as stream:
        assert stream.read(132)[128:] == b"DICM"
    assert sorted(map(os.path.basename, films.aside["path"])) == ["broken.dcm", "pipe.dcm"]
