"""Radiographs in PNG and JPEG files, as data sets publish them: grey, colour, with transparency, with a palette."""

from __future__ import annotations

import io
import struct
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from medray.imaging.decoding.codec import eight_bit_jpeg, fault_of
from medray.imaging.decoding.guard import guarded
from medray.imaging.film import Film, FilmHeader, check_size, stretched
from medray.imaging.types import Unreadable

_TRANSPARENT = ("RGBA", "LA", "PA", "La", "RGBa")


def read_header(stream: BinaryIO) -> FilmHeader:
    """Kind, mode and size. Raises Unreadable."""
    with _open(stream) as image:
        return FilmHeader((image.format or "").lower(), image.mode, image.height, image.width)


def read(stream: BinaryIO) -> Film:
    """Grey of 8 bits. Raises Unreadable for damaged pixels.

    A PNG of 16 bits that are 8 bits widened (both bytes the same) goes back to those 8; others are stretched.
    """
    data = stream.read()
    header = read_header(io.BytesIO(data))
    grey, facts = guarded(decode, data, header.rows * header.columns)
    if fault := fault_of(facts):
        raise Unreadable(f"damaged pixels: {fault}")
    return Film(grey, facts["note"])


def decode(data: bytes) -> tuple[np.ndarray, dict[str, Any]]:
    """(rows, columns) uint8, and {"note": what was mended or assumed}. Runs inside ``medray.imaging.decoding.guard``."""
    film = _decoded(bytes(data))
    return film.grey, {"note": film.repaired}


def _decoded(data: bytes) -> Film:
    with _open(io.BytesIO(data)) as image:
        try:
            if image.format == "JPEG" and image.mode in ("L", "RGB"):
                # Pillow fills in what a damaged JPEG file has lost, and says nothing; OpenCV says it
                pixels = eight_bit_jpeg(data)
                return Film(pixels) if pixels.ndim == 2 else _grey(np.ascontiguousarray(pixels[..., ::-1]))
            image.load()
            # a PNG may mark a colour as transparent instead of carrying an alpha channel
            if image.mode in _TRANSPARENT or "transparency" in image.info:
                return _opaque(image)
            if image.mode.startswith("I") or image.mode == "F":
                return _deep(np.asarray(image))
            if image.mode in ("L", "1"):
                return Film(np.array(image.convert("L")))
            return _grey(np.asarray(image.convert("RGB")))
        except (Unreadable, MemoryError):
            raise
        except Exception:  # Pillow's readers raise many types for damaged bytes
            raise Unreadable("damaged pixels: the decoder gives up") from None


def _open(stream: BinaryIO) -> Image.Image:
    start = stream.read(24)
    stream.seek(0)
    if start.startswith(b"\x89PNG") and len(start) == 24:
        # before Pillow, which would warn of a large size, and warnings belong to the process: PNG 11.2.1, IHDR
        check_size(*reversed(struct.unpack(">II", start[16:24])))
    try:
        image = Image.open(stream, formats=("PNG", "JPEG"))
    except Exception as error:  # DecompressionBombError, SyntaxError, struct.error, ...
        raise Unreadable(f"a damaged PNG or JPEG file ({type(error).__name__})") from None
    check_size(image.height, image.width)
    return image


def _opaque(image: Image.Image) -> Film:
    pixels = np.asarray(image.convert("RGBA"))
    alpha = pixels[..., 3:]
    film = _grey(np.ascontiguousarray(pixels[..., :3]))
    if (alpha == 255).all():
        return film
    over_black = film.grey.astype(np.float32) * (alpha[..., 0].astype(np.float32) / 255)
    return Film(np.floor(over_black + 0.5).astype(np.uint8), "transparent pixels laid over black")


def _grey(pixels_rgb: np.ndarray) -> Film:
    """(rows, columns, 3) uint8 → grey."""
    red = pixels_rgb[..., 0]
    if (pixels_rgb == red[..., None]).all():
        return Film(np.ascontiguousarray(red))
    return Film(np.array(Image.fromarray(pixels_rgb).convert("L")), "colour made grey (ITU-R 601)")


def _deep(values: np.ndarray) -> Film:
    if np.array_equal(values & 0xFF, values >> 8):
        return Film((values & 0xFF).astype(np.uint8), "16 bits that were 8, widened")
    return Film(stretched(values), "16 bits stretched between percentiles")
