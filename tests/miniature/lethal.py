"""Volumes of which some end the process that reads them, as a fault in a native library does."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from medray.shards.files import Files
from medray.shards.source import Encoded
from miniature.volumes import Volumes

IN_HEADER, IN_PIXELS = b"dies in scan", b"dies in encode"


class Lethal(Volumes):
    def scan(self, stream: BinaryIO) -> list[dict[str, Any]]:
        if IN_HEADER in stream.read():
            os.abort()
        stream.seek(0)
        return super().scan(stream)

    def encode(self, files: Files, rows: Sequence[dict[str, Any]]) -> list[Encoded]:
        if any(IN_PIXELS in data for own in files.named.values() for data in own):
            os.abort()
        return super().encode(files, rows)


def make_lethal(file: Path, where: bytes) -> None:
    """The same volume, and what kills whoever looks for it."""
    file.write_bytes(file.read_bytes() + where)
