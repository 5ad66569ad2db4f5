"""Names: of folders that a user may choose; and of images, by their files' names without the suffixes of image files."""

from __future__ import annotations

import re

_SUFFIX = re.compile(r"(?<=[^/])\.(dcm|dicom|dic|ima|png|jpe?g|jp2|tiff?|bmp)$", re.IGNORECASE)


def check_name(flag: str, name: str) -> None:
    """Raise ValueError, naming the flag, unless a name can be a folder's; no name at all can."""
    if name and not re.fullmatch(r"[\w-][\w.-]{0,99}", name):
        raise ValueError(
            f"{flag} {name[:40]}: letters, digits, dots and dashes only, 100 at most, no dot first; it names folders"
        )


def bare(name: str) -> str:
    """A name without the suffix of an image file.

    Only known suffixes go: many archives name files by UID, without any (1.2.840.113619.2.55), or number them so
    (IM.0001), and what follows their last dot tells one file from the next.
    """
    return _SUFFIX.sub("", name)


def file_name(path: str) -> str:
    """The last part of a path, ``bare``."""
    return bare(path.rsplit("/", 1)[-1])
