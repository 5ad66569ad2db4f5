"""The doctor on this machine, without a GPU or a cluster, as on any laptop."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from medray.engine.environment import DEFAULTS
from medray.shards.address import ALLOWED

ROOT = Path(__file__).resolve().parents[2]

RunJob = Callable[..., tuple[int, str]]
COMMON = ("--no-pretrained", "--backbones", "test_resnet", "--min-disk-gb", 0.001)


def lines(text: str) -> dict[str, str]:
    """What was found, by the name of the check without the node."""
    checks = [line for line in text.splitlines() if line.startswith(("ok ", "warn ", "FAIL "))]
    return {line[6:].split()[0]: line for line in checks}


@pytest.mark.parametrize(
    ("flag", "address"), [("--tracking-uri", "http://me:abc123@host"), ("--out", "s3://me:abc123@bucket")]
)
def test_an_address_with_a_secret_is_refused_as_a_job_would(
    flag: str, address: str, run_in_process: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ALLOWED)
    status, text = run_in_process("doctor", flag, address, *COMMON)
    assert status == 2
    assert f"{flag} {address.replace('me:abc123@', '')}: holds a secret" in " ".join(text.split())
    assert "abc123" not in text


@pytest.mark.slow
def test_a_laptop_is_well(local_ray: None, tmp_path: Path, run_in_process: RunJob) -> None:
    status, text = run_in_process("doctor", "--out", tmp_path / "out", *COMMON)
    assert status == 0, text
    found = lines(text)
    for name in ("Ray", "GPU", "Gloo", "storage", "MLflow", "weights", "disk", "memory", "clock", "versions"):
        assert name in found, text
        assert not found[name].startswith("FAIL")
    assert "on this machine, no cluster" in found["Ray"]
    assert list((tmp_path / "out").iterdir()) == []  # it leaves nothing
    status, text = run_in_process("doctor", "--out", tmp_path / "out", *COMMON[:3], "--min-disk-gb", 10**9)
    assert status == 1
    assert "FAIL" in lines(text)["disk"]
    assert "1 that a run would fail on" in text


def test_what_is_wrong_ends_in_status_1_and_hides_nothing(
    local_ray: None, tmp_path: Path, run_in_process: RunJob
) -> None:
    (tmp_path / "file").write_text("")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    status, text = run_in_process(
        "doctor", "--out", tmp_path / "file" / "out", "--tracking-uri", f"http://127.0.0.1:{port}", *COMMON
    )
    assert status == 1
    found = lines(text)
    assert f"http://127.0.0.1:{port}: does not answer" in found["MLflow"]
    failed = [line for line in text.splitlines() if line.startswith("FAIL")]
    assert [line.split()[1] for line in failed] == ["MLflow", "storage", "storage"]  # from the driver and from the node
    assert all("→" in line for line in failed)
    assert found["Gloo"].startswith("ok")  # one failure does not keep the rest from being looked at


def test_missing_weights(local_ray: None, tmp_path: Path, run_in_process: RunJob) -> None:
    status, text = run_in_process(
        "doctor", "--out", tmp_path, "--backbones", "test_resnet", "--weights", tmp_path / "none.pt", *COMMON[3:]
    )
    assert status == 1
    assert str(tmp_path / "none.pt") in lines(text)["weights"]


@pytest.mark.slow
def test_as_a_user_types_it(tmp_path: Path) -> None:
    """Under `uv run`, Ray would build the workers' environment anew, and a relative --out would be another folder there."""
    uv = os.environ.get("UV") or shutil.which("uv")  # UV: of the `uv run` that has started the tests
    assert uv, "pip install uv"
    bare = {name: value for name, value in os.environ.items() if name not in DEFAULTS and name != "RAY_ADDRESS"}
    out = Path("out") / f"doctor-{uuid.uuid4().hex}"
    words = [uv, "run", "--no-sync", "jobs/doctor.py", "--no-pretrained", "--min-disk-gb", "0.001", "--out", str(out)]
    try:
        done = subprocess.run(
            words, env=bare | {"UV_PROJECT_ENVIRONMENT": sys.prefix}, cwd=ROOT, capture_output=True, text=True,
            timeout=280, check=False,
        )  # fmt: skip
        assert "FAIL" not in done.stdout, done.stdout
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Creating virtual environment" not in done.stderr
        assert f"{out}: written, read, renamed, deleted" in done.stdout
    finally:
        shutil.rmtree(ROOT / out, ignore_errors=True)
