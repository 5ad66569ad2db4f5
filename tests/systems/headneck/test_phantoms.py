"""Drawn heads: organs of a thousandfold range, each on its side, read by the system's own source."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from medray.imaging.volume import read_volume
from medray.shards.files import Files
from medray.systems.headneck.cases import read_cases
from medray.systems.headneck.phantom_head import ORGANS, SMALL
from medray.systems.headneck.phantoms import PhantomHeads, PhantomSpec
from medray.systems.headneck.source import CT, PlanningCT

SPEC = PhantomSpec(patients=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("phantoms")
    phantoms = PhantomHeads(SPEC)
    phantoms.finish(path, [phantoms.write(path, piece) for piece in phantoms.pieces(path)])
    return path


def test_they_are_there_once_and_the_same_again(folder: Path, tmp_path: Path) -> None:
    assert PhantomHeads(SPEC).pieces(folder) == []
    with pytest.raises(ValueError, match="phantoms of another specification"):
        PhantomHeads(PhantomSpec(patients=3)).pieces(folder)
    PhantomHeads(SPEC).write(tmp_path, 2)
    one, other = (
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (at / "p02").rglob("*.gz")}
        for at in (folder, tmp_path)
    )
    assert one == other


def test_organs_differ_a_thousandfold_and_lie_on_their_sides(folder: Path) -> None:
    volumes = {}
    for path in (folder / "p01" / "organs").glob("*.nii.gz"):
        mask = read_volume(path.read_bytes())
        volumes[path.name.split(".")[0]] = float((mask.voxels > 0).sum())
        right_mm = (mask.affine @ [*np.argwhere(mask.voxels).mean(axis=0), 1])[0]
        if path.name[-9:-7] in ("_L", "_R"):
            assert (right_mm > 0) == path.name.endswith("_R.nii.gz"), path.name
    assert max(volumes.values()) / min(volumes.values()) > 1000
    assert min(volumes.values()) >= 8
    assert {*volumes} <= {*ORGANS}
    assert {*SMALL} <= {*ORGANS}


def test_the_source_reads_them_and_some_organs_are_unknown(folder: Path) -> None:
    cases = read_cases(str(folder)).table
    assert cases is not None
    drawn = []
    for case in cases.to_dict("records"):
        files = {CT: [Path(case["ct"]).read_bytes()]} | {o: [Path(p).read_bytes()] for o, p in case["organs"].items()}
        (row,) = PlanningCT(organs=tuple(ORGANS)).encode(Files(files), [{}])
        assert row.columns is not None
        drawn.append(row.columns["drawn"])
        assert sum(row.columns["drawn"]) == len(case["organs"])
    assert 0.6 < np.mean(drawn) < 1
