"""Radiographs in PNG, JPEG or DICOM files to grey images of 8 bits: bright is dense, as films are read."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from medray.imaging import film_dicom, film_picture
from medray.imaging.elements import begins_like_dicom, packed
from medray.imaging.film import Film, FilmHeader
from medray.imaging.types import Unreadable

_FIRST_BYTES = 132  # as many as tell DICOM from anything else: PS3.10 7.1


@dataclass(frozen=True)
class _Start:
    is_dicom: bool
    is_picture: bool


def _start(data: bytes) -> _Start:
    return _Start(begins_like_dicom(data), data.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")))


def read_film_header(stream: BinaryIO, allow_burned_in: bool = True) -> FilmHeader:
    """What a file says of its film, read without decoding the pixels.

    Args:
        stream: a binary file object at its start, which can seek.
        allow_burned_in: read a DICOM image into which text may be burned, too.
    Raises:
        Unreadable: no such file format, an absurd size, or DICOM that is no single grey radiograph (CR, DX, RG), or as
            ``medray.imaging.burned_in.check_burned_in`` where that is not allowed. The
            reason never quotes the file's text but for its modality and photometric interpretation.
    """
    first = stream.read(_FIRST_BYTES)
    stream.seek(0)
    start = _start(first)
    if start.is_dicom:
        return film_dicom.read_header(stream, allow_burned_in)
    if start.is_picture:
        return film_picture.read_header(stream)
    raise _unknown(first)


def read_film(data: bytes) -> Film:
    """Decode a film.

    PNG and JPEG of 8 bits keep their values; what has more bits, and DICOM without a window, is stretched between
    percentiles (``medray.imaging.film.stretched`` says why). DICOM goes through its modality LUT, its VOI LUT or window, and is
    inverted where it is MONOCHROME1.

    Raises:
        Unreadable: as ``read_film_header``, and for damaged pixels or a film of one single value.
    """
    start = _start(data[:_FIRST_BYTES])
    if start.is_dicom:
        film = film_dicom.read(data)
    elif start.is_picture:
        film = film_picture.read(io.BytesIO(data))
    else:
        raise _unknown(data)
    lowest, highest = int(np.min(film.grey)), int(np.max(film.grey))
    if lowest == highest:
        raise Unreadable(f"an empty film: every pixel is {lowest}")
    return film


def _unknown(data: bytes) -> Unreadable:
    if not data:
        return Unreadable("an empty file")
    return packed(data) or Unreadable("neither PNG, JPEG nor DICOM")
