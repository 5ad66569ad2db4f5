"""One small file that several processes write: each only if it is still as that process has seen it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from medray.shards.store import Store

SETTLE_SECONDS = 1.0
_REFUSED = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}


class OnlyIf:
    """A file of a store. On a disk it is made by O_EXCL and changed under flock of its folder; on S3 by ``If-None-Match`` and
    ``If-Match``; in other storage, which pyarrow gives no condition for, it is written and read back a second later.

    Every method raises OSError where the storage fails.
    """

    def __init__(self, folder: Store, name: str) -> None:
        self.folder, self.name = folder, name
        self._s3 = _S3(folder, name) if isinstance(folder.filesystem, pafs.S3FileSystem) else None

    def read(self) -> tuple[bytes, str] | None:
        """Content and what tells it from another one, for ``write``; None where there is no file."""
        if self._s3 is not None:
            return self._s3.read()
        try:
            content = self.folder.read_bytes(self.name)
        except FileNotFoundError:
            return None
        return content, hashlib.sha256(content).hexdigest()

    def write(self, content: bytes, seen: str | None) -> bool:
        """Write it, and give True, if it is still ``seen``; None: if it is not there."""
        if self._s3 is not None:
            return self._s3.write(content, seen)
        if self.folder.local is not None:
            return self._write_to_disk(self.folder.local, content, seen)
        if self._tag() != seen:
            return False
        self.folder.write_bytes(self.name, content, patience=())
        time.sleep(SETTLE_SECONDS)
        found = self.read()
        return found is not None and found[0] == content

    def remove(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.folder.filesystem.delete_file(self.folder.path(self.name))

    def _tag(self) -> str | None:
        found = self.read()
        return None if found is None else found[1]

    def _write_to_disk(self, folder: Path, content: bytes, seen: str | None) -> bool:
        with _locked(folder):
            if self._tag() != seen:
                return False
            if seen is not None:
                self.folder.write_bytes(self.name, content, patience=())
                return True
            try:
                with open(folder / self.name, "xb") as stream:
                    stream.write(content)
            except FileExistsError:
                return False
        return True


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Alone with a folder of a disk, as far as its file system can lock."""
    held = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot
            fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


class _S3:
    """The same by boto3: pyarrow has no conditions."""

    def __init__(self, folder: Store, name: str) -> None:
        import boto3  # half a second, for those who need it

        self.bucket, _, path = folder.path(name).partition("/")
        self.key = path
        about: dict[str, Any] = folder.filesystem.__reduce__()[1][0]  # pyarrow shows an address's options nowhere else
        options: dict[str, Any] = {"region_name": about["region"] or None}
        if about["endpoint_override"]:
            options["endpoint_url"] = f"{about['scheme']}://{about['endpoint_override'].split('://')[-1]}"
        if (
            about["access_key"] and not about["session_token"]
        ):  # those of a role end after hours: boto3 renews them itself
            options |= {"aws_access_key_id": about["access_key"], "aws_secret_access_key": about["secret_key"]}
        self.client = boto3.client("s3", **options)

    def read(self) -> tuple[bytes, str] | None:
        with _as_os_error() as code:
            found = self.client.get_object(Bucket=self.bucket, Key=self.key)
            return found["Body"].read(), found["ETag"]
        if code[0] in ("NoSuchKey", "404"):
            return None
        raise OSError(f"S3: {code[0]}")

    def write(self, content: bytes, seen: str | None) -> bool:
        condition = {"IfNoneMatch": "*"} if seen is None else {"IfMatch": seen}
        with _as_os_error() as code:
            self.client.put_object(Bucket=self.bucket, Key=self.key, Body=content, **condition)
            return True
        if code[0] in _REFUSED or (code[0] == "NoSuchKey" and seen is not None):
            return False
        raise OSError(f"S3: {code[0]}")


@contextlib.contextmanager
def _as_os_error() -> Iterator[list[str]]:
    """Leaves the code of an error of S3's in the list; other errors of boto3's become OSError."""
    from botocore.exceptions import BotoCoreError, ClientError

    code: list[str] = []
    try:
        yield code
    except ClientError as error:
        code.append(str(error.response.get("Error", {}).get("Code", "")))
    except BotoCoreError as error:
        raise OSError(f"S3: {type(error).__name__}") from None
