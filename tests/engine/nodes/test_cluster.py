"""How a job spreads itself over the nodes that are there."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medray.engine.job.options import Options
from medray.engine.nodes import awaited, cluster
from medray.engine.nodes.cluster import spread

HEAD = {"Alive": True, "Resources": {}, "Labels": {}}
SCALED_HEAD = HEAD | {"Labels": {"ray.io/node-group": "head"}}  # its autoscaler told it its type
CPUS = {"Alive": True, "Resources": {"CPU": 32.0}, "Labels": {}}
GPUS = {"Alive": True, "Resources": {"CPU": 48.0, "GPU": 4.0}, "Labels": {}}


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the cluster's nodes; ``address`` as RAY_ADDRESS, None for a Ray of one's own."""

    def have(*found: dict[str, Any], address: str | None = "10.0.0.1:6379") -> None:
        for module in (cluster, awaited):
            monkeypatch.setattr(module.ray, "nodes", lambda: list(found))
        if address is None:
            monkeypatch.delenv("RAY_ADDRESS", raising=False)
        else:
            monkeypatch.setenv("RAY_ADDRESS", address)

    return have


@pytest.mark.slow
def test_a_cluster_that_was_killed_on_this_machine_is_not_waited_for() -> None:
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:  # short: sockets lie in it
        Path(folder, "ray").mkdir()
        for place in (Path(folder), Path(folder, "ray")):
            (place / "ray_current_cluster").write_text("127.0.0.1:1")
        program = "from medray.engine.nodes.cluster import connect; import ray; connect(); print(len(ray.nodes()))"
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment | {"RAY_TMPDIR": folder}, capture_output=True, text=True,
            timeout=90, check=False,
        )  # fmt: skip
        assert done.stdout.split() == ["1"], done.stderr


def test_what_failed_is_said_and_not_that_ray_data_failed() -> None:
    text = (
        "ray.exceptions.RayTaskError(UserCodeException): ray::Map()\nValueError: a.dcm: no pixels\n\nThe above exception "
        "was the direct cause of the following exception:\n\nray.exceptions.UserCodeException: UDF failed to process a block."
    )
    assert cluster.what_happened(RuntimeError(text)) == "a.dcm: no pixels"
    alone = "ray.exceptions.UserCodeException: UDF failed to process a block."
    assert cluster.what_happened(RuntimeError(alone)) == "UserCodeException: UDF failed to process a block."


def test_gpus_of_a_node_go_to_one_run(nodes: Callable[..., None]) -> None:
    nodes(HEAD, CPUS, GPUS, GPUS)
    assert spread(5, None, None) == spread(5, None, True)
    found = spread(5, None, None)
    assert (found.workers, found.gpu, found.side_by_side) == (4, True, 2)
    assert not spread(5, None, False).gpu


def test_gpus_on_a_ray_of_ones_own_that_has_none(nodes: Callable[..., None]) -> None:
    nodes(CPUS, address=None)
    with pytest.raises(ValueError, match="--gpu: this machine has no GPU that Ray sees; leave it out, or submit"):
        spread(5, None, True)
    assert not spread(5, None, None).gpu


def test_gpus_on_a_cluster_that_cannot_grow(nodes: Callable[..., None]) -> None:
    nodes(HEAD, CPUS)
    with pytest.raises(ValueError, match="--gpu: no node of the cluster has a GPU, and no autoscaler runs"):
        spread(5, 4, True, at_once=4)


def test_gpus_on_a_cluster_that_has_not_grown_yet(
    nodes: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    nodes(SCALED_HEAD)
    found = spread(5, 4, True, at_once=4)
    assert (found.workers, found.side_by_side) == (4, 4)
    assert "--gpu: no node has a GPU yet; runs wait for nodes with 4" in capsys.readouterr().out


def test_how_many_gpus_a_run_takes_is_not_guessed_before_there_are_any(nodes: Callable[..., None]) -> None:
    """One of a node's four would work, and all four be paid for."""
    nodes(SCALED_HEAD)
    for workers, at_once in ((None, None), (4, None), (None, 4)):
        with pytest.raises(ValueError, match=r"--gpu: no node has a GPU yet.*name --workers.*and --at-once"):
            spread(5, workers, True, at_once=at_once)


def test_a_job_says_so_in_one_line(
    local_ray: None, phantoms: Any, tmp_path: Any, run_in_process: Callable[..., tuple[int, str]]
) -> None:
    from conftest import the_error

    result = run_in_process(
        "ich_cv", "--dicom", phantoms.dicom, "--labels", phantoms.folder / "labels.csv", "--out", tmp_path / "out",
        "--key-dir", tmp_path / "private", "--no-pretrained", "--backbones", "test_resnet", "--gpu",
    )  # fmt: skip
    assert "--gpu: this machine has no GPU that Ray sees" in the_error(result)
    assert "Plan" not in result[1]


def test_a_key_that_goes_with_its_node_is_said(
    nodes: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes(SCALED_HEAD, GPUS)
    Options(out=str(tmp_path)).warn_of_key()
    assert "before `ray down`, ray rsync-down cluster.yaml '~/.medray/' ~/.medray-cluster/" in capsys.readouterr().err
    Options(out=str(tmp_path), public_ids=True).warn_of_key()  # there is no key
    Options(out=str(tmp_path), key_dir=Path("/mnt/shared/keys")).warn_of_key()  # it was chosen
    nodes(CPUS, address=None)
    Options(out=str(tmp_path)).warn_of_key()  # this machine stays
    assert capsys.readouterr().err == ""
