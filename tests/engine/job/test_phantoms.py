"""Images that are phantoms are known for that by whoever is given them."""

from __future__ import annotations

from pathlib import Path

from medray.engine.job.phantoms import MARK, are_phantoms


def test_files_below_a_folder_of_phantoms_are_phantoms(tmp_path: Path) -> None:
    (tmp_path / "phantoms" / "dicom").mkdir(parents=True)
    (tmp_path / "phantoms" / MARK).write_text("{}")
    assert are_phantoms(None)  # of a job that was given nothing
    for given in ("phantoms", "phantoms/dicom", "phantoms/table.csv"):
        assert are_phantoms(str(tmp_path / given))
    for given in ("", "scans", "scans/table.csv"):
        assert not are_phantoms(str(tmp_path / given))
    assert not are_phantoms("s3://bucket/phantoms?endpoint_override=localhost:1&scheme=http")
