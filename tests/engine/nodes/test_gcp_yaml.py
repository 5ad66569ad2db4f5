"""gcp.yaml by Ray's own code: its schema, its node types, its autoscaler's arithmetic, and what Compute Engine is asked for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import yaml
from cluster_files import changes, launched, loaded_with, scheduled
from ray.autoscaler._private.gcp.config import get_node_type
from ray.autoscaler._private.gcp.node import GCPCompute, GCPNodeType
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "medray" / "engine" / "nodes" / "gcp.yaml").read_text()
AWS = yaml.safe_load((ROOT / "cluster.yaml").read_text())
MACHINES = {  # CPUs, GPUs that come with it
    "n1-standard-32": (32, 0), "a2-highgpu-4g": (48, 4), "g2-standard-48": (48, 4), "n2-standard-32": (32, 0),
}  # fmt: skip
VARIANTS = ("V100", "A100", "L4")
FOUR_WORKERS = [{"CPU": 1.0, "GPU": 1.0}] * 4


@pytest.mark.parametrize("variant", VARIANTS)
def test_ray_accepts_it(variant: str) -> None:
    prepared = prepare_config(loaded_with(TEXT, variant))
    validate_config(prepared)
    assert bool(changes(TEXT, variant)) == (variant != "V100")
    types = prepared["available_node_types"]
    assert {get_node_type(each["node_config"]) for each in types.values()} == {GCPNodeType.COMPUTE}
    for name in ("gpu", "cpu"):
        cpus, gpus = MACHINES[types[name]["node_config"]["machineType"]]
        gpus += sum(each["acceleratorCount"] for each in types[name]["node_config"].get("guestAccelerators", []))
        assert (cpus, gpus) == (types[name]["resources"]["CPU"], types[name]["resources"].get("GPU", 0))


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_compute_engine_is_asked_for(variant: str) -> None:
    service = MagicMock()
    provider = GCPCompute(service, "MY_PROJECT", "us-central1-a", "medray")
    gpu = loaded_with(TEXT, variant)["available_node_types"]["gpu"]
    provider.create_instance(
        gpu["node_config"], {"ray-node-kind": "worker", "ray-node-name": "ray-medray-worker"}, False
    )
    body: dict[str, Any] = service.instances().insert.call_args.kwargs["body"]
    assert body["scheduling"] == [{"preemptible": True, "onHostMaintenance": "TERMINATE"}]
    added = body["guestAccelerators"]
    if variant == "V100":
        kind = "projects/MY_PROJECT/zones/us-central1-a/acceleratorTypes/nvidia-tesla-v100"
        assert added == [{"acceleratorType": kind, "acceleratorCount": 4}]
        assert body["machineType"] == "zones/us-central1-a/machineTypes/n1-standard-32"
    else:
        assert added == []
    assert "nvidia" in json.dumps(body["disks"])
    assert body["disks"][0]["initializeParams"]["diskSizeGb"] == 200


def test_the_head_s_role_is_what_its_autoscaler_calls() -> None:
    """Each method of Compute Engine that Ray calls for a node's life has its permission, and so has what a new instance is made of."""
    service, given = MagicMock(), loaded_with(TEXT, "V100")
    service.instances().list().execute.return_value = {}
    service.instances().get().execute.return_value = {
        "name": "n",
        "labels": {},
        "labelFingerprint": "f",
        "status": "RUNNING",
    }
    service.zoneOperations().get().execute.return_value = {"name": "o", "status": "DONE"}
    service.reset_mock()
    provider = GCPCompute(service, "MY_PROJECT", "us-central1-a", "medray")
    _, name = provider.create_instance(given["available_node_types"]["gpu"]["node_config"], {"ray-node-name": "n"}, True)  # fmt: skip
    provider.list_instances()
    provider.set_labels(provider.get_instance(name), {"a": "b"}, True)
    provider.delete_instance(name, True)
    called = {m[0] for call in service.mock_calls if (m := re.search(r"(instances|zoneOperations)\(\)\.\w+$", call[0]))}
    words = {"insert": "create"}
    needed = {f"compute.{kind[:-2]}.{words.get(what, what)}" for kind, what in (each.split(".") for each in called)}
    assert needed >= {f"compute.instances.{what}" for what in ("create", "delete", "get", "list", "setLabels")}
    permissions = set(re.search(r"--permissions (.*?)\n#   for", TEXT, re.DOTALL)[1].replace("\\\n#   ", "").split(","))  # type: ignore[index]
    made_of = {"disks.create", "instances.setMetadata", "instances.setServiceAccount", "subnetworks.use", "subnetworks.useExternalIp"}  # fmt: skip
    assert permissions == needed | {f"compute.{each}" for each in made_of}


def test_no_node_may_do_everything() -> None:
    types = loaded_with(TEXT, "V100")["available_node_types"]
    accounts = {name: each["node_config"]["serviceAccounts"] for name, each in types.items()}
    assert "cloud-platform" not in TEXT
    assert {name: account[0]["email"].partition("@")[0] for name, account in accounts.items()} == {
        "head": "medray-head", "gpu": "medray-worker", "cpu": "medray-worker",
    }  # fmt: skip


def test_nodes_that_the_autoscaler_starts() -> None:
    given = loaded_with(TEXT, "V100")
    assert launched(scheduled(given, [FOUR_WORKERS] * 3, [])) == {"gpu": 3}
    assert launched(scheduled(given, [], [({"CPU": 1.0}, 33)])) == {"cpu": 2}
    assert launched(scheduled(given, [], [])) == {}


def test_all_else_is_as_on_aws() -> None:
    """Two files, one way to set a node up."""
    ours = yaml.safe_load(TEXT.replace("gs://MY_BUCKET", "s3://MY_BUCKET"))
    assert ours.keys() == AWS.keys()
    differing = {name for name in AWS if ours[name] != AWS[name]}
    assert differing == {"provider", "available_node_types"}
    for name, each in AWS["available_node_types"].items():
        assert (ours["available_node_types"][name].get("max_workers")) == each.get("max_workers")
