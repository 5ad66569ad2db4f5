from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
from chest_films import dicom, noise, write_png
from PIL import Image

from medray.imaging.resize import shrunk
from medray.shards.files import Files
from medray.shards.leakage import pixels_hash
from medray.shards.source import Encoded
from medray.systems.boneage.films.source import HandFilm, source_of

SOURCE = HandFilm(size_px=64)
FILM = noise(1, 200, 128)
NAN = math.nan


def png(pixels: np.ndarray | Image.Image) -> bytes:
    stream = io.BytesIO()
    (Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels).save(stream, "PNG")
    return stream.getvalue()


def encoded(film: bytes, mask: bytes | None = None, source: HandFilm = SOURCE, **row: Any) -> Encoded:
    files = {"film": [film]} | ({"mask": [mask]} if mask is not None else {})
    (found,) = source.encode(Files(files), [{"points": None, "outline_px": None} | row])
    return found


def columns_of(found: Encoded) -> dict[str, Any]:
    assert found.columns is not None
    return found.columns


def mask_of(found: Encoded) -> np.ndarray:
    columns = columns_of(found)
    return np.frombuffer(columns["mask"], np.uint8).reshape(columns["rows"], columns["columns"])


def hand(rows: int, columns: int) -> np.ndarray:
    mask = np.zeros((rows, columns), np.uint8)
    mask[rows // 4 : 3 * rows // 4, columns // 4 : columns // 2] = 1
    return mask


def test_a_picture_becomes_a_row_of_the_shards() -> None:
    data = png(FILM)
    (header,) = SOURCE.scan(io.BytesIO(data))
    assert header == {
        "item_id": None, "patient_id": None, "sex": None, "calendar_months": None, "film_rows": 200, "film_columns": 128,
        "kind": "png", "mode": "L",
    }  # fmt: skip
    assert set(header) == set(SOURCE.scan_schema.names)
    found = encoded(data)
    columns = columns_of(found)
    assert found.note is None
    image = np.frombuffer(columns["image"], np.uint8).reshape(100, 64)
    assert np.array_equal(image, shrunk(FILM, 64))
    assert columns["pixels_hash"] == pixels_hash(FILM)
    assert (columns["mask"], columns["points"], columns["has_mask"], columns["has_points"]) == (None, None, 0, 0)
    about = {
        "film_id": "a",
        "patient_id": "p",
        "age_months": 100.0,
        "sex": "F",
        "calendar_months": None,
        "outline_px": None,
    }
    table = pa.Table.from_pylist([about | columns], schema=SOURCE.shard_schema)
    assert set(about | columns) == set(SOURCE.shard_schema.names)
    assert table["film_rows"].to_pylist() == [200]


def test_a_dicom_header_tells_patient_sex_and_calendar_age() -> None:
    data = dicom(FILM, SOPInstanceUID="1.2.3", PatientAge="059M", PatientSex="F")
    (header,) = SOURCE.scan(io.BytesIO(data))
    assert [header[name] for name in ("item_id", "patient_id", "sex", "calendar_months", "kind")] == [
        "1.2.3", "p", "F", 59, "dicom",
    ]  # fmt: skip
    (header,) = SOURCE.scan(io.BytesIO(dicom(FILM, PatientAge="012Y", PatientSex="O")))
    assert (header["sex"], header["calendar_months"]) == (None, 144)
    (header,) = SOURCE.scan(io.BytesIO(dicom(FILM, PatientAge="010W")))
    assert header["calendar_months"] == pytest.approx(2.3, abs=0.001)


def test_palette_transparent_coloured_and_inverted_films_equal_their_grey_twin() -> None:
    plain = columns_of(encoded(png(FILM)))
    palette = Image.fromarray(255 - FILM, "P")
    palette.putpalette([value for grey in range(255, -1, -1) for value in (grey, grey, grey)])
    opaque = np.dstack([FILM, FILM, FILM, np.full_like(FILM, 255)])
    for film in (palette, opaque, np.dstack([FILM] * 3)):
        assert columns_of(encoded(png(film))) == plain
    assert columns_of(encoded(dicom(255 - FILM, PhotometricInterpretation="MONOCHROME1"))) == plain


def test_a_black_film_raises() -> None:
    with pytest.raises(ValueError, match="an empty film: every pixel is 0"):
        encoded(png(FILM * 0))


@pytest.mark.parametrize("foreground", [1, 255])
def test_a_mask_is_stored_in_the_stored_films_pixels(foreground: int) -> None:
    found = encoded(png(FILM), png(hand(200, 128) * np.uint8(foreground)))
    assert found.note is None
    assert columns_of(found)["has_mask"] == 1
    assert np.array_equal(mask_of(found), hand(100, 64))


def test_a_mask_of_another_size_and_the_same_proportions_is_resized() -> None:
    found = encoded(png(FILM), png(hand(400, 257)))
    assert found.note is None
    assert np.array_equal(mask_of(found), cv2.resize(hand(400, 257), (64, 100), interpolation=cv2.INTER_NEAREST_EXACT))


@pytest.mark.parametrize(
    ("mask", "note"),
    [
        (hand(200, 140), "mask: 140 × 200 pixels are other proportions than the film's 128 × 200: it is left out"),
        (hand(128, 200), "mask: 200 × 128 pixels are other proportions"),
        (hand(200, 128) * 0, "mask: every pixel of it is the same: it is left out"),
        (hand(200, 128) * 0 + 1, "mask: every pixel of it is the same: it is left out"),
    ],
)
def test_a_mask_that_cannot_be_used_is_left_out_and_the_film_stays(mask: np.ndarray, note: str) -> None:
    found = encoded(png(FILM), png(mask))
    assert columns_of(found)["mask"] is None
    assert columns_of(found)["has_mask"] == 0
    assert str(found.note).startswith(note)


def test_a_mask_that_vanishes_as_it_shrinks_and_a_damaged_one_are_left_out() -> None:
    speck = np.zeros((200, 128), np.uint8)
    speck[0, 0] = 1
    assert encoded(png(FILM), png(speck)).note == "mask: it leaves no pixel inside, or none outside: it is left out"
    damaged = encoded(png(FILM), png(hand(200, 128))[:70])
    assert columns_of(damaged)["has_mask"] == 0
    assert str(damaged.note).startswith("mask: damaged pixels")


def test_an_outline_is_filled_and_a_mask_file_counts_before_it() -> None:
    outline = [32.0, 50.0, 63.0, 50.0, 63.0, 149.0, 32.0, 149.0]
    found = encoded(png(FILM), outline_px=outline)
    assert found.note is None
    assert np.array_equal(mask_of(found), hand(100, 64))
    other = np.roll(hand(200, 128), 40, axis=1)
    assert np.array_equal(
        mask_of(encoded(png(FILM), png(other), outline_px=outline)), np.roll(hand(100, 64), 20, axis=1)
    )
    instead = encoded(png(FILM), png(other * 0), outline_px=outline)
    assert np.array_equal(mask_of(instead), hand(100, 64))
    assert instead.note == "mask: every pixel of it is the same: it is left out"


def test_an_outline_of_another_film_is_left_out() -> None:
    found = encoded(png(FILM), outline_px=[10.0, 10.0, 140.0, 10.0, 10.0, 150.0])
    assert columns_of(found)["has_mask"] == 0
    assert found.note == "outline: a corner lies outside of the film: it is left out"
    edge = encoded(png(FILM), outline_px=[-1.0, -1.0, 128.0, -1.0, 128.0, 100.0, -1.0, 100.0])
    assert mask_of(edge).mean() == pytest.approx(0.5, abs=0.02)


def test_points_follow_the_film_as_it_shrinks() -> None:
    found = columns_of(encoded(png(FILM), points=[63.5, 0, 127.5, 99.5, -0.5, 199.5]))
    assert found["points"] == pytest.approx([31.5, -0.25, 63.5, 49.5, -0.5, 99.5])
    assert found["has_points"] == 1
    # what is bright at a point of the file is bright at the point of the stored film
    film = np.zeros((200, 128), np.uint8)
    film[120:124, 60:64] = 255
    stored = columns_of(encoded(png(film), points=[61.5, 121.5, NAN, NAN, NAN, NAN]))
    image = np.frombuffer(stored["image"], np.uint8).reshape(100, 64).astype(float)
    x, y = stored["points"][:2]
    rows, columns = np.nonzero(image)
    assert (columns.mean(), rows.mean()) == pytest.approx((x, y))


@pytest.mark.parametrize("unknown", [NAN, None])
def test_points_that_are_not_marked_stay_unknown(unknown: float | None) -> None:
    """On its way through a table of Arrow a NaN becomes None."""
    found = columns_of(encoded(png(FILM), points=[unknown, unknown, 10, 20, unknown, unknown]))
    assert found["has_points"] == 1
    assert np.isnan(found["points"]).tolist() == [True, True, False, False, True, True]
    nothing = encoded(png(FILM), points=[unknown] * 6)
    assert (columns_of(nothing)["points"], columns_of(nothing)["has_points"], nothing.note) == (None, 0, None)


@pytest.mark.parametrize("thumb", [(128.0, 50.0), (10.0, 200.0), (-0.6, 50.0), (1e300, 5.0)])
def test_a_thumb_outside_of_the_film_costs_the_points_and_not_the_film(thumb: tuple[float, float]) -> None:
    found = encoded(png(FILM), points=[60, 10, *thumb, 60, 150])
    assert (columns_of(found)["points"], columns_of(found)["has_points"]) == (None, 0)
    assert found.note == "a point lies outside of the film: its points are left out"


def test_notes_are_joined() -> None:
    coloured = png(np.dstack([FILM, FILM, 255 - FILM]))
    found = encoded(coloured, png(hand(200, 128) * 0), points=[500, 500, NAN, NAN, NAN, NAN])
    assert found.note == (
        "colour made grey (ITU-R 601); mask: every pixel of it is the same: it is left out; "
        "a point lies outside of the film: its points are left out"
    )


def test_flags_that_cannot_be_used_are_refused() -> None:
    with pytest.raises(ValueError, match="--size-px 8: must be at least 64"):
        HandFilm(size_px=8)
    with pytest.raises(ValueError, match="--masks a/b: letters"):
        HandFilm(masks="a/b")
    with pytest.raises(ValueError, match="--masks: needs a folder's name"):
        HandFilm(masks="")


def test_a_source_comes_back_from_its_identity_and_its_folder_names_the_size() -> None:
    source = HandFilm(size_px=320, masks="hands")
    assert source_of(source.identity()) == source
    assert source.folder == "320px"
    assert source.settings() == {"masks": "hands"}
    assert replace(source, size_px=64).settings() == source.settings()
    with pytest.raises(ValueError, match="films of version 0; train it again"):
        source_of(source.identity() | {"version": 0})


def test_identifiers_are_marked() -> None:
    assert HandFilm.kinds() == {"item_id": "film", "path": "file", "film_id": "film", "patient_id": "patient"}


def test_a_palette_in_an_order_of_its_own_is_read(tmp_path: Path) -> None:
    """As two of the 40 real films have one."""
    film = write_png(tmp_path / "a.png", FILM)
    with Image.open(film) as image:
        adaptive = image.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE, colors=256)
    found = columns_of(encoded(png(adaptive)))
    stored = np.frombuffer(found["image"], np.uint8).reshape(100, 64).astype(int)
    assert np.abs(stored - shrunk(FILM, 64)).max() <= 3
