"""The content of a small text file by path or URI, unpacked where it is gzip."""

from __future__ import annotations

import gzip
import zlib

from medray.shards.store import Store, read_file, reason

_GZIP = b"\x1f\x8b"  # how every such file begins, whatever its name


def read_unpacked(uri: str, flag: str = "--labels") -> tuple[bytes, str]:
    """The content, and the file's name as it may be shown.

    Args:
        flag: what the user gave the file with; errors begin with it.
    Raises:
        ValueError: no such file, or damaged gzip.
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
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        raise ValueError(f"{flag} {shown}: a damaged gzip file; unpack or fetch it again") from None
