from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
from chest_films import dicom, noise, write_png

from medray.shards.files import Files
from medray.systems.chest.classes import FINDINGS
from medray.systems.chest.source import Radiograph


def test_a_picture_becomes_a_row_of_the_shards(tmp_path: Path) -> None:
    data = write_png(tmp_path / "a.png", noise(1, 90, 60)).read_bytes()
    source = Radiograph(size_px=48)
    (header,) = source.scan(io.BytesIO(data))
    assert set(header) == set(source.scan_schema.names)
    assert (header["item_id"], header["film_rows"], header["film_columns"], header["mode"]) == (None, 90, 60, "L")
    (encoded,) = source.encode(Files.of(data), [header])
    assert encoded.columns is not None
    assert encoded.note is None
    image = np.frombuffer(encoded.columns["image"], np.uint8).reshape(72, 48)
    assert np.array_equal(image, cv2.resize(noise(1, 90, 60), (48, 72), interpolation=cv2.INTER_AREA))
    row = {"image_id": "a", "patient_id": "p", **header, **encoded.columns, **dict.fromkeys(FINDINGS)}
    table = pa.Table.from_pylist([row], schema=source.shard_schema)
    assert table["film_rows"].to_pylist() == [90]


def test_a_dicom_file_names_itself_and_equals_the_same_picture(tmp_path: Path) -> None:
    pixels = noise(2, 60, 60)
    data = dicom(pixels, SOPInstanceUID="1.2.3", ViewPosition="AP")
    source = Radiograph()
    (header,) = source.scan(io.BytesIO(data))
    assert (header["item_id"], header["patient_id"], header["view"]) == ("1.2.3", "p", "AP")
    (of_dicom,) = source.encode(Files.of(data), [header])
    picture = write_png(tmp_path / "a.png", pixels).read_bytes()
    (of_picture,) = source.encode(Files.of(picture), [{}])
    assert of_dicom == of_picture


def test_what_is_no_film_raises_and_an_empty_one_too(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither PNG"):
        Radiograph().scan(io.BytesIO(b"text"))
    black = write_png(tmp_path / "a.png", np.zeros((64, 64), np.uint8)).read_bytes()
    with pytest.raises(ValueError, match="an empty film: every pixel is 0"):
        Radiograph().encode(Files.of(black), [{}])


def test_shards_hold_the_largest_size_that_is_needed_whatever_is_there() -> None:
    assert Radiograph().holding((), [Radiograph(size_px=64).identity()]) == Radiograph()
    assert Radiograph().holding(("64px", "224px"), []).folder == "224px"
    assert (
        Radiograph().holding(("224px",), [Radiograph(size_px=size).identity() for size in (64, 512, 256)]).size_px
        == 224
    )
    assert Radiograph().holding(("600px",), [Radiograph(size_px=512).identity()]).size_px == 600
    with pytest.raises(ValueError, match="--size-px 8"):
        Radiograph(size_px=8)


def test_identifiers_are_marked() -> None:
    marked = {f.name: f.metadata[b"identifier"] for f in Radiograph.shard_schema if b"identifier" in (f.metadata or {})}
    assert marked == {"image_id": b"image", "patient_id": b"patient"}
