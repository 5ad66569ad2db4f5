"""TLS between the nodes by the recipe of the engine's README: two nodes that trust each other, and a stranger who gets no word out."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
import yaml
from moto import mock_aws
from ray_processes import other_ray

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "medray" / "engine" / "README.md").read_text()
TEXT = (ROOT / "cluster.yaml").read_text()
SCRIPT = ROOT / "medray" / "engine" / "nodes" / "certificate.sh"
DRIVER = """
import json, sys
import numpy as np, ray
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1, resources={"second": 1})
ray.init(address=cluster.address, log_to_driver=False)
far = ray.remote(resources={"second": 1})(lambda array: array + 1)
total = ray.get(far.remote(np.zeros(1_000_000))).sum()
print(json.dumps([cluster.address, total]), flush=True)
sys.stdin.readline()
ray.shutdown()
cluster.shutdown()
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What a node has after the recipe's two commands, in a home folder of its own."""
    authority = re.search(r"^\(umask 077; .*openssl req -x509 [^\n]*\\\n[^\n]*$", README, re.MULTILINE)
    assert authority is not None
    for command in (authority[0], f"bash {SCRIPT}", f"bash {SCRIPT}"):  # a node is set up again by the next `ray up`
        subprocess.run(
            ["bash", "-c", command], env=os.environ | {"HOME": str(tmp_path)}, check=True, capture_output=True
        )
    folder = tmp_path / ".ray" / "tls"
    assert {path.name for path in folder.iterdir() if path.stat().st_mode & 0o077} == set()
    words = (folder / "environment").read_text().removeprefix("export ").split()
    return dict(word.split("=", 1) for word in words)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_two_nodes_and_a_stranger(environment: dict[str, str], tmp_path: Path) -> None:
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "t" * 64}
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER], env=other_ray() | environment | token, text=True, cwd=tmp_path,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert driver.stdout is not None
        address, total = json.loads(next(line for line in driver.stdout if line.startswith("[")))
        assert total == 1_000_000
        host, port = address.split(":")
        trusting = ssl.create_default_context(cafile=environment["RAY_TLS_CA_CERT"])
        trusting.set_alpn_protocols(["h2"])
        assert answers(trusting, host, int(port)) is False  # it knows the node, and the node does not know it
        trusting.load_cert_chain(environment["RAY_TLS_SERVER_CERT"], environment["RAY_TLS_SERVER_KEY"])
        assert answers(trusting, host, int(port)) is True
    finally:
        driver.communicate("\n", timeout=60)
    assert driver.returncode == 0


def answers(context: ssl.SSLContext, host: str, port: int) -> bool:
    """Whether the other side speaks to us: a gRPC server begins with its settings."""
    with socket.create_connection((host, port), 10) as raw:
        try:
            with context.wrap_socket(raw, server_hostname=host) as stream:
                stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
                return stream.recv(9)[3:4] == b"\x04"
        except (ssl.SSLError, ConnectionError):
            return False


def test_each_start_takes_the_variables_by_the_recipe_s_change() -> None:
    """The README's sed, on cluster.yaml as it stands: every command that speaks to Ray has them."""
    command = re.search(r"^sed -i '([^']*tls/environment[^']*)' cluster\.yaml", README, re.MULTILINE)
    assert command is not None
    changed = subprocess.run(["sed", command[1]], input=TEXT, text=True, check=True, capture_output=True).stdout
    loaded = yaml.safe_load(changed)
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        for line in loaded[name]:
            assert ("RAY_AUTH_MODE=token" in line) == (". ~/.ray/tls/environment; export RAY_AUTH_MODE" in line)
    assert changed.count("tls/environment") == 3


def test_instances_encrypt_what_goes_between_them() -> None:
    """What the README says of AWS without any of this, by the copy of EC2's list that moto carries."""
    types = set(re.findall(r"InstanceType: (\S+)", TEXT))
    assert len(types) == 7
    with mock_aws():
        ec2 = boto3.client("ec2", "us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
        pages = ec2.get_paginator("describe_instance_types").paginate(InstanceTypes=sorted(types))
        network = {each["InstanceType"]: each["NetworkInfo"] for page in pages for each in page["InstanceTypes"]}
    assert {name for name, each in network.items() if each["EncryptionInTransitSupported"]} == types
