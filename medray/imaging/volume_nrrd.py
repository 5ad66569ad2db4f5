"""NRRD volumes with their voxels in the same file, raw or packed with gzip or bzip2; the header is pynrrd's to parse.

A file may name another one that holds its voxels. That one is not opened: what it names is the file's word.
"""

from __future__ import annotations

import bz2
import io
import re
from typing import Any, BinaryIO

import numpy as np

from medray.imaging.types import Unreadable, Volume, VolumeHeader
from medray.imaging.volume_checks import check_bytes, finite, native, sound_affine, three_axes
from medray.imaging.volume_nifti import unpacked

_MAGIC, _GZIP = b"NRRD000", b"\x1f\x8b"
_MOST_HEADER_BYTES = 1 << 20
_TO_RAS = {
    "left-posterior-superior": (-1.0, -1.0, 1.0),
    "right-anterior-superior": (1.0, 1.0, 1.0),
    "left-anterior-superior": (-1.0, 1.0, 1.0),
}
_SHORT = {"LPS": "left-posterior-superior", "RAS": "right-anterior-superior", "LAS": "left-anterior-superior"}


def begins_like_nrrd(first: bytes) -> bool:
    return first.startswith(_MAGIC)


def read_header(stream: BinaryIO) -> VolumeHeader:
    """What the header says, without the voxels. Raises Unreadable."""
    header, _ = _header(stream.read(_MOST_HEADER_BYTES))
    check_bytes(_shape(header), _dtype(header), "NRRD")
    return VolumeHeader("nrrd", _shape(header), _affine(header), _dtype(header).newbyteorder("=").name)


def read(data: bytes) -> Volume:
    """Decode a volume. Raises Unreadable."""
    header, start = _header(data[:_MOST_HEADER_BYTES])
    shape, affine, dtype = _shape(header), _affine(header), _dtype(header)
    size = check_bytes(shape, dtype, "NRRD")
    raw = _voxels(header, data[start:], size)
    if len(raw) < size:
        raise Unreadable(f"NRRD that is cut short: {size:,} bytes of voxels expected, {len(raw):,} found; copy it anew")
    voxels = native(np.frombuffer(raw, dtype, count=size // dtype.itemsize).reshape(shape, order="F"))
    return finite(Volume(voxels, affine, "nrrd"))


def _header(first: bytes) -> tuple[dict[str, Any], int]:
    """The fields, and where the voxels begin: behind the first empty line."""
    import nrrd

    if first.startswith(_GZIP):
        raise Unreadable(
            "an NRRD file that is packed as a whole; unpack it: NRRD packs its own voxels (encoding: gzip)"
        )
    end = re.search(rb"\n\r?\n", first)
    if end is None:
        raise Unreadable("NRRD without the empty line that ends its header: cut short or damaged; copy it anew")
    try:
        header = nrrd.read_header(first[: end.start()].decode("ascii", "replace").splitlines())
    except Exception as error:  # of many types: what a field's text makes of its parser
        raise Unreadable(f"NRRD with a damaged header ({type(error).__name__}); write it anew") from None
    if "data file" in header or "datafile" in header:
        raise Unreadable("NRRD whose voxels are in another file; write both as one .nrrd")
    for name in ("line skip", "lineskip", "byte skip", "byteskip"):
        if header.get(name):
            raise Unreadable(f"NRRD with a {name}: voxels that begin elsewhere; write it anew")
    return header, end.end()


def _shape(header: dict[str, Any]) -> tuple[int, int, int]:
    return three_axes(np.atleast_1d(header.get("sizes", [])).tolist(), "NRRD")


def _dtype(header: dict[str, Any]) -> np.dtype:
    from nrrd.reader import _TYPEMAP_NRRD2NUMPY

    name = str(header.get("type", "")).lower()
    code = _TYPEMAP_NRRD2NUMPY.get(name)
    if code is None or np.dtype(code).kind not in "iuf":
        raise Unreadable("NRRD with voxels that are no numbers; write them as one number each")
    dtype = np.dtype(code)
    if dtype.itemsize > 1 and header.get("endian") not in ("little", "big"):
        raise Unreadable("NRRD without an endian field (little or big); write it anew")
    return dtype.newbyteorder(">" if header.get("endian") == "big" else "<")


def _affine(header: dict[str, Any]) -> np.ndarray:
    space = str(header.get("space", ""))
    known = _SHORT.get(space.upper(), space.lower())
    if known not in _TO_RAS:
        was = "a space that is none of a patient's axes" if space else "no space"
        raise Unreadable(f"NRRD with {was}: its orientation is not known; write it anew in LPS or RAS")
    if any(unit != "mm" for unit in header.get("space units", []) or []):
        raise Unreadable("NRRD with space units that are not mm; write it anew in mm")
    directions = np.array(header.get("space directions", []), dtype=np.float64)
    origin = np.array(header.get("space origin", []), dtype=np.float64)
    if directions.ndim != 2 or directions.shape[0] < 3 or directions.shape[1] != 3 or origin.shape != (3,):
        raise Unreadable("NRRD without space directions of three axes and a space origin; write it anew with both")
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = directions[:3].T, origin
    affine[:3] *= np.array(_TO_RAS[known])[:, None]
    return sound_affine(affine, "NRRD")


def _voxels(header: dict[str, Any], packed: bytes, size: int) -> bytes:
    """Unpacked, up to one byte more than needed."""
    encoding = str(header.get("encoding", "")).lower()
    if encoding == "raw":
        return packed[: size + 1]
    if encoding in ("gzip", "gz"):
        return unpacked(io.BytesIO(packed), size + 1)
    if encoding in ("bzip2", "bz2"):
        try:
            return bz2.BZ2Decompressor().decompress(packed, size + 1)
        except OSError:
            raise Unreadable("bzip2 voxels that are damaged; copy the file anew") from None
    raise Unreadable("NRRD of an encoding that is neither raw, gzip nor bzip2; write it as raw or gzip")
