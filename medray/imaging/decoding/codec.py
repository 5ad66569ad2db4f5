"""Compressed streams to stored values, by the library that serves each of them best. Runs inside ``medray.imaging.decoding.guard``.

Which library, and why, is measured in tests/benchmarks/bench_decoders.py: imagecodecs, and for JPEG of 8 bits OpenCV, which
alone says what it had to fill in.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from medray.imaging.decoding.codestream import Codestream, end_fault, read_jpeg, read_jpeg_2000, scan_fault
from medray.imaging.decoding.lossless_jpeg import length_fault
from medray.imaging.types import Unreadable

JPEG = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70))  # baseline, extended, lossless (14, and its SV1)
JPEG_LS = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (80, 81))
JPEG_2000 = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (90, 91))
HTJ2K = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (201, 202, 203))
RLE = frozenset({"1.2.840.10008.1.2.5"})
SYNTAXES = JPEG | JPEG_LS | JPEG_2000 | HTJ2K | RLE


def codestream(syntax: str, encoded: bytes) -> Codestream | None:
    """What the stream says of itself; None for RLE, which says nothing. Raises Unreadable."""
    if syntax in RLE:
        return None
    return read_jpeg(encoded) if syntax in JPEG | JPEG_LS else read_jpeg_2000(encoded)


def fault_of(facts: dict[str, Any]) -> str | None:
    """What is wrong with a stream by what ``decode``, or its library on standard error, said; None where nothing is.

    "Warning: unknown JFIF revision" and its like are no damage.
    """
    lines = [
        line for line in facts.get("warning", "").splitlines() if not line.startswith(("Warning:", "[ WARN", "[ INFO"))
    ]
    return facts.get("fault") or (lines[0] if lines else None)


def decode(
    encoded: bytes, *, syntax: str, rows: int, columns: int, bytes_allocated: int
) -> tuple[np.ndarray, dict[str, Any]]:
    """One frame: (rows, columns) as the library gives it, and {"fault": what is wrong with the stream, or None}.

    Args:
        syntax: UID of the transfer syntax, one of SYNTAXES.
        bytes_allocated: of a pixel, by the header: RLE has no other word on it.
    Raises:
        Unreadable: the library refuses the stream, or its size is another than the header's.
    """
    import imagecodecs

    fault: str | None = None
    pixels: np.ndarray
    try:
        if syntax in JPEG:
            pixels, fault = _jpeg(encoded)
        elif syntax in JPEG_LS:
            pixels = imagecodecs.jpegls_decode(encoded)
        elif syntax in JPEG_2000:
            pixels = imagecodecs.jpeg2k_decode(encoded, numthreads=1)
        elif syntax in HTJ2K:
            pixels, fault = imagecodecs.htj2k_decode(encoded), end_fault(encoded)
        else:
            pixels = _rle(encoded, rows, columns, bytes_allocated)
    except (Unreadable, MemoryError):
        raise
    except Exception:  # each library has errors of its own, and their texts may quote anything
        raise Unreadable("damaged pixels: the decoder gives up") from None
    if pixels.shape != (rows, columns) or pixels.dtype.kind not in "iu":
        raise Unreadable(f"{' × '.join(map(str, pixels.shape))} pixels come out, {rows} × {columns} are in the header")
    return pixels, {"fault": fault}


def _jpeg(encoded: bytes) -> tuple[np.ndarray, str | None]:
    import imagecodecs

    frame = read_jpeg(encoded)
    if frame.lossless:
        pixels = imagecodecs.jpeg8_decode(encoded)
        return pixels, length_fault(encoded, pixels, frame)
    if frame.precision not in (8, 12):
        raise Unreadable(f"a lossy JPEG stream of {frame.precision} bits: there are such of 8 bits and of 12 bits only")
    if frame.precision == 8:  # what is wrong OpenCV says on standard error, where the guard listens
        return eight_bit_jpeg(encoded), None
    return imagecodecs.jpeg8_decode(encoded), scan_fault(encoded)


def eight_bit_jpeg(encoded: bytes) -> np.ndarray:
    """(rows, columns), or (rows, columns, 3) blue, green, red."""
    import cv2

    stream = np.frombuffer(encoded, np.uint8).copy()
    if (at := bytes(encoded[:64]).find(b"JFIF\0")) > 0:
        # libjpeg says the first thing only that it finds odd: a revision of JFIF that it does not know would hide damage
        stream[at + 5] = 1
    pixels = cv2.imdecode(stream, cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise Unreadable("damaged pixels: the decoder gives up")
    return pixels


def _rle(encoded: bytes, rows: int, columns: int, bytes_allocated: int) -> np.ndarray:
    """PS3.5 annex G."""
    import imagecodecs

    size = rows * columns * bytes_allocated
    data = imagecodecs.dicomrle_decode(encoded, f"<u{bytes_allocated}", out=size)
    if len(data) != size:
        raise Unreadable(f"damaged pixels: {len(data):,} bytes in an RLE stream, {size:,} expected")
    return np.frombuffer(data, f"<u{bytes_allocated}").reshape(rows, columns)
