"""What should lie in a job's --out: digests of its settings, shards and finished runs, authenticated with the project's key
where there is one."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping

from medray.shards.pseudonym import Pseudonyms
from medray.shards.store import Store

MANIFEST = "manifest.json"
DESCRIBED = ("method.json", "metrics.json")
"""What prediction reads of a folder of results."""
_PIECE = 1 << 20


def sha256(out: Store, name: str) -> str:
    """Of one file, read piece by piece. Raises OSError."""
    digest = hashlib.sha256()
    with out.filesystem.open_input_stream(out.path(name)) as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


class Manifest:
    """Name below --out → SHA-256 of what the job left there.

    Args:
        pseudonyms: with the project's key the manifest is authenticated (HMAC-SHA-256, RFC 2104) when it is read and when it is
            written; without, it tells damage and mistakes from what was written, and nothing about who changed it.
    Raises:
        ValueError: manifest.json is damaged, or was not written with this key.
    """

    def __init__(self, out: Store, pseudonyms: Pseudonyms) -> None:
        self.out, self.pseudonyms = out, pseudonyms
        self.found = out.exists(MANIFEST)
        self.files: dict[str, str] = self._read() if self.found else {}

    def _read(self) -> dict[str, str]:
        try:
            held = self.out.read_json(MANIFEST)
            files = {str(name): str(digest) for name, digest in held["files"].items()}
            authentic = held["authentic"]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(f"{self.out.uri}/{MANIFEST}: damaged; {_WAY_OUT}") from None
        if self.pseudonyms.key is not None and not hmac.compare_digest(str(authentic), str(self._seal(files))):
            raise ValueError(f"{self.out.uri}/{MANIFEST}: was not written with this project's key; {_WAY_OUT}")
        return files

    def _seal(self, files: Mapping[str, str]) -> str | None:
        return self.pseudonyms.seal(json.dumps(files, sort_keys=True).encode())

    def check(self, digests: Mapping[str, str]) -> None:
        """Raises ValueError for the first file that is another one than the manifest says; those that it does not name are not
        looked at."""
        for name, digest in digests.items():
            if self.files.get(name, digest) != digest:
                raise ValueError(
                    f"{self.out.uri}/{name}: is not what the job left there ({MANIFEST} has another SHA-256); put it back, or "
                    "delete it and start the job again, which makes it anew"
                )

    def check_files(self, names: Iterable[str]) -> None:
        """``check`` of small files that are there."""
        self.check({n: sha256(self.out, n) for n in names if n in self.files and self.out.exists(n)})

    def settle(self, digests: Mapping[str, str]) -> None:
        """``check``; what it does not name yet is what it should be from now on."""
        self.check(digests)
        self.keep(digests)

    def keep(self, digests: Mapping[str, str]) -> None:
        """These files are what they should be; the manifest is written."""
        if self.found and self.files.items() >= digests.items():
            return
        self.files |= digests
        self._write()

    def keep_described(self, results: Store) -> None:
        """The description and the figures that a job left in a folder of results."""
        names = [self.name(results, name) for name in DESCRIBED if results.exists(name)]
        self.keep({name: sha256(self.out, name) for name in names})

    def name(self, folder: Store, name: str) -> str:
        """Of a file in a folder below --out, as the manifest has it."""
        return f"{folder.root.removeprefix(self.out.root).strip('/')}/{name}".lstrip("/")

    def forget(self, names: Iterable[str]) -> None:
        """Files that are made anew."""
        gone = self.files.keys() & set(names)
        if gone:
            self.files = {name: digest for name, digest in self.files.items() if name not in gone}
            self._write()

    def forget_missing(self, folder: str) -> None:
        """Files below ``folder`` that are no longer there."""
        self.forget([name for name in self.files if name.startswith(folder) and not self.out.exists(name)])

    def _write(self) -> None:
        self.files = dict(sorted(self.files.items()))
        held = {"files": self.files, "key": self.pseudonyms.fingerprint, "authentic": self._seal(self.files)}
        self.out.write_json(MANIFEST, held)
        self.found = True


_WAY_OUT = "put it back as it was; where you have changed the folder yourself, start its job once with --new-manifest"
