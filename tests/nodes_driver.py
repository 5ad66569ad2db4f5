"""A cluster of several nodes on this machine, and runs on it that are disturbed: what tests of survival start.

A script of its own, since nodes may only be added by the main thread of a process; training is in another one.
Each case prints a line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil

import medray.engine  # noqa: F401  # sets what Ray reads when it is imported

# isort: split
import ray
from ingested import ingested
from ray._private.state import state
from ray.cluster_utils import Cluster
from ray.util import placement_group_table

from medray.engine.data.inputs import Input
from medray.engine.data.prepare import Ingest
from medray.engine.job.options import Options
from medray.engine.nodes import notice
from medray.engine.nodes.cluster import Resources, connect
from medray.engine.train.fit import fit
from medray.engine.train.run import Run
from medray.engine.train.sweep import CrossValidation
from medray.shards.store import Store
from medray.systems.ich.classes import CLASSES
from medray.systems.ich.inventory import assemble
from medray.systems.ich.labels import read_labels
from medray.systems.ich.source import HeadCT
from medray.systems.ich.system import strata
from medray.systems.ich.task import SliceTask

SMALL = {"object_store_memory": 80_000_000}
DEADLINE_SECONDS = 20


def main(settings: dict[str, Any]) -> None:
    dicom, folder = Store(settings["dicom"]), Path(settings["folder"])
    began = time.monotonic()

    def note(name: str, **more: Any) -> None:
        print(json.dumps({"run": name, "at": round(time.monotonic() - began, 1), **more}), flush=True)

    nodes = Nodes(settings["nodes"])
    note("cluster")
    prepared = prepared_in(folder, dicom, settings["labels"])
    note("prepared")
    # two workers do not fit on one node, a reading task still fits beside a worker
    resources = Resources(
        workers=settings["workers"], gpu=False, side_by_side=1, threads=1, cpus_per_worker=0.6, data_cpus=0.3,
        min_workers=settings.get("min_workers"),
    )  # fmt: skip
    task = SliceTask(
        **{"backbone": "test_resnet", "pretrained": False, "size_px": 32, "batch_size": 8} | settings["task"]
    )
    for name in settings["cases"]:
        out = Store(folder / name)
        options = Options(out=out.uri, folds=3, monitor_every=settings.get("monitor_every", 1))
        (run,) = CrossValidation(out, (0,), options, resources, strata).runs("model", task, prepared)
        before, started = nodes.free(), time.monotonic()
        ending = Ending(run)
        happened = CASES[name](run, nodes)
        error = ending.wait()
        seconds = time.monotonic() - started
        nodes.refill()
        note(
            name, seconds=round(seconds, 1), error=error, happened=happened, before=before, after=nodes.free(),
            ids=sorted(run.held_out_ids), retried=retried(),
        )  # fmt: skip
    ray.shutdown()
    os._exit(0)  # the nodes end by the ids of their processes


def prepared_in(folder: Path, dicom: Store, labels: str) -> Ingest:
    """Shards and folds of the phantoms."""
    known = read_labels(labels)
    return ingested(
        folder,
        HeadCT(),
        [Input("", dicom, dicom.files(), lambda scan: assemble(scan, known))],
        CLASSES,
        strata,
        folds=3,
        rows_per_shard=32,
    )


class Ending:
    """A run that trains in a thread."""

    def __init__(self, run: Run) -> None:
        self.error: str | None = None
        self.thread = threading.Thread(target=self._fit, args=(run,), daemon=True)
        self.thread.start()

    def _fit(self, run: Run) -> None:
        try:
            fit([run])
        except Exception as failure:
            self.error = str(failure)

    def wait(self) -> str | None:
        self.thread.join()
        return self.error


class Nodes:
    """A head without CPUs, as cluster.yaml has it, and nodes of one CPU."""

    def __init__(self, count: int) -> None:
        port = int(os.environ["RAY_ADDRESS"].rsplit(":", 1)[1])
        head = {"num_cpus": 0, "include_dashboard": True, "gcs_server_port": port, **SMALL}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        assert self.cluster.address == os.environ["RAY_ADDRESS"]
        connect()  # while there is the head only: of several nodes with one address a driver may join any, and dies with it
        self.count, self.nodes = count, []  # type: int, list[Any]
        self.refill()

    def refill(self) -> None:
        while len(self.nodes) < self.count:
            self.nodes.append(self.cluster.add_node(num_cpus=1, **SMALL))

    def on_each(self) -> list[set[str]]:
        """Which of Ray Train's processes are on which node."""
        return [kinds_on(node) for node in self.nodes]

    def find(self, wanted: Callable[[set[str]], bool], count: int = 1) -> list[Any]:
        found = [node for node, kinds in zip(self.nodes, self.on_each(), strict=True) if wanted(kinds)]
        assert len(found) >= count, self.on_each()
        return found[:count]

    def kill(self, node: Any) -> int:
        """All its processes at once, as when a spot instance goes; gives their number."""
        self.nodes.remove(node)
        family = processes_of(node)
        for process in family:
            process.kill()
        return len(family)

    def free(self) -> dict[str, Any]:
        """Once nothing moves any more: what runs could have."""
        wanted, deadline = float(self.count), time.monotonic() + 30
        while ray.available_resources().get("CPU") != wanted and time.monotonic() < deadline:
            time.sleep(0.2)
        groups = [g for g in placement_group_table().values() if g["state"] != "REMOVED"]
        return {"CPU": ray.available_resources().get("CPU"), "groups": len(groups)}


def processes_of(node: Any) -> list[psutil.Process]:
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return [raylet, *raylet.children(recursive=True)]


def kinds_on(node: Any) -> set[str]:
    found = set()
    for process in processes_of(node):
        with contextlib.suppress(psutil.NoSuchProcess):
            found.add(" ".join(process.cmdline()))
    return {kind for kind in ("RayTrainWorker", "TrainController") if any(kind in title for title in found)}


def retried() -> list[str]:
    """What Ray Train's controllers have said to be the reason of each new start, so far on this cluster."""
    logs = Path(os.environ["RAY_TMPDIR"]).glob("ray/session_2*/logs/train/*sys-controller*.log")
    return [cause for log in logs for cause in re.findall(r"Source: ([a-z]+(?: group)?)", log.read_text())]


def wait_for(what: Callable[[], Any], seconds: float = 180) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)
    return found


# ------------------------------------------------------------ what happens to a run


def nothing(run: Run, nodes: Nodes) -> None:
    """Undisturbed."""


def a_node_is_lost(wanted: Callable[[set[str]], bool]) -> Callable[[Run, Nodes], dict[str, Any]]:
    def disturb(run: Run, nodes: Nodes) -> dict[str, Any]:
        wait_for(run.history)
        on = sorted(map(sorted, nodes.on_each()))
        (node,) = nodes.find(wanted)
        return {"nodes": on, "after": len(run.history()), "processes": nodes.kill(node)}

    return disturb


def the_controllers_node_is_lost_while_workers_start(run: Run, nodes: Nodes) -> dict[str, Any]:
    """Their placement group is there, and only the controller knows of it."""
    reserved = wait_for(lambda: [g for g in placement_group_table().values() if g["state"] == "CREATED"])
    (node,) = nodes.find(lambda kinds: "TrainController" in kinds)
    return {"groups": len(reserved), "after": len(run.history()), "processes": nodes.kill(node)}


def two_of_four_go_and_come(run: Run, nodes: Nodes) -> dict[str, Any]:
    wait_for(run.history)
    on = sorted(map(sorted, nodes.on_each()))
    lost, began = nodes.find(only_a_worker, 2), time.monotonic()
    after = len(run.history())
    for node in lost:
        nodes.kill(node)
    shrunk = wait_for(lambda: next((e["epoch"] for e in run.history() if e["workers"][-1] == 2), None))
    seconds = time.monotonic() - began
    nodes.refill()
    began = time.monotonic()
    grown = wait_for(lambda: next((e["epoch"] for e in run.history()[shrunk:] if e["workers"][-1] == 4), None))
    return {
        "nodes": on, "after": after, "shrunk": shrunk, "seconds_to_shrink": round(seconds, 1), "grown": grown,
        "seconds_to_grow": round(time.monotonic() - began, 1),
    }  # fmt: skip


def a_notice_comes(run: Run, nodes: Nodes) -> dict[str, Any]:
    wait_for(run.history)
    on = sorted(map(sorted, nodes.on_each()))
    (node,) = nodes.find(only_a_worker)
    after = len(run.history())
    with ec2_that_takes_an_instance(DEADLINE_SECONDS) as until:
        notice.watch(os.environ["RAY_ADDRESS"], node.node_id)
    assert node.node_id in wait_for(state.get_draining_nodes)
    within = set()  # checkpoints within an epoch: without notice there is one in 10 minutes
    while time.time() < until[0]:
        within |= {n for n in run.store.sub("checkpoints").names(".pt") if "step00000000" not in n}
        time.sleep(0.01)
    at_deadline = len(run.history())
    nodes.kill(node)
    return {"nodes": on, "after": after, "at_deadline": at_deadline, "within": sorted(within)}


@contextmanager
def ec2_that_takes_an_instance(seconds: int) -> Iterator[list[float]]:
    """What an instance sees at EC2's address of metadata: a notice at the second question. Gives when it will be taken."""
    asked: list[str] = []
    until: list[float] = []

    class Metadata(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self._answer(200, "a-token")

        def do_GET(self) -> None:
            asked.append(self.path)
            assert self.headers["X-aws-ec2-metadata-token"] == "a-token"
            if len(asked) > 1:
                until.append(int(time.time()) + seconds)
            text = "".join(datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for at in until)
            self._answer(200 if until else 404, text)

        def _answer(self, status: int, text: str) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    there, notice.EC2 = notice.EC2, f"http://127.0.0.1:{server.server_port}/latest"
    yield until
    notice.EC2 = there
    server.shutdown()
    assert set(asked) == {"/latest/meta-data/spot/termination-time"}


def only_a_worker(kinds: set[str]) -> bool:
    return kinds == {"RayTrainWorker"}


CASES: dict[str, Callable[[Run, Nodes], Any]] = {
    "undisturbed": nothing,
    "worker": a_node_is_lost(only_a_worker),
    "controller": a_node_is_lost(lambda kinds: "TrainController" in kinds),
    "starting": the_controllers_node_is_lost_while_workers_start,
    "elastic": two_of_four_go_and_come,
    "notice": a_notice_comes,
}

if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
