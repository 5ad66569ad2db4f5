"""The same patients in two outputs of one key: nobody can join them, unless both are of one project."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from chest_films import noise, write_png
from conftest import the_error

from medray.shards.pseudonym import read_map
from medray.shards.store import Store

Job = Callable[..., tuple[int, str]]


def names(run_in_process: Job, folder: Path, out: str, *more: object) -> set[str]:
    """Pseudonyms of patients and films in every file that the job has left."""
    flags = ("--images", folder / "films", "--labels", folder / "labels.csv", "--key-dir", folder / "keys")
    flags += ("--out", folder / out, "--recipe", "small", "--workers", 0, "--folds", 2, "--until", "shards", *more)
    status, text = run_in_process("chest_cv", *flags)
    assert status == 0, text
    found = {str(name) for path in (folder / out).rglob("*.parquet") for name in _texts(pd.read_parquet(path))}
    known = read_map(folder / "keys", Store(folder / out).uri)
    assert set(known["pseudonym"]) <= found
    assert len(known) == 4 + 8 + 8  # patients, films, files
    return set(known["pseudonym"])


def _texts(table: pd.DataFrame) -> set[object]:
    return {
        value for column in table.select_dtypes(exclude="number") for value in table[column] if isinstance(value, str)
    }


@pytest.mark.usefixtures("local_ray")
def test_patients_link_within_a_project_only(run_in_process: Job, tmp_path: Path) -> None:
    rows = [{"image": f"f{i}.png", "patient": f"p{i // 2}", "Mass": i % 2} for i in range(8)]
    for i, row in enumerate(rows):
        write_png(tmp_path / "films" / row["image"], noise(i))
    pd.DataFrame(rows).to_csv(tmp_path / "labels.csv", index=False)
    one, other = (names(run_in_process, tmp_path, out) for out in ("a", "b"))
    assert not one & other
    assert names(run_in_process, tmp_path, "a") == one
    shared, again = (names(run_in_process, tmp_path, out, "--project", "trial-7") for out in ("c", "d"))
    assert shared == again
    assert not shared & (one | other)
    assert Store(tmp_path / "c").read_table("folds.parquet") == Store(tmp_path / "d").read_table("folds.parquet")
    flags = ("--images", tmp_path / "films", "--labels", tmp_path / "labels.csv", "--key-dir", tmp_path / "keys")
    flags += ("--out", tmp_path / "c", "--recipe", "small", "--folds", 2, "--project")
    assert "its pseudonyms are those of --project trial-7" in the_error(run_in_process("chest_cv", *flags, "other"))
    status, said = run_in_process("chest_cv", *flags, "../x")
    assert status == 2
    assert "--project ../x: letters, digits, dots and dashes" in said
