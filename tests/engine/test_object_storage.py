"""The same code on s3:// as on a disk, against a server on loopback."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import boto3
import pandas as pd
import pytest
from moto.server import ThreadedMotoServer

from medray.shards.store import Store


@pytest.fixture(scope="module")
def bucket() -> str:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    _, port = server.get_host_and_port()
    place = f"http://127.0.0.1:{port}"
    keys = {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=place, **keys).create_bucket(Bucket="medray")
    yield f"s3://k:s@medray/{{}}?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
    server.stop()


def test_a_store(bucket: str) -> None:
    store = Store(bucket.format("a"))
    store.check_writable()
    store.sub("b").write_json("c.json", [1])
    assert store.sub("b").read_json("c.json") == [1]
    assert store.sub("b").names(".json") == ["c.json"]
    assert [f.path for f in store.files()] == ["medray/a/b/c.json"]
    store.sub("b").delete("c.json")
    assert not store.sub("b").exists("c.json")
    assert "k:s" not in store.sub("b").uri
    with pytest.raises(ValueError, match="no files"):
        Store(bucket.format("empty")).files()


def test_what_is_written_piece_by_piece_is_there_whole_or_not_at_all(bucket: str) -> None:
    store = Store(bucket.format("pieces"))

    def broken(stream: BinaryIO) -> None:
        stream.write(bytes(12 << 20))
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        store.write_stream("large", broken)
    assert not store.exists("large")
    store.write_stream("large", lambda stream: [stream.write(bytes([i]) * (6 << 20)) for i in range(3)])
    assert store.read_bytes("large") == b"".join(bytes([i]) * (6 << 20) for i in range(3))


@pytest.mark.slow
def test_the_job_from_bucket_to_bucket(bucket: str, phantoms, local_ray, tmp_path: Path, run_in_process) -> None:
    files = Store(bucket.format("in"))
    for path in (phantoms.folder / "dicom").iterdir():
        files.write_bytes(f"dicom/{path.name}", path.read_bytes())
    files.write_bytes("labels.csv", (phantoms.folder / "labels.csv").read_bytes())
    status, text = run_in_process(
        "ich_cv", "--dicom", bucket.format("in/dicom"), "--labels", bucket.format("in/labels.csv"),
        "--out", bucket.format("out"), "--key-dir", tmp_path, "--folds", 2, "--backbones", "test_resnet",
        "--no-pretrained", "--size-px", 32, "--epochs", 1, "--batch-size", 8, "--repeat-epidural", 1,
        "--sequence.hidden", 8, "--sequence.epochs", 1,
    )  # fmt: skip
    assert status == 0, text
    out = Store(bucket.format("out"))
    assert {"config.json", "folds.parquet", "inventory.parquet", "metrics.json", "oof.parquet", "report.html"} <= set(
        out.names()
    )
    oof = out.read_table("oof.parquet").to_pandas()
    assert isinstance(oof, pd.DataFrame)
    assert oof["slice_id"].is_unique
    assert (tmp_path / "mlflow.db").exists()
