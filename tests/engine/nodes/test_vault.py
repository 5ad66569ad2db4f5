from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from medray.engine.nodes.vault import SECRET, fetch
from medray.shards.pseudonym import KEY_BYTES, load_key

ROOT = Path(__file__).resolve().parents[3]
KEY = bytes(range(KEY_BYTES))


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with mock_aws():
        yield boto3.client("secretsmanager", "us-east-1")


def test_jobs_find_the_key(vault: Any, tmp_path: Path) -> None:
    arn = vault.create_secret(Name=SECRET, SecretBinary=KEY)["ARN"]
    folder = tmp_path / "private"
    for _ in range(2):  # after each `ray up`, of the same head too
        assert fetch("us-east-1", folder).stat().st_mode & 0o777 == 0o600
    assert load_key(folder) == KEY
    policy = json.loads((ROOT / "medray" / "engine" / "nodes" / "aws" / "head.json").read_text())["Statement"]
    (resource,) = [each["Resource"] for each in policy if each["Action"] == "secretsmanager:GetSecretValue"]
    assert re.fullmatch(resource.replace("*", "[^:]*").replace("?", "[^:]"), arn)


def test_a_key_that_is_there_stays(vault: Any, tmp_path: Path) -> None:
    vault.create_secret(Name=SECRET, SecretBinary=KEY)
    before = load_key(tmp_path / "private")
    with pytest.raises(ValueError, match="another key"):
        fetch("us-east-1", tmp_path / "private")
    assert load_key(tmp_path / "private") == before


def test_a_fetch_that_was_killed_leaves_no_half_key(
    vault: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault.create_secret(Name=SECRET, SecretBinary=KEY)

    def killed(*paths: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", killed)
        with pytest.raises(KeyboardInterrupt):
            fetch("us-east-1", tmp_path / "private")
    assert not (tmp_path / "private" / "pseudonym.key").exists()
    fetch("us-east-1", tmp_path / "private")
    assert load_key(tmp_path / "private") == KEY


def test_what_is_no_key_is_refused(vault: Any, tmp_path: Path) -> None:
    vault.create_secret(Name=SECRET, SecretString="a password")
    with pytest.raises(ValueError, match="0 bytes where the key has 32"):
        fetch("us-east-1", tmp_path / "private")
    assert not (tmp_path / "private").exists()


def test_the_shown_commands_are_of_this_secret() -> None:
    text = (ROOT / "medray" / "engine" / "README.md").read_text()
    assert (
        f"create-secret --region us-east-1 --name {SECRET} --secret-binary fileb://$HOME/.medray/pseudonym.key" in text
    )
    assert "python -m medray.engine.nodes.vault us-east-1" in text
