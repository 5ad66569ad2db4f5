"""Many that want the same file: one gets it, on a disk, on S3, and in storage without conditions."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import boto3
import pytest
from moto.server import ThreadedMotoServer

from medray.shards import only_if
from medray.shards.only_if import OnlyIf
from medray.shards.store import Store

MANY = 12
RACE = """
import sys
from medray.shards.only_if import OnlyIf
from medray.shards.store import Store
file = OnlyIf(Store(sys.argv[1]), ".lease.json")
sys.stdin.readline()
print(file.write(sys.argv[2].encode(), sys.argv[3] or None))
"""


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    _, port = server.get_host_and_port()
    keys = {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", **keys).create_bucket(Bucket="medray")
    yield f"s3://k:s@medray/{{}}?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
    server.stop()


@pytest.fixture(params=["disk", "s3", "other"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "disk":
        return Store(tmp_path)
    place = Store(request.getfixturevalue("bucket").format(request.node.name.replace("[", "-").strip("]")))
    if request.param == "other":  # as pyarrow has it for Google's storage: no conditions
        monkeypatch.setattr(only_if.pafs, "S3FileSystem", type("NoStorage", (), {}))
        monkeypatch.setattr(only_if, "SETTLE_SECONDS", 0.5)
    return place


def test_it_is_written_only_if_it_is_as_it_was_seen(folder: Store) -> None:
    file = OnlyIf(folder, ".lease.json")
    assert file.read() is None
    assert not file.write(b"x", "0123")
    assert file.write(b"a", None)
    assert not file.write(b"b", None)
    content, seen = file.read()
    assert content == b"a"
    assert file.write(b"b", seen)
    assert not file.write(b"c", seen)
    assert file.read()[0] == b"b"
    file.remove()
    file.remove()
    assert file.read() is None


@pytest.mark.parametrize("there", [False, True])
def test_of_many_at_once_one_writes_it(there: bool, folder: Store) -> None:
    file = OnlyIf(folder, ".lease.json")
    if there:
        file.write(b"old", None)
    seen, together = file.read(), Barrier(MANY)

    def write(number: int) -> bool:
        own = OnlyIf(folder, ".lease.json")
        together.wait()
        return own.write(b"%d" % number, seen and seen[1])

    with ThreadPoolExecutor(MANY) as pool:
        wrote = list(pool.map(write, range(MANY)))
    assert sum(wrote) == 1
    assert file.read()[0] == b"%d" % wrote.index(True)


@pytest.mark.parametrize("there", [False, True])
def test_of_many_processes_one_writes_it(there: bool, tmp_path: Path) -> None:
    file = OnlyIf(Store(tmp_path), ".lease.json")
    if there:
        file.write(b"old", None)
    seen = file.read()
    words = [sys.executable, "-c", RACE, str(tmp_path)]
    racers = [
        subprocess.Popen([*words, str(i), seen[1] if seen else ""], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for i in range(4)
    ]  # fmt: skip
    for racer in racers:
        racer.stdin.write("\n")
        racer.stdin.flush()
    wrote = [racer.communicate()[0].strip() for racer in racers]
    assert sorted(wrote) == ["False", "False", "False", "True"]
    assert file.read()[0] == str(wrote.index("True")).encode()


def test_storage_that_cannot_be_reached_is_an_error_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    file = OnlyIf(Store("s3://k:s@b/x?endpoint_override=127.0.0.1:1&scheme=http&region=us-east-1"), ".lease.json")
    with pytest.raises(OSError, match="S3: EndpointConnectionError"):
        file.read()
