"""Folders of a disk: every name once, whatever it is, and nothing that stops the listing."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from medray.shards.disk import bytes_of, text_of
from medray.shards.store import Store, reason


def names(folder: Path) -> list[str]:
    return [os.path.relpath(file.path, folder) for file in Store(folder).files()]


def why(folder: Path, name: str) -> str:
    """The reason for which a file that is listed cannot be opened."""
    (path,) = [file.path for file in Store(folder).files() if file.path.endswith(name)]
    with pytest.raises((OSError, ValueError)) as caught:
        Store(folder).open_file(path)
    assert str(folder) not in reason(caught.value)
    return reason(caught.value)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (b"/a/IM 0001 (1).dcm", "/a/IM 0001 (1).dcm"),
        ("/Schädel/头#1%20?.dcm".encode(), "/Schädel/头#1%20?.dcm"),
        (b"/Sch\xe4del.dcm", "/Sch‛E4del.dcm"),
        ("/‛E4.dcm".encode(), "/‛‛E4.dcm"),
        ("/‛‛".encode() + b"\xff\xfe", "/‛‛‛‛‛FF‛FE"),
        (b"/\xed\xb2\x80", "/‛ED‛B2‛80"),  # a surrogate, which UTF-8 does not have
    ],
)
def test_any_path_is_valid_unicode_and_comes_back(path: bytes, text: str) -> None:
    assert text_of(path) == text
    assert text.encode().decode() == text
    assert bytes_of(text) == path


def test_a_name_that_is_not_utf8_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"a")
    folder = os.fsencode(tmp_path) + b"/J\xfcrgen"
    os.mkdir(folder)
    with open(folder + b"/Sch\xe4del.dcm", "wb") as stream:
        stream.write(b"bytes")
    assert names(tmp_path) == ["J‛FCrgen/Sch‛E4del.dcm", "a.dcm"]
    store = Store(tmp_path)
    with store.open_file(store.files()[0].path) as stream:
        assert stream.read() == b"bytes"
        assert stream.seek(0) == 0
    with pytest.raises(ValueError, match="^.*J‛FCrgen: a name that is not UTF-8; rename it, or name a link to it$"):
        Store(os.fsdecode(folder))


def test_the_order_is_that_of_the_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b", "a/2", "a/10", "c/d/e", "Z", "a.x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "l").symlink_to(tmp_path / "c")
    expected = names(tmp_path)
    assert expected == sorted(expected) == ["Z", "a.x", "a/10", "a/2", "b", "c/d/e"]
    scandir = os.scandir

    class Reversed:
        def __init__(self, path: bytes) -> None:
            with scandir(path) as entries:
                self.entries = list(entries)[::-1]

        def __enter__(self) -> list[os.DirEntry]:
            return self.entries

        def __exit__(self, *exc: object) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setattr(os, "scandir", Reversed)
    assert names(tmp_path) == expected


def test_each_folder_is_read_once_and_no_link_leads_out(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    (root / "deep" / "deeper").mkdir(parents=True)
    (root / "deep" / "deeper" / "a.dcm").write_bytes(b"a")
    elsewhere.mkdir()
    (elsewhere / "b.dcm").write_bytes(b"b")
    (tmp_path / "of another.dcm").write_bytes(b"")
    (root / "self").symlink_to(root)
    (root / "deep" / "deeper" / "up").symlink_to("..")
    (root / "above").symlink_to(tmp_path)
    (root / "a short cut").symlink_to(root / "deep" / "deeper")
    (root / "one").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(root)
    (root / "secret.dcm").symlink_to(elsewhere / "b.dcm")
    (root / "same.dcm").symlink_to(root / "deep" / "deeper" / "a.dcm")
    (tmp_path / "link").symlink_to(root)
    for top in (root, tmp_path / "link"):
        assert names(top) == ["above", "deep/deeper/a.dcm", "one", "same.dcm", "secret.dcm"]
        for name in ("above", "one", "secret.dcm"):
            assert why(top, name).startswith("a link out of the folder that was given; put a copy there, or name")
        with Store(top).open_file(f"{top}/same.dcm") as stream:
            assert stream.read() == b"a"
    (tmp_path / "alone.dcm").symlink_to(elsewhere / "b.dcm")
    alone = Store(tmp_path / "alone.dcm")  # the file that was named may be a link
    with alone.open_file(alone.files()[0].path) as stream:
        assert stream.read() == b"b"


def test_links_that_lead_nowhere_are_set_aside(tmp_path: Path) -> None:
    (tmp_path / "broken.dcm").symlink_to("/nowhere/x.dcm")
    (tmp_path / "circle.dcm").symlink_to(tmp_path / "circle.dcm")
    assert names(tmp_path) == ["broken.dcm", "circle.dcm"]
    assert why(tmp_path, "broken.dcm") == "a link that leads nowhere"
    assert why(tmp_path, "circle.dcm") == "a link that leads nowhere"


def test_what_is_no_file_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        assert names(tmp_path) == ["null", "pipe", "socket"]
        assert why(tmp_path, "pipe") == "a pipe, not a file"
        assert why(tmp_path, "null").startswith("a link out of the folder")
        assert why(tmp_path, "socket") == "a socket, not a file"


def test_a_closed_folder_is_one_row_and_its_neighbours_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Denied by hand: whoever runs the tests may be root, to whom no folder is closed."""
    for name in ("closed/a.dcm", "open/b.dcm"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"")
    scandir = os.scandir

    def denied(path: bytes):  # type: ignore[no-untyped-def]
        if path.endswith(b"closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    assert names(tmp_path) == ["closed", "open/b.dcm"]
    assert why(tmp_path, "closed") == "cannot be read (Permission denied)"
    with pytest.raises(ValueError, match=r"closed: cannot be read \(Permission denied\)$"):
        Store(tmp_path / "closed").files()


def test_folders_deeper_than_a_call_stack(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):  # a path of 3,000 characters
        os.mkdir("d", dir_fd=folder)
        below = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(os.open("a.dcm", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    os.close(folder)
    found = names(tmp_path)
    subprocess.run(["rm", "-r", tmp_path / "d"], check=True)  # shutil.rmtree, which pytest cleans up with, cannot
    assert found == ["/".join(["d"] * 1500) + "/a.dcm"]
