"""Two stages of the miniature, through every seam between them: two sources make one index; each volume goes through the
network that has not seen its patient; answers are joined with the volumes and become new shards by a function; a second
network is trained on those, from the first one's runs; a changed first stage makes the second one anew, and nothing else.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import miniature
import numpy as np
import pytest
from ingested import ingested
from miniature.patches import PatchTask
from miniature.refine import RefinerTask
from miniature.stages import Answers, Cut
from miniature.volumes import Volumes, assemble, with_lesion, write_volumes
from ray.cloudpickle import register_pickle_by_value

from medray.engine.data.inputs import Input
from medray.engine.data.prepare import Ingest
from medray.engine.derive.derive import derive
from medray.engine.derive.inputs import joined
from medray.engine.job.options import Options
from medray.engine.nodes.cluster import Resources
from medray.engine.train.fit import fit
from medray.engine.train.run import Run
from medray.engine.train.sweep import CrossValidation, FromRuns, out_of_fold
from medray.shards.store import Store

LOCAL = Resources(workers=0, gpu=False, side_by_side=2, threads=1, cpus_per_worker=0.5, data_cpus=0.5)
FIRST = PatchTask(epochs=8, batch_size=8, crops=16, learning_rate=1e-2, schedule="constant")
SECOND = RefinerTask(epochs=2, batch_size=4, crops=4, learning_rate=1e-2, schedule="constant")
COLUMNS = ("volume_id", "patient_id", "lesion")

register_pickle_by_value(miniature)  # Ray's workers do not import tests


@pytest.fixture(scope="module")
def volumes(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Ingest:
    """Of two clinics, whose patients have names of their own."""
    folder = tmp_path_factory.mktemp("stages")
    inputs = []
    for name, patients in (("north", 5), ("south", 4)):
        write_volumes(folder / name, patients=patients)
        for file in (folder / name).glob("patient*"):
            file.rename(file.with_name(f"{name}{file.name}"))
        store = Store(folder / name)
        inputs.append(Input(name, store, store.files(), assemble))
    return ingested(folder, Volumes(), inputs, ["lesion"], with_lesion)


def second_stage(folder: Path, volumes: Ingest, seed: int) -> tuple[list[Run], list[Run]]:
    """Both stages, as a job joins them."""
    options = Options(out=str(folder), folds=2, monitor="none")
    validation = CrossValidation(Store(folder), (0, 1), options, LOCAL, with_lesion)
    first = validation.runs(f"first{seed}", replace(FIRST, seed=seed), volumes)
    fit(first)
    answers = derive(Answers(), volumes.rows, Store(folder / "answers"), first, unseen=volumes.index["fold"].tolist())
    pairs, _ = joined((volumes.rows, volumes.index), answers.index(["volume_id"]), on="volume_id")
    cut = derive(Cut(), pairs, Store(folder / "cut")).shards(COLUMNS, volumes.fold_of_patient)
    second = validation.runs("second", SECOND, cut, [FromRuns(first, {"": "first."})])
    fit(second)
    return first, second


@pytest.mark.slow
def test_two_stages_and_what_a_changed_first_one_makes_anew(
    volumes: Ingest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = second_stage(tmp_path, volumes, seed=0)
    found = out_of_fold(second)
    assert sorted(found["volume_id"]) == sorted(volumes.index["volume_id"])  # of both clinics, each held out once
    fold = dict(zip(volumes.index["volume_id"], volumes.index["fold"], strict=True))
    assert all(fold[row["volume_id"]] == row["fold"] for row in found.to_dict("records"))
    assert found["dice"].mean() > 0.5
    sizes = {
        name: np.frombuffer(mask, np.uint8).size for name, mask in zip(found["volume_id"], found["mask"], strict=True)
    }
    whole = out_of_fold(first).set_index("volume_id")["mask"].map(len)
    assert all(sizes[name] < whole[name] for name in sizes)  # the second stage sees what was cut out

    before = {run.name: (run.weights_digest(), run.origin) for run in second}
    capsys.readouterr()
    _, again = second_stage(tmp_path, volumes, seed=0)
    assert {run.name: (run.weights_digest(), run.origin) for run in again} == before
    assert "anew" not in capsys.readouterr().out

    _, other = second_stage(tmp_path, volumes, seed=5)
    assert "second/fold0  is made anew" in capsys.readouterr().out
    assert not {run.origin for run in other} & {run.origin for run in again}
    assert all(run.finished for run in first)  # the first stage's own runs are as they were
