"""Who is who: identifiers become keyed hashes; the key and the way back stay outside the output folder."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa

from medray.shards.store import Store

KEY_BYTES = 32
_KEY = "pseudonym.key"
_KEPT = (
    "map-*.parquet",
    "headers",
    "searches",
    "mlflow.db",
    "mlflow-artifacts",
    "read.log",
)  # beside it; the key itself is checked, not mended


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
    """A folder of this user's alone, made on first use. One that others may enter is closed to them if it is empty or holds what
    medray keeps there, and so is what it keeps; any other one, as a home folder, is its owner's to close.

    Raises:
        ValueError: it cannot be made, or others may use it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        own = [path for pattern in _KEPT for path in folder.glob(pattern)]
        for path in [folder, *own] if own or (folder / _KEY).exists() or not any(folder.iterdir()) else []:
            with contextlib.suppress(
                PermissionError, FileNotFoundError
            ):  # another user's; one that is just being replaced
                if path.stat(follow_symlinks=False).st_mode & 0o077 and not path.is_symlink():
                    path.chmod(path.stat().st_mode & 0o700)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise ValueError(f"--key-dir {folder}: cannot be made ({why}); choose a folder of your own") from None
    _check_alone(folder)
    return folder


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
    return (folder / _KEY).exists()


def load_key(folder: Path) -> bytes:
    """The key in ``folder``, made there on first use, readable by its owner only. Raises ValueError if damaged, or if others
    may read it."""
    path = private_folder(folder) / _KEY
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
    """The key's file, whole or not at all; one that is there stays as it is.

    Args:
        folder: as ``private_folder`` gives it.
    """
    path, unfinished = folder / _KEY, folder / f".pseudonym.{os.getpid()}"
    unfinished.unlink(missing_ok=True)
    unfinished.touch(mode=0o600)
    unfinished.write_bytes(key)
    with contextlib.suppress(FileExistsError):  # unlike a rename, a link never replaces another job's new key
        os.link(unfinished, path)
    unfinished.unlink()
    return path


def _map_name(place: str) -> str:
    return f"map-{hashlib.sha256(place.encode()).hexdigest()[:16]}.parquet"


def write_map(folder: Path, place: str, names: dict[str, list[tuple[str, str]]]) -> Path:
    """Keep the way back (kind → pairs of pseudonym and identifier) of one output folder beside the key.

    Args:
        place: ``Store.absolute`` of that folder: two that are both called out/ours have two maps.
    """
    rows = [(kind, name, identifier) for kind, pairs in names.items() for name, identifier in sorted(set(pairs))]
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], []]
    table = pa.table(dict(zip(("kind", "pseudonym", "identifier"), columns, strict=True)))
    Store(folder).write_table(_map_name(place), table)
    path = folder / _map_name(place)
    path.chmod(0o600)
    return path


def map_path(folder: Path, place: str) -> Path:
    """Where the way back of one output folder lies, if a job of this user has made pseudonyms there."""
    return folder / _map_name(place)


def read_map(folder: Path, place: str) -> pd.DataFrame:
    """kind, pseudonym, identifier of all names of one output folder; no rows where it has no map here."""
    store = Store(folder)
    if not store.exists(_map_name(place)):
        return pd.DataFrame(columns=["kind", "pseudonym", "identifier"])
    return store.read_table(_map_name(place)).to_pandas()


def write_read_log(folder: Path, out_uri: str, count: int) -> None:
    """Add a line to read.log: when, who, and how many names of which output were led back."""
    try:
        who = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in containers
        who = f"user {os.getuid()}"
    line = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}\t{who}\t{count} of {out_uri}\n"
    with open(
        os.open(folder / "read.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "w", encoding="utf-8"
    ) as log:
        log.write(line)
