"""Images into which text may be burned, slices, films and volumes alike: told by their headers."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from chest_films import dicom, noise
from ct_files import ct
from nibabel.nifti1 import Nifti1Image
from volume_files import as_bytes, enhanced, mr_series

from medray.imaging.dicom import read_headers
from medray.imaging.radiograph import read_film_header
from medray.imaging.types import Unreadable
from medray.imaging.volume import read_volume_header

CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
VOXELS = np.zeros((3, 20, 20), np.int16)
SECRET = "SMITH"


def frames(**tags: Any) -> bytes:
    image = enhanced(VOXELS, [0, 1, 2])
    for name, value in tags.items():
        setattr(image, name, value)
    return as_bytes(image)


KINDS: dict[str, tuple[Callable[..., Any], Callable[..., bytes]]] = {
    "slice": (read_headers, lambda **tags: as_bytes(ct(1, **tags))),
    "film": (read_film_header, lambda **tags: dicom(noise(), **tags)),
    "volume": (read_volume_header, lambda **tags: as_bytes(mr_series(VOXELS, **tags)[1])),
    "frames": (read_volume_header, frames),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> tuple[Callable[..., Any], Callable[..., bytes]]:
    return KINDS[request.param]


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"BurnedInAnnotation": "YES"}, "text is burned into it, as its header says (0028,0301)"),
        ({"BurnedInAnnotation": "Y"}, "text is burned into it, as its header says (0028,0301)"),
        ({"BurnedInAnnotation": SECRET}, "text is burned into it, as its header says (0028,0301)"),
        *(({"SOPClassUID": f"{CAPTURE}{end}"}, "a secondary capture") for end in ("", ".1", ".2", ".3", ".4")),
        ({"SOPClassUID": CAPTURE, "BurnedInAnnotation": "NO"}, "a secondary capture"),
    ],
)
def test_what_may_hold_text_is_refused_unless_it_is_allowed(kind: Any, tags: dict[str, str], reason: str) -> None:
    read, made = kind
    data = made(**tags)
    with pytest.raises(Unreadable) as error:
        read(io.BytesIO(data), allow_burned_in=False)
    assert str(error.value).startswith(reason)
    assert "may name the patient; look at such files, then --allow-burned-in takes them" in str(error.value)
    assert SECRET not in str(error.value)
    assert "\n" not in str(error.value)
    assert read(io.BytesIO(data), allow_burned_in=True)


@pytest.mark.parametrize(
    "tags", [{}, {"BurnedInAnnotation": "NO"}, {"BurnedInAnnotation": ""}, {"SOPClassUID": f"{CAPTURE}7.1.4"}]
)
def test_what_says_nothing_of_text_is_read(kind: Any, tags: dict[str, str]) -> None:
    read, made = kind
    assert read(io.BytesIO(made(**tags)), allow_burned_in=False)


def test_what_has_no_such_header_is_read() -> None:
    nifti = Nifti1Image(VOXELS, np.eye(4)).to_bytes()
    assert read_volume_header(io.BytesIO(nifti), allow_burned_in=False).kind == "nifti"
