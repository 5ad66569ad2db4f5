"""What holds for volumes of each kind of file."""

from __future__ import annotations

import gzip
import io
import random
from collections.abc import Callable
from pathlib import Path

import nrrd
import numpy as np
import pytest
from volume_files import OBLIQUE, as_bytes, mr_series, nifti

from medray.imaging.types import Unreadable, Volume
from medray.imaging.volume import read_volume, read_volume_header
from medray.imaging.volume_checks import class_numbers

VOXELS = np.random.default_rng(0).integers(0, 900, (4, 5, 6)).astype(np.int16)


def as_nrrd(folder: Path) -> bytes:
    header = {"space": "RAS", "space directions": OBLIQUE[:3, :3].T, "space origin": OBLIQUE[:3, 3], "encoding": "raw"}
    nrrd.write(str(folder / "a.nrrd"), VOXELS, header)
    return (folder / "a.nrrd").read_bytes()


MAKERS: dict[str, Callable[[Path], bytes]] = {
    "nifti": lambda _: nifti(VOXELS),
    "packed nifti": lambda _: gzip.compress(nifti(VOXELS)),
    "nrrd": as_nrrd,
    "dicom": lambda _: as_bytes(mr_series(VOXELS)[0]),
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_is_read_or_unreadable(kind: str, tmp_path: Path) -> None:
    """Bytes changed, lost or doubled, in the header most of all: a line that says why, and nothing else."""
    whole = MAKERS[kind](tmp_path)
    others = [as_bytes(dataset) for dataset in mr_series(VOXELS)[1:]] if kind == "dicom" else []
    rng = random.Random(0)
    reasons = []
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 1, 2, 8])):
            at = rng.randrange(min(len(data), 900))
            how = rng.randrange(4)
            if how == 0:
                data[at] = rng.randrange(256)
            elif how == 1:
                data[at] ^= 1 << rng.randrange(8)
            elif how == 2:
                del data[at : at + rng.choice([1, 4, 100])]
            else:
                data[at:at] = data[at : at + rng.choice([1, 8])]
        try:
            read_volume_header(io.BytesIO(bytes(data)))
            read_volume([bytes(data), *others])
        except Unreadable as error:
            reasons.append(str(error))
    assert len(reasons) > 20
    assert all("\n" not in reason and len(reason) < 300 for reason in reasons)


def test_numbers_of_classes_are_whole_and_known() -> None:
    def mask(*values: float) -> Volume:
        return Volume(np.array(values, dtype=np.float32).reshape(-1, 1, 1), OBLIQUE)

    assert class_numbers(mask(0, 1, 2, 255), (1, 2)).ravel().tolist() == [0, 1, 2, 255]
    assert class_numbers(mask(0, 1), (1,)).dtype == np.uint8
    with pytest.raises(
        Unreadable, match=r"values that are no class \(0.5, 3\); 0 is the background, 1 and 2 the classes"
    ):
        class_numbers(mask(0, 0.5, 3, 1), (1, 2))
    with pytest.raises(Unreadable, match=r"no class \(-1, 3, 4, 5, 6, ...\).*255 what is not known"):
        class_numbers(mask(-1, 3, 4, 5, 6, 7, 8), (1,))
