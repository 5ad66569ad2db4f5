"""What a CT becomes in a shard: which voxels are the body, and what memory it takes of one who reads it."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import ndimage
from volume_files import nifti

from medray.imaging.types import Volume
from medray.shards.files import Files
from medray.systems.headneck.source import CT, PlanningCT
from medray.tasks import ct_rows


@pytest.mark.parametrize("spacing_mm", [(3.0, 1.0, 1.0), (1.0, 2.0, 2.5), (7.0, 1.5, 1.5)])
def test_the_body_with_its_margin_is_the_same_a_few_slices_at_a_time(
    spacing_mm: tuple[float, float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ct_rows, "_SLICES_AT_ONCE", 3)
    rng = np.random.default_rng(0)
    hu = np.full((17, 60, 58), -1000, np.float32)
    for _ in range(6):
        at = rng.integers(2, 13, 3)
        hu[at[0] : at[0] + 3, at[1] : at[1] + 9, at[2] : at[2] + 9] = 40
    body = ct_rows.body_of(Volume(hu, np.diag([*spacing_mm, 1.0])))
    tight = ndimage.binary_opening(hu > -400)
    parts, _ = ndimage.label(tight)
    largest = parts == 1 + np.bincount(parts.ravel())[1:].argmax()
    filled = np.stack([ndimage.binary_fill_holes(one) for one in largest])
    near = ndimage.distance_transform_edt(~filled, sampling=spacing_mm) <= 5
    assert filled.sum() < near.sum() < near.size
    assert np.array_equal(body, near)


def test_a_reader_of_twenty_organs_takes_a_few_bytes_of_a_voxel() -> None:
    """A planning CT of 512 × 512 × 150 took 3.4 GB, of which several readers on a node make the end of it."""
    shape, organs = (72, 64, 64), tuple(f"Organ{i}" for i in range(20))
    hu = np.full(shape, -1000, np.int16)
    hu[:, 10:54, 10:54] = 40
    affine = np.array([[0, 0, -1.5, 0], [0, -1.5, 0, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]])
    files = {CT: [nifti(hu, affine)]}
    for i, organ in enumerate(organs):
        mask = np.zeros(shape, np.uint8)
        mask[i : i + 4, 20:30, 20 + i : 40 + i] = 1
        files[organ] = [nifti(mask, affine)]
    source = PlanningCT(organs=organs)
    tracemalloc.start()
    source.encode(Files(files), [{}])
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken < 65 * hu.size  # 20 of them the masks themselves, and as many their copies with other axes
