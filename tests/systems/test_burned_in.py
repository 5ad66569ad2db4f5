"""Every system's source sets files aside into which text may be burned, unless a flag allows them."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chest_films import dicom, noise
from conftest import JOBS
from ct_files import ct
from volume_files import as_bytes, mr_series

from medray.engine.derive.scan import scan_here, scan_new
from medray.shards.source import Source
from medray.shards.store import Store
from medray.systems.boneage.films.source import HandFilm
from medray.systems.chest.source import Radiograph
from medray.systems.fewlabel.source import FewLabelCT
from medray.systems.headneck.source import PlanningCT
from medray.systems.ich.source import HeadCT
from medray.systems.lesion.source import BrainMR


def film(**tags: Any) -> bytes:
    return dicom(noise(), **tags)


def ct_slice(**tags: Any) -> bytes:
    return as_bytes(ct(1, **tags))


def mr_slice(**tags: Any) -> bytes:
    return as_bytes(mr_series(np.zeros((2, 20, 20), np.int16), **tags)[0])


SOURCES: list[tuple[Source, Callable[..., bytes]]] = [
    (HeadCT(), ct_slice), (Radiograph(), film), (HandFilm(), film), (BrainMR(), mr_slice), (PlanningCT(), ct_slice),
    (FewLabelCT(), ct_slice),
]  # fmt: skip


@pytest.mark.parametrize(("source", "made"), SOURCES, ids=[type(source).__name__ for source, _ in SOURCES])
def test_a_source_takes_them_where_its_flag_says_so(source: Source, made: Callable[..., bytes], tmp_path: Path) -> None:
    (tmp_path / "plain.dcm").write_bytes(made())
    (tmp_path / "says.dcm").write_bytes(made(BurnedInAnnotation="YES"))
    (tmp_path / "screen.dcm").write_bytes(made(SOPClassUID="1.2.840.10008.5.1.4.1.1.7"))
    folder = Store(tmp_path)
    files, allowed = folder.files(), replace(source, allow_burned_in=True)
    found = scan_here(source, folder, files)
    assert found["status"].tolist() == ["ok", "quarantined", "quarantined"]
    assert found["reason"][1:].str.contains("--allow-burned-in takes them").all()
    assert scan_here(allowed, folder, files)["status"].tolist() == ["ok"] * 3
    # a prediction's answers go back to whoever owns the files
    assert scan_new(source, folder, files)["status"].tolist() == ["ok"] * 3
    # the pixels of a row are the same: shards of before the flag are gone on with
    assert allowed.identity() == source.identity()
    assert source.scan(io.BytesIO(made(BurnedInAnnotation="NO")))


def test_every_job_that_makes_shards_has_the_flag(run_in_process: Callable[..., tuple[int, str]]) -> None:
    for path in sorted(JOBS.glob("*_cv.py")) + sorted(JOBS.glob("*_tune.py")):
        status, text = run_in_process(path.stem, "--help")
        assert status == 0
        assert "--allow-burned-in" in text, path.stem
