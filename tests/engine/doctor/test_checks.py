"""Every check of the doctor's fails for a real reason here, and says what it found and the way out."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from moto.server import ThreadedMotoServer
from ray_processes import other_ray

from medray.engine.doctor.checks import (
    Check,
    Node,
    check_address,
    check_disk,
    check_gpus,
    check_mlflow,
    check_object_store,
    check_shard_times,
    check_skew,
    check_storage,
    check_versions,
    check_weights,
    has_kernels,
    redacted,
    try_storage,
)
from medray.shards.store import Store

TORCH_210 = ("sm_70", "sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")
TORCH_212 = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")
V100 = ("Tesla V100-SXM2-16GB", (7, 0))
HERE = ("3.11.9", "2.60.0", "2.10.0")
NODE = Node(
    name="10.0.0.7", versions=HERE, gpus=(V100,) * 4, ray_gpus=4, archs=TORCH_210, disk_free_bytes=int(50e9),
    object_store_bytes=20e9, shared_memory_bytes=int(60e9), skew_s=0.01, storage=None, sees_driver=True,
)  # fmt: skip


def fails(check: Check | None, *found: str, way_out: str, status: str = "FAIL") -> None:
    assert check is not None
    assert check.status == status, check
    for text in found:
        assert text in check.found, check
    assert way_out in check.way_out, check
    assert "\n" not in str(check)


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


# ------------------------------------------------------------------------------------------------------------ Ray


def test_an_address_where_nothing_listens() -> None:
    address = f"127.0.0.1:{closed_port()}"
    fails(check_address(address), address, "refused", way_out="ray up cluster.yaml")
    fails(check_address("not-an-address"), "not-an-address", way_out="unset RAY_ADDRESS")
    assert check_address(None) is None


def test_the_address_of_the_jobs_page_is_no_cluster() -> None:
    fails(check_address("http://127.0.0.1:8265"), "http://127.0.0.1:8265", way_out="ray job submit")


@pytest.fixture
def guarded_ray() -> Iterator[str]:
    """A cluster of one node that wants the token ``right``; ends by the ids of its processes."""
    mark, folder = uuid.uuid4().hex, Path(tempfile.mkdtemp(prefix="ray-dr-", dir="/tmp"))
    from ray._private.services import get_node_ip_address

    address = f"{get_node_ip_address()}:{closed_port()}"
    environment = clean_environment() | {
        "MEDRAY_TEST_CLUSTER": mark, "RAY_AUTH_TOKEN": "right" * 4, "RAY_ADDRESS": address,
    }  # fmt: skip
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", f"--port={address.rpartition(':')[2]}"),
        *(f"--dashboard-port={closed_port()}", "--num-cpus=1", "--object-store-memory=80000000"),
        *("--disable-usage-stats", f"--temp-dir={folder / 'r'}"),
    ]
    try:
        subprocess.run(command, env=environment, capture_output=True, timeout=90, check=True)
        yield address
    finally:
        for process in psutil.process_iter():
            try:
                if process.environ().get("MEDRAY_TEST_CLUSTER") == mark:
                    process.kill()
            except psutil.Error:
                continue
        shutil.rmtree(folder, ignore_errors=True)


def clean_environment() -> dict[str, str]:
    return other_ray() | {"RAY_AUTH_MODE": "token", "PYTHONPATH": str(Path(__file__).resolve().parents[3])}


@pytest.mark.on_demand
def test_a_wrong_token_and_the_right_one(guarded_ray: str, tmp_path: Path) -> None:
    def doctor(token: str) -> tuple[int, str]:
        job = Path(__file__).resolve().parents[3] / "jobs" / "doctor.py"
        ran = subprocess.run(
            [sys.executable, str(job), "--out", str(tmp_path), "--no-pretrained", "--backbones", "test_resnet"],
            env=clean_environment() | {"RAY_AUTH_TOKEN": token, "RAY_ADDRESS": guarded_ray},
            capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
        assert token not in ran.stdout + ran.stderr
        return ran.returncode, ran.stdout

    status, text = doctor("wrong" * 4)
    (line,) = [line for line in text.splitlines() if line.startswith("FAIL")]
    assert status == 1
    assert f"FAIL  Ray             {guarded_ray} answers, but does not let this machine in" in line
    assert "ray get-auth-token" in line
    status, text = doctor("right" * 4)
    assert status == 0, text
    assert "with token" in text


def test_nodes_of_another_version() -> None:
    other = replace(NODE, name="10.0.0.8", versions=("3.12.1", "2.60.0", "2.12.1"))
    fails(
        check_versions(HERE, [NODE, other]), "10.0.0.8 has Python 3.12.1", "10.0.0.8 has torch 2.12.1", way_out="same"
    )
    assert check_versions(("3.11.2", *HERE[1:]), [NODE]).status == "ok"  # a patch release is no difference


# ----------------------------------------------------------------------------------------------------------- GPUs


def test_a_gpu_that_this_torch_does_not_know() -> None:
    node = replace(NODE, archs=TORCH_212, versions=(*HERE[:2], "2.12.1"))
    fails(check_gpus(node), "V100", "sm_70", "torch 2.12.1", "sm_75", way_out="torch 2.10.0")


def test_a_gpu_that_it_knows() -> None:
    line = str(check_gpus(NODE))
    assert line.startswith("ok    GPU 10.0.0.7")
    assert "4 × Tesla V100-SXM2-16GB sm_70" in line
    assert "fp16 with a gradient scaler" in line
    assert "bf16" in check_gpus(replace(NODE, gpus=(("A100", (8, 0)),), ray_gpus=1)).found


def test_gpus_that_ray_has_and_torch_does_not() -> None:
    fails(check_gpus(replace(NODE, gpus=())), "hands out 4", "sees 0", way_out="nvidia-smi")


def test_no_gpu_is_no_failure() -> None:
    without = replace(NODE, gpus=(), ray_gpus=0)
    assert check_gpus(without).status == "ok"
    assert "a CPU machine" in check_gpus(without).found
    assert check_gpus(without, wanted=True).status == "warn"


@pytest.mark.parametrize(
    ("capability", "archs", "expected"),
    [
        ((7, 0), TORCH_210, True),
        ((7, 0), TORCH_212, False),
        ((8, 9), TORCH_210, True),  # an L4 runs what was built for sm_86
        ((8, 0), ("sm_86",), False),
        ((9, 0), ("sm_90a",), True),
        ((12, 1), TORCH_210, True),
        ((13, 0), TORCH_210, False),
        ((13, 0), TORCH_212, True),  # compiled on the GPU, from compute_120
        ((10, 0), ("sm_70", "sm_100"), True),
        ((7, 0), (), False),
    ],
)
def test_kernels(capability: tuple[int, int], archs: tuple[str, ...], expected: bool) -> None:
    assert has_kernels(capability, archs) is expected


# ----------------------------------------------------------------------------------------- disks, memory, clocks


def test_a_disk_that_is_too_full(tmp_path: Path) -> None:
    node = replace(NODE, disk_free_bytes=shutil.disk_usage(tmp_path).free)
    fails(check_disk(node, 1e18), "GB free", "1000000000.0 GB are wanted", way_out="VolumeSize")
    assert check_disk(node, 1.0).status == "ok"


def test_an_object_store_that_does_not_fit_into_memory() -> None:
    small = replace(NODE, shared_memory_bytes=64_000_000)
    fails(check_object_store(small), "20.0 GB", "/dev/shm 0.1 GB", way_out="--shm-size", status="warn")
    tiny = replace(NODE, object_store_bytes=8e7)
    fails(check_object_store(tiny), "0.1 GB", way_out="--object-store-memory", status="warn")
    assert check_object_store(NODE).status == "ok"


@pytest.mark.parametrize(
    ("seconds", "status", "text"),
    [
        (0.2, "ok", "+0.2 s"),
        (-42.0, "warn", "42.0 s behind"),
        (42.0, "warn", "42.0 s ahead of"),
        (-3600.0, "FAIL", "1:00:00 behind"),
    ],
)
def test_a_clock_that_is_off(seconds: float, status: str, text: str) -> None:
    check = check_skew("clock 10.0.0.7", seconds, "its clock", "set it by NTP")
    assert check.status == status
    assert text in check.found
    assert check.way_out == ("" if status == "ok" else "set it by NTP")


def test_shards_from_the_future(tmp_path: Path) -> None:
    out, now = Store(tmp_path), time.time()
    assert check_shard_times(out, now) is None
    for name in ("a", "b"):
        out.sub("shards", "40-80").write_bytes(f"{name}.parquet", b"")
    assert check_shard_times(out, now + 1) == check_shard_times(out, now + 1)
    assert "2 shards" in str(check_shard_times(out, now + 60))
    os.utime(tmp_path / "shards" / "40-80" / "b.parquet", (now + 7200, now + 7200))
    fails(check_shard_times(out, now), "1 of 2", "40-80/b.parquet by 2:00:00", way_out="NTP", status="warn")


# -------------------------------------------------------------------------------------------------------- storage


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    uri = str(tmp_path / "file" / "out")
    fails(check_storage("driver", uri, try_storage(uri)), uri, "cannot be written", way_out="--out")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_folder_that_can(tmp_path: Path) -> None:
    assert check_storage("driver", str(tmp_path), try_storage(str(tmp_path))).status == "ok"
    assert list(tmp_path.iterdir()) == []


def test_a_disk_of_the_nodes_own(tmp_path: Path) -> None:
    check = check_storage("10.0.0.7", str(tmp_path), None, sees_driver=False)
    fails(check, "another disk", way_out="all nodes mount")


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    _, port = server.get_host_and_port()
    keys = {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", **keys).create_bucket(Bucket="there")
    yield f"s3://AKIDUSER:very%2Fsecret@{{}}/out?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
    server.stop()


def test_object_storage_and_no_keys_in_the_line(s3: str) -> None:
    good, bad = s3.format("there"), s3.format("not-there")
    assert check_storage("driver", good, try_storage(good)).status == "ok"
    check = check_storage("driver", bad, try_storage(bad))
    fails(check, "s3://not-there/out", "cannot be written", way_out="its role, its keys")
    for line in (str(check), str(check_storage("driver", good, None))):
        assert "secret" not in line
        assert "AKIDUSER" not in line


def test_an_error_that_repeats_the_uri() -> None:
    uri = "s3://AKIDUSER:very%2Fsecret@bucket/a?secret_key=abc123&region=x"
    text = f"cannot open {uri}\nmore"
    assert redacted(text, uri) == "cannot open s3://bucket/a"
    assert redacted("refused very/secret for AKIDUSER abc123 x", uri) == "refused *** for *** *** x"


# --------------------------------------------------------------------------------------------------------- MLflow


def test_an_mlflow_server_that_is_not_there() -> None:
    uri = f"http://user:pass@127.0.0.1:{closed_port()}"
    check = check_mlflow(uri)
    fails(check, uri.replace("user:pass@", ""), "does not answer", "refused", way_out="ray attach cluster.yaml -p 5000")
    assert "pass" not in check.found


@pytest.mark.parametrize(("code", "body", "status"), [(200, b"3.17.2", "ok"), (403, b"no", "FAIL"), (401, b"", "FAIL")])
def test_what_a_server_answers(code: int, body: bytes, status: str) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    check = check_mlflow(f"http://127.0.0.1:{server.server_port}/")
    server.shutdown()
    server.server_close()
    assert check.status == status
    if status == "ok":
        assert "version 3.17.2" in check.found
    else:
        fails(check, str(code), way_out="MLFLOW_TRACKING_USERNAME")


def test_an_mlflow_database(tmp_path: Path) -> None:
    assert check_mlflow(None).status == "ok"
    assert check_mlflow(f"sqlite:///{tmp_path}/new/mlflow.db").status == "ok"
    (tmp_path / "file").write_text("")
    fails(check_mlflow(f"sqlite:///{tmp_path}/file/mlflow.db"), "file/mlflow.db", way_out="can be written")


# -------------------------------------------------------------------------------------------------------- weights


def test_weights_that_are_missing(tmp_path: Path) -> None:
    out = Store(tmp_path)
    there = tmp_path / "test_resnet.safetensors"
    fails(
        check_weights("test_resnet", f"{tmp_path}/{{backbone}}.safetensors", True, out), str(there), "cannot be read",
        way_out="--weights FILE_OR_URI",
    )  # fmt: skip
    there.write_bytes(b"")
    fails(check_weights("test_resnet", str(there), True, out), "empty", way_out="--weights")
    there.write_bytes(b"x" * 2_000_000)
    assert "2 MB" in check_weights("test_resnet", f"{tmp_path}/{{backbone}}.safetensors", True, out).found


def test_a_hub_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    hub, out = f"http://127.0.0.1:{closed_port()}", Store(tmp_path)
    check = check_weights("test_resnet", None, True, out, hub=hub)
    fails(check, "test_resnet", "neither in the cache", "refused", way_out="--no-pretrained")
    assert check_weights("test_resnet", None, False, out, hub=hub).status == "ok"
    out.sub("runs", "test_resnet").write_bytes("initial.pt", b"x")
    assert "fetched before" in check_weights("test_resnet", None, True, out, hub=hub).found
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: "file")
    assert "cache" in check_weights("efficientnet_b3", None, True, out, hub=hub).found


def test_a_backbone_that_timm_does_not_know(tmp_path: Path) -> None:
    fails(check_weights("resnet5o", None, True, Store(tmp_path)), "resnet5o", way_out="did you mean")
