"""Runs that start from runs, on parts of the rows, and with labels that are no zeros and ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import miniature
import numpy as np
import pandas as pd
import pytest
import torch
from ingested import ingested
from miniature.patches import PatchTask
from miniature.refine import RefinerTask
from miniature.volumes import Volumes, assemble, with_lesion, write_volumes
from ray.cloudpickle import register_pickle_by_value

from medray.engine.data.inputs import Input
from medray.engine.data.prepare import Ingest
from medray.engine.data.samples import Shards
from medray.engine.job.options import Options
from medray.engine.nodes.cluster import Resources
from medray.engine.train import checkpoint
from medray.engine.train.fit import fit, renew
from medray.engine.train.loop import Worker
from medray.engine.train.run import Run
from medray.engine.train.stop import StopRun
from medray.engine.train.sweep import CrossValidation, FromRuns, _inner_rows, out_of_fold
from medray.shards.folds import assign_folds
from medray.shards.store import Store

LOCAL = Resources(workers=0, gpu=False, side_by_side=2, threads=1, cpus_per_worker=0.5, data_cpus=0.5)
FIRST = PatchTask(epochs=2, batch_size=4, crops=4, learning_rate=1e-2, schedule="constant")

register_pickle_by_value(miniature)  # Ray's workers do not import tests


SECOND = RefinerTask(epochs=1, batch_size=4, crops=4, learning_rate=1e-2, schedule="constant")


@pytest.fixture(scope="module")
def shards(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Ingest:
    folder = tmp_path_factory.mktemp("files") / "volumes"
    write_volumes(folder)
    files = Store(folder)
    return ingested(folder.parent, Volumes(), [Input("", files, files.files(), assemble)], ["lesion"], with_lesion)


def validation(folder: Path) -> CrossValidation:
    return CrossValidation(Store(folder), (0, 1), Options(out=str(folder), folds=2, monitor="none"), LOCAL, with_lesion)


@pytest.fixture(scope="module")
def first(shards: Ingest, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    runs = validation(tmp_path_factory.mktemp("first")).runs("first", FIRST, shards)
    fit(runs)
    return runs


def weights(run: Run) -> dict[str, torch.Tensor]:
    return dict(checkpoint.read_weights(run.store, checkpoint.MODEL)["weights"])


def test_each_fold_starts_from_its_own_folds_run(
    first: list[Run], shards: Ingest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.train.report", lambda metrics: None)
    runs = validation(tmp_path).runs("second", SECOND, shards, [FromRuns(first, {"": "first."})])
    for run, before in zip(runs, first, strict=True):
        Worker(run).work()
        made = weights(run)
        for name, value in weights(before).items():  # frozen: as it came
            assert torch.equal(made[f"first.{name}"], value)
    assert not all(torch.equal(a, b) for a, b in zip(weights(runs[0]).values(), weights(runs[1]).values(), strict=True))


def test_of_several_runs_the_last_one_counts_and_longer_prefixes_come_first(
    first: list[Run], shards: Ingest, tmp_path: Path
) -> None:
    starts = [FromRuns(first, {"": "first."}), FromRuns(list(reversed(first)), {"0.": "first.0."})]
    run, _ = validation(tmp_path).runs("second", SECOND, shards, starts)
    state = Worker(run).trainer.network.state_dict()
    assert all(torch.equal(state[f"first.{name}"], value) for name, value in weights(first[0]).items())
    assert len(run.origin) == 2
    moved = checkpoint.renamed({"a.b": torch.ones(1), "a.c.d": torch.zeros(1)}, {"a.": "x.", "a.c.": "y."}, {"x.b": torch.ones(1), "y.d": torch.ones(1)})  # fmt: skip
    assert moved.keys() == {"x.b", "y.d"}


@pytest.mark.parametrize(
    ("prefixes", "what"),
    [
        ({"encoder.": "first."}, "no weight begins with 'encoder.'"),
        ({"": "other."}, "there is no such weight"),
        ({"": "second."}, "has the shape"),
    ],
)
def test_weights_without_a_place_end_the_run_with_a_line(
    first: list[Run], shards: Ingest, tmp_path: Path, prefixes: dict[str, str], what: str
) -> None:
    run, _ = validation(tmp_path).runs("second", SECOND, shards, [FromRuns(first, prefixes)])
    with pytest.raises(StopRun, match=what):
        Worker(run)


def test_a_fold_that_the_first_stage_has_not_trained_is_refused(
    first: list[Run], shards: Ingest, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="fold 1: starts from first, of which no run holds out this fold"):
        validation(tmp_path).runs("second", SECOND, shards, [FromRuns(first[:1], {"": "first."})])


def test_a_run_that_is_not_finished_starts_no_other(shards: Ingest, tmp_path: Path) -> None:
    runs = validation(tmp_path).runs("begun", FIRST, shards)
    with pytest.raises(ValueError, match="^fold 0: starts from begun/fold0, which is not finished$"):
        validation(tmp_path).runs("second", SECOND, shards, [FromRuns(runs, {"": "first."})])


def test_a_run_that_no_longer_depends_on_others_is_another_one(
    first: list[Run], shards: Ingest, tmp_path: Path
) -> None:
    run, _ = validation(tmp_path).runs("second", SECOND, shards, [FromRuns(first, {"": "first."})])
    renew(run)
    run.store.write_json("done.json", {})
    renew(run)
    assert run.finished  # the same one
    renew(replace(run, starts=(), origin=()))
    assert not run.finished


def test_other_weights_of_the_first_stage_make_the_second_one_anew(
    first: list[Run], shards: Ingest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = validation(tmp_path).runs("other", replace(FIRST, seed=7), shards)
    fit(other)

    def second(starts: list[Run]) -> list[Run]:
        runs = validation(tmp_path).runs("second", SECOND, shards, [FromRuns(starts, {"": "first."})])
        fit(runs)
        return runs

    made = weights(second(first)[0])
    capsys.readouterr()
    (again, _) = second(first)  # the same ones: left alone
    assert "anew" not in capsys.readouterr().out
    assert all(torch.equal(made[name], value) for name, value in weights(again).items())
    (changed, _) = second(other)
    assert "second/fold0  is made anew" in capsys.readouterr().out
    assert torch.equal(weights(changed)["first.0.weight"], weights(other[0])["0.weight"])
    assert [entry["epoch"] for entry in changed.history()] == [1]


def test_a_part_of_the_rows_keeps_the_folds_that_all_share(shards: Ingest, tmp_path: Path) -> None:
    mask = np.arange(len(shards.index)) % 4 != 3
    part = shards.where(mask)
    assert part.index["volume_id"].tolist() == shards.index["volume_id"][mask].tolist()
    runs = validation(tmp_path).runs("part", FIRST, part)
    fit(runs)
    found = out_of_fold(runs)
    assert sorted(found["volume_id"]) == sorted(part.index["volume_id"])
    fold = dict(zip(shards.index["volume_id"], shards.index["fold"], strict=True))
    assert all(fold[row["volume_id"]] == row["fold"] for row in found.to_dict("records"))
    nobody = part.where(part.index["fold"] == 1)
    with pytest.raises(ValueError, match="^part: fold 0 has no row that it could read: all were set aside before, or"):
        validation(tmp_path).runs("part", FIRST, nobody)


@dataclass(frozen=True, kw_only=True)
class CountingTask(PatchTask):
    """Knows how many rows it learns from."""

    rows: int = 0

    def learning_from(self, index: pd.DataFrame) -> CountingTask:
        return replace(self, rows=len(index))


def test_a_runs_task_knows_the_rows_that_it_learns_from(shards: Ingest, tmp_path: Path) -> None:
    task = CountingTask(epochs=1, batch_size=4, crops=4)
    for run in validation(tmp_path).runs("counting", task, shards):
        own = run.task
        assert isinstance(own, CountingTask)
        assert own.rows == len(run.train) // task.crops < len(shards.index)
        assert own.seed == run.fold


def test_each_fold_may_read_rows_of_its_own(shards: Ingest, tmp_path: Path) -> None:
    twice = Shards(shards.rows, shards.index.assign(made_by="abc"))
    own = twice.by_fold(lambda index, fold: np.arange(len(index)) >= fold)
    runs = validation(tmp_path).runs("own", FIRST, own)
    assert [len(run.held_out) + len(run.train) // FIRST.crops for run in runs] == [8, 7]
    other = validation(tmp_path).runs("own", FIRST, Shards(shards.rows, shards.index.assign(made_by="abd")))
    assert runs[0].origin == runs[1].origin != other[0].origin
    assert runs[0].identity()["origin"] == list(runs[0].origin)


def test_folds_are_balanced_on_months_as_on_classes() -> None:
    rng = np.random.default_rng(0)
    months = rng.uniform(0, 216, 400)
    patients = np.array([f"p{i // 2}" for i in range(400)])
    bands = np.digitize(months, [24, 60, 96, 132, 168])
    fold = assign_folds(patients, bands, 5, seed=0).loc[patients].to_numpy()
    shares = pd.crosstab(bands, fold, normalize="index").to_numpy()
    assert np.abs(shares - 0.2).max() < 0.06


def test_every_stage_of_a_fold_has_the_same_inner_patients_whatever_its_rows_are() -> None:
    """Else an epoch is chosen on features of patients from whom the network before has learned."""
    rng = np.random.default_rng(0)
    slices = pd.DataFrame({"patient_id": np.repeat([f"p{i}" for i in range(40)], 5), "ill": rng.random(200) < 0.2})
    stacks = slices.drop_duplicates("patient_id").sample(frac=1, random_state=1)  # other rows, in another order

    def strata(index: pd.DataFrame) -> np.ndarray:
        return index["ill"].to_numpy().astype(int)

    common: dict[int, frozenset[str]] = {}
    both = [CrossValidation(Store("x"), (0,), Options(out="x"), LOCAL, strata, common) for _ in range(2)]
    first = set(slices["patient_id"].iloc[both[0]._inner(0, slices, 0)])
    assert len(first) == 4
    assert set(stacks["patient_id"].iloc[both[1]._inner(0, stacks, 0)]) == first
    others = stacks[~stacks["patient_id"].isin(first)]
    assert len(both[1]._inner(0, others, 0)) > 0  # of a stage that has none of them


def test_an_inner_part_holds_the_rare_class_where_any_does() -> None:
    for seed in range(20):
        ill = np.arange(60) < 3
        order = np.random.default_rng(seed).permutation(60)
        index = pd.DataFrame({"patient_id": [f"p{i}" for i in order], "ill": ill[order]})
        rows = _inner_rows(index, lambda own: own["ill"].to_numpy().astype(int), seed)
        assert index["ill"].iloc[rows].any()
        assert len(rows) == 6
