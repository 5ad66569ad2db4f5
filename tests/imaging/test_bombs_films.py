"""Films whose files unpack to gigabytes, or are a million of something: no more memory than the largest film takes."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bombs import deflated, elements, huge, megabytes, nested, numbers, run_lengths
from chest_films import dicom, noise
from measured import CHEST, HAND, measured
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset

from medray.imaging.film import MAX_PIXELS

MOST_BYTES = 1.2e9
"""Of the process and its decoder above what they take for a plain film."""
MOST_BYTES_A_PIXEL = 45
"""Of a film at the limit: a scale, a window, percentiles, and a decoder."""
SIDE = 8000
"""Of a film at the limit."""


def film(**tags: Any) -> Dataset:
    return dcmread(io.BytesIO(dicom(noise(), **tags)))


def picture(side: int, mode: str, kind: str = "PNG", deep: bool = False) -> bytes:
    """A few kilobytes: one colour, and some pixels of another; of 16 bits where deep."""
    image = Image.new(mode, (side, side))
    colour: Any = {"1": 1, "L": 200}.get(mode, (200, 20, 20, 255)[: len(mode)])
    image.paste(colour, (0, 0, 500, 500))
    if deep:
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 3)
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def texts() -> bytes:
    """A PNG with a compressed text of gigabytes: PNG 11.3.3.3, zTXt."""
    packer = zlib.compressobj(1)
    text = b"a\0\0" + b"".join(packer.compress(bytes(1 << 20)) for _ in range(3 << 10)) + packer.flush()
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    plain = picture(600, "L")
    return plain[:33] + chunk + plain[33:]  # behind IHDR


@pytest.mark.slow
@pytest.mark.parametrize("read", [CHEST, HAND], ids=["chest", "hand"])
@pytest.mark.parametrize(
    ("bomb", "reason"),
    [
        (lambda: deflated(film(), 3 << 30), "no pixels within 64 MB"),
        (lambda: deflated(film(), 3 << 30, pixels=True), "a deflated data set of more than"),
        (lambda: run_lengths(film()), "bytes in an RLE stream|gives up"),
        (lambda: elements(film()), "read"),
        (lambda: nested(film()), "nested more than 64 deep"),
        (lambda: megabytes(film(), 300 << 20), "no pixels within 64 MB"),
        (lambda: numbers(film(), 30 << 20), "WindowCenter is not a number"),
        (lambda: huge(film(), SIDE + 1), "8001 × 8001 pixels: more than 64,000,000, no film has so many"),
        (lambda: picture(SIDE + 1, "L"), "8001 × 8001 pixels: more than 64,000,000, no film has so many"),
        (lambda: picture(SIDE + 1, "RGB", "JPEG"), "8001 × 8001 pixels: more than 64,000,000, no film has so many"),
        (lambda: picture(40_000, "1"), "40000 × 40000 pixels"),
        (texts, "a damaged PNG or JPEG file"),
    ],
    ids=["deflated", "deflated pixels", "rle", "elements", "nested", "megabytes", "numbers", "jpeg 2000", "png", "jpeg", "larger png", "text"],
)  # fmt: skip
def test_it_is_done_with_in_little_memory(bomb: Callable[[], bytes], reason: str, read: str, tmp_path: Path) -> None:
    found = measured(read, picture(600, "L"), bomb(), tmp_path)
    assert found["plain"] == "read"
    assert any(part in found["why"] for part in reason.split("|")), found
    assert found["more_bytes"] < MOST_BYTES, found


def largest(**tags: Any) -> bytes:
    pixels = np.zeros((SIDE, SIDE), "<u2")
    pixels[:99], pixels[200:400] = 7, 50
    size = {"Rows": SIDE, "Columns": SIDE, "BitsAllocated": 16, "BitsStored": 12, "HighBit": 11}
    return dicom(pixels.view(np.uint8), **size, **tags)


SCALED = {"RescaleSlope": "1.5", "RescaleIntercept": "3", "WindowCenter": 30, "WindowWidth": 50, "PixelPaddingValue": 0}


@pytest.mark.slow
@pytest.mark.parametrize(
    "bomb",
    [
        *(lambda mode=mode: picture(SIDE, mode) for mode in ("L", "RGB", "RGBA")),
        lambda: picture(SIDE, "L", deep=True),
        *(lambda mode=mode: picture(SIDE, mode, "JPEG") for mode in ("L", "RGB")),
        lambda: largest(),
        lambda: largest(**SCALED, PhotometricInterpretation="MONOCHROME1"),
        lambda: huge(film(), SIDE),
        lambda: huge(film(**SCALED), SIDE),
    ],
    ids=["L", "RGB", "RGBA", "16 bits", "jpeg L", "jpeg RGB", "stretched", "scaled", "jpeg 2000", "jpeg 2000 scaled"],
)
def test_the_largest_film_takes_what_its_pixels_do(bomb: Callable[[], bytes], tmp_path: Path) -> None:
    found = measured(CHEST, picture(600, "L"), bomb(), tmp_path)
    assert any(part in found["why"] for part in ("read", "stretched", "colour made grey", "laid over black")), found
    assert found["more_bytes"] < MOST_BYTES_A_PIXEL * MAX_PIXELS, found
