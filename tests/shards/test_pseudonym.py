from __future__ import annotations

import hashlib
import hmac
import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from medray.engine.job.options import Options
from medray.shards.pseudonym import (
    MadeWith,
    Pseudonyms,
    load_key,
    map_fingerprints,
    private_folder,
    read_map,
    retire_map,
    write_map,
    write_read_log,
)
from medray.shards.store import Store


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


def test_of_many_that_make_a_key_at_once_all_have_the_same_and_no_copy_is_left(tmp_path: Path) -> None:
    folder = private_folder(tmp_path / "keys")
    (folder / ".pseudonym.0123").write_bytes(bytes(32))  # of one that was killed an hour ago
    os.utime(folder / ".pseudonym.0123", (time.time() - 3600,) * 2)
    with ThreadPoolExecutor(8) as pool:
        keys = {*pool.map(lambda _: load_key(folder), range(64))}
    assert len(keys) == 1
    assert [path.name for path in folder.iterdir()] == ["pseudonym.key"]
    assert (folder / "pseudonym.key").stat().st_mode & 0o777 == 0o600


def test_a_damaged_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pseudonym.key").write_bytes(b"short")
    (tmp_path / "pseudonym.key").chmod(0o600)
    with pytest.raises(ValueError, match="5 bytes where the key has 32"):
        load_key(tmp_path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_may_have_is_refused(tmp_path: Path, mode: int) -> None:
    load_key(tmp_path / "keys")
    (tmp_path / "keys" / "pseudonym.key").chmod(mode)
    with pytest.raises(ValueError, match=rf"pseudonym.key: others may use it \(mode {mode:o}\); chmod go= it"):
        load_key(tmp_path / "keys")


def test_a_folder_is_closed_to_others_or_refused_and_gets_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)  # of an older version, or of rsync
    assert private_folder(tmp_path / "open").stat().st_mode & 0o777 == 0o700
    assert private_folder(tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ValueError, match=r"--key-dir .*/file/keys: cannot be made \(Not a directory\); choose a folder"
    ):
        private_folder(tmp_path / "file" / "keys")
    (tmp_path / "open").chmod(0o770)
    monkeypatch.setattr(Path, "chmod", lambda self, mode: None)  # a share that has no modes
    with pytest.raises(ValueError, match=r"open: others may use it \(mode 770\)"):
        load_key(tmp_path / "open")
    assert not list((tmp_path / "open").iterdir())


def test_what_lies_beside_the_key_is_closed_and_a_folder_of_other_things_stays(tmp_path: Path) -> None:
    load_key(tmp_path / "keys")
    (tmp_path / "keys" / "headers").mkdir()
    names = f"map-{'0' * 16}.parquet"
    for name in ("mlflow.db", names, "notes.txt"):
        (tmp_path / "keys" / name).write_text("")
        (tmp_path / "keys" / name).chmod(0o644)
    (tmp_path / "keys" / "headers" / "a.parquet").write_text("")
    (tmp_path / "keys" / "headers").chmod(0o755)
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / "elsewhere").chmod(0o644)
    (tmp_path / "keys" / "read.log").symlink_to(tmp_path / "elsewhere")
    private_folder(tmp_path / "keys")
    assert (tmp_path / "keys" / "headers" / "a.parquet").stat().st_mode & 0o077 == 0
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()}
    assert modes == {
        "pseudonym.key": 0o600, "headers": 0o700, "mlflow.db": 0o600, names: 0o600, "notes.txt": 0o644, "read.log": 0o644,
    }  # fmt: skip
    others = [("work", 0o755), ("mlflow.db", 0o755), ("map-of-europe.parquet", 0o755), ("searches", 0o1777)]
    for number, (name, mode) in enumerate(others):
        folder = tmp_path / f"home{number}"
        (folder / name).mkdir(parents=True)
        folder.chmod(mode)
        with pytest.raises(
            ValueError, match=rf"home{number}: others may use it \(mode {mode & 0o777:o}\); chmod go= it"
        ):
            load_key(folder)
        assert folder.stat().st_mode & 0o7777 == mode
    (tmp_path / "home3" / "pseudonym.key").write_bytes(bytes(32))  # such as /tmp, where a key was left
    with pytest.raises(ValueError, match="others may use it"):
        load_key(tmp_path / "home3")


def test_whose_a_folder_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private_folder(tmp_path / "keys")
    own = os.stat(tmp_path / "keys").st_uid
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    if own:  # root's may be used by all who can
        with pytest.raises(ValueError, match="belongs to another user"):
            private_folder(tmp_path / "keys")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    private_folder(tmp_path / "keys")  # mounted into a container


def test_a_fingerprint_tells_keys_apart_and_is_no_name() -> None:
    one, other = Pseudonyms(b"a" * 32), Pseudonyms(b"b" * 32)
    assert one.fingerprint == Pseudonyms(b"a" * 32).fingerprint != other.fingerprint
    assert Pseudonyms(None).fingerprint is None
    assert one.fingerprint not in {
        one.of(kind, "fingerprint").removeprefix(f"{kind}-")[:16] for kind in ("", "patient")
    }


def test_who_read_the_way_back_and_when_is_kept(tmp_path: Path) -> None:
    for count in (3, 1):
        write_read_log(tmp_path, "s3://out", count)
    first, second = (tmp_path / "read.log").read_text().splitlines()
    when, who, what = first.split("\t")
    assert abs((datetime.now(UTC) - datetime.fromisoformat(when)).total_seconds()) < 60
    assert who
    assert (what, second.split("\t")[2]) == ("3 of s3://out", "1 of s3://out")
    assert (tmp_path / "read.log").stat().st_mode & 0o777 == 0o600


def test_the_way_back(tmp_path: Path) -> None:
    pseudonyms = Pseudonyms(b"k" * 32)
    name = pseudonyms.of("patient", "P1")
    path = write_map(tmp_path, "s3://out", {"patient": [(name, "P1")], "study": [("study-x", "S")]})
    known = read_map(tmp_path, "s3://out")
    assert known[known["kind"] == "patient"].to_numpy().tolist() == [["patient", name, "P1"]]
    assert read_map(tmp_path, "s3://other").empty
    assert path.stat().st_mode & 0o077 == 0


def test_two_folders_of_one_relative_name_have_two_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        write_map(tmp_path / "keys", Store("out/ours").absolute, {"patient": [(f"patient-{place}", f"ANNA {place}")]})
    for place in ("a", "b"):
        monkeypatch.chdir(tmp_path / place)
        for name in (tmp_path / place / "out" / "ours", "out/ours"):
            found = read_map(tmp_path / "keys", Store(name).absolute)
            assert found["identifier"].tolist() == [f"ANNA {place}"]


def test_a_map_whose_folder_has_another_job_now_is_kept_under_another_name(tmp_path: Path) -> None:
    retire_map(tmp_path, "s3://out")  # there is none
    path = write_map(tmp_path, "s3://out", {"patient": [("patient-1", "ANNA")]}, MadeWith("owner", "project"))
    assert map_fingerprints(tmp_path, "s3://out") == MadeWith("owner", "project")
    retire_map(tmp_path, "s3://out")
    assert map_fingerprints(tmp_path, "s3://out") is None
    (kept,) = tmp_path.glob(f"{path.name}.*")
    assert "ANNA" in str(pq.read_table(kept))
    write_map(tmp_path, "s3://out", {"patient": [("patient-1", "ANNA")]})  # as an earlier version did
    assert map_fingerprints(tmp_path, "s3://out") is None


def test_a_key_that_is_a_link_to_one_below_out_is_refused(tmp_path: Path) -> None:
    load_key(tmp_path / "out")
    private_folder(tmp_path / "keys")
    (tmp_path / "keys" / "pseudonym.key").symlink_to(tmp_path / "out" / "pseudonym.key")
    options = Options(out=str(tmp_path / "out"), key_dir=tmp_path / "keys")
    with pytest.raises(ValueError, match=r"--key-dir .*keys: lies below --out, which others may read"):
        options.pseudonyms()
