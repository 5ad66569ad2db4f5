"""How fast DICOM files become encoded three-window images, against the loop that one would write first.

    python tests/benchmarks/bench_imaging.py                 # the 36 real slices in ../shared/data
    python tests/benchmarks/bench_imaging.py some/folder     # any folder of single-frame CT files

Both run on one core, in one process, from bytes in memory, in alternation; each counts with its best round. The last
table compares ways to encode the windowed slices.
"""

from __future__ import annotations

import io
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pyarrow as pa
import pydicom
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut
from scipy import ndimage

from medray.imaging import stored
from medray.imaging.decoding import guard
from medray.imaging.dicom import read_slices
from medray.imaging.headmask import head_mask, remove_hardware
from medray.imaging.window import WINDOWS, apply_windows

CHANNELS = (WINDOWS["brain"], WINDOWS["subdural"], WINDOWS["bone"])
ZSTD = pa.Codec("zstd", compression_level=1)
ROUNDS = 7


def ours(file: bytes) -> np.ndarray:
    image = read_slices(file)[0]
    mask = head_mask(image.pixels_hu, image.header.spacing_rc_mm)
    return apply_windows(remove_hardware(image.pixels_hu, mask), CHANNELS)


def ours_encoded(file: bytes) -> bytes:
    return ZSTD.compress(pa.py_buffer(ours(file)), asbytes=True)


def first_try(file: bytes) -> np.ndarray:
    ds = pydicom.dcmread(io.BytesIO(file))
    hu = apply_modality_lut(ds.pixel_array, ds)
    labels, count = ndimage.label(hu > -300)
    sizes = ndimage.sum_labels(np.ones_like(labels), labels, np.arange(1, count + 1))
    mask = ndimage.binary_fill_holes(labels == 1 + np.argmax(sizes))
    hu = np.where(mask, hu, -1000)
    channels = [
        np.clip((hu - (window.level - window.width / 2)) / window.width * 255, 0, 255).astype(np.uint8)
        for window in CHANNELS
    ]
    return np.stack(channels, axis=-1)


def first_try_encoded(file: bytes) -> bytes:
    png = io.BytesIO()
    Image.fromarray(first_try(file)).save(png, format="PNG")
    return png.getvalue()


def best_seconds(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """The shortest of several runs: what the code costs where nothing else disturbs it."""
    shortest = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        shortest = min(shortest, time.perf_counter() - start)
    return shortest


def over_all(function: Callable, values: list) -> list:
    return [function(value) for value in values]


def compare_pipelines(files: list[bytes]) -> None:
    pairs = {
        "DICOM to three windows": (ours, first_try),
        "DICOM to three windows, encoded (raw + zstd-1; PNG)": (ours_encoded, first_try_encoded),
    }
    print("| from bytes in memory | medray, slices/s | first try, slices/s | ratio |\n|---|---|---|---|")
    for name, pair in pairs.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the first try warns three times a file
            rounds = [[best_seconds(partial(over_all, one, files), rounds=1) for one in pair] for _ in range(ROUNDS)]
        own, other = (min(times) for times in zip(*rounds, strict=True))
        print(f"| {name} | {len(files) / own:.0f} | {len(files) / other:.0f} | {other / own:.1f} |")


def compare_steps(files: list[bytes]) -> None:
    images = [read_slices(file)[0] for file in files]
    masks = [head_mask(image.pixels_hu, image.header.spacing_rc_mm) for image in images]
    heads = [remove_hardware(image.pixels_hu, mask) for image, mask in zip(images, masks, strict=True)]
    greys = [apply_windows(head, CHANNELS) for head in heads]
    steps: dict[str, Callable[[], object]] = {
        "read_slices": lambda: [read_slices(file) for file in files],
        "head_mask": lambda: [head_mask(image.pixels_hu, image.header.spacing_rc_mm) for image in images],
        "remove_hardware": lambda: [remove_hardware(i.pixels_hu, m) for i, m in zip(images, masks, strict=True)],
        "apply_windows (3)": lambda: [apply_windows(head, CHANNELS) for head in heads],
        "zstd-1": lambda: [ZSTD.compress(pa.py_buffer(grey)) for grey in greys],
    }
    print("\n| step | ms per slice |\n|---|---|")
    for name, work in steps.items():
        print(f"| {name} | {best_seconds(work) / len(files) * 1e3:.2f} |")


def compare_encodings(files: list[bytes]) -> None:
    greys = over_all(ours, files)
    size = greys[0].nbytes

    def with_cv2(suffix: str, *options: int) -> tuple[Callable, Callable]:
        return (
            lambda grey: cv2.imencode(suffix, grey, options)[1].tobytes(),
            lambda code: cv2.imdecode(np.frombuffer(code, np.uint8), cv2.IMREAD_COLOR),
        )

    encodings: dict[str, tuple[Callable, Callable]] = {
        "raw": (lambda grey: grey.tobytes(), lambda code: np.frombuffer(code, np.uint8)),
        "raw + zstd-1": (
            lambda grey: ZSTD.compress(pa.py_buffer(grey), asbytes=True),
            lambda code: np.frombuffer(ZSTD.decompress(code, size), np.uint8),
        ),
        "PNG, level 1": with_cv2(".png", cv2.IMWRITE_PNG_COMPRESSION, 1),
        "PNG, level 6": with_cv2(".png", cv2.IMWRITE_PNG_COMPRESSION, 6),
        "WebP, lossless": with_cv2(".webp", cv2.IMWRITE_WEBP_QUALITY, 101),
        "JPEG 95 (lossy)": with_cv2(".jpg", cv2.IMWRITE_JPEG_QUALITY, 95),
    }
    print("\n| encoding | write, ms | read, ms | KB per slice | exact |\n|---|---|---|---|---|")
    for name, (write, read) in encodings.items():
        codes = over_all(write, greys)
        exact = all(np.array_equal(read(code).ravel(), grey.ravel()) for code, grey in zip(codes, greys, strict=True))
        writing = best_seconds(partial(over_all, write, greys), rounds=3) / len(greys) * 1e3
        reading = best_seconds(partial(over_all, read, codes), rounds=3) / len(greys) * 1e3
        kilobytes = sum(map(len, codes)) / len(codes) / 1e3
        print(f"| {name} | {writing:.2f} | {reading:.2f} | {kilobytes:.0f} | {'yes' if exact else 'no'} |")


def compressed(files: list[bytes]) -> dict[str, list[bytes]]:
    """The same slices in other transfer syntaxes."""
    encoders: dict[str, tuple[str, Callable[[np.ndarray], bytes]]] = {
        "JPEG lossless": ("1.2.840.10008.1.2.4.70", partial(imagecodecs.jpeg8_encode, lossless=True, bitspersample=16)),
        "JPEG-LS": ("1.2.840.10008.1.2.4.80", imagecodecs.jpegls_encode),
        "JPEG 2000": ("1.2.840.10008.1.2.4.90", partial(imagecodecs.jpeg2k_encode, level=0, codecformat="j2k")),
    }
    made: dict[str, list[bytes]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the challenge's identifiers break the standard
        for name, (syntax, encode) in encoders.items():
            for file in files:
                ds = pydicom.dcmread(io.BytesIO(file))
                values = ds.pixel_array
                ds.PixelData = encapsulate([encode(values.view(np.uint16))])
                ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
                ds.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
                out = io.BytesIO()
                pydicom.dcmwrite(out, ds)
                made.setdefault(name, []).append(out.getvalue())
    return made


def compare_guard(files: list[bytes]) -> None:
    """What a process of its own for decoders costs: the same function with the decoder called directly."""

    def direct(work: Callable, data: bytes, most_bytes: int, **arguments: object) -> tuple[np.ndarray, dict]:
        return work(data, **arguments)

    print(
        "\n| from bytes to three windows | guarded, ms a slice | decoder called directly | ratio |\n|---|---|---|---|"
    )
    for name, own in ({"uncompressed": files} | compressed(files)).items():
        times: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(ROUNDS):
            for guarded in (True, False):
                stored.guarded = guard.guarded if guarded else direct  # type: ignore[assignment]
                times[guarded].append(best_seconds(partial(over_all, ours, own), rounds=1) / len(own) * 1e3)
        stored.guarded = guard.guarded
        with_guard, without = min(times[True]), min(times[False])
        print(f"| {name} | {with_guard:.2f} | {without:.2f} | {with_guard / without:.3f} |")


def main() -> None:
    real = Path(__file__).resolve().parents[3] / "shared" / "data" / "head_ct" / "rsna2019_series"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else real
    files = [path.read_bytes() for path in sorted(folder.glob("*.dcm"))]
    if not files:
        sys.exit(f"no .dcm files in {folder}")
    cv2.setNumThreads(1)
    print(f"{len(files)} slices\n")
    compare_pipelines(files)
    compare_guard(files)
    compare_steps(files)
    compare_encodings(files)


if __name__ == "__main__":
    main()
