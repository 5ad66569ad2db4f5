"""The engine on systems that it was not written for: 3D crops of volumes, and two networks with two optimizers.

Each goes through shards, folds, training, a kill with -9 and the resumption, and predictions of new files.
"""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import replace
from pathlib import Path

import miniature
import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from ingested import ingested
from miniature.adversary import AdversaryTask
from miniature.patches import PatchTask
from miniature.volumes import Volumes, assemble, with_lesion, write_volumes
from ray.cloudpickle import register_pickle_by_value

from medray.engine.data.inputs import Input
from medray.engine.data.prepare import Ingest
from medray.engine.data.samples import TrainingPlan
from medray.engine.derive.outputs import outputs_of
from medray.engine.derive.scan import scan_here
from medray.engine.job.options import Options
from medray.engine.nodes.cluster import Resources
from medray.engine.train import checkpoint
from medray.engine.train.finished import finished_run
from medray.engine.train.fit import fit
from medray.engine.train.run import Run
from medray.engine.train.step import gradients_for
from medray.engine.train.sweep import CrossValidation
from medray.shards.pseudonym import Pseudonyms
from medray.shards.reading import encode_rows
from medray.shards.store import Store
from medray.tasks.task import Task

LOCAL = Resources(workers=0, gpu=False, side_by_side=2, threads=1, cpus_per_worker=0.5, data_cpus=0.5)
SETTINGS = {"epochs": 6, "batch_size": 8, "crops": 16, "learning_rate": 2e-2, "schedule": "constant"}
TASKS = {"patches": PatchTask(**SETTINGS), "adversary": AdversaryTask(**SETTINGS)}


register_pickle_by_value(miniature)  # Ray's workers do not import tests
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("volumes") / "files"
    write_volumes(folder, odd=True)
    return folder


@pytest.fixture(scope="module")
def shards(volumes: Path, local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Ingest:
    files = Store(volumes)
    return ingested(
        tmp_path_factory.mktemp("ingested"),
        Volumes(),
        [Input("", files, files.files(), assemble)],
        ["lesion"],
        with_lesion,
    )


def run_in(folder: Path, shards: Ingest, task: Task, resources: Resources = LOCAL) -> Run:
    options = Options(out=str(folder), folds=2, monitor="none", checkpoint_minutes=0.0)
    (run,) = CrossValidation(Store(folder), (0,), options, resources, with_lesion).runs("model", task, shards)
    return run


@pytest.fixture(scope="module", params=[pytest.param("adversary", marks=pytest.mark.slow), "patches"])
def undisturbed(request: pytest.FixtureRequest, shards: Ingest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = run_in(tmp_path_factory.mktemp(request.param), shards, TASKS[request.param])
    fit([run])
    return run


def test_what_cannot_be_used_is_set_aside_with_its_reason_and_its_neighbours_are_not(shards: Ingest) -> None:
    names = shards.private["path"].str.rsplit("/", n=1).str[1]
    aside = shards.private.assign(name=names)[shards.private["status"].eq("quarantined").to_numpy()]
    reasons = dict(zip(aside["name"], aside["reason"].str.split(" of ").str[0], strict=True))
    assert reasons == {
        "broken.npz": "not a .npz file",
        **{f"patient9_0_{name}.npz": "mask" for name in ("t1", "t2", "mask")},  # of another grid
        **{f"patient10_0_{name}.npz": "a channel" for name in ("t1", "mask")},
    }
    assert shards.private["status"].value_counts().to_dict() == {"ok": 8 * 3 + 2, "quarantined": 6}
    assert len(shards.index) == 9
    assert shards.index["lesion"].isna().sum() == 1  # nobody has drawn its mask


def test_identifiers_are_not_in_the_clear(shards: Ingest) -> None:
    assert "volume_id" in shards.inventory
    assert shards.index["volume_id"].str.match(r"volume-[0-9a-f]{20}$").all()
    assert shards.index["patient_id"].str.match(r"patient-[0-9a-f]{20}$").all()
    assert set(shards.index["fold"]) == {0, 1}


def test_the_crops_of_a_volume_come_from_one_reading(shards: Ingest, tmp_path: Path) -> None:
    run = run_in(tmp_path, shards, TASKS["patches"])
    plan = TrainingPlan(run.train, 8, 1, seed=0)
    places = np.concatenate([plan.samples(*unit)[0] for unit in plan.units()])
    volumes = int((shards.index["fold"] != 0).sum())
    assert volumes in (4, 5)
    assert len(run.train) == volumes * 16
    assert sorted(places) == list(range(volumes * 16))
    epoch = plan.orders.places(0, 0, volumes * 16)
    read = list(zip(run.train.file[epoch], run.train.group[epoch], run.train.row[epoch], strict=True))
    assert [len(list(same)) for _, same in itertools.groupby(read)] == [16] * volumes


def test_it_learns_and_predicts_every_volume_on_its_own_grid(undisturbed: Run, shards: Ingest, volumes: Path) -> None:
    table = undisturbed.predictions()
    assert sorted(table["volume_id"]) == sorted(undisturbed.held_out_ids)
    masks = shards.private["path"].str.endswith("_mask.npz").to_numpy()
    paths = dict(zip(shards.inventory["volume_id"][masks], shards.private["path"][masks], strict=True))
    dice = []
    table = table[table["volume_id"].isin(paths)]  # the others have none to be compared with
    for row in table.to_dict("records"):
        own = np.load(volumes / paths[row["volume_id"]])["mask_DHW"]
        found = np.frombuffer(row["mask"], np.uint8).reshape(own.shape)  # on this volume's grid, not any other's
        dice.append(2 * int((found & own).sum()) / (int(found.sum()) + int(own.sum())))
    assert dice == pytest.approx(table["dice"].tolist())
    assert undisturbed.task.metrics(table)["dice"] > 0.8
    names = undisturbed.history()[-1]["metrics"].keys()
    assert ("train_critic_loss" in names) == isinstance(undisturbed.task, AdversaryTask)


def test_killed_and_resumed_equals_undisturbed(undisturbed: Run, shards: Ingest, tmp_path: Path) -> None:
    run = run_in(tmp_path, shards, undisturbed.task)
    killed: list[int] = []

    def kill() -> None:
        while len(run.history()) < 3:
            time.sleep(0.01)
        for process in psutil.Process().children(recursive=True):
            if f"ray::{run.name}" in " ".join(process.cmdline()):
                process.kill()
                killed.append(process.pid)

    thread = threading.Thread(target=kill)
    thread.start()
    fit([run])
    thread.join()
    assert killed
    _same(run, undisturbed)


def test_a_finished_network_predicts_new_files(undisturbed: Run, shards: Ingest, volumes: Path) -> None:
    out = Store(undisturbed.store.uri.rsplit("/runs/", 1)[0])
    task, network = finished_run(out, "model", 0, type(undisturbed.task))
    folder = Store(volumes)
    table = assemble(scan_here(Volumes(), folder, folder.files())).rows
    answers = {}
    rows, lost = encode_rows(Volumes(), folder, table.to_dict("records"))
    assert list(lost) == ["patient9_0"]
    assert lost["patient9_0"].startswith("mask of ")
    for row in rows:
        (answer,) = outputs_of(task, network.cpu(), [row]).to_dict("records")
        answers[Pseudonyms(b"k" * 32).of("volume", answer["volume_id"])] = answer["mask"]
    for row in undisturbed.predictions().to_dict("records"):
        assert answers[row["volume_id"]] == row["mask"]


def test_in_a_turn_only_its_own_parameters_gather_gradients() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    network[1].bias.requires_grad_(False)  # frozen for good
    with gradients_for(network, list(network[0].parameters())):
        network(torch.ones(1, 2)).sum().backward()
    assert network[0].weight.grad is not None
    assert network[1].weight.grad is None
    assert [p.requires_grad for p in network.parameters()] == [True, True, True, False]


def test_both_networks_of_the_adversary_are_trained_and_their_state_is_kept(shards: Ingest, tmp_path: Path) -> None:
    run = run_in(tmp_path, shards, replace(TASKS["adversary"], epochs=1, accumulate=2, clip_norm=1.0))
    torch.manual_seed(run.task.seed)
    first = run.task.network().state_dict()
    fit([run])
    state = checkpoint.latest(run.store.sub("checkpoints"))
    assert state is not None
    assert set(state["optimizers"]) == {"critic", "segmenter"}
    assert [state["optimizers"][turn]["param_groups"][0]["peak_lr"] for turn in ("critic", "segmenter")] == [1e-3, 2e-2]
    assert all(not torch.equal(first[name], value) for name, value in state["network"].items())


@pytest.mark.on_demand
def test_two_workers_train_the_adversary(shards: Ingest, tmp_path: Path) -> None:
    two = replace(LOCAL, workers=2, side_by_side=1, data_cpus=0.3)
    run = run_in(tmp_path, shards, replace(TASKS["adversary"], epochs=6), two)
    fit([run])
    assert sorted(run.predictions()["volume_id"]) == sorted(run.held_out_ids)
    assert run.task.metrics(run.predictions())["dice"] > 0.8


def _same(run: Run, wanted: Run) -> None:
    pd.testing.assert_frame_equal(run.predictions(), wanted.predictions(), check_exact=True)
    assert [e["epoch"] for e in run.history()] == list(range(1, run.task.epochs + 1))
    assert [e["metrics"] for e in run.history()] == [e["metrics"] for e in wanted.history()]
    weights, expected = (checkpoint.read_weights(r.store, "model.pt")["weights"] for r in (run, wanted))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
