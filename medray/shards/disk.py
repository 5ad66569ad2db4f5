"""Folders of a local disk as a hospital leaves them: names in any encoding, links to anywhere, pipes, folders that are
closed. What is there is listed once, and nothing of it stops whoever lists it."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from typing import BinaryIO

_QUOTE = "‛"  # U+201B, as rclone quotes bytes that are not UTF-8
_QUOTED = re.compile(f"{_QUOTE}([0-9A-F]{{2}}|{_QUOTE})")
_KINDS = (
    (stat.S_ISDIR, "a folder that could not be listed"),
    (stat.S_ISFIFO, "a pipe, not a file"),
    (stat.S_ISSOCK, "a socket, not a file"),
    (stat.S_ISCHR, "a device, not a file"),
    (stat.S_ISBLK, "a device, not a file"),
)


def text_of(path: bytes) -> str:
    """A path as valid Unicode: itself where it is UTF-8, else with each byte that is not as "‛E4".

    ``bytes_of`` undoes it for every path: a "‛" of the path's own becomes two.
    """
    if path.isascii():
        return path.decode()
    text = path.decode("utf-8", "surrogateescape").replace(_QUOTE, _QUOTE * 2)
    return re.sub("[\udc80-\udcff]", lambda odd: f"{_QUOTE}{ord(odd[0]) - 0xDC00:02X}", text)


def bytes_of(path: str) -> bytes:
    """The path that ``text_of`` made text of."""
    parts = _QUOTED.split(path)  # text and what was quoted, in turn
    out = [part.encode() for part in parts]
    out[1::2] = [_QUOTE.encode() if part == _QUOTE else bytes.fromhex(part) for part in parts[1::2]]
    return b"".join(out)


def listed(root: str, shown: str) -> Iterator[tuple[str, int]]:
    """Path (as ``text_of`` gives it) and size in bytes of whatever below ``root`` is not a folder, or of itself.

    Each folder is listed once, by device and inode, and by its own name rather than by a link's: a link to a folder on
    the way to it, or above ``root``, leads nowhere, and one to a folder elsewhere is followed after all that is below
    ``root`` itself. Which of several links names a folder does not depend on the order in which the disk lists them.
    What cannot be read is listed with a size of 0: a link to nothing, a pipe, a folder that is closed.

    Args:
        shown: names ``root`` in an error.
    Raises:
        ValueError: there is nothing at ``root``, or it cannot be listed.
    """
    top = os.fsencode(root)
    try:
        found = os.stat(top)
        if not stat.S_ISDIR(found.st_mode):
            yield text_of(top), found.st_size
            return
        os.scandir(top).close()
    except FileNotFoundError:
        raise ValueError(f"{shown}: no such folder or file") from None
    except OSError as error:
        raise ValueError(f"{shown}: cannot be read ({os.strerror(error.errno or 0)})") from None
    seen = _folders_above(os.path.realpath(top))
    waiting = [top]
    while waiting:
        links: list[bytes] = []
        for folder in sorted(waiting):
            yield from _below(folder, seen, links)
        waiting = links


def _folders_above(path: bytes) -> set[tuple[int, int]]:
    """Device and inode of each: what lies there beside ``path`` was not asked for, though a link may lead to it."""
    above = set()
    while (parent := os.path.dirname(path)) != path:
        path = parent
        found = os.stat(path)
        above.add((found.st_dev, found.st_ino))
    return above


def _below(top: bytes, seen: set[tuple[int, int]], links: list[bytes]) -> Iterator[tuple[str, int]]:
    """As ``listed``, of one folder without the links to folders in it, which are added to ``links``."""
    folders = [top]
    while folders:
        folder = folders.pop()
        try:
            itself = os.stat(folder)
            if (itself.st_dev, itself.st_ino) in seen:
                continue
            seen.add((itself.st_dev, itself.st_ino))
            with os.scandir(folder) as entries:
                inside = sorted(entries, key=lambda entry: entry.name, reverse=True)
        except OSError:
            yield text_of(folder), 0
            continue
        start = text_of(os.path.join(folder, b""))
        for entry in inside:
            try:
                if entry.is_dir():
                    (links if entry.is_symlink() else folders).append(entry.path)
                    continue
                size = entry.stat().st_size
            except OSError:  # a link to nothing or to itself, a file that has gone, a folder without search permission
                size = 0
            yield start + text_of(entry.name), size


def opened(path: str) -> BinaryIO:
    """Open a file that ``listed`` has named.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no file; opening a pipe would wait for a writer, and a device may be anything.
    """
    place = bytes_of(path)
    if os.path.islink(place) and not os.path.exists(place):
        raise ValueError("a link that leads nowhere")
    mode = os.stat(place).st_mode
    if stat.S_ISDIR(mode):
        os.scandir(place).close()  # says why it could not be listed, where that is still so
    for is_kind, why in _KINDS:
        if is_kind(mode):
            raise ValueError(why)
    return open(place, "rb")
