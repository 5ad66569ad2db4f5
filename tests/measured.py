"""Memory and time of a file that is read in a process of its own, and in its decoder, above those of a plain file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 60
_SLICE_OR_FILM = """
from medray.shards.files import Files
from {module} import {source}

def read(data):
    source = {source}()
    (found,) = source.encode(Files({{"{name}": [data]}}), source.scan(io.BytesIO(data))[:1])
    return found.note
"""
SLICE = _SLICE_OR_FILM.format(module="medray.systems.ich.source", source="HeadCT", name="file")
CHEST = _SLICE_OR_FILM.format(module="medray.systems.chest.source", source="Radiograph", name="file")
HAND = _SLICE_OR_FILM.format(module="medray.systems.boneage.films.source", source="HandFilm", name="film")
VOLUME = """
from medray.imaging.volume import read_volume, read_volume_header

def read(data):
    read_volume_header(io.BytesIO(data))
    read_volume(data)
"""
"""Python with ``read(data)``: a note or None; raises ValueError."""

_MEASURE = """
import io, json, resource, sys, time
from medray.imaging.decoding import guard
{read}
def highest(process):
    # not ru_maxrss of this process: it begins with what its parent had
    with open(f"/proc/{{process}}/status") as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

def taken():
    ended = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    alive = highest(guard._current.process.pid) if guard._current else 0
    return highest("self") + max(ended, alive)

def why(data):
    try:
        return read(data) or "read"
    except ValueError as error:
        return str(error)

plain, bomb = (open(path, "rb").read() for path in sys.argv[1:])
said = why(plain)
before, began = taken(), time.monotonic()
print(json.dumps({{"plain": said, "why": why(bomb), "more_bytes": taken() - before, "seconds": time.monotonic() - began}}))
"""


def measured(read: str, plain: bytes, bomb: bytes, folder: Path) -> dict[str, Any]:
    """Of the bomb: "why", its reason or note, or "read"; "more_bytes", of the process and its decoder together; "seconds"."""
    for name, data in (("plain", plain), ("bomb", bomb)):
        (folder / name).write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE.format(read=read), str(folder / "plain"), str(folder / "bomb")],
        capture_output=True, text=True, cwd=ROOT, timeout=SECONDS + 120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["seconds"] < SECONDS, found
    return found
