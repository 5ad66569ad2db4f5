"""The 18 models of the source on four nodes of one GPU each, which are names only: the plan, the order, the finish, and a node
that is lost. The runs sleep in place of training; all else of the job is what it is."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pandas as pd
import pytest
from lost_nodes import measured_by
from sleeping_runs import notes_in

from medray.systems.boneage.phantoms.films import PhantomHands, PhantomSpec
from medray.systems.boneage.recipes import MODELS

pytestmark = pytest.mark.on_demand
FOLDS, EPOCHS, NODES = 2, 3, 4
DRIVER = """
import contextlib, importlib, io, json, os, sys, threading, time, traceback
from pathlib import Path
import medray.engine
import psutil, ray
from ray.cluster_utils import Cluster

folder = Path(sys.argv[1])
os.environ["COLUMNS"] = "200"  # of the plan's table
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=3, num_gpus=1, object_store_memory=80_000_000) for _ in range(4)]
ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
from conftest import load
from sleeping_runs import notes_in, see_to
from medray.engine.nodes.cluster import quiet_data

quiet_data()
notes = folder / "notes"
importlib.import_module("medray.engine.train.fit")._train = see_to(str(notes))
job, ended = load("boneage_cv"), []
flags = json.loads((folder / "flags.json").read_text())


def run():
    sys.argv = ["boneage_cv.py", *flags]
    try:
        job.start()
        ended.append(0)
    except SystemExit as stop:
        ended.append(stop.code)
    except BaseException:
        traceback.print_exc()
        ended.append(1)


said = io.StringIO()
killed = None
with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        time.sleep(0.05)
        found = notes_in(notes)
        done = {note["run"] for note in found if note["what"] == "ended"}
        busy = {note["node"]: note for note in found if note["what"] == "trained" and note["run"] not in done}
        seeing = [note for note in found if note["what"] == "seen to" and note["run"] not in done]
        for node in nodes:
            lost = busy.get(node.node_id)
            if killed is not None or len(done) < 6 or len(busy) < len(nodes):
                continue
            others = {note["node"] for note in seeing if note["run"] != lost["run"]}  # from which they are seen to
            if node.node_id not in others and time.time() - lost["at"] > 1.0:  # within its second epoch
                killed = lost | {"busy": sorted(note["run"] for note in busy.values()), "killed_at": time.time()}
                raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
                for process in [raylet, *raylet.children(recursive=True)]:
                    process.kill()
(folder / "said.txt").write_text(said.getvalue())
print(json.dumps({"status": ended[0], "killed": killed, "left": ray.available_resources().get("GPU")}), flush=True)
ray.shutdown()
os._exit(0)
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("nodes")
    drawn = PhantomHands(PhantomSpec(films=24, film_px=(208, 160)))
    drawn.finish(folder / "in", [drawn.write(folder / "in", piece) for piece in drawn.pieces(folder / "in")])
    (folder / "in" / "images" / "masks").rename(folder / "masks")  # no network but those of the ages
    (folder / "notes").mkdir()
    flags = (
        "--images", folder / "in" / "images", "--labels", folder / "in" / "labels", "--recipe", "published", "--registered",
        "--folds", FOLDS, "--epochs", EPOCHS, "--public-ids", "--key-dir", folder / "private", "--out", folder / "out",
    )  # fmt: skip
    (folder / "flags.json").write_text(json.dumps([*map(str, flags)]))
    measured = measured_by(DRIVER, folder, timeout=280)
    text = (folder / "said.txt").read_text()
    assert measured["status"] == 0, text[-4000:]
    return measured | {"folder": folder, "said": text, "notes": notes_in(folder / "notes")}


def test_the_plan_has_eighteen_models_in_every_fold(found: dict[str, Any]) -> None:
    plan = found["said"].split("1. Shards and folds")[0]
    for model in MODELS:
        assert f"published-{model}: {FOLDS} runs × {EPOCHS} epochs" in plan
    assert f"1 worker a run (GPU each), {NODES} runs side by side" in " ".join(plan.replace("│", " ").split())


def test_runs_begin_in_the_plans_order_as_many_at_once_as_there_are_gpus(found: dict[str, Any]) -> None:
    wanted = [f"published-{model}/fold{fold}" for model in MODELS for fold in range(FOLDS)]
    started = [line.split()[0] for line in found["said"].splitlines() if line.endswith("  starts")]
    assert started == wanted
    events = []
    for run in wanted:
        own = [note for note in found["notes"] if note["run"] == run and note["what"] != "seen to"]
        trained, ended = own[-2:]
        assert (trained["what"], ended["what"]) == ("trained", "ended")
        events += [(trained["at"], 1), (ended["at"], -1)]
    at_once = list(itertools.accumulate(change for _, change in sorted(events)))
    assert max(at_once) == NODES
    before = [
        note for note in found["notes"] if note["what"] == "trained" and note["at"] < found["killed"]["killed_at"]
    ]
    assert len({note["node"] for note in before}) == NODES
    assert all(len(note["gpus"]) == 1 for note in before)


def test_a_killed_node_costs_one_run_its_minutes(found: dict[str, Any]) -> None:
    lost = found["killed"]
    assert len(lost["busy"]) == NODES
    again = [note for note in found["notes"] if note["what"] == "trained"]
    times = pd.Series([note["run"] for note in again]).value_counts()
    assert times[times > 1].to_dict() == {lost["run"]: 2}
    second = [note for note in again if note["run"] == lost["run"]][-1]
    assert second["node"] != lost["node"]
    assert second["after"] >= 1  # what it had learned is kept
    later = [note for note in found["notes"] if note["at"] > lost["killed_at"] + 1]
    assert {note["node"] for note in later if note["what"] == "trained"} == {
        note["node"] for note in found["notes"] if note["what"] == "trained"
    } - {lost["node"]}
    assert found["left"] == NODES - 1


def test_all_models_finish_and_the_ensemble_is_of_all(found: dict[str, Any]) -> None:
    out = found["folder"] / "out"
    assert len(list((out / "runs").rglob("done.json"))) == len(MODELS) * FOLDS
    for path in (out / "runs").rglob("history.json"):
        assert [entry["epoch"] for entry in json.loads(path.read_text())] == list(range(1, EPOCHS + 1))
    films = pd.read_csv(out / "models" / "published" / "films.csv")
    assert len(films) == 24
    assert {*MODELS} <= {*films.columns}
    metrics = json.loads((out / "models" / "published" / "metrics.json").read_text())
    assert [*metrics["models"]] == [*MODELS]
    assert (out / "models" / "published" / "report.html").exists()
