"""The way back from pseudonyms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import the_error

from medray.shards.pseudonym import Pseudonyms, load_key, write_map

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def name(tmp_path: Path) -> str:
    """The pseudonym of patient "P, 1" in a finished job's map."""
    pseudonyms = Pseudonyms(load_key(tmp_path / "key"))
    pairs = {
        "patient": [(pseudonyms.of("patient", p), p) for p in ("P, 1", "P2")],
        "study": [(pseudonyms.of("study", "1.2"), "1.2")],
    }
    write_map(tmp_path / "key", str(tmp_path / "out"), pairs)
    return pseudonyms.of("patient", "P, 1")


def test_a_pseudonym_leads_back(name: str, run_in_process: Run, tmp_path: Path) -> None:
    status, text = run_in_process("identify", name, "--out", tmp_path / "out", "--key-dir", tmp_path / "key")
    assert status == 0
    assert text.splitlines() == ["pseudonym,identifier", f'{name},"P, 1"']
    (line,) = (tmp_path / "key" / "read.log").read_text().splitlines()
    assert line.endswith(f"\t1 of {tmp_path}/out")
    assert "P, 1" not in line


def test_all_of_a_kind(name: str, run_in_process: Run, tmp_path: Path) -> None:
    flags = ("--out", tmp_path / "out", "--key-dir", tmp_path / "key")
    assert len(run_in_process("identify", *flags, "--kind", "patient")[1].splitlines()) == 3
    assert len(run_in_process("identify", *flags)[1].splitlines()) == 4
    assert "kinds are patient, study" in the_error(run_in_process("identify", *flags, "--kind", "film"))


def test_what_is_not_there_is_said(name: str, run_in_process: Run, tmp_path: Path) -> None:
    flags = ("--key-dir", tmp_path / "key", "--out")
    assert "patient-0: not a pseudonym" in the_error(run_in_process("identify", "patient-0", *flags, tmp_path / "out"))
    assert "holds no map for --out" in the_error(run_in_process("identify", name, *flags, tmp_path / "other"))
