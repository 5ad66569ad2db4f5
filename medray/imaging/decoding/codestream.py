"""What a compressed stream says of itself, read without decoding it: its size, precision and sign.

Read here so that a stream that contradicts its header, or that would ask for absurd memory, never meets a decoder.
JPEG and JPEG-LS: ITU-T T.81 B.2.2, T.87 C.2.2; JPEG 2000 and HTJ2K: ITU-T T.800 A.5.1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from medray.imaging.types import Unreadable

_SOI, _EOI, _SOS, _TEM, _SOF3, _DRI = 0xD8, 0xD9, 0xDA, 0x01, 0xC3, 0xDD
_RESTARTS = range(0xD0, 0xD8)
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC} | {0xF7}  # SOF0 to SOF15 but DHT, JPG and DAC; SOF55 of JPEG-LS
_CODESTREAM_2000 = b"\xff\x4f\xff\x51"  # SOC, SIZ


@dataclass(frozen=True)
class Codestream:
    rows: int
    columns: int
    components: int
    precision: int  # bits of a sample
    signed: bool  # JPEG and JPEG-LS know no sign
    lossless: bool = False  # JPEG of process 14


def segments(stream: bytes) -> Iterator[tuple[int, int]]:
    """Marker and place of each segment up to the first scan, that included: T.81 B.1.1.4."""
    position = 2
    while position + 4 <= len(stream) and stream[position] == 0xFF:
        marker = stream[position + 1]
        if marker == 0xFF:  # fill bytes: T.81 B.1.1.2
            position += 1
            continue
        yield marker, position
        if marker in (_EOI, _SOS):
            return
        alone = marker in (_SOI, _TEM) or marker in _RESTARTS
        position += 2 if alone else 2 + struct.unpack_from(">H", stream, position + 2)[0]


def read_jpeg(stream: bytes) -> Codestream:
    """The frame header of JPEG or JPEG-LS. Raises Unreadable where there is none before the first scan."""
    if stream[:2] != b"\xff\xd8":
        raise Unreadable("damaged pixels: no JPEG stream")
    for marker, position in segments(stream):
        if marker in _FRAMES and position + 10 <= len(stream):
            precision, rows, columns, components = struct.unpack_from(">BHHB", stream, position + 4)
            return Codestream(rows, columns, components, precision, False, marker == _SOF3)
    raise Unreadable("damaged pixels: a JPEG stream without a frame header")


def read_jpeg_2000(stream: bytes) -> Codestream:
    """The SIZ segment of JPEG 2000, alone or in a JP2 file. Raises Unreadable where there is none."""
    start = stream.find(_CODESTREAM_2000, 0, 4096)  # PS3.5 A.4.4 wants it at 0; some writers keep JP2's boxes before it
    if start < 0 or start + 43 > len(stream):
        raise Unreadable("damaged pixels: a JPEG 2000 stream without a SIZ segment")
    right, bottom, left, top = struct.unpack_from(">4L", stream, start + 8)
    components, sample = struct.unpack_from(">HB", stream, start + 40)
    return Codestream(bottom - top, right - left, components, (sample & 0x7F) + 1, bool(sample & 0x80))


def end_fault(stream: bytes) -> str | None:
    """What is wrong with the end of a JPEG 2000 or HTJ2K stream: EOC, T.800 A.4.4, and perhaps padding."""
    return None if b"\xff\xd9" in stream.rstrip(b"\0")[-3:] else "the image has no end"


def scan_fault(stream: bytes) -> str | None:
    """What is wrong with the scans of a JPEG stream as far as its markers tell: T.81 B.1.1.5 and B.2.1.

    Within a scan, every 0xFF byte is followed by 0 (it is data) or by a marker. Damage often makes another marker there, or
    takes the end away; decoders fill what is missing with grey.
    """
    before = list(segments(stream))
    position, restarts = before[-1][1] if before else 0, _DRI in dict(before)
    while 0 <= (position := stream.find(b"\xff", position + 1)) < len(stream) - 1:
        marker = stream[position + 1]
        if marker == _EOI:
            rest = len(stream[position + 2 :].rstrip(b"\0"))
            # one byte may be padding, whatever its value: a fragment has an even length (PS3.5 A.4)
            return f"{rest:,} bytes after the end of the image" if rest > 1 else None
        if marker in _RESTARTS and not restarts:
            return "a restart where there is none"
    return "the image has no end"
