"""Who is who: identifiers become keyed hashes; the key and the way back stay outside the output folder."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import pwd
import re
import secrets
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from medray.shards.store import Store

KEY_BYTES = 32
KEY_FILE = "pseudonym.key"
_LONG_AGO_SECONDS = 600.0  # no start takes so long to write a key
_MAP = re.compile(r"map-[0-9a-f]{16}\.parquet(\.\d+)?")
_KEPT = ("headers", "searches", "mlflow.db", "mlflow-artifacts", "read.log")
"""Beside the key and the maps of names. The key itself is checked, not mended: others may have read it."""


@dataclass(frozen=True)
class Pseudonyms:
    """Names for patients, studies, series, slices and files. ``key=None``: the identifiers are public, and stay."""

    key: bytes | None

    def of(self, kind: str, identifier: str) -> str:
        """HMAC-SHA256 (RFC 2104) of kind and identifier, 80 bits of it: a collision in 10^6 names is below 10^-12."""
        if self.key is None:
            return identifier
        digest = hmac.new(self.key, f"{kind}\0{identifier}".encode(), hashlib.sha256)
        return f"{kind}-{digest.hexdigest()[:20]}"

    @property
    def fingerprint(self) -> str | None:
        """Tells one key from another, and nothing else about it; None where there is none."""
        if self.key is None:
            return None
        return hmac.new(self.key, b"fingerprint", hashlib.sha256).hexdigest()[:16]

    def seal(self, content: bytes) -> str | None:
        """What only who has the key can make of ``content`` (HMAC-SHA-256, RFC 2104); None where there is none."""
        return None if self.key is None else hmac.new(self.key, b"manifest\0" + content, hashlib.sha256).hexdigest()

    def all(self, kind: str, identifiers: Iterable[str]) -> list[str]:
        return [self.of(kind, identifier) for identifier in identifiers]


def project_key(key: bytes, project: str) -> bytes:
    """A key of 32 bytes for one project, of this user's: without it, names of two projects tell nothing of each other."""
    return hmac.new(key, f"project\0{project}".encode(), hashlib.sha256).digest()


def private_folder(folder: Path) -> Path:
    """A folder of this user's alone, made on first use. One that others may enter is closed to them if it is empty or medray's own,
    and so is what medray keeps there; any other one, as a home folder or a shared one, is its owner's to close.

    Raises:
        ValueError: it cannot be made, or others may use it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in _own(folder):
            with contextlib.suppress(
                PermissionError, FileNotFoundError
            ):  # another user's; one that is just being replaced
                mode = path.stat(follow_symlinks=False).st_mode
                if mode & 0o077 and not stat.S_ISLNK(mode):
                    path.chmod(stat.S_IMODE(mode) & ~0o077)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise ValueError(f"--key-dir {folder}: cannot be made ({why}); choose a folder of your own") from None
    _check_alone(folder)
    return folder


def _own(folder: Path) -> list[Path]:
    """What may be closed: the folder with what medray keeps in it; nothing where it is somebody else's."""
    mode, names = folder.stat().st_mode, [path.name for path in folder.iterdir()]
    ours = not names or any(name == KEY_FILE or _MAP.fullmatch(name) for name in names)
    if not ours or mode & (stat.S_ISVTX | stat.S_ISGID):
        return []
    own = [folder / name for name in names if name in _KEPT or _MAP.fullmatch(name)]
    return [folder, *own, *(folder / "headers").glob("*")]


def _check_alone(path: Path) -> None:
    """Raises ValueError where somebody else may read or change what is there. Whose a folder is that is mounted into a container,
    where this user is root, says nothing."""
    about = path.stat()
    if os.geteuid() and about.st_uid not in (os.geteuid(), 0):
        raise ValueError(f"{path}: belongs to another user, who could read it; name another --key-dir")
    if about.st_mode & 0o077:
        mode = f"{about.st_mode & 0o777:03o}"
        raise ValueError(f"{path}: others may use it (mode {mode}); chmod go= it, or name another --key-dir")


def has_key(folder: Path) -> bool:
    """Whether a key lies in a folder, which need not be there."""
    return (folder / KEY_FILE).exists()


def load_key(folder: Path) -> bytes:
    """The key in ``folder``, made there on first use, readable by its owner only. Raises ValueError if damaged, or if others
    may read it."""
    path = private_folder(folder) / KEY_FILE
    if not path.exists():
        keep_key(folder, secrets.token_bytes(KEY_BYTES))
    _check_alone(path)
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise ValueError(
            f"{path}: {len(key)} bytes where the key has {KEY_BYTES}; restore it, or name another --key-dir"
        )
    return key


def keep_key(folder: Path, key: bytes) -> Path:
    """The key's file, whole or not at all, also after a power cut; one that is there stays as it is.

    Args:
        folder: as ``private_folder`` gives it.
    """
    path, unfinished = folder / KEY_FILE, folder / f".pseudonym.{secrets.token_hex(8)}"
    try:
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # unlike a rename, a link never replaces another job's new key
            os.link(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
        for left in folder.glob(".pseudonym.*"):  # of starts that were killed
            with contextlib.suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > _LONG_AGO_SECONDS:
                    left.unlink()
    return path


def _map_name(place: str) -> str:
    return f"map-{hashlib.sha256(place.encode()).hexdigest()[:16]}.parquet"


@dataclass(frozen=True)
class MadeWith:
    """Fingerprints of the keys that a map of names was made with."""

    owner: str  # of the key in the same folder
    project: str  # of the one that the pseudonyms are made with


def write_map(
    folder: Path, place: str, names: dict[str, list[tuple[str, str]]], made_with: MadeWith | None = None
) -> Path:
    """Keep the way back (kind → pairs of pseudonym and identifier) of one output folder beside the key.

    Args:
        place: ``Store.absolute`` of that folder: two that are both called out/ours have two maps.
    """
    rows = [(kind, name, identifier) for kind, pairs in names.items() for name, identifier in sorted(set(pairs))]
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], []]
    table = pa.table(dict(zip(("kind", "pseudonym", "identifier"), columns, strict=True)))
    about = None if made_with is None else {"owner": made_with.owner, "project": made_with.project}
    Store(folder).write_table(_map_name(place), table.replace_schema_metadata(about))
    path = map_path(folder, place)
    path.chmod(0o600)
    return path


def map_path(folder: Path, place: str) -> Path:
    """Where the way back of one output folder lies, if a job of this user has made pseudonyms there."""
    return folder / _map_name(place)


def map_fingerprints(folder: Path, place: str) -> MadeWith | None:
    """None where there is no map of that output folder, or an earlier version wrote it."""
    if not map_path(folder, place).exists():
        return None
    about = pq.read_schema(map_path(folder, place)).metadata or {}
    return (
        MadeWith(about[b"owner"].decode(), about[b"project"].decode())
        if {b"owner", b"project"} <= about.keys()
        else None
    )


def retire_map(folder: Path, place: str) -> None:
    """A job without pseudonyms has taken the place: the map of the one before is kept under another name."""
    path = map_path(folder, place)
    if path.exists():
        path.rename(f"{path}.{int(time.time())}")


def read_map(folder: Path, place: str) -> pd.DataFrame:
    """kind, pseudonym, identifier of all names of one output folder; no rows where it has no map here."""
    store = Store(folder)
    if not store.exists(_map_name(place)):
        return pd.DataFrame(columns=["kind", "pseudonym", "identifier"])
    return store.read_table(_map_name(place)).to_pandas()


def write_read_log(folder: Path, out_uri: str, count: int) -> None:
    """Add a line to read.log: when, who, and how many names of which output were led back."""
    try:
        who = pwd.getpwuid(os.getuid()).pw_name  # not what the environment says
    except KeyError:  # a user without a name, as in containers
        who = f"user {os.getuid()}"
    line = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}\t{who}\t{count} of {out_uri}\n"
    with open(
        os.open(folder / "read.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "w", encoding="utf-8"
    ) as log:
        log.write(line)
