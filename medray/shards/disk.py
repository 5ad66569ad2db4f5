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
    the way to it leads nowhere. Links out of ``root`` are not followed: whoever may put one there would choose what is
    read. What cannot be read is listed with a size of 0: such a link, one to nothing, a pipe, a folder that is closed.

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
    seen = set[tuple[int, int]]()
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
                if entry.is_symlink() and leads_out(entry.path, top):
                    yield start + text_of(entry.name), 0
                    continue
                if entry.is_dir() and entry.is_symlink():  # it is listed by its own name
                    continue
                if entry.is_dir():
                    folders.append(entry.path)
                    continue
                size = entry.stat().st_size
            except OSError:  # a link to nothing or to itself, a file that has gone, a folder without search permission
                size = 0
            yield start + text_of(entry.name), size


def leads_out(link: bytes, top: bytes) -> bool:
    """Whether a link below ``top`` leads to something that is not below it; one to nothing does not."""
    if not os.path.exists(link):
        return False
    return os.path.commonpath([os.path.realpath(link), real := os.path.realpath(top)]) != real


def opened(path: str, root: str) -> BinaryIO:
    """Open a file that ``listed`` has named below ``root``.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no file; opening a pipe would wait for a writer, and a device may be anything. Or a link that leads
            nowhere, or out of ``root``.
    """
    place = bytes_of(path)
    if os.path.islink(place) and place != os.fsencode(root):
        if not os.path.exists(place):
            raise ValueError("a link that leads nowhere")
        if leads_out(place, os.fsencode(root or "/")):
            raise ValueError(
                "a link out of the folder that was given; put a copy there, or name the folder it leads to"
            )
    mode = os.stat(place).st_mode
    if stat.S_ISDIR(mode):
        os.scandir(place).close()  # says why it could not be listed, where that is still so
    for is_kind, why in _KINDS:
        if is_kind(mode):
            raise ValueError(why)
    return open(place, "rb")
