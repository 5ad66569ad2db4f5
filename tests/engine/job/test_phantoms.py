"""Images that are phantoms are known for that by whoever is given them."""

from __future__ import annotations

from pathlib import Path

import pytest

from medray.engine.job.phantoms import are_phantoms, phantom_files
from medray.imaging.phantom import PhantomSet
from medray.imaging.phantom.writer import MARK
from medray.shards.store import Store
from medray.systems.boneage.phantoms.films import PhantomHands
from medray.systems.boneage.phantoms.films import PhantomSpec as HandSpec
from medray.systems.ich.phantoms import PhantomStudies
from medray.systems.lesion.phantoms import PhantomPatients, PhantomSpec


def test_files_below_a_folder_of_phantoms_are_phantoms(tmp_path: Path) -> None:
    (tmp_path / "phantoms" / "dicom").mkdir(parents=True)
    (tmp_path / "phantoms" / MARK).write_text("{}")
    assert are_phantoms(None)  # of a job that was given nothing
    for given in ("phantoms", "phantoms/dicom", "phantoms/table.csv"):
        assert are_phantoms(str(tmp_path / given))
    for given in ("", "scans", "scans/table.csv"):
        assert not are_phantoms(str(tmp_path / given))
    assert not are_phantoms("s3://bucket/phantoms?endpoint_override=localhost:1&scheme=http")


def test_the_phantoms_of_every_system_are(phantoms: PhantomSet, tmp_path: Path) -> None:
    made = PhantomPatients(PhantomSpec(patients=1))
    table, _ = made.finish(tmp_path, [made.write(tmp_path, piece) for piece in made.pieces(tmp_path)])
    assert are_phantoms(table)
    assert are_phantoms(str(phantoms.folder / "dicom"))


def test_progress_counts_what_the_system_draws(tmp_path: Path) -> None:
    films = PhantomHands(HandSpec(films=20))
    assert (films.unit, sum(map(films.count, films.pieces(tmp_path / "hands")))) == ("films", 20)
    scans = PhantomPatients(PhantomSpec(patients=4))  # every second one has two visits
    assert (scans.unit, sum(map(scans.count, scans.pieces(tmp_path / "scans")))) == ("scans", 6)
    assert PhantomStudies.unit == "studies"


def test_the_progress_line_names_them(local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    phantom_files(Store(tmp_path), PhantomHands(HandSpec(films=9, film_px=(104, 80))))
    assert "phantoms  9 films in " in capsys.readouterr().out
