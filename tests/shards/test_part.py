"""A part of the shards from files of which some are damaged and one takes its decoder down."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import imagecodecs
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ct_files import ct, encode
from pydicom.encaps import encapsulate

from medray.imaging import stored
from medray.imaging.decoding import codec, guard
from medray.shards import part
from medray.shards.files import Files, texts_of
from medray.shards.part import Parts, held, known
from medray.shards.reading import scan_file
from medray.shards.source import Encoded, Source
from medray.shards.store import Store
from medray.systems.ich.inventory import assemble
from medray.systems.ich.source import HeadCT

LOSSLESS = "1.2.840.10008.1.2.4.70"
DEADLY = b"\xff\xfe\x00\x08DEADLY"  # a comment in the stream: T.81 B.2.4.5


def decode_or_die(encoded: memoryview, **arguments: Any) -> tuple[np.ndarray, dict[str, Any]]:
    if DEADLY in bytes(encoded):
        os.abort()
    return codec.decode(bytes(encoded), **arguments)


def lossless(uid: int, z: float, change: Any = bytes) -> bytes:
    """A slice as JPEG lossless; ``change`` is done to its stream."""
    pixels = np.random.default_rng(uid).integers(0, 2000, (64, 64)).astype(np.uint16)
    stream = change(imagecodecs.jpeg8_encode(pixels, lossless=True, bitspersample=16))
    ds = ct(uid, z=z, Rows=64, Columns=64, BitsAllocated=16, BitsStored=16, HighBit=15, PixelRepresentation=0)
    ds.PixelData = encapsulate([stream])
    ds["PixelData"].is_undefined_length = True
    ds["PixelData"].VR = "OB"
    ds.file_meta.TransferSyntaxUID = LOSSLESS
    return encode(ds)


def test_what_dies_is_damaged_or_says_nothing_costs_itself_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    monkeypatch.setattr(decode_or_die, "__module__", "test_part")
    monkeypatch.setattr(stored, "decode", decode_or_die)
    guard._drop()
    changes: dict[str, Any] = {
        "good1": bytes,
        "deadly": lambda s: s[:2] + DEADLY + s[2:],
        "good2": bytes,
        "cut": lambda s: s[: len(s) // 2],
        "shifted": lambda s: s[:1500] + b"\x12\x34\x56" + s[1500:],
        "good3": bytes,
    }
    folder = tmp_path / "files"
    folder.mkdir()
    for place, (name, change) in enumerate(changes.items(), start=1):
        (folder / f"{place}-{name}.dcm").write_bytes(lossless(place, 5.0 * place, change))
    store, source = Store(folder), HeadCT()
    scan = pd.DataFrame([row for file in store.files() for row in scan_file(source, store, file)])
    rows = assemble(scan, None).rows
    assert len(rows) == 6
    parts = Parts(source, {"": store}, Store(tmp_path / "to"), [c for c in source.shard_schema.names if c in rows])
    found = parts.write("a.parquet", rows.assign(input="", private_files=texts_of(rows)).to_dict("records"))
    notes = dict(zip(changes, found["note"], strict=True))
    assert notes["deadly"] == "the decoder ended with SIGABRT"
    assert notes["cut"].startswith("damaged pixels: the stream is too short by ")
    assert notes["shifted"].startswith("damaged pixels: ")
    assert [notes[name] for name in ("good1", "good2", "good3")] == [""] * 3
    assert found["written"].tolist() == [True, False, True, False, False, True]
    assert pq.read_metadata(tmp_path / "to" / "a.parquet").num_rows == 3
    pd.testing.assert_frame_equal(known(Store(tmp_path / "to"), "a.parquet", found["id"].tolist()), found)
    assert capfd.readouterr() == ("", "")  # neither the library's words nor a dump
    guard._drop()


# ---- items that are large, and what the shards say of themselves ----------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Zeros(Source):
    """A file says how many bytes its row has."""

    fill: int = 0

    id_column: ClassVar[str] = "item"
    shard_schema: ClassVar[pa.Schema] = pa.schema(
        [pa.field("item", pa.string(), metadata={"identifier": "item"}), pa.field("voxels", pa.binary())]
    )

    @property
    def folder(self) -> str:
        return "zeros"

    def scan(self, stream: Any) -> list[dict[str, Any]]:
        return [{}]

    def encode(self, files: Files, rows: Any) -> list[Encoded]:
        return [Encoded({"voxels": bytes([self.fill]) * int(files.only)})] * len(rows)


def zeros(folder: Path, sizes: list[int]) -> tuple[Parts, list[dict[str, Any]]]:
    rows = []
    for number, size in enumerate(sizes):
        Store(folder / "files").write_bytes(f"{number}", str(size).encode())
        rows.append({"item": f"{number}", "path": str(folder / "files" / f"{number}")})
    table = pd.DataFrame(rows)
    return Parts(Zeros(), {"": Store(folder / "files")}, Store(folder / "to" / "zeros"), ["item"]), table.assign(
        input="", private_files=texts_of(table)
    ).to_dict("records")


def test_a_row_group_is_full_by_rows_or_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "BYTES_PER_GROUP", 100)
    parts, rows = zeros(tmp_path, [5] * 9 + [60, 30, 20, 500, 99, 1])
    parts.write("a.parquet", rows)
    metadata = pq.read_metadata(tmp_path / "to" / "zeros" / "a.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [8, 4, 1, 2]


def test_volumes_are_packed_so_that_they_are_unpacked_fast_and_all_else_smaller(tmp_path: Path) -> None:
    class Volumes(Zeros):
        shard_schema: ClassVar[pa.Schema] = pa.schema([Zeros.shard_schema.field("item"), ("voxels", pa.large_binary())])

    parts, rows = zeros(tmp_path, [5])
    for source, packed in ((Zeros(), "ZSTD"), (Volumes(), "LZ4")):
        replace(parts, source=source).write("a.parquet", rows)
        group = pq.read_metadata(tmp_path / "to" / "zeros" / "a.parquet").row_group(0)
        assert {group.column(i).compression for i in range(group.num_columns)} == {packed}


def test_shards_say_what_they_hold_and_those_of_an_earlier_version_do_not(tmp_path: Path) -> None:
    parts, rows = zeros(tmp_path, [5])
    assert held(Store(tmp_path / "to")) == []
    parts.write("a.parquet", rows)
    assert held(Store(tmp_path / "to")) == [{"source": "Zeros", "version": 1, "fill": 0}]
    old = pq.read_table(tmp_path / "to" / "zeros" / "a.parquet").replace_schema_metadata(
        {"medray": '{"notes": {}, "left_out": {}}'}
    )
    Store(tmp_path / "to" / "old").write_table("a.parquet", old)
    Store(tmp_path / "to" / "other").write_table("a.parquet", pa.table({"n": [1]}))
    assert len(held(Store(tmp_path / "to"))) == 1
    assert known(Store(tmp_path / "to" / "old"), "a.parquet", ["0"])[
        "written"
    ].all()  # it is gone on with, all the same


@pytest.mark.parametrize("content", ["other", "damaged"])
def test_a_shard_that_another_program_wrote_is_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "part-1.parquet"
    pq.write_table(pa.table({"slice_id": ["a"]}), path)
    if content == "damaged":
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"part-1.parquet: is no shard that this program wrote; delete it"):
        known(Store(tmp_path), "part-1.parquet", ["a"])
