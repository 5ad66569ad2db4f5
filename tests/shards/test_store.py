from __future__ import annotations

import errno
import json
import os
import pickle
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from medray.shards.store import Make, Store, reason


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.write_bytes("a.bin", b"old")

    def no_space(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        store.write_bytes("a.bin", b"new")
    assert store.read_bytes("a.bin") == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_storage_that_refuses_for_a_moment_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, refusals, waited = Store(tmp_path), [5, 5, 5], []
    sync = os.fsync

    def refuse(fd: int) -> None:
        if refusals:
            raise OSError(refusals.pop(), "Input/output error")
        sync(fd)

    monkeypatch.setattr("os.fsync", refuse)
    monkeypatch.setattr("time.sleep", waited.append)
    store.write_bytes("a.bin", b"whole")
    assert store.read_bytes("a.bin") == b"whole"
    assert waited == [0.5, 1.0, 2.0]
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]
    refusals += [5] * 20
    with pytest.raises(OSError, match="Input/output"):
        store.write_bytes("a.bin", b"other")
    assert sum(waited[3:]) > 10  # ten seconds of refusal are outlived
    assert store.read_bytes("a.bin") == b"whole"


def test_a_refused_deletion_is_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        """A filesystem that refuses its first deletions."""

        refusals = 2

        def delete_file(self, path: str) -> None:
            if self.refusals:
                self.refusals -= 1
                raise OSError("When deleting: AWS Error SLOW_DOWN")
            os.unlink(path)

        def __getattr__(self, name: str) -> object:
            return getattr(pafs.LocalFileSystem(), name)

    store, waited = Store(tmp_path), []
    store.write_bytes("a.bin", b"")
    store.filesystem = Refusing()
    monkeypatch.setattr("time.sleep", waited.append)
    store.delete("a.bin")
    assert waited == [0.5, 1.0]
    assert not list(tmp_path.iterdir())


def test_what_waiting_does_not_change_fails_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("a full disk does not empty itself"))
    with pytest.raises(OSError, match="No space"):
        Store(tmp_path).write_bytes("a.bin", b"")
    monkeypatch.undo()
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("the check before a run does not wait"))
    (tmp_path / "a-file").write_bytes(b"")
    with pytest.raises(ValueError, match="cannot be written"):
        Store(tmp_path / "a-file" / "below").check_writable()


def test_names_leave_out_unfinished_files_and_folders(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.sub("deeper").write_bytes("b.parquet", b"")
    store.write_bytes("a.parquet", b"")
    (tmp_path / ".c.parquet.1234").write_bytes(b"")
    assert store.names(".parquet") == ["a.parquet"]
    assert [f.path.rsplit("/", 1)[1] for f in store.files()] == [".c.parquet.1234", "a.parquet", "b.parquet"]


def test_tables_and_json_come_back(tmp_path: Path) -> None:
    store = pickle.loads(pickle.dumps(Store(tmp_path).sub("x")))
    table = pa.table({"n": [1, 2]})
    store.write_table("t.parquet", table)
    assert store.read_table("t.parquet") == table
    store.write_json("j.json", {"a": [1]})
    assert store.read_json("j.json") == {"a": [1]}
    assert store.read_json("none.json", 7) == 7


def test_json_that_comes_cut_off_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut = b'[{"epoch": 1}, {"epoch": 2}]', [12, 20]
    Store(tmp_path).write_bytes("j.json", whole)
    monkeypatch.setattr(Store, "read_bytes", lambda store, name: whole[: cut.pop()] if cut else whole)
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    assert Store(tmp_path).read_json("j.json") == [{"epoch": 1}, {"epoch": 2}]
    assert waited == [0.5, 1.0]
    monkeypatch.setattr(Store, "read_bytes", lambda store, name: whole[:12])
    with pytest.raises(json.JSONDecodeError):
        Store(tmp_path).read_json("j.json")


def test_json_refuses_nan_which_no_other_reader_knows(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Store(tmp_path).write_json("j.json", float("nan"))


def test_unusable_places_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written .* choose another --out"):
        Store(tmp_path / "file" / "below").check_writable()
    with pytest.raises(ValueError, match="no such folder"):
        Store(tmp_path / "absent").files()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no files in it"):
        Store(tmp_path / "empty").files()
    with pytest.raises(ValueError, match="ftp://x/y"):
        Store("ftp://x/y")


def test_a_reason_never_holds_a_path() -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011 — pyarrow's text for it holds the path, and so does strerror
        Store("/nowhere").read_bytes("NAME^OF^A^PATIENT.dcm")
    assert "NAME" in str(caught.value)
    assert reason(caught.value) == "cannot be read (No such file or directory)"
    assert reason(ValueError("two\nlines")) == "two"


def test_a_uri_that_cannot_be_parsed_does_not_show_its_keys() -> None:
    with pytest.raises(ValueError, match="not a folder or URI") as caught:
        Store("s3://key:secret@buc ket/%zz")
    assert "secret" not in str(caught.value)


def test_what_a_killed_process_was_writing_is_removed_and_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name in ("model.pt", ".model.pt.fe7ad569", ".hidden", "a.0123abcd"):
        (tmp_path / name).write_bytes(b"x")
    store.remove_unfinished()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "a.0123abcd", "model.pt"]
    Store(tmp_path / "absent").remove_unfinished()


def test_a_stream_that_an_error_ends_leaves_nothing_and_one_that_is_refused_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    store.write_bytes("a.bin", b"old")

    def broken(stream: BinaryIO) -> None:
        stream.write(b"half")
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        store.write_stream("a.bin", broken)
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
    assert store.read_bytes("a.bin") == b"old"

    refusals = [errno.EIO, errno.EIO]
    monkeypatch.setattr("time.sleep", lambda seconds: None)

    def refused(stream: BinaryIO) -> None:
        stream.write(b"new")
        if refusals:
            raise OSError(refusals.pop(), "refused")

    store.write_stream("a.bin", refused)
    assert store.read_bytes("a.bin") == b"new"


def test_an_object_is_sent_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filesystem that is no disk's: what an error ends in the middle is never sent, what is refused is sent again."""
    (tmp_path / "bucket").mkdir()
    store = Store(tmp_path)
    store.filesystem = pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())
    store.root = "bucket"
    assert store.local is None
    made: list[int] = []

    def broken(stream: BinaryIO) -> None:
        stream.write(b"half")
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        store.write_stream("a.bin", broken)
    assert list((tmp_path / "bucket").iterdir()) == []

    def whole(stream: BinaryIO) -> None:
        made.append(1)
        for _ in range(3):
            stream.write(bytes(5 << 20))

    refusals, send = [errno.EIO], Store._write

    def refused(store: Store, name: str, make: Make) -> None:
        if refusals:
            raise OSError(refusals.pop(), "refused")
        send(store, name, make)

    monkeypatch.setattr(Store, "_write", refused)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    store.write_stream("a.bin", whole)
    assert (tmp_path / "bucket" / "a.bin").read_bytes() == bytes(15 << 20)
    assert made == [1]
