"""gcp.yaml by Ray's own code: its schema, its node types, its autoscaler's arithmetic, and what Compute Engine is asked for."""

from __future__ import annotations

import json
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
