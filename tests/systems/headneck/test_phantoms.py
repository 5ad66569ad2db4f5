"""Drawn heads: organs of a thousandfold range, each on its side, read by the system's own source."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from medray.imaging.volume import read_volume
from medray.shards.files import Files
from medray.systems.headneck.cases import read_cases
from medray.systems.headneck.phantom_head import ORGANS, SMALL, draw
from medray.systems.headneck.phantoms import PhantomHeads, PhantomSpec
from medray.systems.headneck.source import CT, PlanningCT

SPEC = PhantomSpec(patients=2, hidden=0.2, seed=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("phantoms")
    phantoms = PhantomHeads(SPEC)
    phantoms.finish(path, [phantoms.write(path, piece) for piece in phantoms.pieces(path)])
    return path


def test_they_are_there_once_and_the_same_again(folder: Path, tmp_path: Path) -> None:
    assert PhantomHeads(SPEC).pieces(folder) == []
    with pytest.raises(ValueError, match="phantoms of another specification"):
        PhantomHeads(PhantomSpec(patients=3, hidden=0.2, seed=2)).pieces(folder)
    PhantomHeads(SPEC).write(tmp_path, 2)
    one, other = (
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (at / "plans" / "p02").rglob("*.gz")}
        for at in (folder, tmp_path)
    )
    assert one == other


def test_organs_differ_a_thousandfold_and_lie_on_their_sides(folder: Path) -> None:
    _, masks = draw(np.random.default_rng(0))
    volumes = [int(mask.sum()) for mask in masks.values()]
    assert max(volumes) / min(volumes) > 1000
    assert min(volumes) >= 8
    assert {*SMALL} <= {*masks} == {*ORGANS}
    sided = [
        path for path in (folder / "plans" / "p01" / "organs").glob("*.nii.gz") if path.name[-9:-7] in ("_L", "_R")
    ]
    assert sided
    for path in sided:
        mask = read_volume(path.read_bytes())
        right_mm = (mask.affine @ [*np.argwhere(mask.voxels).mean(axis=0), 1])[0]
        assert (right_mm > 0) == path.name.endswith("_R.nii.gz"), path.name


def test_the_source_reads_them_and_some_organs_are_unknown(folder: Path) -> None:
    cases = read_cases(str(folder / "plans")).table
    assert cases is not None
    drawn = []
    for case in cases.to_dict("records"):
        files = {CT: [Path(case["ct"]).read_bytes()]} | {o: [Path(p).read_bytes()] for o, p in case["organs"].items()}
        (row,) = PlanningCT(organs=tuple(ORGANS)).encode(Files(files), [{}])
        assert row.columns is not None
        drawn.append(row.columns["drawn"])
        assert sum(row.columns["drawn"]) == len(case["organs"])
    assert 0.6 < np.mean(drawn) < 1
