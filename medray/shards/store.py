"""A folder on a local disk or in object storage. Files in it appear whole or not at all."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from medray.shards import disk
from medray.shards.address import check_address
from medray.shards.cells import csv_text

PATIENCE = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Half a minute in all: longer than an object store's hiccup, shorter than a user's."""
# what another attempt would not change
_FINAL = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EFBIG}
_FINAL_OF_S3 = ("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY", "SIGNATURE_DOES_NOT_MATCH")


Make = Callable[[Any], object]
"""What writes a file's content into the binary stream that it is given."""


@dataclass(frozen=True)
class File:
    """One input file: its path within a filesystem, for ``Store.open_file``, and its size."""

    path: str
    size_bytes: int


_BUFFER_BYTES = 1 << 16
_PIECE_BYTES = 4 << 20
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}")  # as ``Store._write`` names it


class Store:
    """A folder by path or URI (``s3://``, ``gs://``, ``file://``); picklable, so that Ray tasks may hold it.

    Raises ValueError with one line for a scheme or an address that cannot be used, or that holds a secret.
    """

    def __init__(self, uri: str | Path) -> None:
        check_address("", str(uri))
        self.uri = re.sub(r"//[^/@]*@", "//", str(uri).split("?")[0]).rstrip("/")  # to be shown: no keys, no options
        given = str(uri)
        if any("\udc80" <= c <= "\udcff" for c in given):
            raise ValueError(
                f"{disk.text_of(os.fsencode(given))}: a name that is not UTF-8; rename it, or name a link to it"
            )
        if self.uri.startswith("s3://") and "allow_delayed_open" not in given:
            # a file of less than 5 MB in one request, not three: none is left half uploaded when storage refuses the last
            given += f"{'&' if '?' in given else '?'}allow_delayed_open=true"
        try:
            if "://" in self.uri:
                self.filesystem, self.root = pafs.FileSystem.from_uri(given)
            else:
                self.filesystem, self.root = pafs.LocalFileSystem(), str(Path(uri).expanduser().absolute())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
            why = _first_line(error).replace(given, self.uri)  # pyarrow repeats the URI, keys included
            raise ValueError(f"{self.uri}: not a folder or URI that pyarrow opens ({why})") from None
        self.root = self.root.rstrip("/")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Store) and (self.uri, self.root) == (other.uri, other.root)

    def __hash__(self) -> int:
        return hash((self.uri, self.root))

    @property
    def local(self) -> Path | None:
        """The folder as a local path, None in object storage."""
        return Path(self.root) if isinstance(self.filesystem, pafs.LocalFileSystem) else None

    @property
    def absolute(self) -> str:
        """Tells this folder from every other one, however it was given."""
        if self.local is not None:
            return os.path.realpath(self.root)
        return f"{self.uri.split('://', 1)[0].lower()}://{self.root}"

    def sub(self, *parts: str) -> Store:
        child = object.__new__(type(self))
        child.uri, child.filesystem = "/".join((self.uri, *parts)), self.filesystem
        child.root = "/".join((self.root, *parts))
        return child

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def exists(self, name: str) -> bool:
        return self.filesystem.get_file_info(self.path(name)).type == pafs.FileType.File

    def names(self, suffix: str = "") -> list[str]:
        """Names of the files directly in this folder, sorted; hidden and unfinished ones are left out."""
        selector = pafs.FileSelector(self.root, allow_not_found=True)
        infos = self.filesystem.get_file_info(selector)
        return sorted(
            i.base_name
            for i in infos
            if i.type == pafs.FileType.File and i.base_name.endswith(suffix) and not i.base_name.startswith(".")
        )

    def folders(self) -> list[str]:
        """Names of the folders directly in this folder, sorted."""
        infos = self.filesystem.get_file_info(pafs.FileSelector(self.root, allow_not_found=True))
        return sorted(i.base_name for i in infos if i.type == pafs.FileType.Directory)

    def files(self, without: Store | None = None) -> list[File]:
        """Every file below this folder (or the one file that it is), sorted by path. Raises ValueError for none.

        Args:
            without: a folder whose files are left out where it lies below this one: of results that are written among what
                they are made of.

        On a disk this is every name that is not a folder's, whatever it is called and whatever it is (``medray.shards.disk``):
        ``open_file`` says of each that cannot be read why.
        """
        if self.local is not None:
            files = [File(path, size) for path, size in disk.listed(self.root, self.uri)]
        else:
            info = self.filesystem.get_file_info(self.root)
            if info.type == pafs.FileType.File:
                return [File(self.root, info.size or 0)]
            infos = self.filesystem.get_file_info(pafs.FileSelector(self.root, recursive=True, allow_not_found=True))
            files = [File(i.path, i.size or 0) for i in infos if i.type == pafs.FileType.File]
        if without is not None and without.root.startswith(f"{self.root.rstrip('/')}/"):
            files = [file for file in files if not file.path.startswith(f"{without.root}/")]
        if not files:
            raise ValueError(f"{self.uri}: there are no files in it")
        return sorted(files, key=lambda file: file.path)

    def open_file(self, path: str) -> BinaryIO:
        """Open a file that ``files`` has listed, at its start; it can seek.

        Raises:
            OSError: it cannot be read.
            ValueError: it is no file but a pipe, a device, or a folder that could not be listed; nothing is opened.
        """
        if self.local is not None:
            return disk.opened(path, self.root)
        return io.BufferedReader(self.filesystem.open_input_file(path), _BUFFER_BYTES)  # type: ignore[arg-type]

    def read_bytes(self, name: str) -> bytes:
        with self.filesystem.open_input_file(self.path(name)) as stream:
            return stream.read()

    def write_bytes(
        self, name: str, data: bytes | memoryview | pa.Buffer, patience: Sequence[float] = PATIENCE
    ) -> None:
        """Write all or nothing: a local file through a rename, an object in one upload.

        Storage that refuses for a moment is asked again: a night's run does not end with it.

        Args:
            patience: seconds to wait before each further attempt.
        """
        _patiently(lambda: self._write(name, lambda stream: stream.write(data)), patience)

    def write_stream(self, name: str, make: Make, patience: Sequence[float] = PATIENCE) -> None:
        """Write what ``make`` writes piece by piece, all or nothing; memory holds a piece.

        A file on a disk is made in place, and made again where the disk refuses for a moment. An object is made on this
        machine's disk (``TMPDIR``) and then sent: a stream that an error ends would leave a part of it as the object.
        """
        if self.local is not None:
            return _patiently(lambda: self._write(name, make), patience)
        with tempfile.TemporaryFile() as whole:
            try:
                make(whole)
            except OSError as error:  # of this machine's disk, not of the storage
                raise OSError(error.errno, f"{os.strerror(error.errno or 0)} in {tempfile.gettempdir()}") from None

            def send(stream: Any) -> None:
                whole.seek(0)
                shutil.copyfileobj(whole, stream, _PIECE_BYTES)

            return _patiently(lambda: self._write(name, send), patience)

    def _write(self, name: str, make: Make) -> None:
        path = self.path(name)
        if self.local is None:
            with self.filesystem.open_output_stream(path) as stream:
                make(stream)
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        unfinished = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{uuid.uuid4().hex[:8]}")
        try:
            with open(unfinished, "wb") as stream:
                make(stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(unfinished, path)
        except BaseException:
            if os.path.exists(unfinished):
                os.unlink(unfinished)
            raise

    def remove_unfinished(self) -> None:
        """What a process that was killed while it wrote has left in this folder of a disk. For whoever alone writes here."""
        if self.local is None or not self.local.is_dir():
            return
        for path in self.local.iterdir():
            if _UNFINISHED.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        if self.exists(name):
            _patiently(lambda: self.filesystem.delete_file(self.path(name)), PATIENCE)

    def clear(self) -> None:
        """Remove all that is in this folder."""
        if self.filesystem.get_file_info(self.root).type == pafs.FileType.Directory:
            _patiently(lambda: self.filesystem.delete_dir_contents(self.root), PATIENCE)

    def read_json(self, name: str, default: Any = None) -> Any:
        """An object that is replaced by a longer one while it is read comes cut off (pyarrow asks for its size, then for as
        many bytes): it is read again."""
        for seconds in PATIENCE[:3]:
            try:
                return json.loads(self.read_bytes(name)) if self.exists(name) else default
            except json.JSONDecodeError:
                time.sleep(seconds)
        return json.loads(self.read_bytes(name))

    def write_json(self, name: str, value: Any) -> None:
        self.write_bytes(name, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())

    def write_csv(self, name: str, table: pd.DataFrame, digits: int | None = 6) -> None:
        """As ``cells.csv_text``, in UTF-8."""
        self.write_bytes(name, csv_text(table, digits).encode())

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        return pq.read_table(self.path(name), columns=columns, filesystem=self.filesystem)

    def write_table(self, name: str, table: pa.Table, **options: Any) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, **({"compression": "zstd"} | options))
        self.write_bytes(name, sink.getvalue())

    def check_writable(self) -> None:
        """Raise ValueError with one line where a file cannot be written and read back: before money is spent."""
        try:
            name = f".write-test.{uuid.uuid4().hex[:8]}"  # of this job, where several start at once
            self.write_bytes(name, b"medray", patience=())
            if self.read_bytes(name) != b"medray":
                raise OSError("what was read back differs from what was written")
            self.filesystem.delete_file(self.path(name))
        except OSError as error:
            reason = _first_line(error)
            raise ValueError(f"{self.uri}: cannot be written ({reason}); choose another --out") from None


def _patiently(change: Callable[[], None], patience: Sequence[float]) -> None:
    for seconds in patience:
        try:
            return change()
        except OSError as error:
            if error.errno in _FINAL or any(word in str(error) for word in _FINAL_OF_S3):
                raise
            time.sleep(seconds)
    return change()


def place(uri: str | None) -> str | None:
    """A path or URI as it may be kept and shown: without keys and options."""
    return None if uri is None else Store(uri).uri


def read_file(uri: str | Path) -> bytes:
    """The content of one file by path or URI. Raises OSError."""
    place = Store(uri)
    with place.filesystem.open_input_file(place.root) as stream:
        return stream.read()


def reason(error: BaseException) -> str:
    """One line that may be logged. The text of an OSError is left out: it holds a path, and a path may hold a name."""
    if isinstance(error, OSError):
        return f"cannot be read ({os.strerror(error.errno) if error.errno else type(error).__name__})"
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
