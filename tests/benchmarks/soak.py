"""Many small runs, each hit once at a random moment: its driver, one of its workers, or a whole node is killed, or
a node falls silent (its processes stop, its connections stay open: as a machine that is cut off).

python tests/benchmarks/soak.py --runs 20

A cluster of its own on this machine: a head without CPUs and three nodes of one CPU, so that the two workers of a run are on
two nodes. A killed driver is started again, a killed node is replaced. The table says what each kill cost, and whether the
run ended as the undisturbed one did: predictions and histories to the bit, no unfinished file, no reserved CPU.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import psutil
import tyro

Kill = Literal["driver", "worker", "node", "freeze"]
ROOT = Path(__file__).resolve().parents[2]
SMALL = {"object_store_memory": 80_000_000}


@dataclass
class Flags:
    out: Path = Path("out/soak")
    """Phantoms, shards and runs; emptied first."""
    runs: int = 20
    epochs: int = 6
    seed: int = 0
    """Of the kinds and moments of the kills."""
    kills: tuple[Kill, ...] = ("driver", "worker", "node", "freeze")
    run: str = ""
    """Set by the script itself: be the driver of this run."""


def driver(flags: Flags) -> None:
    """One run with two Ray Train workers, as a job starts it."""
    from medray.engine.cluster import Resources, connect
    from medray.engine.fit import fit
    from medray.engine.options import Options
    from medray.engine.prepare import prepare
    from medray.engine.sweep import cross_validation
    from medray.ich.classes import CLASSES
    from medray.ich.inventory import assemble
    from medray.ich.labels import read_labels
    from medray.ich.source import HeadCT
    from medray.ich.task import SliceTask
    from medray.shards.pseudonym import Pseudonyms
    from medray.shards.store import Store

    connect()
    data, labels = flags.out / "data", read_labels(str(flags.out / "phantoms" / "labels.csv"))
    dicom = Store(flags.out / "phantoms" / "dicom")
    prepared = prepare(
        HeadCT(), lambda scan: assemble(scan, labels), list(CLASSES), dicom, dicom.files(), Store(data),
        Store(data).sub("shards"), Pseudonyms(b"k" * 32), flags.out / "private", folds=3, rows_per_shard=32, seed=0,
    )  # fmt: skip
    resources = Resources(workers=2, gpu=False, side_by_side=1, threads=1, cpus_per_worker=0.6, data_cpus=0.3)
    task = SliceTask(
        backbone="test_resnet", pretrained=False, size_px=32, epochs=flags.epochs, batch_size=8, learning_rate=3e-3
    )
    out = flags.out / flags.run
    fit(
        cross_validation(
            "model", task, prepared.rows, prepared.index, CLASSES, (0,), Store(out), resources,
            Options(out=str(out), folds=3),
        )
    )  # fmt: skip


class Soak:
    def __init__(self, flags: Flags) -> None:
        import ray
        from ray.cluster_utils import Cluster

        self.flags, self.random = flags, random.Random(flags.seed)
        port = int(os.environ["RAY_ADDRESS"].rsplit(":", 1)[1])
        head = {"num_cpus": 0, "include_dashboard": True, "gcs_server_port": port, **SMALL}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        ray.init(logging_level="ERROR", log_to_driver=False)
        self.nodes = [self.another(number) for number in (2, 3, 4)]
        self.next = 5

    def another(self, number: int) -> Any:
        """A node with an address of its own: a driver of this machine then joins the head, which is never killed."""
        return self.cluster.add_node(num_cpus=1, node_ip_address=f"127.0.0.{number}", **SMALL)

    # ------------------------------------------------------------ one run

    def start(self, name: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, __file__, "--run", name, "--out", self.flags.out, "--epochs", self.flags.epochs]
        with open(self.flags.out / f"{name}.log", "ab") as log:
            return subprocess.Popen(
                list(map(str, words)),
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def history(self, name: str) -> list[dict[str, Any]]:
        file = self.flags.out / name / "runs" / "model" / "fold0" / "history.json"
        return list(json.loads(file.read_text())) if file.exists() else []

    def run(self, name: str, kill: Kill | None = None) -> dict[str, Any]:
        """Seconds of the run, and what was done to it when."""
        began, job = time.monotonic(), self.start(name)
        at, more = self.random.randrange(self.flags.epochs - 1), self.random.uniform(0, 1)
        done, least = 0, self.flags.epochs
        family: list[psutil.Process] = []
        if kill:
            while len(self.history(name)) < at and job.poll() is None:
                time.sleep(0.02)
            while not self.hit("worker") and job.poll() is None:  # before the first epoch: once it trains
                time.sleep(0.02)
            time.sleep(more)
            done = len(self.history(name))
            if job.poll() is not None:
                kill = None
            elif kill == "driver":
                job.send_signal(signal.SIGKILL)
                job.wait()
                job = self.start(name)
            else:
                family = self.hit(kill)
                for process in family:
                    process.suspend() if kill == "freeze" else process.kill()
        while job.poll() is None:
            least = min(least, len(self.history(name)))
            time.sleep(0.05)
        for process in family:  # also the silent ones
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=5)
        self.nodes = [node for node in self.nodes if alive(raylet(node))]
        while len(self.nodes) < 3:
            self.nodes.append(self.another(self.next))
            self.next += 1
        return {
            "kill": kill or "none", "status": job.returncode, "seconds": time.monotonic() - began, "done": done,
            "again": max(0, done - least),
        }  # fmt: skip

    def hit(self, kill: Kill) -> list[psutil.Process]:
        """The processes to kill: a Ray Train worker, or all of a node that has one. Empty while there is no worker."""
        for node in self.random.sample(self.nodes, len(self.nodes)):
            family = family_of(node)
            workers = [p for p in family if "RayTrainWorker" in title(p)]
            if workers:
                return workers[:1] if kill == "worker" else family
        return []

    # ------------------------------------------------------------ what came of it

    def lost(self, name: str, ran: dict[str, Any]) -> str:
        """What differs from the undisturbed run; "nothing" if nothing does."""
        found = [f"the run (exit status {ran['status']})"] if ran["status"] else []
        folders = [self.flags.out / n / "runs" / "model" / "fold0" for n in ("undisturbed", name)]
        if not all((folder / "done.json").exists() for folder in folders):
            return ", ".join([*found, "the end"])
        first, second = (pd.read_parquet(folder / "predictions.parquet") for folder in folders)
        if not first.equals(second):
            found.append("predictions")
        once, again = self.history("undisturbed"), self.history(name)
        if [(e["epoch"], e["metrics"]) for e in once] != [(e["epoch"], e["metrics"]) for e in again]:
            found.append("history")
        if [p for p in (self.flags.out / name).rglob(".*") if p.is_file() and "train" not in p.parts]:
            found.append("unfinished files stay")
        if not self.all_free():
            found.append("CPUs stay reserved")
        return ", ".join(found) or "nothing"

    def all_free(self) -> bool:
        import ray
        from ray.util import placement_group_table

        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            groups = [g for g in placement_group_table().values() if g["state"] != "REMOVED"]
            if ray.available_resources().get("CPU") == 3.0 and not groups:
                return True
            time.sleep(0.2)
        return False


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def family_of(node: Any) -> list[psutil.Process]:
    try:
        process = psutil.Process(raylet(node))
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def soak(flags: Flags) -> None:
    from medray.imaging.phantom import PhantomSpec, write_phantoms

    shutil.rmtree(flags.out, ignore_errors=True)
    write_phantoms(flags.out / "phantoms", PhantomSpec(patients=12, seed=3, matrix_px=96, slices=(8, 10)))
    here = Soak(flags)
    here.run("warm-up")  # writes the shards
    usual = here.run("undisturbed")["seconds"]
    print(f"undisturbed: {usual:.0f} s, {flags.epochs} epochs")
    print("| run | kill | epochs done | epochs again | lost | seconds more |\n|---|---|---|---|---|---|")
    rows = []
    for number in range(flags.runs):
        name = f"run{number:02d}"
        ran = here.run(name, here.random.choice(flags.kills))
        rows.append(ran | {"lost": here.lost(name, ran)})
        cells = (number + 1, ran["kill"], ran["done"], ran["again"], rows[-1]["lost"], f"{ran['seconds'] - usual:+.0f}")
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    for kill in flags.kills:
        of = [r["seconds"] - usual for r in rows if r["kill"] == kill]
        if of:
            print(f"{kill}: {len(of)} kills, {sum(of) / len(of):+.0f} s on average")
    sys.exit(int(any(row["lost"] != "nothing" for row in rows)))


def main(flags: Flags) -> None:
    flags.out = flags.out.absolute()
    if flags.run:
        driver(flags)
        return
    sessions = tempfile.mkdtemp(prefix="ray-soak-", dir="/tmp")  # short: sockets lie below it
    fast = {
        "initial_delay_ms": "1000",
        "period_ms": "500",
        "timeout_ms": "2000",
        "failure_threshold": "5",
    }
    from ray._private.services import get_node_ip_address

    import medray.engine.cluster  # noqa: F401  what it sets in the environment holds for the nodes as well

    os.environ |= {
        "RAY_ADDRESS": f"{get_node_ip_address()}:{free_port()}",  # also for what Ray's own actors ask, head included
        "RAY_TMPDIR": sessions,  # no other `ray.init()` on this machine shall find this cluster
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": uuid.uuid4().hex,
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": str(ROOT),
    } | {f"RAY_health_check_{name}": value for name, value in fast.items()}
    me = psutil.Process()
    try:
        soak(flags)
    finally:
        for process in me.children(recursive=True):
            process.kill()
        shutil.rmtree(sessions, ignore_errors=True)


if __name__ == "__main__":
    main(tyro.cli(Flags))
