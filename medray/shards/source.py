"""Source: what a system's input files are, and how an item of one or several becomes rows of a shard."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, ClassVar, TypeVar

import pyarrow as pa

from medray.shards.files import Files
from medray.shards.names import file_name

SomeSource = TypeVar("SomeSource", bound="Source")


@dataclass(frozen=True)
class Encoded:
    """One row's columns of the shard schema that come from pixels, or the reason why there are none."""

    columns: dict[str, Any] | None
    note: str | None = None  # what was repaired, or why the row is set aside


def named(headers: list[dict[str, Any]], path: str) -> list[dict[str, Any]]:
    """Rows of a scan, each with an "item_id": the file's name without suffix where the file does not tell."""
    return [h | {"item_id": file_name(path)} if h["item_id"] is None else h for h in headers]


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """Its fields, but for the first one, say how pixels are prepared: two folders of shards with equal fields hold equal pixels.

    A field of ``shard_schema`` that holds identifiers says so in its metadata, {"identifier": kind}: the kind is what its
    pseudonyms begin with.
    """

    allow_burned_in: bool = False
    """Use DICOM images, too, into which text may be burned: their headers say so (0028,0301), or they are secondary captures, as
    films of some public sets are. Look at them first: the text may name the patient, and stays in the shards."""

    id_column: ClassVar[str]  # of shard_schema: unique
    stack_column: ClassVar[str | None] = None  # rows that share it stay together, in the order of "index"
    version: ClassVar[int] = 1
    """Of what ``scan``, ``encode`` and the system's ``assemble`` make of a file: a folder of another one is not gone on with."""
    rows_per_group: ClassVar[int] = 8
    """At most, of a Parquet row group, which is what a training task reads at once: a few megabytes. Rows that are large make
    smaller ones (``part.BYTES_PER_GROUP``)."""
    row_bytes: ClassVar[int | None] = None
    """About what a row takes in the shards, where all are alike; else it is taken to be what its files take."""
    scan_schema: ClassVar[pa.Schema]  # what a header tells; "item_id" is unique
    shard_schema: ClassVar[pa.Schema]

    def identity(self) -> dict[str, Any]:
        return {"source": type(self).__name__, "version": self.version, **self.preparation()}

    def preparation(self) -> dict[str, Any]:
        """The fields that say how pixels are prepared. Which files are taken is seen in the rows."""
        return {name: value for name, value in asdict(self).items() if name != "allow_burned_in"}

    @classmethod
    def kinds(cls) -> dict[str, str]:
        """Columns of tables and shards that hold identifiers → the kind of each."""
        marked = {
            f.name: f.metadata[b"identifier"].decode() for f in cls.shard_schema if b"identifier" in (f.metadata or {})
        }
        return {"item_id": marked[cls.id_column], "path": "file"} | marked

    @property
    @abstractmethod
    def folder(self) -> str:
        """Name of the shards' folder: of what in them can differ within one --out."""

    def settings(self) -> dict[str, Any]:
        """Of ``preparation`` what ``folder`` does not name: one --out holds one version of it."""
        return self.preparation()

    def holding(self: SomeSource, needs: Sequence[str], there: Sequence[Mapping[str, Any]]) -> SomeSource:
        """This source with all that tasks need (``Task.shard_needs``); as existing shards have it where one does.

        Args:
            there: identities of the sources that made them, as ``part.held`` reads them.
        """
        return self

    @abstractmethod
    def scan(self, stream: BinaryIO) -> list[dict[str, Any]]:
        """Rows of ``scan_schema`` of one file, without decoding pixels. A file that does not name itself gives an
        "item_id" of None: its name without suffix is taken. Raises ValueError with a one-line reason."""

    @abstractmethod
    def encode(self, files: Files, rows: Sequence[dict[str, Any]]) -> list[Encoded]:
        """Pixels of the rows that share exactly these files, in order: one row of an item, the frames of one DICOM file.
        Raises ValueError where nothing of them can be used.

        Args:
            files: ``files.only`` is the file of an item of one; ``files["mask"]`` one of those that the inventory's column
                "files" names.
        """
