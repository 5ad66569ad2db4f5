"""Small files that unpack to gigabytes, or are a million of something: done with in seconds, with little memory."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from ct_files import ct
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, RLELossless
from volume_files import as_bytes

ROOT = Path(__file__).resolve().parents[2]
MOST_BYTES, SECONDS = 1.2e9, 60
"""Of the process and its decoder above what they take for a plain slice; and for all of it."""
READ = """
import io, json, resource, sys, time
from medray.imaging.types import Unreadable
from medray.shards.files import Files
from medray.systems.ich.source import HeadCT

def peak():
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))

def why(data):
    source = HeadCT()
    try:
        (found,) = source.encode(Files({"file": [data]}), source.scan(io.BytesIO(data))[:1])
        return found.note or "read"
    except (Unreadable, ValueError) as error:
        return str(error)

plain, bomb = (open(path, "rb").read() for path in sys.argv[1:])
assert why(plain) == "read", why(plain)
before, began = peak(), time.monotonic()
print(json.dumps({"why": why(bomb), "more_bytes": 1024 * (peak() - before), "seconds": time.monotonic() - began}))
"""


def deflated(size: int) -> bytes:
    """A megabyte that inflates to ``size`` bytes of header."""
    whole = as_bytes(ct(1))
    start = whole.index(b"DICM") + 4
    meta = whole[: start + 12 + struct.unpack("<I", whole[start + 8 : start + 12])[0]]
    meta = meta.replace(b"1.2.840.10008.1.2.1\x00", b"1.2.840.10008.1.2.1.99")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = packer.compress(struct.pack("<HH2sHI", 0x0009, 0x1010, b"OB", 0, size))
    body += b"".join(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)) + packer.flush()
    return meta + body


def run_lengths() -> bytes:
    """RLE: each pair of bytes is 128 more, for gigabytes."""
    stream = struct.pack("<16I", 2, 64, 64 + 6_000_000, *[0] * 13) + b"\x81\x00" * 6_000_000
    ds = ct(1, Rows=64, Columns=64)
    ds.file_meta.TransferSyntaxUID = RLELossless
    ds.PixelData = encapsulate([stream])
    ds["PixelData"].is_undefined_length = True
    return as_bytes(ds)


def elements() -> bytes:
    """Eight megabytes of empty elements."""
    whole = as_bytes(ct(1))
    at = whole.index(struct.pack("<HH2s", 0x0020, 0x000D, b"UI"))
    return (
        whole[:at]
        + b"".join(struct.pack("<HH2sH", 0x0019, 0x1000 + i % 0xEFFF, b"SH", 0) for i in range(1_000_000))
        + whole[at:]
    )


def nested() -> bytes:
    """A sequence in a sequence, five thousand times."""
    whole = as_bytes(ct(1))
    at = whole.index(struct.pack("<HH2s", 0x0020, 0x000D, b"UI"))
    one = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return whole[:at] + one * 5000 + whole[at:]


def huge() -> bytes:
    """The header says that a slice has 8,000 × 8,000 pixels, as a kilobyte of JPEG 2000 can have."""
    ds = ct(1, Rows=8000, Columns=8000)
    ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
    ds.PixelData = encapsulate([bytes(1000)])
    ds["PixelData"].is_undefined_length = True
    return as_bytes(ds)


@pytest.mark.slow
@pytest.mark.parametrize(
    "bomb",
    [lambda: deflated(3 << 30), run_lengths, elements, nested, huge],
    ids=["deflated", "rle", "elements", "nested", "huge"],
)
def test_it_is_refused_in_little_memory(bomb: Callable[[], bytes], tmp_path: Path) -> None:
    for name, data in (("plain", as_bytes(ct(1))), ("bomb", bomb())):
        (tmp_path / name).write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path / "plain"), str(tmp_path / "bomb")], capture_output=True, text=True, cwd=ROOT,
        timeout=SECONDS + 60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["why"] != "read" or bomb is elements
    assert found["more_bytes"] < MOST_BYTES, found
    assert found["seconds"] < SECONDS, found
