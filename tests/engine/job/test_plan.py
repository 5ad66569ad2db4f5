from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medray.engine.data.samples import Rows
from medray.engine.job.plan import Outcome, Plan, Training, gpu_hours, planned, spent, stages_until
from medray.engine.nodes.cluster import Resources
from medray.engine.train.run import Run
from medray.shards.store import Store
from medray.systems.ich.recipes import phantom

GPUS = Resources(workers=4, gpu=True, side_by_side=2, threads=1, cpus_per_worker=1.0, data_cpus=1.0)
NOTHING = np.zeros(0, np.int32)


def run_in(store: Store, name: str, resources: Resources, *epoch_seconds: float) -> Run:
    store, (model, fold) = store.sub(name), name.split("/fold")
    store.write_json(
        "history.json", [{"epoch": i, "system": {"epoch_seconds": s}} for i, s in enumerate(epoch_seconds)]
    )
    rows = Rows(store, (), NOTHING, NOTHING, NOTHING)
    return Run(model, int(fold), store, phantom(), rows, rows, (), None, "none", resources)


def test_hours_are_those_of_every_gpu(tmp_path: Path) -> None:
    backbones = [run_in(Store(tmp_path), f"net/fold{k}", GPUS, 1800, 1800) for k in range(2)]
    sequence = [run_in(Store(tmp_path), "net-sequence/fold0", replace(GPUS, workers=1), 360)]
    assert gpu_hours(backbones) == pytest.approx(8)
    stages = {"backbones": backbones, "sequence": sequence}
    assert spent(stages, 3.0) == "training took 8.1 GPU-hours (backbones 8, sequence 0.1), 24.3 at 3 an hour"
    assert "at 3" not in spent(stages, None)


def test_an_epoch_by_fewer_workers_costs_less(tmp_path: Path) -> None:
    run = run_in(Store(tmp_path), "net/fold0", replace(GPUS, min_workers=2))
    epochs = [{"epoch": 1, "workers": [4]}, {"epoch": 2, "workers": [4, 2]}, {"epoch": 3, "workers": [2]}]
    run.store.write_json("history.json", [epoch | {"system": {"epoch_seconds": 1800}} for epoch in epochs])
    assert gpu_hours([run]) == pytest.approx(2 + 1 + 1)


def test_cpus_have_no_price(tmp_path: Path) -> None:
    here = Resources(workers=0, gpu=False, side_by_side=2, threads=1, cpus_per_worker=0.5, data_cpus=0.5)
    stages = {"backbones": [run_in(Store(tmp_path), "net/fold0", here, 36)], "sequence": []}
    assert spent(stages, 3.0) == "training took 0.01 worker-hours on CPUs"


def test_what_is_left_at_a_measured_rate() -> None:
    text = planned(3_600_000, 500, GPUS, 2.5)
    assert text == "at 500 images/s a run, as measured here: 1 h, 8 GPU-hours, 20 at 2.5 an hour"
    assert "GPU-hours" not in planned(1000, 10, replace(GPUS, gpu=False), 2.5)


def test_a_stage_that_every_row_needs_is_planned_in_every_fold(tmp_path: Path) -> None:
    out = Store(tmp_path)
    at = Plan(out, [], out.sub("shards"), (1,), GPUS, 100)
    run_in(out.sub("runs"), "masks/fold2", GPUS).store.write_json("done.json", {})
    task = phantom()
    (work, done), _ = Training("masks", {"masks": task}, folds=(0, 1, 2, 3)).rows(at)
    assert work.startswith(f"masks: 3 runs × {task.epochs} epochs × 100 images")
    assert done == "1 of 4 runs"
    (work, done), _ = Training("ages", {"masks": task}).rows(at)
    assert work.startswith(f"masks: 1 run × {task.epochs} epochs")
    assert done == "0 of 1 runs"
    ((work, done),) = Training("masks", {"masks": task}, over="all films", folds=(0, 2)).rows(at)
    assert work == f"masks: 1 runs × {task.epochs} epochs over all films"
    assert done == "1 of 2 runs"


def test_a_job_that_ends_early_plans_what_it_does() -> None:
    stages = [Training("masks", {}), Outcome("regions", ""), Training("train", {}), Outcome("report", "")]
    assert [stage.name for stage in stages_until("regions", stages)] == ["masks", "regions"]
    assert stages_until("shards", stages) == []
    assert stages_until("", stages) == stages_until("report", stages) == stages
    with pytest.raises(AssertionError, match="--until nothing: the plan has masks, regions"):
        stages_until("nothing", stages)


def test_one_note_for_all_networks_of_which_no_epoch_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, out = phantom(), Store(tmp_path)
    models = {f"net{i}": task for i in range(5)}
    stages = [Training("masks", {"masks": task}), Training("train", models)]
    at = Plan(out, [], out.sub("shards"), (0, 1), GPUS, 100)
    at.show(stages)
    note = "GPU-hours: measured with the first epochs"
    assert capsys.readouterr().out.count(note) == 1
    replace(at, resources=replace(GPUS, gpu=False)).show(stages)
    assert note not in capsys.readouterr().out
    for model in ("masks", *models):
        for fold in (0, 1):
            run_in(out.sub("runs"), f"{model}/fold{fold}", GPUS).store.write_json("done.json", {})
    at.show(stages)
    assert note not in capsys.readouterr().out


def test_a_stage_that_is_left_out_has_no_line_and_keeps_its_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Store(tmp_path)
    out.sub("features", "A").write_bytes("one.parquet", b"")
    out.sub("features", "B", "fold1").write_bytes("two.parquet", b"")  # what each fold has anew
    at = Plan(out, [], out.sub("shards"), (0, 1), GPUS, 100)
    at.show([Training("masks", {}), Outcome("regions", "of hands", ("A", "B"))])
    said = " ".join(capsys.readouterr().out.split())
    assert "masks" not in said
    assert "3 regions │ of hands │ 2 files" in said
