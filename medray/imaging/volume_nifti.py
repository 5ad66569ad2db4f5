"""NIfTI volumes, version 1 and 2, plain or compressed: bytes in, bytes out.

nibabel reads the header and picks the affine: the sform where its code is above 0, else the qform, else the spacing
alone. The voxels are taken from the bytes here, so that a compressed file is unpacked as far as its header says and no
further.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from medray.imaging.types import Unreadable, Volume, VolumeHeader
from medray.imaging.volume_checks import check_bytes, finite, native, sound_affine, three_axes

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

GZIP = b"\x1f\x8b"
_SIZES = {348: 1, 540: 2}  # bytes of the header → version
_MM = {"meter": 1000.0, "micron": 0.001}
_LEVEL = 6  # of compression: zlib's own


def begins_like_nifti(first: bytes) -> bool:
    """Whether unpacked bytes begin with the size of a NIfTI header, in either byte order."""
    return any(int.from_bytes(first[:4], order) in _SIZES for order in ("little", "big"))  # type: ignore[arg-type]


def unpacked(stream: BinaryIO, size: int) -> bytes:
    """Up to ``size`` bytes of a stream at its start, unpacked where it is a gzip file.

    Raises:
        Unreadable: a gzip file that is cut short or damaged before that many bytes.
    """
    first = stream.read(2)
    stream.seek(0)
    if first != GZIP:
        return stream.read(size)
    try:
        return gzip.GzipFile(fileobj=stream, mode="rb").read(size)
    except EOFError:
        raise Unreadable("a gzip file that is cut short; copy it anew") from None
    except (zlib.error, gzip.BadGzipFile):
        raise Unreadable("a gzip file that is damaged; copy it anew") from None


@contextmanager
def _damaged() -> Iterator[None]:
    """nibabel stumbles over damaged headers in many ways: they are one."""
    try:
        yield
    except (Unreadable, MemoryError):
        raise
    except Exception as error:
        raise Unreadable(
            f"NIfTI with a damaged header ({type(error).__name__}); copy the file anew, or export it again"
        ) from None


@_damaged()
def read_header(stream: BinaryIO) -> VolumeHeader:
    """What the header says, without the voxels. Raises Unreadable."""
    header, _ = _header(unpacked(stream, 540))
    check_bytes(_shape(header), _dtype(header), "NIfTI")
    return VolumeHeader("nifti", _shape(header), _affine(header), _dtype(header).newbyteorder("=").name)


@_damaged()
def read(data: bytes) -> Volume:
    """Decode a volume. Raises Unreadable."""
    header, block = _header(unpacked(io.BytesIO(data), 540))
    shape, affine, dtype = _shape(header), _affine(header), _dtype(header)
    start, size = int(header.get_data_offset()), check_bytes(shape, dtype, "NIfTI")
    if not len(block) <= start <= len(block) + (1 << 24):
        raise Unreadable(f"NIfTI whose voxels begin at byte {start}; the header is damaged, copy the file anew")
    # one byte more: at the end of a gzip file its check sum is compared
    raw = unpacked(io.BytesIO(data), start + size + 1)
    if len(raw) < start + size:
        raise Unreadable(f"NIfTI that is cut short: {start + size:,} bytes expected, {len(raw):,} found; copy it anew")
    slope, intercept = header.get_slope_inter()
    stored = np.frombuffer(raw, dtype, count=size // dtype.itemsize, offset=start).reshape(shape, order="F")
    voxels = native(stored, 1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept))
    return finite(Volume(voxels, affine, "nifti", block))


def nifti_bytes(array: np.ndarray, like: Volume) -> bytes:
    """An answer on the grid of a volume, as a .nii.gz whose bytes depend on nothing but the arguments.

    Where the volume came from a NIfTI file, the answer has its header: the affine, the codes of sform and qform, and
    units. What describes its values (type, scale, range of display, intent) is the answer's, and free text, in which some
    programs put the patient's name, is left out.

    Args:
        array: (D, H, W), integers or floats; bool is written as uint8.
    Raises:
        ValueError: another shape than the volume's.
    """
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    if array.shape != like.voxels.shape:
        raise ValueError(f"an answer of shape {array.shape} for a volume of shape {like.voxels.shape}")
    values = array.astype(np.uint8) if array.dtype == bool else array
    kind = Nifti2Header if like.header is not None and len(like.header) == 540 else Nifti1Header
    if like.header is None:
        header = kind()
        header.set_data_shape(array.shape)
        header.set_sform(like.affine, code="scanner")
        header.set_qform(like.affine, code="scanner", strip_shears=True)
        header.set_xyzt_units("mm")
    else:
        header = kind.from_fileobj(io.BytesIO(like.header), check=False)
        header.set_data_shape(array.shape)
    header.set_data_dtype(values.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    header.set_intent("none")
    for name in ("descrip", "aux_file", *(own for own in ("db_name", "data_type") if own in header)):
        header[name] = b""
    header["magic"] = header.single_magic
    header.set_data_offset(len(header.binaryblock) + 4)
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=packed, mode="wb", compresslevel=_LEVEL, mtime=0) as file:
        file.write(header.binaryblock + bytes(4))  # four zeros: no extensions
        file.write(values.astype(header.get_data_dtype(), copy=False).tobytes(order="F"))
    return packed.getvalue()


def _header(first: bytes) -> tuple[Nifti1Header, bytes]:
    """The header in the first bytes of an unpacked file, and its own bytes."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    sizes = [int.from_bytes(first[:4], order) for order in ("little", "big")]  # type: ignore[arg-type]
    size = next((size for size in sizes if size in _SIZES), 0)
    if not size:
        raise Unreadable("not a NIfTI file: its first number is no header's size; export the volume as .nii or .nii.gz")
    if len(first) < size:
        raise Unreadable(f"NIfTI that is cut short: a header of {size} bytes, {len(first)} found; copy it anew")
    block = first[:size]
    header = (Nifti1Header if size == 348 else Nifti2Header).from_fileobj(io.BytesIO(block), check=False)
    magic = bytes(header["magic"].item())
    if magic.startswith(b"ni"):
        raise Unreadable("the header of a NIfTI pair, without its voxels; join .hdr and .img in one .nii file")
    if not magic.startswith(b"n+"):
        raise Unreadable(
            "not a NIfTI file: no mark of it (Analyze 7.5 has no orientation); export the volume as .nii.gz"
        )
    return header, block


def _shape(header: Nifti1Header) -> tuple[int, int, int]:
    axes = int(header["dim"][0])
    if not 0 <= axes <= 7:
        raise Unreadable(f"NIfTI of {axes} axes; the header is damaged, copy the file anew")
    return three_axes(header["dim"][1 : axes + 1].tolist(), "NIfTI")


def _dtype(header: Nifti1Header) -> np.dtype:
    try:
        dtype = header.get_data_dtype()
    except KeyError:
        raise Unreadable(
            f"NIfTI with voxels of the unknown type {int(header['datatype'])}; copy the file anew"
        ) from None
    if dtype.kind not in "iuf":
        raise Unreadable(
            f"NIfTI with voxels of type {dtype}: colours or complex numbers; export one grey value a voxel"
        )
    return dtype


def _affine(header: Nifti1Header) -> np.ndarray:
    from nibabel.spatialimages import HeaderDataError

    try:
        affine = np.array(header.get_best_affine(), dtype=np.float64)
    except (ValueError, HeaderDataError, np.linalg.LinAlgError):
        raise Unreadable("NIfTI with a qform that is no rotation; write it anew with a valid orientation") from None
    try:
        unit = header.get_xyzt_units()[0]
    except KeyError:
        unit = "mm"
    affine[:3] *= _MM.get(unit, 1.0)
    return sound_affine(affine, "NIfTI")
