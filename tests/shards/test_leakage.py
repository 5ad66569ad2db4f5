"""Hashes of pixels, and the check for images that were trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from medray.shards.leakage import (
    pixels_hash,
    pixels_hash_unless_flat,
    seen_in_training,
    trained_on,
)
from medray.shards.store import Store


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 2000, (6, 8)).astype(np.int16)


def test_equal_pixels_have_equal_hashes_however_they_lie_in_memory() -> None:
    pixels = image()
    assert pixels_hash(pixels) == pixels_hash(pixels.copy())
    assert pixels_hash(pixels) == pixels_hash(np.asfortranarray(pixels))
    assert pixels_hash(pixels) == pixels_hash(np.repeat(pixels, 2, axis=1)[:, ::2])
    assert len(pixels_hash(pixels)) == 32


def test_one_pixel_more_or_less_is_another_image() -> None:
    pixels = image()
    hashes = {pixels_hash(pixels)}
    for place in np.ndindex(pixels.shape):
        other = pixels.copy()
        other[place] += 1
        hashes.add(pixels_hash(other))
    assert len(hashes) == 1 + pixels.size


def test_another_shape_or_type_is_another_image() -> None:
    pixels = image()
    others = [pixels.reshape(8, 6), pixels.T, pixels[:-1], pixels[:, ::-1], pixels.astype(np.int32),
              pixels.astype(np.float32)]  # fmt: skip
    assert len({pixels_hash(pixels), *map(pixels_hash, others)}) == 1 + len(others)


@pytest.mark.parametrize("value", [-1024, 0, 7])
def test_an_image_of_one_value_has_none_where_that_says_nothing(value: int) -> None:
    pixels = np.full((6, 8), value, np.int16)
    assert pixels_hash_unless_flat(pixels) == ""
    pixels[3, 3] += 1
    assert pixels_hash_unless_flat(pixels) == pixels_hash(pixels)


def test_hashes_are_those_of_shards_that_were_written_before() -> None:
    assert pixels_hash(np.arange(12, dtype=np.int16).reshape(3, 4)) == "365f3309e4be74a9a77eaac253fc9665"
    assert pixels_hash(np.arange(12, dtype=np.uint8).reshape(3, 4)) == "185a11f87c03aefe37ad5338df296ad1"


@pytest.fixture
def shards(tmp_path: Path) -> Store:
    store = Store(tmp_path / "shards")
    store.write_table("a.parquet", pa.table({"image_id": ["i1", "i2"], "pixels_hash": ["h1", ""]}))
    store.write_table("b.parquet", pa.table({"image_id": ["i3"], "pixels_hash": pa.array([None], pa.string())}))
    return store


def test_what_was_trained_on_is_known_by_its_pixels_and_perhaps_by_its_name(shards: Store) -> None:
    assert trained_on(shards) == {"h1"}
    assert trained_on(shards, ("pixels_hash", "image_id")) == {"h1", "i1", "i2", "i3"}
    assert trained_on(shards, ("pixels_hash", "image_id"), "image_id", ["i1"]) == {"i2", "i3"}
    assert trained_on(Store(shards.uri).sub("none")) == set()


def test_an_image_without_a_hash_is_not_found_by_it() -> None:
    table = pd.DataFrame({"pixels_hash": ["h1", "", None, "h2"], "image_id": ["x", "i2", "y", "z"]}, index=[4, 5, 6, 7])
    found = seen_in_training(table, {"h1", "i2", ""})
    assert found.to_dict() == {4: True, 5: False, 6: False, 7: False}
    by_both = seen_in_training(table, {"h1", "i2"}, ("pixels_hash", "image_id"))
    assert by_both.tolist() == [True, True, False, False]
