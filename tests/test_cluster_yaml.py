"""cluster.yaml by Ray's own code: its schema, its autoscaler's arithmetic, and `ray up` against a mocked EC2."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
import tomllib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.client
import botocore.exceptions
import psutil
import pytest
from cluster_files import changes, launched, loaded_with, scheduled
from moto import mock_aws
from ray.autoscaler._private import commands, providers
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.tags import NODE_KIND_WORKER, TAG_RAY_NODE_KIND, TAG_RAY_NODE_STATUS, TAG_RAY_USER_NODE_TYPE
from ray_processes import free_port

from medray.engine.doctor.checks import check_mlflow
from medray.engine.nodes.spot import SpotFirst

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "cluster.yaml").read_text()
VARIANTS = ("A10G", "L4", "A100", "H100", "V100")


def config(variant: str = "A10G") -> dict[str, Any]:
    return loaded_with(TEXT, variant)


@pytest.mark.parametrize("variant", VARIANTS)
def test_ray_accepts_it_and_a_variant_changes_five_places_at_most(variant: str) -> None:
    prepared = prepare_config(config(variant))
    validate_config(prepared)
    assert len(changes(TEXT, variant)) <= 5
    assert bool(changes(TEXT, variant)) == (variant != "A10G")
    types = prepared["available_node_types"]
    assert [(t["min_workers"], t["max_workers"]) for t in (types["gpu"], types["cpu"])] == [(0, 4), (0, 4)]
    assert types["head"]["resources"] == {"CPU": 0, "GPU": 0}
    assert types["head"]["max_workers"] == 0
    assert "GPU" not in types["cpu"]["resources"]
    assert 1 <= prepared["idle_timeout_minutes"] <= 10


@pytest.fixture(scope="module")
def vcpus_and_gpus() -> dict[str, tuple[int, int]]:
    """Of every instance type, from the copy of EC2's list that moto carries."""
    found = {}
    with mock_aws():
        ec2 = boto3.client("ec2", "us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
        for page in ec2.get_paginator("describe_instance_types").paginate():
            for each in page["InstanceTypes"]:
                gpus = sum(gpu["Count"] for gpu in each.get("GpuInfo", {}).get("Gpus", []))
                found[each["InstanceType"]] = (each["VCpuInfo"]["DefaultVCpus"], gpus)
    return found


@pytest.mark.parametrize("variant", VARIANTS)
def test_resources_are_those_of_the_instance(variant: str, vcpus_and_gpus: dict[str, tuple[int, int]]) -> None:
    for name, each in config(variant)["available_node_types"].items():
        if name != "head":
            stated = (each["resources"]["CPU"], each["resources"].get("GPU", 0))
            assert vcpus_and_gpus[each["node_config"]["InstanceType"]] == stated


FOUR_WORKERS = [{"CPU": 1.0, "GPU": 1.0}] * 4  # one run's placement group, as fit() asks Ray Train for it


@pytest.mark.parametrize(
    ("gangs", "tasks", "expected", "unmet"),
    [
        ([], [], {}, 0),
        ([FOUR_WORKERS], [], {"gpu": 1}, 0),
        ([FOUR_WORKERS] * 4, [], {"gpu": 4}, 0),
        ([FOUR_WORKERS] * 5, [], {"gpu": 4}, 1),
        ([], [({"CPU": 1.0}, 32)], {"cpu": 1}, 0),  # Ray Data alone starts no GPU node
        ([], [({"CPU": 1.0}, 33)], {"cpu": 2}, 0),
        ([], [({"CPU": 0.01}, 1)], {"cpu": 1}, 0),  # the head takes not even a run's controller
    ],
)
def test_nodes_that_the_autoscaler_starts(
    gangs: list[Any], tasks: list[Any], expected: dict[str, int], unmet: int
) -> None:
    reply = scheduled(config(), gangs, tasks)
    assert launched(reply) == expected
    assert len(reply.infeasible_gang_resource_requests) == unmet
    assert not reply.infeasible_resource_requests


def test_torch_is_the_one_that_knows_a_v100() -> None:
    pinned = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    torch = next(p for p in pinned if p.startswith("torch=="))
    assert torch == "torch==2.10.0"
    assert re.search(r"torch: 2\.10\.0,.*\n.*sm_70", TEXT)


def test_no_door_but_ssh() -> None:
    loaded = config()
    start = " ".join(loaded["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in start
    assert "mlflow server --host 127.0.0.1" in start
    assert "0.0.0.0" not in TEXT
    for commands_ in (loaded["head_start_ray_commands"], loaded["worker_start_ray_commands"]):
        wants_it = [command for command in commands_ if "ray start" in command or "medray.engine" in command]
        assert wants_it
        assert all("RAY_AUTH_MODE=token" in command for command in wants_it)
    assert set(loaded["provider"]["security_group"]) == {"GroupName"}  # no IpPermissions: Ray's own rules, seen below
    for each in loaded["available_node_types"].values():
        assert each["node_config"]["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True


def test_shell_commands_parse() -> None:
    loaded = config()
    for name in ("setup_commands", "head_start_ray_commands", "worker_start_ray_commands"):
        for command in loaded[name]:
            subprocess.run(["bash", "-n", "-c", command], check=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray Serve, which Ray's command line imports
def test_ray_start_takes_the_flags() -> None:
    from ray.scripts import scripts

    loaded = config()
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        command = next(command for command in loaded[name] if "ray start" in command)
        flags = shlex.split(command.partition("ray start ")[2])
        parsed = scripts.start.make_context("start", flags).params
        assert parsed["head"] is (name == "head_start_ray_commands")
    assert parsed["address"] == "$RAY_HEAD_IP:6379"


@pytest.mark.on_demand
def test_mlflow_starts_once_and_listens_on_loopback(tmp_path: Path) -> None:
    port, mark = free_port(), uuid.uuid4().hex
    activate = tmp_path / "medray" / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.write_text(f"PATH={Path(sys.executable).parent}:$PATH")
    command = config()["head_start_ray_commands"][-1].replace("5000", str(port))
    environment = os.environ | {"HOME": str(tmp_path), "MEDRAY_TEST_CLUSTER": mark}

    def servers() -> list[psutil.Process]:
        return [p for p in marked(mark) if "mlflow" in " ".join(p.cmdline()) and "server" in p.cmdline()]

    try:
        for _ in range(2):
            subprocess.run(["bash", "-c", command], env=environment, check=True, timeout=20)
            deadline = time.monotonic() + 90
            while check_mlflow(f"http://127.0.0.1:{port}").status != "ok":
                assert time.monotonic() < deadline, (tmp_path / "mlflow" / "server.log").read_text()
                time.sleep(0.5)
            assert len(servers()) == 1
        assert (tmp_path / "mlflow" / "mlflow.db").is_file()
        listening = {c.laddr.ip for p in marked(mark) for c in p.net_connections("tcp") if c.status == "LISTEN"}
        assert listening == {"127.0.0.1"}
    finally:
        for process in marked(mark):
            process.kill()


def marked(mark: str) -> list[psutil.Process]:
    """The processes that this test has started, by a variable that they inherit."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("MEDRAY_TEST_CLUSTER") == mark:
                found.append(process)
        except psutil.Error:
            continue
    return found


class Ssh:
    """In place of ssh and rsync: everything succeeds; what would have run is kept."""

    DEVNULL = subprocess.DEVNULL

    def __init__(self) -> None:
        self.ran: list[str] = []

    def check_call(self, command: list[str], **more: Any) -> int:
        self.ran.append(" ".join(command))
        return 0

    def check_output(self, command: list[str], **more: Any) -> bytes:
        self.ran.append(" ".join(command))
        return b""


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """EC2, IAM and a home folder that are not there."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("t" * 64)
    for name in ("medray", "pyproject.toml", "README.md"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "cluster.yaml").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(providers, "_provider_instances", {})
    with mock_aws():
        iam = boto3.client("iam")
        for role in ("medray-head", "medray-worker"):
            iam.create_instance_profile(InstanceProfileName=role)
        yield tmp_path


def instances() -> list[dict[str, Any]]:
    found = boto3.client("ec2", "us-east-1").describe_instances()["Reservations"]
    return [instance for reservation in found for instance in reservation["Instances"]]


@pytest.mark.slow
def test_ray_up_rehearsed(aws: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ssh, original = Ssh(), commands.get_or_create_head_node
    monkeypatch.setattr(commands, "get_or_create_head_node", lambda *a, **k: original(*a, **k | {"_runner": ssh}))
    commands.create_or_update_cluster("cluster.yaml", None, None, False, False, yes=True, no_config_cache=True)

    (head,) = instances()
    assert head["InstanceType"] == "m6i.2xlarge"
    assert head["IamInstanceProfile"]["Arn"].endswith("medray-head")
    assert boto3.client("iam").list_roles()["Roles"] == []  # Ray made none of its own: they may do everything
    (group,) = boto3.client("ec2", "us-east-1").describe_security_groups(GroupNames=["medray"])["SecurityGroups"]
    outside = [p for p in group["IpPermissions"] if p["IpRanges"] or p.get("Ipv6Ranges")]
    assert [(p["IpProtocol"], p["FromPort"], p["ToPort"]) for p in outside] == [("tcp", 22, 22)]
    inside = [p for p in group["IpPermissions"] if not p["IpRanges"]]
    assert all(pair["GroupId"] == group["GroupId"] for p in inside for pair in p["UserIdGroupPairs"])

    ran = ssh.ran
    start = next(line for line in ran if "ray start --head" in line)
    for expected in ("RAY_enable_autoscaler_v2=1", "RAY_AUTH_MODE=token", "--dashboard-host=127.0.0.1", "--num-cpus=0"):
        assert expected in start
    assert any("mlflow server --host 127.0.0.1" in line for line in ran)
    copied = [line for line in ran if line.startswith("rsync")]
    assert any(".ray/auth_token" in line for line in copied)
    assert not any("t" * 64 in line for line in ran)
    sources = [Path(shlex.split(line)[-2]) for line in copied]
    ours = {"auth_token", "medray", "pyproject.toml", "README.md"}
    assert {s.name for s in sources if "bootstrap" not in s.name and s.suffix != ".pem"} == ours


def workers(monkeypatch: pytest.MonkeyPatch, count: int, refuse: str | None = None) -> list[tuple[str, str | None]]:
    """What comes when the autoscaler asks for GPU nodes and EC2 answers spot requests by ``refuse``."""
    call = botocore.client.BaseClient._make_api_call

    def answer(client: Any, operation: str, request: dict[str, Any]) -> Any:
        if operation == "RunInstances" and "InstanceMarketOptions" in request and refuse is not None:
            raise botocore.exceptions.ClientError({"Error": {"Code": refuse, "Message": "no"}}, operation)
        return call(client, operation, request)

    prepared = SpotFirst.bootstrap_config(prepare_config(config()))
    provider = SpotFirst(prepared["provider"], "medray")
    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", answer)
    gpu = prepared["available_node_types"]["gpu"]
    tags = {
        TAG_RAY_NODE_KIND: NODE_KIND_WORKER, TAG_RAY_USER_NODE_TYPE: "gpu", TAG_RAY_NODE_STATUS: "uninitialized",
    }  # fmt: skip
    provider.create_node_with_resources_and_labels(gpu["node_config"], tags, count, gpu["resources"], {})
    assert len(provider.non_terminated_nodes({TAG_RAY_USER_NODE_TYPE: "gpu"})) == count
    found = instances()
    assert all(instance["IamInstanceProfile"]["Arn"].endswith("medray-worker") for instance in found)
    return [(instance["InstanceType"], instance.get("InstanceLifecycle")) for instance in found]


SPOT, ON_DEMAND = ("g5.12xlarge", "spot"), ("g5.12xlarge", None)


def test_spot_is_asked_first(aws: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert workers(monkeypatch, 1) == [SPOT]


def test_what_spot_leaves_open_is_met_on_demand(aws: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # moto starts one instance a request, as a scarce EC2 may where MinCount is 1
    assert sorted(workers(monkeypatch, 2), key=str) == [SPOT, ON_DEMAND]


@pytest.mark.parametrize("code", ["InsufficientInstanceCapacity", "MaxSpotInstanceCountExceeded", "Unsupported"])
def test_a_refused_spot_request_is_met_on_demand(aws: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    assert workers(monkeypatch, 1, code) == [ON_DEMAND]


def test_another_error_is_no_reason_to_pay_more(aws: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Exception, match="UnauthorizedOperation"):
        workers(monkeypatch, 2, "UnauthorizedOperation")
    assert instances() == []


def ray_commands(path: Path) -> list[list[str]]:
    """What stands after `ray` in the commands that a file shows, up to the job's own."""
    joined = re.sub(r"\\+\n[ #]*", " ", path.read_text())
    found = re.findall(r"uv run (?:--with \S+ )*ray ((?!get-auth-token)[a-z]+(?:-[a-z]+)*[^`\n]*)", joined)
    return [shlex.split(line, comments=True) for line in found]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "path", [ROOT / "cluster.yaml", ROOT / "medray" / "engine" / "README.md"], ids=lambda path: path.name
)
def test_rays_own_commands_parse(path: Path) -> None:
    from ray.scripts import scripts

    found = ray_commands(path)
    assert {"up", "attach", "job", "down"} <= {words[0] for words in found}
    for words in found:
        command = scripts.cli.commands[words[0]]
        if words[0] == "job":
            command, words = command.commands[words[1]], words[1:]
        command.make_context(words[0], words[1:])


def test_the_key_of_the_pseudonyms_comes_down_before_the_head_goes() -> None:
    """And goes up before the first job; never into the folder that is sent with every job, nor to every node."""
    names = [words[0] for words in ray_commands(ROOT / "cluster.yaml")]
    lines = [" ".join(words) for words in ray_commands(ROOT / "cluster.yaml")]
    up, down = (
        "rsync-up cluster.yaml ~/.medray-cluster/ ~/.medray/",
        "rsync-down cluster.yaml ~/.medray/ ~/.medray-cluster/",
    )
    assert names.index("up") < lines.index(up) < names.index("job") < lines.index(down) < names.index("down")
    assert not any(".medray" in mount.partition("/")[2] for mount in config()["file_mounts"] if mount != "~/medray")
