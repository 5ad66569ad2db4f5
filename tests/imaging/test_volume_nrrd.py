from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
import pytest
from conftest import shared_data

from medray.imaging.types import Unreadable
from medray.imaging.volume import read_volume, read_volume_header
from medray.imaging.volume_grid import axis_codes, same_grid

VOXELS = (np.arange(4 * 5 * 6, dtype=np.int16) - 40).reshape(4, 5, 6)
DIRECTIONS = np.array([[0.9, 0.1, 0], [-0.2, 1.8, 0.1], [0, -0.2, 3]])
HEADER = {"space": "left-posterior-superior", "space directions": DIRECTIONS, "space origin": [10.0, -20, 30]}


def written(folder: Path, voxels: np.ndarray = VOXELS, **changes: Any) -> bytes:
    """As pynrrd writes it; a change of None leaves a field out."""
    header = {**HEADER, **{name.replace("_", " "): value for name, value in changes.items()}}
    nrrd.write(str(folder / "a.nrrd"), voxels, {name: value for name, value in header.items() if value is not None})
    return (folder / "a.nrrd").read_bytes()


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, ">i2", np.float32])
def test_voxels_are_pynrrds_and_the_affine_leads_to_ras(tmp_path: Path, dtype: str, encoding: str) -> None:
    data = written(tmp_path, np.abs(VOXELS).astype(dtype), encoding=encoding)
    volume = read_volume(data)
    assert np.array_equal(volume.voxels, nrrd.read(str(tmp_path / "a.nrrd"))[0])
    assert volume.voxels.dtype.isnative
    assert volume.voxels.flags.c_contiguous
    # by hand: one step along the first axis is (0.9, 0.1, 0) towards left, back and head
    assert np.allclose(volume.affine @ [1, 0, 0, 1], [-10.9, 19.9, 30, 1])
    assert axis_codes(volume) == "LPS"
    header = read_volume_header(io.BytesIO(data))
    assert (header.kind, header.shape_DHW, header.dtype) == ("nrrd", (4, 5, 6), volume.voxels.dtype.name)
    assert same_grid(header, volume)


@pytest.mark.parametrize(("space", "place"), [("RAS", [10, -20, 30]), ("LPS", [-10, 20, 30]), ("LAS", [-10, -20, 30])])
def test_each_space(tmp_path: Path, space: str, place: list[float]) -> None:
    assert np.allclose(read_volume(written(tmp_path, space=space)).affine[:3, 3], place)


def edited(folder: Path, old: bytes, new: bytes, **changes: Any) -> bytes:
    data = written(folder, encoding="raw", **changes)
    assert old in data
    return data.replace(old, new, 1)


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    holes = VOXELS.astype(np.float32)
    holes[0, 0, :2] = np.nan
    raw = written(tmp_path, encoding="raw")
    cases = [
        (
            written(tmp_path, space="scanner-xyz"),
            "a space that is none of a patient's axes: its orientation is not known",
        ),
        (written(tmp_path, space=None, space_directions=None, space_origin=None), "no space"),
        (written(tmp_path, space_origin=None), "space origin"),
        (written(tmp_path, space_units=["cm"] * 3), "not mm"),
        (
            written(tmp_path, np.zeros((4, 5, 6, 2), np.int16), space_directions=np.vstack([DIRECTIONS, [np.nan] * 3])),
            "4D",
        ),
        (written(tmp_path, holes), "2 of 120 voxels are NaN"),
        (written(tmp_path, space_directions=[[1, 0, 0], [1, 0, 0], [0, 0, 1]]), "singular affine"),
        (raw[:-1], "cut short: 240 bytes of voxels expected, 239 found"),
        (raw[:40], "without the empty line"),
        (gzip.compress(raw), "packed as a whole; unpack it"),
        (written(tmp_path)[:-12], "gzip file that is cut short"),
        (written(tmp_path, encoding="bzip2")[:-50], "cut short"),
        (edited(tmp_path, b"encoding: raw", b"encoding: hex"), "neither raw, gzip nor bzip2"),
        (edited(tmp_path, b"encoding: raw", b"encoding: raw\ndata file: /etc/passwd"), "in another file"),
        (
            edited(tmp_path, b"encoding: raw", b"encoding: raw\nbyte skip: 3"),
            "a byte skip: voxels that begin elsewhere",
        ),
        (edited(tmp_path, b"type: int16", b"type: block"), "voxels that are no numbers"),
        (edited(tmp_path, b"endian: little", b"endian: middle"), "endian"),
        (edited(tmp_path, b"sizes: 4 5 6", b"sizes: 4 x 6"), "damaged header"),
        (edited(tmp_path, b"sizes: 4 5 6", b"sizes: 9999999 9999999 6"), "more than"),
    ]
    for data, reason in cases:
        with pytest.raises(Unreadable, match=reason) as error:
            read_volume(data)
        assert "\n" not in str(error.value)


@pytest.mark.real_data
def test_real_masks_of_two_raters_are_on_one_grid() -> None:
    files = sorted(shared_data("organ_masks_two_raters").rglob("*.nrrd"))
    first = read_volume(files[0].read_bytes())
    assert first.spacing_mm == pytest.approx((0.977, 0.977, 2.5), abs=0.01)
    theirs, _ = nrrd.read(str(files[0]))
    assert np.array_equal(first.voxels, theirs)
    for path in files[1:]:
        with path.open("rb") as stream:
            assert same_grid(read_volume_header(stream), first)
