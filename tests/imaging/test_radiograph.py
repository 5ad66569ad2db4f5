"""Radiographs: pictures made here in every mode, DICOM written by pydicom, the real films."""

from __future__ import annotations

import gzip
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)

from medray.imaging.film import stretched
from medray.imaging.radiograph import read_film, read_film_header
from medray.imaging.types import Unreadable

PACKAGED = Path(pydicom.__file__).parent / "data" / "test_files"
SECRET = "Secret^Patient"


@pytest.fixture(autouse=True)
def nothing_warns() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def grey(rows: int = 40, columns: int = 30, top: int = 255) -> np.ndarray:
    values = np.random.default_rng(5).integers(0, top + 1, (rows, columns))
    return values.astype(np.uint8 if top < 256 else np.uint16)


def png(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


def dx(pixels: np.ndarray, syntax: str = ExplicitVRLittleEndian, **tags: Any) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.SOPClassUID, ds.SOPInstanceUID = DigitalXRayImageStorageForPresentation, generate_uid()
    ds.PatientID, ds.PatientName, ds.Modality = SECRET, SECRET, "DX"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated = pixels.dtype.itemsize * 8
    ds.BitsStored = 8 if ds.BitsAllocated == 8 else 12
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, int(pixels.dtype.kind == "i")
    ds.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(ds, name, value)
    return ds


def file_of(ds: Dataset) -> bytes:
    stream = io.BytesIO()
    ds.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def lut(entries: np.ndarray, first: int, bits: int, dtype: str = "<u2") -> Dataset:
    item = Dataset()
    item.add_new(0x00283002, "US", [len(entries), first, bits])
    item.add_new(0x00283006, "OW", entries.astype(dtype).tobytes())
    item.add_new(0x00283004, "LO", "US")
    return item


# ---- pictures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1"])
def test_eight_bits_keep_their_values_in_every_mode(mode: str) -> None:
    values = grey() // 128 * 255 if mode == "1" else grey()
    if mode == "P":
        palette = np.random.default_rng(0).permutation(256).astype(np.uint8)  # index ≠ grey
        picture = Image.fromarray(np.argsort(palette).astype(np.uint8)[values]).convert("P")
        picture.putpalette(np.repeat(palette, 3).tobytes())
    else:
        picture = Image.fromarray(values).convert(mode)
    film = read_film(png(picture))
    assert np.array_equal(film.grey, values)
    assert (film.grey.dtype, film.repaired) == (np.uint8, None)
    header = read_film_header(io.BytesIO(png(picture)))
    assert (header.kind, header.mode, header.rows, header.columns, header.image_id) == ("png", mode, 40, 30, None)


def test_a_jpeg_is_read_too() -> None:
    values = np.repeat(np.arange(0, 250, 10, dtype=np.uint8)[:, None], 30, axis=1)
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "JPEG", quality=95)
    assert np.abs(read_film(stream.getvalue()).grey.astype(int) - values).max() <= 4
    assert read_film_header(io.BytesIO(stream.getvalue())).kind == "jpeg"


def test_colour_becomes_grey_and_transparency_black() -> None:
    colour = np.stack([grey(), grey() // 2, grey() // 3], axis=-1)
    film = read_film(png(Image.fromarray(colour)))
    expected = colour @ np.array([0.299, 0.587, 0.114])
    assert np.abs(film.grey - expected).max() <= 1
    assert film.repaired == "colour made grey (ITU-R 601)"
    alpha = np.where(np.arange(30) < 10, 0, 255)[None].repeat(40, axis=0).astype(np.uint8)
    half = np.dstack([grey()] * 3 + [alpha])
    film = read_film(png(Image.fromarray(half)))
    assert not film.grey[:, :10].any()
    assert np.array_equal(film.grey[:, 10:], grey()[:, 10:])
    assert film.repaired == "transparent pixels laid over black"


def test_a_palette_may_have_a_transparent_entry() -> None:
    picture = Image.fromarray(grey()).convert("P")
    picture.putpalette(np.repeat(np.arange(256, dtype=np.uint8), 3).tobytes())
    film = read_film(png(picture, transparency=200))
    assert np.array_equal(film.grey, np.where(grey() == 200, 0, grey()))


def test_sixteen_bits_that_hold_twelve_are_not_black() -> None:
    deep = grey(400, 300, top=4095)
    film = read_film(png(Image.fromarray(deep)))
    assert film.repaired == "16 bits stretched between percentiles"
    assert film.grey.min() == 0
    assert film.grey.max() == 255
    assert 120 < film.grey.mean() < 135
    # ranks are kept
    order = np.argsort(deep.ravel(), kind="stable")
    assert (np.diff(film.grey.ravel()[order].astype(int)) >= 0).all()


def test_a_marker_or_a_dead_pixel_does_not_set_the_range() -> None:
    deep = (np.arange(90_000).reshape(300, 300) % 1000 + 1000).astype(np.uint16)
    plain = stretched(deep)
    deep[0, :20] = 65535
    assert np.abs(stretched(deep)[1:].astype(int) - plain[1:]).max() <= 1


def test_sixteen_bits_that_were_eight_are_those_eight() -> None:
    wide = grey().astype(np.uint16) * 257
    film = read_film(png(Image.fromarray(wide)))
    assert np.array_equal(film.grey, grey())
    assert film.repaired == "16 bits that were 8, widened"


@pytest.mark.parametrize("value", [0, 255, 77])
def test_a_film_of_one_value_is_refused(value: int) -> None:
    with pytest.raises(Unreadable, match=f"^an empty film: every pixel is {value}$"):
        read_film(png(Image.new("L", (64, 64), value)))


def test_a_deep_film_of_one_value_is_refused() -> None:
    with pytest.raises(Unreadable, match="an empty film"):
        read_film(png(Image.fromarray(np.full((64, 64), 3000, np.uint16))))


def header_only(width: int, height: int) -> bytes:
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + ihdr + struct.pack(">I", zlib.crc32(ihdr))


@pytest.mark.parametrize(
    ("width", "height", "why"),
    [
        (12_000, 12_000, "more than 64,000,000"),
        (100_000, 100_000, "more than"),
        (8, 300, "too small"),
        (2000, 300, "a strip"),
    ],
)
def test_absurd_sizes_are_refused_before_memory_is_asked_for(width: int, height: int, why: str) -> None:
    for read in (read_film, lambda data: read_film_header(io.BytesIO(data))):
        with pytest.raises(Unreadable, match=f"^{width} × {height} pixels: {why}"):
            read(header_only(width, height))
    if width * height < 64_000_000 * 4:
        with pytest.raises(Unreadable, match=why):
            read_film(file_of(dx(grey(), Rows=height, Columns=width)))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "an empty file"),
        (b"Image,Finding\n", "neither PNG, JPEG nor DICOM"),
        (b"II*\x00" + bytes(200), "neither PNG"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "0 × 0 pixels: too small"),
        (b"\xff\xd8\xff\xe0" + bytes(40), "a damaged PNG or JPEG file"),
    ],
)
def test_what_is_no_film_is_one_line(data: bytes, why: str) -> None:
    for read in (read_film, lambda data: read_film_header(io.BytesIO(data))):
        with pytest.raises(ValueError, match=f"^{why}") as error:
            read(data)
        assert "\n" not in str(error.value)


def test_every_truncation_of_a_picture_is_refused() -> None:
    whole = png(Image.fromarray(grey()))
    for length in range(30, len(whole) - 20, 37):
        with pytest.raises(Unreadable):
            read_film(whole[:length])


# ---- DICOM ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_monochrome1_is_inverted(syntax: str) -> None:
    pixels = grey(top=4095)
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    bright = read_film(file_of(dx(pixels, syntax, **window)))
    dark = read_film(file_of(dx(pixels, syntax, PhotometricInterpretation="MONOCHROME1", **window)))
    assert np.array_equal(dark.grey, 255 - bright.grey)
    assert np.abs(bright.grey - pixels / 4095 * 255).max() <= 1
    assert bright.repaired is None


def test_a_window_and_a_rescale_are_those_of_pydicom() -> None:
    pixels = grey(top=4095)
    for function in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        ds = dx(
            pixels,
            WindowCenter=[900, 1],
            WindowWidth=[700, 1],
            VOILUTFunction=function,
            RescaleSlope=0.5,
            RescaleIntercept=-10,
        )
        expected = apply_voi_lut(apply_modality_lut(pixels, ds), ds)
        # pydicom spreads over the range that 12 bits have after the rescale
        low, high = -10.0, 0.5 * 4095 - 10
        assert np.abs(read_film(file_of(ds)).grey - (expected - low) / (high - low) * 255).max() <= 1, function


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_lookup_tables_are_those_of_pydicom(bits: int) -> None:
    pixels = grey(top=4095)
    curve = ((np.arange(3000) / 2999) ** 2 * ((1 << bits) - 1)).astype(np.uint16)
    ds = dx(pixels)
    ds.VOILUTSequence = [lut(curve, 500, bits, "u1" if bits == 8 else "<u2")]
    film = read_film(file_of(ds))
    expected = curve[np.clip(pixels.astype(int) - 500, 0, 2999)]
    if bits == 8:  # one entry a word, as the standard allows; pydicom reads neither form as this curve
        in_words = dx(pixels)
        in_words.VOILUTSequence = [lut(curve, 500, bits)]
        assert np.array_equal(read_film(file_of(in_words)).grey, film.grey)
    else:
        assert np.array_equal(apply_voi_lut(pixels, ds), expected)
    assert np.abs(film.grey - expected / ((1 << bits) - 1) * 255).max() <= 1
    assert film.repaired is None
    ds = dx(pixels, WindowCenter=500, WindowWidth=1000)
    ds.ModalityLUTSequence = [lut(np.arange(4096)[::-1], 0, 16)]
    values = apply_modality_lut(pixels, ds)
    assert np.array_equal(read_film(file_of(ds)).grey == 0, values <= 1)


def test_signed_values_and_bits_that_are_nobodys() -> None:
    pixels = grey(top=4095).astype(np.int16) - 2048
    ds = dx(pixels, WindowCenter=0, WindowWidth=4096)
    assert np.abs(read_film(file_of(ds)).grey - (pixels + 2048) / 4095 * 255).max() <= 1
    overlaid = grey(top=4095) | 0x8000  # an old overlay in a bit above the stored ones
    plain = dx(grey(top=4095), WindowCenter=2048, WindowWidth=4096)
    with_overlay = dx(overlaid, WindowCenter=2048, WindowWidth=4096)
    assert np.array_equal(read_film(file_of(with_overlay)).grey, read_film(file_of(plain)).grey)


def test_without_a_window_percentiles_are_taken_and_padding_does_not_count() -> None:
    pixels = (grey(100, 80, top=999) + 2000).astype(np.uint16)
    film = read_film(file_of(dx(pixels)))
    assert film.repaired == "no window in the file: stretched between percentiles"
    padded = pixels.copy()
    padded[:30] = 0
    ds = dx(padded)
    ds.add_new(0x00280120, "US", 0)
    assert np.abs(read_film(file_of(ds)).grey[30:].astype(int) - film.grey[30:]).max() <= 3
    assert not read_film(file_of(ds)).grey[:30].any()


@pytest.mark.parametrize(
    ("tags", "note"),
    [
        ({"WindowCenter": 60000, "WindowWidth": 10}, "the file's window shows nothing"),
        ({"WindowCenter": 100, "WindowWidth": 0}, "the file's window is of width 0"),
    ],
)
def test_a_window_that_shows_nothing_is_not_used(tags: dict[str, Any], note: str) -> None:
    film = read_film(file_of(dx(grey(top=4095), **tags)))
    assert film.repaired == f"{note}: stretched between percentiles"
    assert film.grey.std() > 50


def test_padding_is_dark_under_any_window_and_inversion() -> None:
    """Of both signs and with a range; what looks like it inside the body stays."""
    pixels = (grey(100, 80, top=999) + 2000).astype(np.int16)
    padded = pixels.copy()
    padded[:30] = -32000 + np.arange(80) % 3
    padded[60, 40] = -32000
    for mode in ("MONOCHROME1", "MONOCHROME2"):
        window = {"WindowCenter": 2500, "WindowWidth": 1000, "BitsStored": 16, "HighBit": 15}
        ds = dx(padded, PhotometricInterpretation=mode, **window)
        ds.add_new(0x00280120, "US", 65536 - 32000)
        ds.add_new(0x00280121, "SS", -31998)
        film = read_film(file_of(ds))
        assert not film.grey[:30].any()
        plain = read_film(file_of(dx(pixels, PhotometricInterpretation=mode, **window)))
        plain.grey[60, 40] = 255 if mode == "MONOCHROME1" else 0
        assert np.array_equal(film.grey[30:], plain.grey[30:])


def body(dark: float, between: float) -> np.ndarray:
    """(100, 100) values of 12 bits: a share at 0, a share from 1000 to 3000, the rest at 4095."""
    values = np.full(10_000, 4095)
    values[: int(10_000 * dark)] = 0
    values[int(10_000 * dark) : int(10_000 * (dark + between))] = np.linspace(1000, 3000, int(10_000 * between))
    return values.reshape(100, 100).astype(np.uint16)


WINDOW = {"WindowCenter": 2000, "WindowWidth": 3000}


@pytest.mark.parametrize(
    ("dark", "between"),
    [(0.3, 0.6), (0.0, 0.2), (0.9, 0.08), (0.02, 0.06), (0.96, 0.03), (0.5, 0.0)],
    ids=["a body", "overexposed", "a finger", "all but white", "the tip of a finger", "two values"],
)
def test_a_window_that_shows_what_there_is_is_kept(dark: float, between: float) -> None:
    film = read_film(file_of(dx(body(dark, between), **WINDOW)))
    assert film.repaired is None
    assert (film.grey == 0).mean() == pytest.approx(dark, abs=1e-4)
    assert ((film.grey > 0) & (film.grey < 255)).mean() == pytest.approx(between, abs=1e-4)


@pytest.mark.parametrize("what", ["nothing", "marker", "border"])
@pytest.mark.parametrize(("center", "kind"), [(0, "white"), (6000, "black")])
def test_a_window_that_misses_the_body_is_not_kept_for_the_sake_of_a_marker(
    what: str, center: float, kind: str
) -> None:
    pixels = np.linspace(1000, 3000, 10_000).reshape(100, 100).astype(np.uint16)
    other = 0 if kind == "white" else 4095
    if what == "marker":
        pixels[2:6, 2:6] = other
    elif what == "border":
        pixels[:3] = other
    film = read_film(file_of(dx(pixels, WindowCenter=center, WindowWidth=800)))
    assert film.repaired == "the file's window shows nothing: stretched between percentiles"
    assert (film.grey == 255).mean() < 0.05
    assert film.grey.std() > 50


def test_a_table_that_misses_the_body_is_not_used_either() -> None:
    pixels = np.linspace(1000, 3000, 10_000).reshape(100, 100).astype(np.uint16)
    pixels[2:6, 2:6] = 0
    ds = dx(pixels)
    ds.VOILUTSequence = [lut(np.arange(0, 4096, 8), 0, 12)]
    assert read_film(file_of(ds)).repaired == "the file's VOI LUT shows nothing: stretched between percentiles"


def test_a_table_from_a_negative_value_is_applied_as_pydicom_does() -> None:
    """Though this film has no negative value: its sign, or its rescale, says that it might."""
    ramp = np.tile(np.arange(0, 3000, 50, dtype=np.int16), (60, 1))
    for pixels, tags in (
        (ramp, {"BitsStored": 16, "HighBit": 15}),
        ((ramp + 1000).astype(np.uint16), {"RescaleSlope": 1, "RescaleIntercept": -1000}),
    ):
        for vr in ("SS", "US"):
            ds = dx(pixels, **tags)
            table = lut(np.arange(4001), -1000 & 0xFFFF, 12)
            if vr == "SS":
                table.add_new(0x00283002, "SS", [4001, -1000, 12])
            ds.VOILUTSequence = [table]
            film = read_film(file_of(ds))
            assert np.abs(film.grey - (ramp.astype(int) + 1000) * 255 / 4095).max() <= 0.5
            assert film.repaired is None


def test_a_table_of_12_bits_that_says_16_uses_the_whole_of_grey() -> None:
    pixels = grey(top=4095)
    says = {}
    for bits in (12, 16):
        ds = dx(pixels)
        ds.VOILUTSequence = [lut(np.arange(4096), 0, bits)]
        says[bits] = read_film(file_of(ds))
    assert np.array_equal(says[12].grey, says[16].grey)
    assert says[12].repaired is None
    assert says[16].repaired == "a lookup table of 16 bits whose entries have 12"


def test_a_film_without_preamble_and_one_that_is_packed() -> None:
    whole = file_of(dx(grey()))
    bare = whole[132:]
    assert np.array_equal(read_film(bare).grey, grey())
    assert read_film_header(io.BytesIO(bare)) == read_film_header(io.BytesIO(whole))
    packed = gzip.compress(whole)
    for read in (read_film, lambda data: read_film_header(io.BytesIO(data))):
        with pytest.raises(Unreadable, match="^not a DICOM file: packed with gzip; unpack it$"):
            read(packed)


def test_eight_bits_without_a_window_are_as_they_are() -> None:
    film = read_film(file_of(dx(grey())))
    assert np.array_equal(film.grey, grey())
    assert film.repaired is None


def test_a_header_says_who_and_how_old() -> None:
    uid = generate_uid()
    ds = dx(grey(), SOPInstanceUID=uid, PatientAge="006M", PatientSex="F", ViewPosition="LL")
    header = read_film_header(io.BytesIO(file_of(ds)))
    assert (header.image_id, header.patient_id, header.view, header.sex) == (uid, SECRET, "LL", "F")
    assert (header.age_years, header.kind, header.mode) == (0.5, "dicom", "MONOCHROME2")
    header = read_film_header(io.BytesIO(file_of(dx(grey(), PatientAge="058Y"))))
    assert (header.age_years, header.view, header.sex) == (58, None, None)


@pytest.mark.parametrize(
    ("tags", "side"),
    [
        ({"ImageLaterality": "L"}, "L"),
        ({"Laterality": "R"}, "R"),
        ({"ImageLaterality": "U", "Laterality": "L"}, "L"),
        ({"ImageLaterality": "R", "Laterality": "L"}, "R"),
        ({"ImageLaterality": "B"}, None),
        ({}, None),
    ],
)
def test_a_header_says_the_side(tags: dict[str, str], side: str | None) -> None:
    assert read_film_header(io.BytesIO(file_of(dx(grey(), **tags)))).laterality == side


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        ({"Modality": "CT", "SOPClassUID": CTImageStorage}, "modality is CT, not CR or DX"),
        ({"Modality": ""}, "no modality"),
        ({"SamplesPerPixel": 3}, "3 samples a pixel"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "photometric interpretation is PALETTE COLOR"),
        ({"NumberOfFrames": 2}, "2 frames, not one film"),
        ({"Rows": 80}, "truncated pixels"),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "rescale of slope 0"),
        ({"BitsStored": 0}, "8 bits allocated, 0 stored"),
    ],
)
def test_dicom_that_is_no_film_is_one_line_without_the_patient(tags: dict[str, Any], why: str) -> None:
    with pytest.raises(Unreadable, match=f"^{why}") as error:
        read_film(file_of(dx(grey(), **tags)))
    assert SECRET not in str(error.value)


def test_a_damaged_lookup_table_is_one_line() -> None:
    ds = dx(grey(top=4095))
    ds.VOILUTSequence = [lut(np.arange(10), 0, 12)]
    ds.VOILUTSequence[0].LUTDescriptor = [4096, 0, 12]
    with pytest.raises(Unreadable, match="^a lookup table of 4096 entries with data for 10$"):
        read_film(file_of(ds))


def test_pydicoms_own_odd_files_are_films_or_one_line() -> None:
    films, reasons = 0, []
    for path in sorted(p for p in PACKAGED.rglob("*") if p.is_file() and p.stat().st_size < 3_000_000):
        try:
            film = read_film(path.read_bytes())
        except ValueError as error:
            reasons.append(str(error))
            continue
        films += 1
        assert film.grey.dtype == np.uint8
        assert film.grey.ndim == 2
    assert films >= 1
    assert all(reason and "\n" not in reason for reason in reasons)


# ---- real films -----------------------------------------------------------------------------------------------------


@pytest.mark.real_data
def test_real_films_keep_the_window_that_they_were_published_with(chest_dir: Path) -> None:
    hands = sorted((chest_dir.parent / "hand_xray" / "images").glob("*.png"))[:10]  # on large plates: mostly black
    for path in [*sorted((chest_dir / "nih_64px").iterdir())[:40], *hands]:
        pixels = np.asarray(Image.open(path).convert("L"))
        film = read_film(file_of(dx(pixels, WindowCenter=128, WindowWidth=256)))
        assert film.repaired is None
        assert np.abs(film.grey.astype(int) - pixels).max() <= 1


@pytest.mark.real_data
def test_the_share_of_pixels_between_black_and_white_that_real_films_have(chest_dir: Path) -> None:
    """The figures behind the rule for windows that show nothing, which asks for 5%."""

    def least(folder: Path) -> tuple[int, float]:
        films = [np.asarray(Image.open(path).convert("L")) for path in sorted(folder.glob("*.png"))]
        return len(films), min(float(np.mean((film > 0) & (film < 255))) for film in films)

    assert least(chest_dir / "nih_1024px") == (100, pytest.approx(0.80, abs=0.005))
    assert least(chest_dir.parent / "hand_xray" / "images") == (40, pytest.approx(0.29, abs=0.005))


@pytest.mark.real_data
def test_real_films_are_equal_in_every_mode_that_they_come_in(chest_dir: Path) -> None:
    modes = set()
    for path in sorted((chest_dir / "nih_64px").iterdir())[::4]:
        film = read_film(path.read_bytes())
        with Image.open(path) as picture:
            modes.add(picture.mode)
            assert np.array_equal(film.grey, np.asarray(picture.convert("L"))), path.name
    assert modes == {"RGB", "RGBA"}


@pytest.mark.real_data
def test_a_real_film_survives_rgba_palette_and_sixteen_bits(chest_dir: Path) -> None:
    path = sorted((chest_dir / "nih_1024px").iterdir())[0]
    film = read_film(path.read_bytes())
    assert film.grey.shape == (1024, 1024)
    assert film.repaired is None
    picture = Image.fromarray(film.grey)
    palette = picture.convert("P")
    for other in (picture.convert("RGBA"), palette):
        assert np.array_equal(read_film(png(other, compress_level=1)).grey, film.grey)
    deep = read_film(png(Image.fromarray(film.grey.astype(np.uint16) << 4), compress_level=1))
    assert np.corrcoef(deep.grey.ravel(), film.grey.ravel())[0, 1] > 0.99


@pytest.mark.parametrize(
    ("view", "age", "kept"),
    [
        ("AP", "058Y", ("AP", 58.0)),
        ("ZQ JANE DOE 77", "089Y", (None, 89.0)),
        ("", "104Y", (None, 90.0)),
        ("LLO", "", ("LLO", None)),
    ],
)
def test_a_view_is_a_known_one_and_nobody_is_known_by_a_great_age(
    view: str, age: str, kept: tuple[str | None, float | None]
) -> None:
    header = read_film_header(io.BytesIO(file_of(dx(grey(), ViewPosition=view, PatientAge=age))))
    assert (header.view, header.age_years) == kept
