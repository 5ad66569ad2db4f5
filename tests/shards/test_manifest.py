from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from medray.shards.manifest import MANIFEST, Manifest, sha256
from medray.shards.pseudonym import Pseudonyms, project_key
from medray.shards.store import Store

OURS, THEIRS, NO_KEY = Pseudonyms(b"k" * 32), Pseudonyms(b"x" * 32), Pseudonyms(None)


def written(folder: Path, pseudonyms: Pseudonyms = OURS) -> Store:
    out = Store(folder)
    out.write_bytes("shards/a/part.parquet", b"rows")
    out.write_bytes("config.json", b"{}")
    Manifest(out, pseudonyms).keep({name: sha256(out, name) for name in ("shards/a/part.parquet", "config.json")})
    return out


def test_a_digest_is_that_of_the_content(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "a").write_bytes(content)
    assert sha256(Store(tmp_path), "a") == hashlib.sha256(content).hexdigest()


def test_what_is_as_it_was_passes_and_what_is_new_is_kept(tmp_path: Path) -> None:
    out = written(tmp_path)
    out.write_bytes("runs/m/fold0/done.json", b"1")
    Manifest(out, OURS).settle({n: sha256(out, n) for n in ("config.json", "runs/m/fold0/done.json")})
    assert len(Manifest(out, OURS).files) == 3


@pytest.mark.parametrize("pseudonyms", [OURS, NO_KEY])
def test_a_file_that_was_changed_is_named(pseudonyms: Pseudonyms, tmp_path: Path) -> None:
    out = written(tmp_path, pseudonyms)
    out.write_bytes("shards/a/part.parquet", b"rowz")
    with pytest.raises(ValueError, match=r"/shards/a/part.parquet: is not what the job left there.*put it back, or"):
        Manifest(out, pseudonyms).settle({"shards/a/part.parquet": sha256(out, "shards/a/part.parquet")})
    out.write_bytes("config.json", b"[]")
    with pytest.raises(ValueError, match="/config.json: is not what"):
        Manifest(out, pseudonyms).check_files(["config.json", "not/there"])


def test_whoever_has_not_the_key_cannot_make_the_manifest_fit(tmp_path: Path) -> None:
    out = written(tmp_path)
    out.write_bytes("config.json", b"[]")
    held = out.read_json(MANIFEST)
    held["files"]["config.json"] = sha256(out, "config.json")
    forged = [held, held | {"authentic": THEIRS.seal(json.dumps(held["files"], sort_keys=True).encode())}]
    for one in [*forged, held | {"authentic": None}]:
        out.write_json(MANIFEST, one)
        with pytest.raises(ValueError, match="was not written with this project's key; put it back"):
            Manifest(out, OURS)
    for damaged in (b"", b"[1]", b"{}", b'{"files": [], "authentic": 1}'):
        out.write_bytes(MANIFEST, damaged)
        with pytest.raises(ValueError, match="manifest.json: damaged"):
            Manifest(out, OURS)


def test_what_is_made_anew_is_forgotten(tmp_path: Path) -> None:
    out = written(tmp_path)
    out.delete("shards/a/part.parquet")
    manifest = Manifest(out, OURS)
    manifest.forget_missing("shards/b/")
    assert len(manifest.files) == 2
    manifest.forget_missing("shards/a/")
    assert Manifest(out, OURS).files.keys() == {"config.json"}
    manifest.forget(["config.json"])
    assert Manifest(out, OURS).files == {}


def test_description_and_figures_are_named_by_their_folder(tmp_path: Path) -> None:
    out = written(tmp_path)
    results = out.sub("models", "a")
    results.write_bytes("method.json", b"{}")
    manifest = Manifest(out, OURS)
    manifest.keep_described(results)
    manifest.keep_described(out)
    assert "models/a/method.json" in manifest.files
    assert manifest.name(out, "config.json") == "config.json"


def test_projects_of_one_key_have_keys_of_their_own() -> None:
    keys = {project_key(b"k" * 32, project) for project in ("", "a", "b")} | {b"k" * 32}
    assert len(keys) == 4
    assert project_key(b"k" * 32, "a") == project_key(b"k" * 32, "a")
    assert all(len(key) == 32 for key in keys)
