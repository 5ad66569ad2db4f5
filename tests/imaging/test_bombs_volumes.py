"""Volumes whose files unpack to gigabytes: no more is unpacked than a header states, and no more stated than a volume can have."""

from __future__ import annotations

import bz2
import gzip
import io
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bombs import deflated
from measured import VOLUME, measured
from nibabel.nifti1 import Nifti1Header
from volume_files import mr_series, nifti

from medray.imaging.structure_set import RT_STRUCTURE_SET, read_structure_set
from medray.imaging.types import Unreadable
from medray.imaging.volume import read_volume

MOST_BYTES = 4e8
"""Of the process above what it takes for a plain volume: these are small, whatever stands behind their voxels."""
SMALL = (np.arange(32**3, dtype=np.int16) % 977).reshape(32, 32, 32)
NRRD = """NRRD0004
type: int16
dimension: 3
sizes: {}
endian: little
encoding: {}
space: left-posterior-superior
space directions: (1,0,0) (0,1,0) (0,0,1)
space origin: (0,0,0)
{}
"""


def packed(first: bytes, zeros: int) -> bytes:
    """gzip of some bytes and gigabytes of zeros behind them."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    pieces = [packer.compress(first), *(packer.compress(bytes(1 << 20)) for _ in range(zeros >> 20))]
    return b"".join([*pieces, packer.flush()])


def stating(shape: tuple[int, ...], dtype: str) -> bytes:
    """A NIfTI header alone, of the largest volume; its voxels are not there."""
    header = Nifti1Header.from_fileobj(io.BytesIO(nifti(SMALL)))
    header.set_data_dtype(dtype)
    header["dim"] = [3, *shape, 1, 1, 1, 1]
    return header.binaryblock + bytes(4)


def nrrd(sizes: str = "32 32 32", encoding: str = "raw", data: bytes = b"", more: str = "") -> bytes:
    return NRRD.format(sizes, encoding, more).replace("\n\n", "\n").encode() + b"\n" + data


def many_bz2(size: int) -> bytes:
    packer = bz2.BZ2Compressor()
    return b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)), packer.flush()])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bomb", "reason"),
    [
        (lambda: packed(nifti(SMALL), 3 << 30), "read"),
        (lambda: gzip.compress(stating((512, 1024, 1024), "float32")), "NIfTI that is cut short: 2,147,484,000 bytes"),
        (lambda: gzip.compress(stating((512, 1024, 1024), "float64")), "NIfTI of 4,294,967,296 bytes of voxels"),
        (lambda: gzip.compress(stating((513, 1024, 1024), "uint8")), "more than 536,870,912 voxels"),
        (lambda: nrrd(encoding="gzip", data=packed(SMALL.tobytes(), 3 << 30)), "read"),
        (lambda: nrrd("1024 1024 512", "gzip", packed(b"", 1 << 20)), "NRRD that is cut short: 1,073,741,824 bytes"),
        (lambda: nrrd("1024 1024 513", "gzip", packed(b"", 1 << 20)), "more than 536,870,912 voxels"),
        (lambda: nrrd(encoding="bzip2", data=many_bz2(1 << 30)), "read"),
        (lambda: packed(nrrd(data=SMALL.tobytes()), 3 << 30), "packed as a whole; unpack it"),
        (lambda: nrrd("2 " * 400_000), "NRRD of shape (2 × 2 × 2 × 2 × 2 × 2 × 2 × 2 × …): 400000D"),
    ],
    ids=["nifti", "nifti cut", "nifti bytes", "nifti states", "nrrd", "nrrd cut", "nrrd states", "nrrd bzip2", "nrrd in gzip", "nrrd axes"],
)  # fmt: skip
def test_it_is_done_with_in_little_memory(bomb: Callable[[], bytes], reason: str, tmp_path: Path) -> None:
    found = measured(VOLUME, nifti(SMALL), bomb(), tmp_path)
    assert found["plain"] == "read"
    assert reason in found["why"], found
    assert len(found["why"]) < 400
    assert found["more_bytes"] < MOST_BYTES, found


@pytest.mark.parametrize(
    "where", ["data file: a.raw", "datafile: ../a.raw", "data file: LIST", "data file: a%d.raw 1 9 1"]
)
def test_an_nrrd_whose_voxels_lie_elsewhere_is_refused(where: str) -> None:
    with pytest.raises(Unreadable, match="voxels are in another file; write both as one .nrrd"):
        read_volume(nrrd(more=where))


def test_a_structure_set_inflates_to_no_more_than_one_has() -> None:
    (image,) = mr_series(SMALL[:1], SOPClassUID=RT_STRUCTURE_SET)
    image.file_meta.MediaStorageSOPClassUID = RT_STRUCTURE_SET
    with pytest.raises(Unreadable, match="a deflated data set of more than 128 MB"):
        read_structure_set(deflated(image, 256 << 20))


@pytest.mark.slow
def test_the_largest_volume_takes_what_security_md_says(tmp_path: Path) -> None:
    """Half a megabyte that unpacks to as many voxels as there may be, each of them scaled."""
    header = Nifti1Header.from_fileobj(io.BytesIO(stating((512, 1024, 1024), "uint8")))
    header["scl_slope"], header["scl_inter"] = 1.5, 1.0
    bomb = packed(header.binaryblock + bytes(4), 1 << 29)
    assert len(bomb) < 5e6
    found = measured(VOLUME, nifti(SMALL), bomb, tmp_path)
    assert found["why"] == "read"
    assert 2e9 < found["more_bytes"] < 4e9, found
