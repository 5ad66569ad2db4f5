"""What every DICOM answer to a series shares: the headers of its slices, identifiers that follow from the content."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# the standard wants these in every image, empty where they are not known (type 2); an anonymiser may take them out whole
_MAY_BE_EMPTY = (
    "AccessionNumber", "PatientBirthDate", "PatientID", "PatientName", "PatientSex", "ReferringPhysicianName", "StudyDate",
    "StudyID", "StudyTime",
)  # fmt: skip
SERIES_NUMBER = 900  # behind those of a scanner


def sources_of(files: Sequence[bytes], wanted: Sequence[int]) -> list[Dataset]:
    """The headers of ``files`` in the order ``wanted``, with empty elements for what the standard allows to be empty."""
    from pydicom import dcmread

    sources: list[Dataset] = [dcmread(io.BytesIO(files[k]), stop_before_pixels=True, force=True) for k in wanted]
    for source in sources:
        for name in _MAY_BE_EMPTY:
            if name not in source:
                setattr(source, name, "")
    return sources


def uid_of(what: str, content: str) -> str:
    """A UID that is the same for the same content, and another one for each ``what``."""
    from pydicom.uid import generate_uid

    return str(generate_uid(entropy_srcs=[what, content]))


def time_of_study(source: Dataset) -> tuple[str, str]:
    """Date and time of the study, in place of the clock's: the same arguments give the same bytes."""
    return source.get("StudyDate") or "19000101", source.get("StudyTime") or "000000"
