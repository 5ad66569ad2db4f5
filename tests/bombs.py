"""Small files that unpack to gigabytes, or are a million of something: made of any DICOM file."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from imagecodecs import jpeg2k_encode
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless
from volume_files import as_bytes

_PIECE = 1 << 20
_PIXELS = struct.pack("<HH", 0x7FE0, 0x0010)


def deflated(ds: Dataset, size: int, pixels: bool = False) -> bytes:
    """A few megabytes that inflate to ``size`` bytes: of header, elements of a megabyte each, or of pixels."""
    whole = as_bytes(ds)
    header = whole[_after_meta(whole) : whole.index(_PIXELS)]
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    meta = as_bytes(ds)
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = [meta[: _after_meta(meta)]]
    if pixels:
        body.append(packer.compress(header + _PIXELS + struct.pack("<2sHI", b"OW", 0, size)))
    for i in range(size // _PIECE):
        own = b"" if pixels else struct.pack("<HH2sHI", 0x0009, 0x1000 + i, b"OB", 0, _PIECE)
        body.append(packer.compress(own + bytes(_PIECE)))
    return b"".join([*body, packer.flush()])


def _after_meta(whole: bytes) -> int:
    """Where the data set begins: the group's length stands first, PS3.10 7.1."""
    return 132 + 12 + int(struct.unpack_from("<I", whole, 132 + 8)[0])


def run_lengths(ds: Dataset) -> bytes:
    """RLE: each pair of bytes is 128 more, for gigabytes."""
    stream = struct.pack("<16I", 2, 64, 64 + 6_000_000, *[0] * 13) + b"\x81\x00" * 6_000_000
    return _compressed(ds, 64, RLELossless, stream)


def huge(ds: Dataset, side: int) -> bytes:
    """So many rows and columns of next to nothing, as a few kilobytes of JPEG 2000 can have."""
    pixels = np.zeros((side, side), np.uint16)
    pixels[:64] = 900
    return _compressed(ds, side, JPEG2000Lossless, jpeg2k_encode(pixels, level=0, reversible=True, codecformat="j2k"))


def _compressed(ds: Dataset, side: int, syntax: str, stream: bytes) -> bytes:
    ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit = side, side, 16, 16, 15
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([stream])
    ds["PixelData"].is_undefined_length = True
    return as_bytes(ds)


def elements(ds: Dataset) -> bytes:
    """Eight megabytes of empty elements."""
    more = (struct.pack("<HH2sH", 0x0019, 0x1000 + i % 0xEFFF, b"SH", 0) for i in range(1_000_000))
    return _before_pixels(ds, b"".join(more))


def nested(ds: Dataset) -> bytes:
    """A sequence in a sequence, five thousand times."""
    one = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return _before_pixels(ds, one * 5000)


def megabytes(ds: Dataset, size: int) -> bytes:
    """One element of so many bytes before the pixels."""
    return _before_pixels(ds, struct.pack("<HH2sHI", 0x0019, 0x1001, b"OB", 0, size) + bytes(size))


def numbers(ds: Dataset, size: int) -> bytes:
    """A window of millions of centres and widths: an element without a written VR states any length."""
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    ds.WindowCenter = ds.WindowWidth = 777
    written = as_bytes(ds)
    for tag in (0x1050, 0x1051):
        short = struct.pack("<HHI", 0x0028, tag, 6) + b"777.0 "
        assert written.count(short) == 1
        written = written.replace(short, struct.pack("<HHI", 0x0028, tag, size) + b"777\\" * (size // 4 - 1) + b"777 ")
    return written


def _before_pixels(ds: Dataset, more: bytes) -> bytes:
    """In front of the number of samples, which every image has."""
    whole = as_bytes(ds)
    at = whole.index(struct.pack("<HH2s", 0x0028, 0x0002, b"US"))
    return whole[:at] + more + whole[at:]
