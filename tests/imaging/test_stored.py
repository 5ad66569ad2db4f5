"""Compressed frames whose stream and header differ: ITU-T T.800 A.5.1, PS3.5 8.1.1 and A.4."""

from __future__ import annotations

from collections.abc import Callable

import imagecodecs
import numpy as np
import pytest
from ct_files import ct, encode, enhanced
from pydicom.encaps import encapsulate

from medray.imaging.dicom import read_slices
from medray.imaging.types import Unreadable

LOSSLESS, JPEG_2000 = "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.90"


def a_file(stream: bytes, shape: tuple[int, int], allocated: int, stored: int, signed: int, syntax: str) -> bytes:
    ds = ct(1, Rows=shape[0], Columns=shape[1], BitsAllocated=allocated, BitsStored=stored, HighBit=stored - 1)
    ds.PixelRepresentation, ds.PixelData, ds.RescaleIntercept = signed, encapsulate([stream]), -500
    ds["PixelData"].is_undefined_length, ds["PixelData"].VR = True, "OB"
    ds.file_meta.TransferSyntaxUID = syntax
    return encode(ds)


def j2k(values: np.ndarray, bits: int) -> bytes:
    return imagecodecs.jpeg2k_encode(values, level=0, codecformat="j2k", bitspersample=bits)


@pytest.mark.parametrize(
    ("dtype", "bits", "allocated", "stored", "signed"),
    [
        (np.int8, 8, 16, 8, 1), (np.int16, 16, 32, 16, 1), (np.int16, 16, 16, 16, 1), (np.int16, 16, 16, 16, 0),
        (np.uint8, 8, 16, 8, 0), (np.uint16, 12, 16, 12, 0), (np.uint16, 16, 16, 12, 0),
    ],
)  # fmt: skip
def test_a_stream_keeps_its_sign_and_width_whatever_the_header_says(
    dtype: Callable, bits: int, allocated: int, stored: int, signed: int
) -> None:
    low, high = (-60, 60) if np.dtype(dtype).kind == "i" else (0, min(250, (1 << bits) - 1))
    values = np.random.default_rng(0).integers(low, high, (40, 32)).astype(dtype)
    if (bits, stored) == (16, 12):
        values[:8, :8] = 5000  # metal, beyond the header's 12 bits
    (image,) = read_slices(a_file(j2k(values, bits), values.shape, allocated, stored, signed, JPEG_2000))
    assert np.array_equal(image.pixels_hu, values.astype(int) - 500)
    odd = (bits, stored) == (16, 12) or (np.dtype(dtype).kind == "i" and not signed)
    assert (image.repaired is not None) == odd


def test_values_that_a_stream_cannot_hold_are_damage() -> None:
    """Differences add up, so that one wrong bit lifts all that follow; nothing in a decoder bounds them."""
    values = np.full((64, 64), 4000, np.uint16)
    stream = bytearray(imagecodecs.jpeg8_encode(values, lossless=True, bitspersample=16, predictor=1))
    frame = stream.index(b"\xff\xc3")
    stream[frame + 4] = 12  # the differences begin at 2^11 now, not at 2^15
    with pytest.raises(Unreadable, match="damaged pixels: "):
        read_slices(a_file(bytes(stream), values.shape, 16, 12, 0, LOSSLESS))


def test_each_frame_has_its_own_stream_in_one_or_more_fragments() -> None:
    frames = [np.random.default_rng(k).integers(0, 2000, (64, 64)).astype(np.uint16) for k in range(5)]
    ds = enhanced(1, [{"z": 5.0 * k} for k in range(5)])
    streams = [imagecodecs.jpeg8_encode(f, lossless=True, bitspersample=16) for f in frames]
    ds.Rows, ds.Columns, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 64, 64, 16, 15, 0
    for fragments in (1, 2):
        ds.PixelData = encapsulate(streams, fragments_per_frame=fragments, has_bot=True)
        ds["PixelData"].is_undefined_length, ds["PixelData"].VR = True, "OB"
        ds.file_meta.TransferSyntaxUID = LOSSLESS
        slices = read_slices(encode(ds))
        for found, frame in zip(slices, frames, strict=True):
            assert np.array_equal(found.pixels_hu, frame)
        assert np.array_equal(read_slices(encode(ds), frame=4)[0].pixels_hu, frames[3])
    ds.PixelData = encapsulate(streams[:3], has_bot=True)
    ds["PixelData"].is_undefined_length, ds["PixelData"].VR = True, "OB"
    with pytest.raises(Unreadable, match="compressed frames expected|the fragments of a frame"):
        read_slices(encode(ds))
