"""Compressed streams that contradict their header, and damage that decoders keep silent about."""

from __future__ import annotations

import random

import cv2
import imagecodecs
import numpy as np
import pytest

from medray.imaging.decoding.codec import HTJ2K, JPEG, JPEG_2000, JPEG_LS, RLE, SYNTAXES, codestream, decode, fault_of
from medray.imaging.decoding.codestream import read_jpeg, read_jpeg_2000, scan_fault
from medray.imaging.decoding.guard import guarded
from medray.imaging.decoding.lossless_jpeg import length_fault
from medray.imaging.types import Unreadable

LOSSLESS, EXTENDED, BASELINE = "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.50"


def noisy(bits: int, shape: tuple[int, int] = (64, 80)) -> np.ndarray:
    values = np.random.default_rng(bits).normal(1 << (bits - 1), (1 << bits) / 12, shape)
    return values.clip(0, (1 << bits) - 1).astype(np.uint8 if bits == 8 else np.uint16)


def smooth(bits: int, shape: tuple[int, int] = (64, 80)) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return ((np.sin(x / 9) + np.cos(y / 7) + 2) / 4 * ((1 << bits) - 1)).astype(np.uint8 if bits == 8 else np.uint16)


def decoded(stream: bytes, syntax: str, shape: tuple[int, int] = (64, 80), allocated: int = 2) -> np.ndarray:
    pixels, facts = decode(stream, syntax=syntax, rows=shape[0], columns=shape[1], bytes_allocated=allocated)
    assert facts == {"fault": None}
    return pixels


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("predictor", range(1, 8))
def test_lossless_jpeg_is_exactly_as_long_as_its_pixels_need(bits: int, predictor: int) -> None:
    for pixels in (noisy(bits), smooth(bits), np.full((64, 80), 5, noisy(bits).dtype)):
        stream = imagecodecs.jpeg8_encode(pixels, lossless=True, bitspersample=bits, predictor=predictor)
        assert np.array_equal(decoded(stream, LOSSLESS), pixels)


def test_differences_of_sixteen_bits_cost_no_further_bits() -> None:
    pixels = np.zeros((64, 80), np.uint16)
    pixels[:, ::2] = 1 << 15  # T.81 H.1.2.2: category 16
    stream = imagecodecs.jpeg8_encode(pixels, lossless=True, bitspersample=16, predictor=1)
    assert np.array_equal(decoded(stream, LOSSLESS), pixels)


@pytest.mark.parametrize("damage", ["cut", "inserted", "removed", "zeros"])
def test_a_damaged_lossless_stream_is_found_out_where_the_decoder_is_silent(damage: str) -> None:
    pixels = noisy(12)
    stream = imagecodecs.jpeg8_encode(pixels, lossless=True, bitspersample=12)
    found = 0
    for seed in range(40):
        at = random.Random(seed).randrange(len(stream) // 4, 3 * len(stream) // 4)
        bad = {
            "cut": stream[:at],
            "inserted": stream[:at] + b"\x12\x34\x56\x78" + stream[at:],
            "removed": stream[:at] + stream[at + 5 :],
            "zeros": stream[:at] + bytes(40) + stream[at + 40 :],
        }[damage]
        try:
            wrong, facts = decode(bad, syntax=LOSSLESS, rows=64, columns=80, bytes_allocated=2)
        except Unreadable:
            found += 1
            continue
        assert not np.array_equal(wrong, pixels)
        found += facts["fault"] is not None
    assert found >= 36  # what keeps the length by chance cannot be known


def test_streams_whose_length_cannot_be_told_are_left_alone() -> None:
    colour = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    stream = imagecodecs.jpeg8_encode(colour, lossless=True, colorspace="RGB", outcolorspace="RGB")
    assert length_fault(stream, colour, read_jpeg(stream)) is None
    grey = noisy(12)
    stream = imagecodecs.jpeg8_encode(grey, lossless=True, bitspersample=12)
    restarts = stream[:2] + b"\xff\xdd\0\4\0\5" + stream[2:]
    assert length_fault(restarts, grey, read_jpeg(stream)) is None
    frame = read_jpeg(stream)
    for end in range(2, len(stream) // 2):  # a stream that ends anywhere, in its header too
        assert isinstance(length_fault(stream[:end], grey, frame), str | None)


def test_twelve_bit_jpeg_is_decoded() -> None:
    pixels = smooth(12)
    stream = imagecodecs.jpeg8_encode(pixels, level=98, bitspersample=12)
    got = decoded(stream, EXTENDED)
    assert got.dtype == np.uint16
    assert np.abs(got.astype(int) - pixels).max() < 40


def test_a_lossy_stream_of_another_depth_says_which_there_are() -> None:
    stream = bytearray(imagecodecs.jpeg8_encode(smooth(12), level=98, bitspersample=12))
    at = stream.index(b"\xff\xc1")
    stream[at + 4] = 16
    with pytest.raises(Unreadable, match="of 16 bits: there are such of 8 bits and of 12 bits only"):
        decode(bytes(stream), syntax=EXTENDED, rows=64, columns=80, bytes_allocated=2)


def test_markers_within_a_scan_tell_of_damage() -> None:
    stream = imagecodecs.jpeg8_encode(smooth(12), level=98, bitspersample=12)
    assert scan_fault(stream) is None
    for padding in (b"\0", b"\x20", b"\xff", bytes(500)):
        assert scan_fault(stream + padding) is None
    assert scan_fault(stream[:-2]) == "the image has no end"
    middle = len(stream) - 60
    assert "after the end of the image" in str(scan_fault(stream[:middle] + b"\xff\xd9" + stream[middle:]))
    assert scan_fault(stream[:middle] + b"\xff\xd3" + stream[middle:]) == "a restart where there is none"


def test_what_streams_say_of_themselves() -> None:
    twelve = noisy(12)
    assert read_jpeg(imagecodecs.jpeg8_encode(twelve, lossless=True, bitspersample=12)).precision == 12
    ls = codestream(next(iter(JPEG_LS)), imagecodecs.jpegls_encode(twelve))
    assert ls is not None
    assert (ls.rows, ls.columns, ls.components, ls.signed) == (64, 80, 1, False)
    for pixels, signed in ((twelve, False), (twelve.astype(np.int16) - 2048, True)):
        j2k = imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", bitspersample=12)
        for stream in (j2k, imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="jp2", bitspersample=12)):
            found = read_jpeg_2000(stream)
            assert (found.rows, found.columns, found.components, found.signed) == (64, 80, 1, signed)
    assert codestream(next(iter(RLE)), b"anything") is None
    for junk in (
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff",
        b"\xff\xd8" + b"\xff" * 100,
        b"\xff\xd8\xff\xc0\0\x0b\x08",
        bytes(100),
    ):
        for syntax in (LOSSLESS, next(iter(JPEG_2000)), next(iter(JPEG_LS))):
            with pytest.raises(Unreadable):
                codestream(syntax, junk)


@pytest.mark.parametrize("syntax", sorted(SYNTAXES))
def test_junk_and_other_sizes_are_refused_by_every_syntax(syntax: str) -> None:
    for junk in (b"", b"\0", bytes(64), b"\xff\xd8\xff\xd9", np.random.default_rng(1).bytes(500)):
        with pytest.raises(Unreadable):
            decode(junk, syntax=syntax, rows=64, columns=80, bytes_allocated=2)
    good = {
        **dict.fromkeys(JPEG, imagecodecs.jpeg8_encode(noisy(8))),
        **dict.fromkeys(JPEG_LS, imagecodecs.jpegls_encode(noisy(8))),
        **dict.fromkeys(JPEG_2000, imagecodecs.jpeg2k_encode(noisy(8), level=0, codecformat="j2k")),
        **dict.fromkeys(HTJ2K, imagecodecs.htj2k_encode(noisy(8))),
    }.get(syntax)
    if good is not None:
        assert decoded(good, syntax).shape == (64, 80)
        with pytest.raises(Unreadable, match="pixels come out, 80 × 64 are in the header"):
            decode(good, syntax=syntax, rows=80, columns=64, bytes_allocated=2)


def test_rle_that_grows_without_end_is_refused() -> None:
    bomb = (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56) + b"\x81\x00" * 200_000
    with pytest.raises(Unreadable):
        decode(bomb, syntax=next(iter(RLE)), rows=64, columns=80, bytes_allocated=2)


def test_eight_bit_jpeg_is_what_imagecodecs_makes_of_it() -> None:
    """OpenCV is there for what it says; its pixels must be the same."""
    for pixels in (smooth(8), noisy(8)):
        stream = imagecodecs.jpeg8_encode(pixels, level=90)
        assert np.array_equal(decoded(stream, BASELINE), imagecodecs.jpeg8_decode(stream))
    assert cv2.imdecode(np.frombuffer(stream, np.uint8), cv2.IMREAD_UNCHANGED).shape == (64, 80)


def test_what_is_allowed_is_no_damage() -> None:
    lossless = imagecodecs.jpeg8_encode(noisy(12), lossless=True, bitspersample=12)
    filled = lossless[:-2] + b"\xff" + lossless[-2:]  # T.81 B.1.1.2: before any marker
    assert np.array_equal(decoded(filled, LOSSLESS), noisy(12))
    twelve = imagecodecs.jpeg8_encode(smooth(12), level=98, bitspersample=12)
    thumbnail = b"\xff\xd8\xff\xda\0\2abc\xff\xd9"
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    decoded(twelve[:2] + segment + twelve[2:], EXTENDED)
    eight = bytearray(imagecodecs.jpeg8_encode(smooth(8), level=90))
    eight[eight.index(b"JFIF\0") + 5] = 2  # a revision of tomorrow
    _, facts = guarded(decode, bytes(eight), 64 * 80, syntax=BASELINE, rows=64, columns=80, bytes_allocated=1)
    assert fault_of(facts) is None
    assert fault_of({"fault": None, "warning": "Warning: something odd"}) is None
    half = bytes(eight[: len(eight) // 2]) + b"\xff\xd9"
    _, facts = guarded(decode, half, 64 * 80, syntax=BASELINE, rows=64, columns=80, bytes_allocated=1)
    assert "Corrupt JPEG data" in str(fault_of(facts))


def test_a_cut_high_throughput_stream_is_found_out() -> None:
    stream = imagecodecs.htj2k_encode(noisy(12))
    syntax = next(iter(HTJ2K))
    assert np.array_equal(decoded(stream + b"\0", syntax), noisy(12))
    for at in range(len(stream) // 4, len(stream) - 4, 97):
        try:
            _, facts = decode(stream[:at], syntax=syntax, rows=64, columns=80, bytes_allocated=2)
        except Unreadable:
            continue
        assert facts["fault"] == "the image has no end"
