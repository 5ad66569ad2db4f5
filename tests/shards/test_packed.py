"""Lists that come packed: how much of them, and what is said of those that are no lists."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from measured import measured

from medray.shards import packed
from medray.shards.cells import MOST_COLUMNS, read_cells, read_lines
from medray.shards.packed import read_unpacked, read_unpacked_in
from medray.shards.store import Store

LIST = b"image,Mass\na.png,1\nb.png,0\n"


def test_gzip_is_unpacked_whatever_its_name(tmp_path: Path) -> None:
    for data in (LIST, gzip.compress(LIST, mtime=0), gzip.compress(LIST[:9]) + gzip.compress(LIST[9:])):
        (tmp_path / "list.csv").write_bytes(data)
        assert read_unpacked(str(tmp_path / "list.csv")) == (LIST, f"{tmp_path}/list.csv")
        assert read_unpacked_in(Store(tmp_path), "list.csv") == (LIST, f"{tmp_path}/list.csv")


@pytest.mark.parametrize(
    "data", [gzip.compress(LIST, mtime=0)[:-9], gzip.compress(LIST, mtime=0)[:-8] + bytes(8), b"\x1f\x8bmore"]
)
def test_damaged_gzip_is_one_line(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "list.csv.gz").write_bytes(data)
    with pytest.raises(ValueError, match=r"^--boxes .*/list\.csv\.gz: a damaged gzip file; unpack or fetch it again$"):
        read_unpacked(str(tmp_path / "list.csv.gz"), "--boxes")


@pytest.mark.parametrize(
    "read", [read_unpacked, lambda uri, flag: read_unpacked_in(Store(Path(uri).parent), Path(uri).name, flag)]
)
def test_more_than_a_list_has_is_one_line(
    read: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "MOST_BYTES", 3 << 20)
    (tmp_path / "fits.gz").write_bytes(gzip.compress(bytes(3 << 20)))
    (tmp_path / "list.csv.gz").write_bytes(gzip.compress(bytes((3 << 20) + 1)))
    assert len(read_unpacked(str(tmp_path / "fits.gz"))[0]) == 3 << 20
    with pytest.raises(ValueError, match=r"^--boxes .*/list\.csv\.gz: a gzip file of more than 3 MB; no list") as error:
        read(str(tmp_path / "list.csv.gz"), "--boxes")
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_bomb_takes_no_more_memory_than_the_longest_list(tmp_path: Path) -> None:
    packer = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    bomb = b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(4 << 10)), packer.flush()])
    read = f"""
from medray.shards.packed import read_unpacked

def read(data):
    open({str(tmp_path / "list.csv.gz")!r}, "wb").write(data)
    read_unpacked({str(tmp_path / "list.csv.gz")!r})
"""
    found = measured(read, gzip.compress(LIST, mtime=0), bomb, tmp_path)
    assert found["plain"] == "read"
    assert found["why"].startswith(f"--labels {tmp_path}/list.csv.gz: a gzip file of more than 512 MB;")
    assert found["more_bytes"] < 1.5 * packed.MOST_BYTES, found


@pytest.mark.timeout(20)
def test_a_table_of_twenty_thousand_columns_is_one_line() -> None:
    names = ",".join(f"feature {i}" for i in range(20_000))
    data = (names + "\n" + (",".join(["0"] * 20_000) + "\n") * 100).encode()
    with pytest.raises(ValueError, match=r"^--labels wide\.csv: 20,000 columns; at most 1,000: leave those") as error:
        read_cells(data, "wide.csv")
    assert "\n" not in str(error.value)
    fits = ",".join(f"feature {i}" for i in range(MOST_COLUMNS)) + "\n" + ",".join(["0"] * MOST_COLUMNS)
    assert read_cells(fits.encode(), "wide.csv").shape == (1, MOST_COLUMNS)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "data", [b"," * (64 << 20), b"image,Mass\r\na.png,1\r\n" + b"," * (64 << 20) + b"\r\nb.png,0\r\n"]
)
def test_a_line_without_end_is_one_line(data: bytes) -> None:
    for read, kind in ((read_cells, "CSV"), (read_lines, "text")):
        with pytest.raises(
            ValueError, match=f"^--labels x: a line of more than 1 MB; no {kind} file of labels has such$"
        ):
            read(data, "x")  # type: ignore[operator]
