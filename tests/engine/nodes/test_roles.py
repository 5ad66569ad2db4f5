"""What the roles of a cluster on AWS allow: every call that Ray's autoscaler makes on the head, and little else.

EC2 is moto's; the calls are recorded where boto sends them, and each is asked of the policy as the Service Authorization Reference
says that it is checked: RunInstances once for every kind of resource that it makes or takes.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import botocore.client
import pytest
import yaml
from moto import mock_aws
from ray.autoscaler._private import providers
from ray.autoscaler._private.util import prepare_config
from ray.autoscaler.tags import NODE_KIND_WORKER, TAG_RAY_CLUSTER_NAME, TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE
from servers import BUCKET, Bucket

from medray.engine.nodes.spot import SpotFirst
from medray.shards.store import Store

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "cluster.yaml").read_text()
FOLDER = ROOT / "medray" / "engine" / "nodes" / "aws"
HEAD, WORKER = (json.loads((FOLDER / f"{name}.json").read_text())["Statement"] for name in ("head", "worker"))
EC2, IAM = "arn:aws:ec2:us-east-1:123456789012", "arn:aws:iam::123456789012"


@dataclass(frozen=True)
class Request:
    action: str
    resource: str
    about: dict[str, str] = field(default_factory=dict)  # condition key → value


def words(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def allowed(policy: list[dict[str, Any]], request: Request) -> bool:
    """Whether a statement matches; there are none that deny."""
    return any(
        statement["Effect"] == "Allow"
        and any(fnmatch.fnmatchcase(request.action, each) for each in words(statement["Action"]))
        and any(fnmatch.fnmatchcase(request.resource, each) for each in words(statement["Resource"]))
        and all(
            operator in ("StringEquals", "ArnLike")
            and any(fnmatch.fnmatchcase(request.about.get(key, ""), each) for each in words(value))
            for operator, keys in statement.get("Condition", {}).items()
            for key, value in keys.items()
        )
        for statement in policy
    )


def tags(found: list[dict[str, str]], kind: str) -> dict[str, str]:
    return {f"aws:{kind}/{each['Key']}": each["Value"] for each in found}


def requests(operation: str, given: dict[str, Any]) -> Iterator[Request]:
    """What is asked of the policy for one call to EC2."""
    action = f"ec2:{operation}"
    if operation == "RunInstances":
        profile = given["IamInstanceProfile"]["Name"]
        (new,) = given["TagSpecifications"]
        assert new["ResourceType"] == "instance"
        about = tags(new["Tags"], "RequestTag") | {"ec2:InstanceProfile": f"{IAM}:instance-profile/{profile}"}
        about |= {"ec2:InstanceType": given["InstanceType"], "aws:RequestedRegion": "us-east-1"}
        yield Request(action, f"{EC2}:instance/*", about)
        yield Request("ec2:CreateTags", f"{EC2}:instance/*", about | {"ec2:CreateAction": operation})
        yield Request("iam:PassRole", f"{IAM}:role/{profile}", {"iam:PassedToService": "ec2.amazonaws.com"})
        yield Request(action, f"{EC2}:key-pair/{given['KeyName']}")
        yield Request(action, f"{EC2}:subnet/{given['SubnetId']}")
        parts = ["network-interface/*", "volume/*"] + ["spot-instances-request/*"] * ("InstanceMarketOptions" in given)
        for part in [*parts, *(f"security-group/{name}" for name in given["SecurityGroupIds"])]:
            yield Request(action, f"{EC2}:{part}")
        yield Request(action, "arn:aws:ec2:us-east-1::image/ami-1")
        image = given["ImageId"].removeprefix("resolve:ssm:")
        yield Request("ssm:GetParameters", f"arn:aws:ssm:us-east-1::parameter{image}")
    elif operation in ("CreateTags", "TerminateInstances"):
        for name in given.get("Resources") or given["InstanceIds"]:
            about = {"aws:ResourceTag/ray-cluster-name": cluster_of(name)}
            yield Request(action, f"{EC2}:instance/{name}", about)
    else:
        yield Request(action, "*")


def cluster_of(instance: str) -> str:
    (group,) = boto3.client("ec2", "us-east-1").describe_instances(InstanceIds=[instance])["Reservations"]
    return next((t["Value"] for t in group["Instances"][0]["Tags"] if t["Key"] == TAG_RAY_CLUSTER_NAME), "")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Every call that goes to AWS, in an account and a home folder that are not there."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(providers, "_provider_instances", {})
    made, send = list[tuple[str, dict[str, Any]]](), botocore.client.BaseClient._make_api_call

    def record(client: Any, operation: str, given: dict[str, Any]) -> Any:
        assert client.meta.service_model.service_name == "ec2"
        made.append((operation, given))
        return send(client, operation, given)

    with mock_aws():
        for role in ("medray-head", "medray-worker"):
            boto3.client("iam").create_instance_profile(InstanceProfileName=role)
        monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", record)
        yield made


def life_of_nodes(made: list[tuple[str, dict[str, Any]]]) -> tuple[set[str], list[Request]]:
    """`ray up` on a laptop, then nodes of each kind on the head: the laptop's operations, and what is asked for the head's."""
    prepared = SpotFirst.bootstrap_config(prepare_config(yaml.safe_load(TEXT)))
    laptop = {operation for operation, _ in made}
    made.clear()
    provider = SpotFirst(prepared["provider"], prepared["cluster_name"])
    asked = list[Request]()
    for kind in ("gpu", "cpu"):
        node = prepared["available_node_types"][kind]
        labels = {TAG_RAY_NODE_KIND: NODE_KIND_WORKER, TAG_RAY_USER_NODE_TYPE: kind}
        provider.create_node_with_resources_and_labels(node["node_config"], labels, 2, node["resources"], {})
        nodes = provider.non_terminated_nodes({TAG_RAY_USER_NODE_TYPE: kind})
        assert len(nodes) == 2
        provider.set_node_tags(nodes[0], {"ray-node-status": "up-to-date"})
        assert provider.internal_ip(nodes[0])
        assert provider.is_running(nodes[0])
        provider.terminate_node(nodes[0])
        provider.terminate_nodes(nodes[1:])
    for operation, given in list(made):
        asked += requests(operation, given)
    return laptop, asked


def test_the_head_may_do_what_its_autoscaler_does(calls: list[tuple[str, dict[str, Any]]]) -> None:
    laptop, asked = life_of_nodes(calls)
    done = {operation for operation, _ in calls}
    assert done == {"RunInstances", "DescribeInstances", "CreateTags", "TerminateInstances"}
    assert [request for request in asked if not allowed(HEAD, request)] == []
    assert {request.resource.split(":")[-1].split("/")[0] for request in asked if request.action == "ec2:RunInstances"} >= {
        "instance", "volume", "spot-instances-request", "security-group",
    }  # fmt: skip
    # what makes the key pair and the group is the laptop's, and never the head's
    ours = {operation for operation in laptop - done if not operation.startswith("Describe")}
    assert ours == {"CreateKeyPair", "CreateSecurityGroup", "AuthorizeSecurityGroupIngress"}
    assert not any(allowed(HEAD, Request(f"ec2:{operation}", "*")) for operation in ours)


def test_types_and_region_are_those_of_the_cluster() -> None:
    """A stolen head starts no larger nodes than these, and none where nobody looks."""
    (condition,) = [s["Condition"]["StringEquals"] for s in HEAD if s["Sid"] == "StartNodesOfTheCluster"]
    named = set(re.findall(r"InstanceType: (\S+)", TEXT))
    heads = yaml.safe_load(TEXT)["available_node_types"]["head"]["node_config"]["InstanceType"]
    assert set(condition["ec2:InstanceType"]) == named - {heads}
    assert condition["aws:RequestedRegion"] == yaml.safe_load(TEXT)["provider"]["region"]


def test_images_of_every_variant_are_known() -> None:
    named = set(re.findall(r"resolve:ssm:(\S+)", TEXT))
    (listed,) = [s["Resource"] for s in HEAD if s["Action"] == "ssm:GetParameters"]
    assert {each.partition("parameter")[2] for each in listed} == named
    assert len(named) == 3


OTHER = {"aws:ResourceTag/ray-cluster-name": "theirs"}
TAGGED = {
    "aws:RequestTag/ray-cluster-name": "medray",
    "aws:RequestedRegion": "us-east-1",
    "ec2:InstanceType": "g5.12xlarge",
}
WORKERS = {"ec2:InstanceProfile": f"{IAM}:instance-profile/medray-worker"}


@pytest.mark.parametrize(
    "request_",
    [
        Request("ec2:RunInstances", f"{EC2}:instance/*", TAGGED),  # without a role
        Request("ec2:RunInstances", f"{EC2}:instance/*", TAGGED | {"ec2:InstanceProfile": f"{IAM}:instance-profile/medray-head"}),
        Request("ec2:RunInstances", f"{EC2}:instance/*", TAGGED | WORKERS | {"aws:RequestTag/ray-cluster-name": "theirs"}),
        Request("ec2:RunInstances", f"{EC2}:instance/*", TAGGED | WORKERS | {"ec2:InstanceType": "u-24tb1.metal"}),
        Request("ec2:RunInstances", f"{EC2}:instance/*", TAGGED | WORKERS | {"aws:RequestedRegion": "eu-west-1"}),
        Request("ec2:TerminateInstances", f"{EC2}:instance/i-1", OTHER),
        Request("ec2:CreateTags", f"{EC2}:instance/i-1", OTHER),  # else it could make any instance its own
        Request("ec2:CreateTags", f"{EC2}:instance/i-1", TAGGED),
        Request("ec2:StopInstances", f"{EC2}:instance/i-1", {"aws:ResourceTag/ray-cluster-name": "medray"}),
        Request("iam:PassRole", f"{IAM}:role/admin", {"iam:PassedToService": "ec2.amazonaws.com"}),
        Request("iam:PassRole", f"{IAM}:role/medray-head", {"iam:PassedToService": "ec2.amazonaws.com"}),
        Request("iam:PassRole", f"{IAM}:role/medray-worker", {"iam:PassedToService": "lambda.amazonaws.com"}),
        Request("ssm:GetParameters", "arn:aws:ssm:us-east-1:123456789012:parameter/password"),
        Request("s3:GetObject", "arn:aws:s3:::another/x"),
        Request("s3:PutBucketPolicy", "arn:aws:s3:::MY_BUCKET"),
        Request("secretsmanager:GetSecretValue", "arn:aws:secretsmanager:us-east-1:123456789012:secret:other-abcdef"),
    ],
    ids=lambda request: f"{request.action} {request.resource.split(':')[-1]}",
)  # fmt: skip
def test_the_head_may_not(request_: Request) -> None:
    assert allowed(HEAD, Request("ec2:RunInstances", f"{EC2}:instance/*", TAGGED | WORKERS))  # what these differ from
    assert not allowed(HEAD, request_)


def test_the_worker_has_the_bucket_and_nothing_else() -> None:
    assert HEAD[:2] == WORKER
    assert all(action.startswith("s3:") for statement in WORKER for action in words(statement["Action"]))


def test_nothing_is_allowed_by_the_handful() -> None:
    assert "FullAccess" not in TEXT + "".join(path.read_text() for path in FOLDER.iterdir())
    for statement in HEAD + WORKER:
        assert not any("*" in action for action in words(statement["Action"])), statement
        assert statement["Resource"] != "*" or statement["Action"] == "ec2:DescribeInstances"


def test_ssh_is_open_to_whom_a_group_says(calls: list[tuple[str, dict[str, Any]]]) -> None:
    """The group of cluster.yaml's comment, made beforehand: Ray takes it by its name and adds no rule."""
    ec2 = boto3.client("ec2", "us-east-1")
    name = re.search(r"create-security-group .*--group-name (\S+)", TEXT)[1]  # type: ignore[index]
    group = ec2.create_security_group(GroupName=name, Description=name)["GroupId"]
    ec2.authorize_security_group_ingress(GroupId=group, IpProtocol="tcp", FromPort=22, ToPort=22, CidrIp="192.0.2.7/32")
    prepared = SpotFirst.bootstrap_config(prepare_config(yaml.safe_load(TEXT)))
    assert {tuple(t["node_config"]["SecurityGroupIds"]) for t in prepared["available_node_types"].values()} == {
        (group,)
    }
    (found,) = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    assert [each["CidrIp"] for rule in found["IpPermissions"] for each in rule["IpRanges"]] == ["192.0.2.7/32"]


def s3(method: str, path: str, query: str) -> str:
    """The action that S3 checks for a request."""
    _, bucket, name = path.split("/", 2) if path.count("/") > 1 else ("", path.strip("/"), "")
    assert bucket == BUCKET
    if method == "POST" and query == "delete":
        return "s3:DeleteObject"
    if not name:
        return {"GET": "s3:ListBucket", "HEAD": "s3:ListBucket"}.get(method, f"s3:{method} of a bucket")
    if method == "DELETE":
        return "s3:AbortMultipartUpload" if "uploadId" in query else "s3:DeleteObject"
    return "s3:GetObject" if method in ("GET", "HEAD") else "s3:PutObject"


def test_the_bucket_s_policy_is_enough_for_a_store() -> None:
    bucket = Bucket()
    try:
        store = Store(bucket.uri("out"))
        store.check_writable()
        store.write_json("a/b.json", [1])
        store.write_stream("large", lambda stream: [stream.write(bytes(6 << 20)) for _ in range(3)])
        with pytest.raises(ValueError, match="no more"):
            store.write_stream("broken", broken)
        assert store.read_json("a/b.json") == [1]
        assert len(store.files()) == 2
        store.delete("large")
        store.clear()
        actions = {s3(*asked) for asked in bucket.asked}
    finally:
        bucket.close()
    assert {"s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"} >= actions
    assert len(actions) >= 4
    for action in actions:
        place = "MY_BUCKET" if action == "s3:ListBucket" else "MY_BUCKET/out/a"
        assert allowed(WORKER, Request(action, f"arn:aws:s3:::{place}")), action


def broken(stream: Any) -> None:
    stream.write(bytes(12 << 20))
    raise ValueError("no more")
