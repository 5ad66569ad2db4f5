"""Masks drawn on radiographs, in PNG files as tools leave them: 0 and 1, 0 and 255, colours of a palette, transparency."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from medray.imaging import film_picture
from medray.imaging.decoding.guard import guarded
from medray.imaging.types import Unreadable


def read_mask(data: bytes) -> np.ndarray:
    """(rows, columns) uint8: 1 where the mask is not black, or transparent. A palette without black has its first colour
    outside.

    Raises:
        Unreadable: no PNG (JPEG has no sharp 0), damaged pixels, or a mask of which every pixel is the same.
    """
    header = film_picture.read_header(io.BytesIO(data))
    if header.kind != "png":
        raise Unreadable(f"{header.kind}, not PNG")
    mask, _ = guarded(decode, data, header.rows * header.columns)
    if mask.all() or not mask.any():
        raise Unreadable("every pixel of it is the same")
    return mask


def decode(data: bytes) -> tuple[np.ndarray, dict[str, Any]]:
    """(rows, columns) uint8 0 and 1, and no facts. Runs inside ``medray.imaging.decoding.guard``."""
    try:
        with Image.open(io.BytesIO(bytes(data)), formats=("PNG",)) as image:
            return _foreground(image).astype(np.uint8), {}
    except MemoryError:
        raise
    except Exception:  # Pillow's readers raise many types for damaged bytes
        raise Unreadable("damaged pixels: the decoder gives up") from None


def _foreground(image: Image.Image) -> np.ndarray:
    if image.mode == "P":
        places = np.asarray(image)
    seen = np.asarray(image.convert("RGBA")) if image.mode in ("P", "RGB", "RGBA", "LA", "PA") else None
    if seen is None:
        return np.asarray(image) != 0  # grey of 1, 8 or 16 bits: a 1 of 65,535 is drawn, too
    drawn = seen[..., :3].any(axis=-1) & (seen[..., 3] > 0)
    # programs order the colours of a palette as they like, and it is the colours that were looked at
    return places != 0 if image.mode == "P" and drawn.all() else np.asarray(drawn)
