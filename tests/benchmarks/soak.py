"""A soak: run after run on a cluster of four nodes, each with one kill at a random moment; what was lost, what it cost.

    python tests/benchmarks/soak.py --runs 20

Every run is two Ray Train workers on two nodes of one CPU, a third node is spare, and the driver is a process of its own on
the head. What is killed (a worker, the node with the controller, the driver, which is started again) and when follows from
the seed. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import pickle
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd

import medray.engine  # noqa: F401  # sets what Ray reads when it is imported

# isort: split
import ray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from lost_nodes import cluster_environment
from nodes_driver import Nodes, kinds_on, prepared_in, processes_of, wait_for

from medray.engine.job.options import Options
from medray.engine.nodes.cluster import Resources, connect
from medray.engine.train.fit import fit
from medray.engine.train.run import Run
from medray.engine.train.sweep import CrossValidation
from medray.imaging.phantom import PhantomSpec, write_phantoms
from medray.shards.store import Store
from medray.systems.ich.system import strata
from medray.systems.ich.task import SliceTask

EPOCHS = 4
KINDS = ("a worker", "the controller's node", "the driver")


def soak(runs: int, seed: int, folder: Path) -> None:
    """In the process that holds the cluster."""
    phantoms = write_phantoms(folder / "phantoms", PhantomSpec(patients=12, seed=3, matrix_px=96, slices=(8, 10)))
    nodes = Nodes(3)
    prepared = prepared_in(folder, Store(phantoms.dicom), str(phantoms.folder / "labels.csv"))
    two = Resources(workers=2, gpu=False, side_by_side=1, threads=1, cpus_per_worker=0.6, data_cpus=0.3)
    task = SliceTask(
        backbone="test_resnet", pretrained=False, size_px=32, epochs=EPOCHS, batch_size=8, learning_rate=3e-3,
        dropout=0.2,
    )  # fmt: skip

    def run_called(name: str) -> Run:
        out = Store(folder / name)
        options = Options(out=out.uri, folds=3)
        return CrossValidation(out, (0,), options, two, strata).runs("model", task, prepared)[0]

    chance = random.Random(seed)
    drive(run_called("cold"))  # what it costs to read everything for the first time belongs to no kill
    undisturbed = run_called("undisturbed")
    usual = drive(undisturbed)
    before = nodes.free()
    say(f"{runs} runs of {EPOCHS} epochs, seed {seed}; an undisturbed one takes {usual:.0f} s.\n")
    say(
        "| run | killed | after epoch | seconds more | epochs repeated | predictions equal | epochs once | partial files | resources back |"
    )
    say("|---|---|---|---|---|---|---|---|---|")
    lost, more = 0, []
    for number in range(1, runs + 1):
        run = run_called(f"run{number}")
        kind, after, delay = chance.choice(KINDS), chance.randrange(EPOCHS), chance.random() / 3
        found = disturb(run, nodes, kind, after, delay)
        nodes.refill()
        equal = run.predictions().equals(undisturbed.predictions())
        metrics = [entry["metrics"] for entry in run.history()] == [entry["metrics"] for entry in undisturbed.history()]
        once = [entry["epoch"] for entry in run.history()] == list(range(1, EPOCHS + 1))
        partial = [p for p in (folder / f"run{number}").rglob(".*") if p.is_file() and "train" not in p.parts]
        back = nodes.free() == before
        lost += not (equal and metrics and once and not partial and back)
        more.append(found["seconds"] - usual)
        say(
            f"| {number} | {kind} | {found['after']} | {more[-1]:.0f} | {found['repeated']} | {yes(equal and metrics)} | "
            f"{yes(once)} | {len(partial)} | {yes(back)} |"
        )
    say(
        f"\nLost: {lost or 'nothing'}. A kill cost {pd.Series(more).median():.0f} s (median), {max(more):.0f} s at most."
    )
    ray.shutdown()
    os._exit(0)  # the nodes end by the ids of their processes


def driver(run: Run) -> subprocess.Popen[bytes]:
    place = Path(run.store.root).parents[2] / "run.pickle"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(pickle.dumps(run))
    with place.with_name("log").open("a") as log:
        return subprocess.Popen([sys.executable, __file__, "--drive", str(place)], stdout=log, stderr=log)


def ended(run: Run, process: subprocess.Popen[bytes]) -> None:
    assert process.wait() == 0, (Path(run.store.root).parents[2] / "log").read_text()[-5000:]


def drive(run: Run) -> float:
    """Undisturbed; gives its seconds."""
    began = time.monotonic()
    ended(run, driver(run))
    return time.monotonic() - began


def disturb(run: Run, nodes: Nodes, kind: str, after: int, delay: float) -> dict[str, Any]:
    """Kill something that many epochs and seconds into the run, and see it through."""
    began = time.monotonic()
    process = driver(run)
    if after:
        wait_for(lambda: len(run.history()) >= after)
    else:  # before the first epoch has ended
        wait_for(lambda: any("RayTrainWorker" in kinds for kinds in nodes.on_each()))
    time.sleep(delay)
    reached = len(run.history())
    if kind == "the driver":
        process.kill()
        process.wait()
        process = driver(run)
    elif kind == "a worker":
        (node, *_) = nodes.find(lambda kinds: "RayTrainWorker" in kinds)
        next(p for p in processes_of(node) if "RayTrainWorker" in " ".join(p.cmdline())).kill()
    else:
        (node,) = nodes.find(lambda kinds: "TrainController" in kinds)
        assert "TrainController" in kinds_on(node)
        nodes.kill(node)
    kept = reached
    while process.poll() is None:
        kept = min(kept, len(run.history()))
        time.sleep(0.05)
    ended(run, process)
    return {"after": reached, "seconds": time.monotonic() - began, "repeated": reached - kept}


def yes(true: bool) -> str:
    return "yes" if true else "NO"


def say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inside", type=Path, help="(the process that holds the cluster)")
    parser.add_argument("--drive", type=Path, help="(the driver of one run)")
    given = parser.parse_args()
    if given.drive:
        connect()
        fit([pickle.loads(given.drive.read_bytes())])
    elif given.inside:
        soak(given.runs, given.seed, given.inside)
    else:
        words = [sys.executable, __file__, "--runs", str(given.runs), "--seed", str(given.seed), "--inside"]
        with tempfile.TemporaryDirectory() as folder, cluster_environment() as environment:
            sys.exit(subprocess.run([*words, folder], env=environment, check=False).returncode)


if __name__ == "__main__":
    main()
