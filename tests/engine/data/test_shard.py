"""Shards on real workers' code paths: what is in them, what is left out, and that a restart repeats nothing."""

from __future__ import annotations

import errno
import io
import os
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ray.cloudpickle import register_pickle_by_value

from medray.engine.data import shard as shards
from medray.engine.data.inputs import Input
from medray.engine.data.prepare import Folding, Ingest, Private, _contents, _to_write, prepare
from medray.engine.data.shard import scan
from medray.imaging.phantom import PhantomSet
from medray.shards.inventory import Inventory
from medray.shards.pseudonym import Pseudonyms
from medray.shards.store import Make, Store
from medray.systems.ich.classes import CLASSES
from medray.systems.ich.inventory import assemble
from medray.systems.ich.labels import read_labels
from medray.systems.ich.source import HeadCT
from medray.systems.ich.system import HEAD_CT, strata


def shard(dicom: Path, labels: Path, to: Path | Store, key: bytes | None, folds: int | None = None) -> Ingest:
    known, folder = read_labels(str(labels)), Store(dicom)
    out = to if isinstance(to, Store) else Store(to)
    return prepare(
        HeadCT(),
        [Input("", folder, folder.files(), lambda scan: assemble(scan, known))],
        CLASSES,
        Folding(strata, folds, seed=0),
        out,
        out.sub("shards"),
        Private(Pseudonyms(key), Path(out.root).parent / "private"),
        rows_per_shard=32,
    )


def test_statuses_after_decoding(prepared: Ingest, phantoms: PhantomSet) -> None:
    names = prepared.private["path"].str.rsplit("/", n=1).str[1]
    status = dict(zip(names, prepared.private["status"], strict=True))
    reason = dict(zip(names, prepared.private["reason"], strict=True))
    by_kind = {kind: (status[name], reason[name]) for name, kind in phantoms.broken_files.items()}
    assert by_kind["truncated"][0] == "quarantined"
    assert "bytes expected" in by_kind["truncated"][1]
    assert by_kind["wrapped"][0] == "repaired"
    assert by_kind["unsigned"][0] in ("ok", "unlabelled")


def test_every_usable_slice_is_in_the_shards_once(prepared: Ingest) -> None:
    usable = prepared.inventory["status"].isin(["ok", "repaired", "unlabelled"])
    assert sorted(prepared.index["slice_id"]) == sorted(prepared.inventory.loc[usable, "slice_id"])
    table = prepared.rows.store.read_table(prepared.rows.files[0])
    row = table.slice(0, 1).to_pylist()[0]
    assert len(row["image"]) == row["rows"] * row["columns"] * 3
    assert row["slice_id"].startswith("slice-")


def test_a_restart_writes_nothing_again_and_another_key_leaves_folds_and_pixels(
    phantoms: PhantomSet, local_ray: None, tmp_path: Path
) -> None:
    labels = phantoms.labels_csv
    first = shard(phantoms.dicom, labels, tmp_path / "a" / "out", b"a" * 32, folds=3)
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "a" / "out" / "shards").iterdir()}
    victim = sorted(times)[0]
    victim.unlink()  # as if the job had been killed before this one
    again = shard(phantoms.dicom, labels, tmp_path / "a" / "out", b"a" * 32, folds=3)
    assert {p for p, t in times.items() if p.stat().st_mtime_ns != t} == {victim}
    pd.testing.assert_frame_equal(first.index, again.index)
    pd.testing.assert_frame_equal(first.inventory, again.inventory)

    other = shard(phantoms.dicom, labels, tmp_path / "b" / "out", b"b" * 32, folds=3)
    assert not set(other.index["slice_id"]) & set(first.index["slice_id"])
    assert np.array_equal(other.index["fold"], first.index["fold"])
    for one, two in zip(first.rows.files, other.rows.files, strict=True):
        columns = ["index", "position_mm", "rows", "columns", "image", *CLASSES]
        assert pq.read_table(first.rows.store.path(one), columns=columns) == pq.read_table(
            other.rows.store.path(two), columns=columns
        )


class _More(HeadCT):
    """Reads one thing more of each header."""

    scan_schema = HeadCT.scan_schema.append(pa.field("more", pa.string()))

    def scan(self, stream: BinaryIO) -> list[dict[str, Any]]:
        return [row | {"more": "yes"} for row in super().scan(stream)]


class _Newer(_More):
    version = _More.version + 1

    def scan(self, stream: BinaryIO) -> list[dict[str, Any]]:
        return [row | {"more": "newer"} for row in super().scan(stream)]


def test_headers_are_read_again_where_more_is_read_of_them(
    phantoms: PhantomSet, local_ray: None, tmp_path: Path
) -> None:
    folder, cache = Store(phantoms.dicom), Store(tmp_path)
    files = folder.files()[:5]
    plain = scan(HeadCT(), folder, files, cache)
    assert "more" not in plain
    register_pickle_by_value(sys.modules[__name__])
    assert set(scan(_More(), folder, files, cache)["more"].dropna()) == {"yes"}
    assert set(scan(_Newer(), folder, files, cache)["more"].dropna()) == {"newer"}
    kept = cache.names(".parquet")
    assert len(kept) == 3
    pd.testing.assert_frame_equal(scan(HeadCT(), folder, files, cache), plain)
    assert cache.names(".parquet") == kept
    scan(HeadCT(allow_burned_in=True), folder, files, cache)  # what is set aside by a header depends on it
    assert len(cache.names(".parquet")) == 4


@pytest.mark.real_data
def test_the_real_series_passes_through(head_ct_dir: Path, local_ray: None, tmp_path: Path) -> None:
    dicom, labels = head_ct_dir / "rsna2019_series", head_ct_dir / "stage_2_train.csv"
    found = shard(dicom, labels, tmp_path / "out", None)
    assert found.inventory["status"].tolist() == ["ok"] * 36
    table = pq.read_table(tmp_path / "out" / "shards").to_pandas().set_index("slice_id")
    truth = read_labels(str(labels)).table
    assert np.array_equal(table.loc[truth.index, list(CLASSES)].to_numpy(), truth.to_numpy())
    spacing = np.diff(np.sort(table["position_mm"]))
    assert np.abs(spacing - 5).max() < 0.001
    ordered = table.sort_values("index")
    bright = [np.frombuffer(image, np.uint8).any() for image in ordered["image"]]
    assert not bright[-1]  # the end of the stack that holds no head, only the holder
    assert all(bright[:-1])


class SmallDisk(Store):
    """A folder on a disk with room for one shard: it is full for the others, which wait for it to be there."""

    def _write(self, name: str, make: Make) -> None:
        os.makedirs(self.root, exist_ok=True)
        try:
            Path(self.root, "taken").open("x").close()
        except FileExistsError:
            give_up = time.monotonic() + 60
            while not self.names(".parquet") and time.monotonic() < give_up:
                time.sleep(0.1)
            super()._write(name, lambda stream: make(Full()))
        super()._write(name, make)


class Full(io.BufferedIOBase):
    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_one_line_and_keeps_what_was_done(phantoms: PhantomSet, local_ray: None, tmp_path: Path) -> None:
    register_pickle_by_value(sys.modules[__name__])  # for the workers, which do not import tests
    with pytest.raises(ValueError, match=r"cannot be written \(No space left on device\); make room and start again"):
        shard(phantoms.dicom, phantoms.labels_csv, SmallDisk(tmp_path / "out"), b"a" * 32)
    (kept,) = (tmp_path / "out" / "shards").glob("*.parquet")
    assert pq.read_metadata(kept).num_rows
    assert not list((tmp_path / "out" / "shards").glob(".*"))


def test_a_class_that_a_fold_lacks_is_said(phantoms: PhantomSet, local_ray: None, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    rows = phantoms.labels_csv.read_text().splitlines()
    kept = [row for row in rows if "_epidural,1" not in row]  # such slices lose a row, and with it all of their labels
    labels.write_text("\n".join(kept) + "\n")
    index = shard(phantoms.dicom, labels, tmp_path / "out", None, folds=2).index
    assert "no epidural in fold 0, 1: its AUC there is undefined" in HEAD_CT.fold_notes(index)


def test_parts_begin_at_stacks_and_are_full_by_rows_or_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    stacks = np.repeat(list("abcdefg"), [3, 3, 1, 5, 2, 2, 1])
    small = np.ones(len(stacks))
    assert shards._starts(stacks, small, 4) == [0, 6, 12, 16, 17]  # the first stack from every fourth row on
    assert shards._starts(stacks, small, 100) == [0, 17]
    monkeypatch.setattr(shards, "BYTES_PER_SHARD", 700)
    assert shards._starts(stacks, 100 * small, 100) == [0, 7, 14, 17]
    assert shards._starts(stacks, 100 * small, 4) == [0, 6, 12, 16, 17]
    assert shards._starts(stacks, 1000 * small, 100) == [0, 3, 6, 7, 12, 14, 16, 17]  # a stack is never cut


def test_a_row_is_as_large_as_its_files_or_as_its_source_says() -> None:
    table = pd.DataFrame({"path": ["a", "b", "c"], "size_bytes": [100, 20, 3], "status": "ok", "content": "same"})
    rows = pd.DataFrame({"slice_id": ["x", "y"], "patient_id": "p", "stack_id": ["x", "y"], "index": 0})
    rows["files"] = [{"t1": "a", "mask": "c"}, {"t1": "b", "mask": "c"}]

    class AsItsFiles(HeadCT):
        row_bytes = None

    def sizes(source: HeadCT, inventory: Inventory) -> list[float]:
        contents = _contents(source, inventory)
        return _to_write(source, inventory, contents, {"": Store("/")}, Pseudonyms(None))["about_bytes"].tolist()

    assert sizes(AsItsFiles(), Inventory(table, rows, ())) == [103, 23]
    assert sizes(HeadCT(), Inventory(table, rows, ())) == [150_000, 150_000]
    frames = table.iloc[[0, 0]].reset_index(drop=True)
    two = rows.drop(columns="files").assign(path=frames["path"])
    assert sizes(AsItsFiles(), Inventory(frames, two, ())) == [50, 50]  # of one file
