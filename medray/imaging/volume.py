"""Volumes of one image: NIfTI, NRRD or the DICOM files of one series, told apart by their bytes and not by their names."""

from __future__ import annotations

import io
from types import ModuleType
from typing import BinaryIO

from medray.imaging import volume_dicom, volume_nifti, volume_nrrd
from medray.imaging.elements import begins_like_dicom
from medray.imaging.types import Unreadable, Volume, VolumeHeader

_FIRST_BYTES = 132


def read_volume_header(stream: BinaryIO, allow_burned_in: bool = True) -> VolumeHeader:
    """What a file says of its volume, without decoding the voxels.

    Args:
        stream: a binary file object at its start, which can seek.
        allow_burned_in: read a DICOM image into which text may be burned, too.
    Raises:
        Unreadable: no such file format, or a header that makes no volume; or as
            ``medray.imaging.burned_in.check_burned_in`` where that is not allowed.
    """
    reader = _reader(_beginning(stream))
    if reader is volume_dicom:
        return volume_dicom.read_header(stream, allow_burned_in)
    header: VolumeHeader = reader.read_header(stream)
    return header


def read_volume(data: bytes | list[bytes], name: str = "") -> Volume:
    """Decode a volume, in memory: nothing is written, and no more is unpacked than the header says.

    Args:
        data: the bytes of a NIfTI or NRRD file; or of the DICOM files of one series, in any order.
        name: what is read, such as "flair"; errors begin with it.
    Raises:
        Unreadable: as ``read_volume_header``, and for voxels that are missing, damaged, NaN or infinite.
    """
    try:
        return _volume([data] if isinstance(data, bytes) else data)
    except Unreadable as error:
        raise Unreadable(f"{name}: {error}" if name else str(error)) from None


def _volume(files: list[bytes]) -> Volume:
    reader = _reader(_beginning(io.BytesIO(files[0])) if files else b"")
    if reader is volume_dicom:
        return volume_dicom.read_series(files)
    if len(files) != 1:
        raise Unreadable(f"{len(files)} files for one volume: only DICOM has a file a slice; give one file")
    return reader.read(files[0])


def _beginning(stream: BinaryIO) -> bytes:
    """The first bytes, unpacked where it is a gzip file."""
    first = volume_nifti.unpacked(stream, _FIRST_BYTES)
    stream.seek(0)
    return first


def _reader(first: bytes) -> ModuleType:
    if not first:
        raise Unreadable("an empty file; copy it anew")
    if volume_nifti.begins_like_nifti(first):
        return volume_nifti
    if volume_nrrd.begins_like_nrrd(first):
        return volume_nrrd
    if begins_like_dicom(first):
        return volume_dicom
    raise Unreadable("neither NIfTI, NRRD nor DICOM; export the volume as .nii.gz")
