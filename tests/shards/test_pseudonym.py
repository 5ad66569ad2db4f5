from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import pytest

from medray.shards.pseudonym import Pseudonyms, load_key, read_map, write_map


def test_the_name_is_an_hmac_of_kind_and_identifier() -> None:
    expected = hmac.new(b"k" * 32, b"patient\0P1", hashlib.sha256).hexdigest()[:20]
    assert Pseudonyms(b"k" * 32).of("patient", "P1") == f"patient-{expected}"


def test_kinds_and_keys_change_the_name_and_public_identifiers_stay() -> None:
    names = {Pseudonyms(k * 32).of(kind, "1") for k in (b"a", b"b") for kind in ("patient", "study")}
    assert len(names) == 4
    assert Pseudonyms(None).of("patient", "1") == "1"


def test_the_key_is_made_once_and_is_the_owners_alone(tmp_path: Path) -> None:
    key = load_key(tmp_path / "keys")
    assert load_key(tmp_path / "keys") == key
    assert len(key) == 32
    assert (tmp_path / "keys" / "pseudonym.key").stat().st_mode & 0o077 == 0
    assert len(list((tmp_path / "keys").iterdir())) == 1


def test_a_damaged_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pseudonym.key").write_bytes(b"short")
    with pytest.raises(ValueError, match="5 bytes where the key has 32"):
        load_key(tmp_path)


def test_the_way_back(tmp_path: Path) -> None:
    pseudonyms = Pseudonyms(b"k" * 32)
    name = pseudonyms.of("patient", "P1")
    path = write_map(tmp_path, "s3://out", {"patient": [(name, "P1")], "study": [("study-x", "S")]})
    known = read_map(tmp_path, "s3://out")
    assert known[known["kind"] == "patient"].to_numpy().tolist() == [["patient", name, "P1"]]
    assert read_map(tmp_path, "s3://other").empty
    assert path.stat().st_mode & 0o077 == 0
