from __future__ import annotations

import re

import pytest

from medray.engine.job.options import Options
from medray.engine.tuning.search import Search
from medray.shards.address import ALLOWED, check_address
from medray.shards.store import Store

SECRET = "abc/d+ef=="


@pytest.fixture(autouse=True)
def as_for_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ALLOWED)


@pytest.mark.parametrize(
    ("address", "shown", "way"),
    [
        (f"s3://AKIA:{SECRET}@bucket/out?region=x", "s3://bucket/out: holds", "AWS_PROFILE"),
        ("s3://bucket/out?secret_key=abc123&region=x", "s3://bucket/out: holds", "AWS_PROFILE"),
        ("gs://bucket/out?token=abc123", "gs://bucket/out: holds", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("http://me:abc123@host:5000/", "http://host:5000/: holds", "MLFLOW_TRACKING_PASSWORD"),
        ("postgresql+psycopg2://me:abc123@host/optuna", "postgresql+psycopg2://host/optuna: holds", "pgpass"),
        ("abfs://c:abc123@account/x", "abfs://account/x: holds", "a profile"),
        ("s3://me:12/abc123@bucket/x", "s3://bucket/x: holds", "AWS_PROFILE"),
        ("s3://AKIA%3Aabc123@bucket", "s3://bucket: holds", "AWS_PROFILE"),
        ("mssql+pyodbc://me:abc@host/db;password=abc", "mssql+pyodbc://host/db: holds", "a profile"),
        ("http://me:abc@host/x&token=abc", "http://host/x: holds", "MLFLOW_TRACKING_USERNAME"),
        ("postgresql://me:abc@h/db?x=a@b:c&password=abc", "postgresql://h/db: holds", "pgpass"),
        (" s3://me:abc@bucket", "s3://bucket: holds", "AWS_PROFILE"),
        ("s3://bucket?access%5Fkey=abc", "s3://bucket: holds", "AWS_PROFILE"),
        ("https://host/x#access_token=abc", "https://host/x: holds", "MLFLOW_TRACKING_PASSWORD"),
        ("https://host/x?subscription-key=abc", "https://host/x: holds", "MLFLOW_TRACKING_PASSWORD"),
        ("hf://hf_abc@/x", "hf:///x: holds", "a profile"),
        ("https://abc123@host/x", "https://host/x: holds", "MLFLOW_TRACKING_PASSWORD"),
        ("redis://:abc123@host", "redis://host: holds", "a profile"),
        ("gs://bucket?access_token=abc", "gs://bucket: holds", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("abfs://bucket?account_key=abc", "abfs://bucket: holds", "a profile"),
        ("s3://bucket/x?region=a&secret_access_key=abc", "s3://bucket/x: holds", "AWS_PROFILE"),
        ("https://host/x?X-Amz-Signature=abc", "https://host/x: holds", "MLFLOW_TRACKING_PASSWORD"),
        ("mssql://host/db;password=abc", "mssql://host/db: holds", "a profile"),
    ],
)
def test_an_address_with_a_secret_is_refused_without_repeating_it(address: str, shown: str, way: str) -> None:
    with pytest.raises(ValueError, match="holds a secret, which would be kept and shown") as caught:
        check_address("--out", address)
    text = str(caught.value)
    assert text.startswith(f"--out {shown}")
    assert way in text
    assert not [part for part in ("abc", "AKIA", "d+ef", "me:") if part in text]


@pytest.mark.parametrize(
    "address",
    [
        "s3://bucket/a@b/c", "s3://bucket/a:b@c", "s3://bucket/out?region=eu-1&endpoint_override=h:9000", "gs://anonymous@bucket/x",
        "s3://arn:aws:s3:us-east-1:123456789012:accesspoint/x", "gs://bucket/keyword;auth=1", "abfs://container@account/x",
        "abfs://container@account/x?credential_kind=environment", "hf://user/model", "hf://datasets/user/name@main/x",
        "hdfs://namenode:8020/user/me@hospital.org/out", "http://host:5000/path@x", "http://host:5000/a?b=c@d", "http://127.0.0.1:5000",
        "http://[::1]:5000/a@b", "sqlite:////data/a@b:c.db", "file:///data/a:b@c", "databricks://profile",
        "postgresql://me@host/optuna", "postgresql://me@host/db?sslmode=require&sslkey=/etc/key&passfile=/home/me/.pgpass",
        "/data/a:b@c", "C:/data/x@y", "/data/study;key=3/x", "out/lr=3;tokenizer=bpe", "/data/x?token=abc",
    ],
)  # fmt: skip
def test_others_pass(address: str) -> None:
    check_address("--out", address)


def test_the_variables_that_are_named_are_mlflows() -> None:
    import mlflow.environment_variables as known

    with pytest.raises(ValueError, match="holds a secret") as caught:
        check_address("--tracking-uri", "http://me:abc123@host")
    named = re.findall("MLFLOW_[A-Z_]+", str(caught.value))
    assert len(named) == 2
    assert all(getattr(known, name).name == name for name in named)


def test_every_flag_that_takes_an_address() -> None:
    with pytest.raises(ValueError, match="^s3://bucket: holds a secret"):
        Store(f"s3://k:{SECRET}@bucket")
    with pytest.raises(ValueError, match="^--tracking-uri http://host: holds a secret"):
        Options(out="x", tracking_uri="http://u:p@host")
    with pytest.raises(ValueError, match="^--study-storage postgresql://host/db: holds a secret"):
        Search(study_storage="postgresql://u:p@host/db")
