"""The content of a small text file by path or URI, unpacked where it is gzip."""

from __future__ import annotations

import gzip
import io
import zlib

from medray.shards.store import Store, read_file, reason

MOST_BYTES = 1 << 29
"""That a gzip file may unpack to: four times the largest list that is published, of the 4.5 million rows of RSNA 2019. A
thousandth of it can make gigabytes."""
_PIECE_BYTES = 1 << 20
_GZIP = b"\x1f\x8b"  # how every such file begins, whatever its name


def read_unpacked(uri: str, flag: str = "--labels") -> tuple[bytes, str]:
    """The content, and the file's name as it may be shown.

    Args:
        flag: what the user gave the file with; errors begin with it.
    Raises:
        ValueError: no such file, damaged gzip, or gzip of more than ``MOST_BYTES``.
    """
    shown = Store(uri).uri
    try:
        return _unpacked(read_file(uri), shown, flag), shown
    except OSError as error:
        raise ValueError(f"{flag} {shown}: {reason(error)}") from None


def read_unpacked_in(folder: Store, name: str, flag: str = "--labels") -> tuple[bytes, str]:
    """``read_unpacked`` of a file in a folder that is open already."""
    shown = f"{folder.uri}/{name}"
    try:
        return _unpacked(folder.read_bytes(name), shown, flag), shown
    except OSError as error:
        raise ValueError(f"{flag} {shown}: {reason(error)}") from None


def _unpacked(data: bytes, shown: str, flag: str) -> bytes:
    if not data.startswith(_GZIP):
        return data
    found = bytearray()
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
            while piece := stream.read(_PIECE_BYTES):
                found += piece
                if len(found) > MOST_BYTES:
                    break
    except (OSError, EOFError, zlib.error):
        raise ValueError(f"{flag} {shown}: a damaged gzip file; unpack or fetch it again") from None
    if len(found) > MOST_BYTES:
        raise ValueError(
            f"{flag} {shown}: a gzip file of more than {MOST_BYTES >> 20} MB; no list has so many, unpack it where it is right"
        )
    return bytes(found)
