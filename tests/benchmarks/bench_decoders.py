"""Libraries that decode DICOM's compressed pixels, on whole and on damaged streams: which is quick, survives, and says what is wrong.

    python tests/benchmarks/bench_decoders.py [--damages 500] [--seed 0]

Each works in the guard's child, so that what dies is counted. A damaged stream ends in one of: the process died (or looped, or
took all memory), refused, a warning, the right pixels, wrong pixels without a word.
"""

from __future__ import annotations

import random
import sys
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).parent))

import bench_decoders as libraries  # this module by its name: the child imports it so
import damaged_files

from medray.imaging.decoding import codec, guard
from medray.imaging.decoding.guard import guarded
from medray.imaging.types import Unreadable

Pixels = tuple[np.ndarray, dict[str, Any]]


@dataclass
class Flags:
    damages: int = 500
    seed: int = 0


def by_imagecodecs(data: memoryview, syntax: str, name: str) -> Pixels:
    decode = {"JPEG-LS": imagecodecs.jpegls_decode, "JPEG 2000": imagecodecs.jpeg2k_decode, "RLE": None}.get(
        name, imagecodecs.jpeg8_decode
    )
    if decode is None:
        return np.frombuffer(imagecodecs.dicomrle_decode(data, "<u2"), "<u2"), {}
    return decode(bytes(data)), {}


def by_jpegsof3(data: memoryview, syntax: str, name: str) -> Pixels:
    return imagecodecs.jpegsof3_decode(bytes(data)), {}


def by_ljpeg(data: memoryview, syntax: str, name: str) -> Pixels:
    return imagecodecs.ljpeg_decode(bytes(data)), {}


def by_opencv(data: memoryview, syntax: str, name: str) -> Pixels:
    import cv2

    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), {}


def by_medray(data: memoryview, syntax: str, name: str, rows: int, columns: int) -> Pixels:
    return codec.decode(data, syntax=syntax, rows=rows, columns=columns, bytes_allocated=2)  # type: ignore[arg-type]


def _by_pydicom(plugin: str, data: memoryview, syntax: str, rows: int, columns: int, bits: int) -> Pixels:
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    pixels, _ = get_decoder(UID(syntax)).as_array(
        encapsulate([bytes(data)]), index=0, validate=False, decoding_plugin=plugin, rows=rows, columns=columns,
        samples_per_pixel=1, photometric_interpretation="MONOCHROME2", bits_allocated=8 if bits == 8 else 16,
        bits_stored=bits, pixel_representation=0, number_of_frames=1, pixel_keyword="PixelData",
    )  # fmt: skip
    return pixels, {}


def by_gdcm(data: memoryview, syntax: str, name: str, rows: int, columns: int, bits: int) -> Pixels:
    return _by_pydicom("gdcm", data, syntax, rows, columns, bits)


def by_pylibjpeg(data: memoryview, syntax: str, name: str, rows: int, columns: int, bits: int) -> Pixels:
    return _by_pydicom("pylibjpeg", data, syntax, rows, columns, bits)


def by_pyjpegls(data: memoryview, syntax: str, name: str, rows: int, columns: int, bits: int) -> Pixels:
    return _by_pydicom("pyjpegls", data, syntax, rows, columns, bits)


def by_pydicom(data: memoryview, syntax: str, name: str, rows: int, columns: int, bits: int) -> Pixels:
    return _by_pydicom("pydicom", data, syntax, rows, columns, bits)


CANDIDATES: dict[str, tuple[str, ...]] = {
    "JPEG baseline": ("medray", "imagecodecs", "opencv", "gdcm"),
    "JPEG extended 12": ("medray", "imagecodecs", "gdcm"),
    "JPEG lossless SV1": ("medray", "imagecodecs", "jpegsof3", "ljpeg", "gdcm"),
    "JPEG-LS": ("medray", "imagecodecs", "pyjpegls", "gdcm"),
    "JPEG 2000": ("medray", "imagecodecs", "pylibjpeg", "gdcm"),
    "RLE": ("medray", "imagecodecs", "pylibjpeg", "pydicom"),
}


def asked(library: str, stream: bytes, syntax: str, name: str, shape: tuple[int, int], bits: int) -> Pixels:
    more: dict[str, Any] = {}
    if library in ("medray", "gdcm", "pylibjpeg", "pyjpegls", "pydicom"):
        more = {"rows": shape[0], "columns": shape[1]} | ({} if library == "medray" else {"bits": bits})
    most = shape[0] * shape[1] * 8
    return guarded(libraries._refusing, stream, most, library=library, syntax=syntax, name=name, **more)


def _refusing(data: memoryview, library: str, **arguments: Any) -> Pixels:
    """Whatever a library raises is a refusal."""
    try:
        pixels, facts = globals()[f"by_{library}"](data, **arguments)
    except (Unreadable, MemoryError):
        raise
    except BaseException as error:
        raise Unreadable(f"refused ({type(error).__name__})") from None
    if pixels is None:
        raise Unreadable("refused (None)")
    return pixels, facts


def hurt(stream: bytes, rng: random.Random) -> bytes:
    data = bytearray(stream)
    for _ in range(rng.choice((1, 1, 3, 10))):
        at = rng.randrange(len(data))
        how = rng.choice(("flip", "flip", "byte", "remove", "insert", "cut"))
        if how == "flip":
            data[at] ^= 1 << rng.randrange(8)
        elif how == "byte":
            data[at] = rng.randrange(256)
        elif how == "remove":
            del data[at : at + rng.choice((1, 5, 50))]
        elif how == "insert":
            data[at:at] = rng.randbytes(rng.choice((1, 5, 50)))
        elif len(data) > 40:
            del data[max(20, at) :]
    return bytes(data)


def streams(name: str) -> tuple[str, int, list[np.ndarray], list[bytes]]:
    """Syntax, bits, pixels and the streams that hold them."""
    images = damaged_files.slices()
    syntax, bits, encode = damaged_files.COMPRESSED[name]
    stored = [(values >> 4).astype(np.uint8) if bits == 8 else values for values in images]
    if name != "RLE":
        return syntax, bits, stored, [encode(values) for values in stored]
    from pydicom.pixels.encoders import RLELosslessEncoder

    options = dict(
        samples_per_pixel=1, photometric_interpretation="MONOCHROME2", bits_allocated=16, bits_stored=12,
        pixel_representation=0, number_of_frames=1,
    )  # fmt: skip
    return syntax, bits, stored, [
        RLELosslessEncoder.encode(v, rows=v.shape[0], columns=v.shape[1], encoding_plugin="pydicom", **options) for v in stored
    ]  # fmt: skip


def main(flags: Flags) -> None:
    warnings.simplefilter("ignore")
    guard.CPU_SECONDS = 2  # OpenJPEG goes on for as long as it may, where a damaged header asks for it
    print("| syntax | library | ms a slice | died | refused | warned | right pixels | wrong, silent |")
    print("|---|---|---|---|---|---|---|---|")
    for name, candidates in CANDIDATES.items():
        syntax, bits, pixels, whole = streams(name)
        shape = pixels[0].shape
        lossy = "baseline" in name or "extended" in name
        for library in candidates:
            rng, count = random.Random(f"{flags.seed} {name}"), Counter[str]()
            try:
                wanted = [asked(library, one, syntax, name, shape, bits)[0].ravel() for one in whole]
                if not lossy:
                    assert all(np.array_equal(a, b.ravel()) for a, b in zip(wanted, pixels, strict=True))
            except Unreadable as error:
                print(f"| {name} | {library} | whole streams: {error} | | | | | |", flush=True)
                continue
            times = []
            for _ in range(5):
                for one in whole:
                    started = time.perf_counter()
                    asked(library, one, syntax, name, shape, bits)
                    times.append(time.perf_counter() - started)
            for number in range(flags.damages):
                which = number % len(whole)
                try:
                    found, facts = asked(library, hurt(whole[which], rng), syntax, name, shape, bits)
                except Unreadable as error:
                    count["died" if "the decoder" in str(error) and "gives up" not in str(error) else "refused"] += 1
                    continue
                same = found.size == wanted[which].size and np.array_equal(found.ravel(), wanted[which])
                warned = facts.get("warning") or facts.get("fault")
                count["warned" if warned else "right" if same else "silent"] += 1
            columns = [
                f"{np.median(times) * 1e3:.2f}",
                *(str(count[c]) for c in ("died", "refused", "warned", "right", "silent")),
            ]
            print(f"| {name} | {library} | {' | '.join(columns)} |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Flags))
