"""Through two stages of networks, no label of a held-out patient reaches what that patient is scored with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medray.engine.data.prepare import Ingest
from medray.engine.data.samples import Rows, Shards
from medray.engine.derive.derive import DerivedShards, derive
from medray.engine.derive.part import ROWS_PER_GROUP
from medray.engine.job.options import Options
from medray.engine.nodes.cluster import Resources
from medray.engine.train.fit import fit
from medray.engine.train.loop import Worker
from medray.engine.train.run import Run
from medray.engine.train.sweep import CrossValidation
from medray.shards.store import Store
from medray.systems.ich.classes import CLASSES, PROBABILITIES
from medray.systems.ich.features import INDEX_COLUMNS, embedded_for, stack_index
from medray.systems.ich.sequence import SequenceTask
from medray.systems.ich.system import strata
from medray.systems.ich.task import SliceTask
from medray.systems.ich.views import Views

pytestmark = pytest.mark.slow
LOCAL = Resources(workers=0, gpu=False, side_by_side=2, threads=1, cpus_per_worker=0.5, data_cpus=0.5)
FOLDS = (0, 1, 2)
ALTERED = 0  # the fold whose labels are changed
Names = dict[int, list[str]]


@dataclass(frozen=True)
class TwoStages:
    """A whole run: backbones, their features, and the sequence stage in both ways."""

    prepared: Ingest
    backbones: list[Run]
    store: Store
    names: Names
    within: list[Run]
    across: list[Run]  # out of fold


@pytest.fixture(scope="module")
def tasks(tiny_task: SliceTask) -> tuple[SliceTask, SequenceTask]:
    backbone = replace(tiny_task, epochs=2)
    sequence = SequenceTask(
        feature_count=backbone.network().feature_count, hidden=8, layers=1, epochs=2, batch_size=2, learning_rate=1e-2
    )
    return backbone, sequence


def sequence_runs(
    folder: Path, name: str, task: SequenceTask, prepared: Ingest, store: Store, names: Names, within_fold: bool,
    folds: tuple[int, ...] = FOLDS,
) -> list[Run]:  # fmt: skip
    """As the job joins them."""
    options = Options(out=str(folder), folds=3)  # held-out rows are scored after each epoch, and must not matter
    rows, table = DerivedShards(store, names).index(INDEX_COLUMNS, prepared.fold_of_patient)
    stacks = Shards(rows, stack_index(table, prepared.index["slice_id"], store.uri))
    own = stacks.by_fold(embedded_for, "within-fold" if within_fold else "out-of-fold")
    return CrossValidation(Store(folder), folds, options, LOCAL, strata).runs(name, task, own)


def two_stages(
    folder: Path, prepared: Ingest, tasks: tuple[SliceTask, SequenceTask], across: tuple[int, ...]
) -> TwoStages:
    backbone, sequence = tasks
    options = Options(out=str(folder), folds=3)
    runs = CrossValidation(Store(folder), FOLDS, options, LOCAL, strata).runs("model", backbone, prepared)
    fit(runs)
    store = Store(folder).sub("features", "model")
    names = derive(Views(), prepared.rows, store, runs).names
    within = sequence_runs(folder, "within", sequence, prepared, store, names, True)
    pooled = sequence_runs(folder, "across", sequence, prepared, store, names, False, across)
    fit([*within, *pooled])
    return TwoStages(prepared, runs, store, names, within, pooled)


def with_other_labels(prepared: Ingest, fold: int, folder: Path) -> Ingest:
    """The shards with every label of the fold's patients turned round: same files, same row groups."""
    patients = {patient for patient, of in prepared.fold_of_patient.items() if of == fold}
    source, to = prepared.rows.store, Store(folder)
    for name in prepared.rows.files:
        file = pq.ParquetFile(source.path(name))
        groups = []
        for number in range(file.num_row_groups):
            table = file.read_row_group(number)
            theirs = np.array([patient in patients for patient in table["patient_id"].to_pylist()])
            for label in CLASSES:
                old = table[label].to_pylist()
                new = [1 - (v or 0) if flip else v for v, flip in zip(old, theirs, strict=True)]
                place = table.schema.get_field_index(label)
                table = table.set_column(place, table.schema.field(label), pa.array(new, pa.int8()))
            groups.append(table)
        write_groups(to, name, groups)
        assert pq.read_metadata(to.path(name)).num_row_groups == file.num_row_groups
    rows = Rows(to, prepared.rows.files, prepared.rows.file, prepared.rows.group, prepared.rows.row)
    index = prepared.index.copy()
    theirs = index["patient_id"].isin(patients)
    index.loc[theirs, list(CLASSES)] = 1 - index.loc[theirs, list(CLASSES)].fillna(0)
    return replace(prepared, rows=rows, index=index)


def write_groups(to: Store, name: str, groups: list[pa.Table]) -> None:
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, groups[0].schema) as writer:
        for group in groups:
            writer.write_table(group, row_group_size=len(group))
    to.write_bytes(name, sink.getvalue())


def with_permuted_channels(store: Store, names: Names, fold: int, to: Store) -> None:
    """A copy of the features in which one network's channels have other places."""
    for of_fold, of_network in names.items():
        for name in of_network:
            table = store.read_table(name)
            if of_fold == fold:
                count = table["feature_count"][0].as_py()
                order = np.random.default_rng(0).permutation(count)
                stacks = [np.frombuffer(v, np.float16).reshape(-1, count) for v in table["feature"].to_pylist()]
                permuted = pa.array([stack[:, order].tobytes() for stack in stacks], pa.binary())
                table = table.set_column(
                    table.schema.get_field_index("feature"), table.schema.field("feature"), permuted
                )
            to.write_table(name, table, row_group_size=ROWS_PER_GROUP)


def predicted(run: Run) -> pd.DataFrame:
    """What the networks said of the held-out slices, without the labels beside it."""
    return run.predictions()[["slice_id", *PROBABILITIES]]


def same(one: Run, other: Run) -> bool:
    """Bit by bit."""
    return predicted(one).equals(predicted(other))


def patients_of(prepared: Ingest, rows: Rows | None) -> list[str]:
    """The patient of each row of the shards."""
    assert rows is not None
    every = zip(prepared.rows.file, prepared.rows.group, prepared.rows.row, strict=True)
    place = {spot: number for number, spot in enumerate(every)}
    places = [place[spot] for spot in zip(rows.file, rows.group, rows.row, strict=True)]
    return prepared.index["patient_id"].iloc[places].tolist()


def stacks_of(rows: Rows) -> Iterator[tuple[str, str]]:
    """File and patient of each row of the features."""
    for file, group, row in zip(rows.file, rows.group, rows.row, strict=True):
        table = pq.ParquetFile(rows.store.path(rows.files[file])).read_row_group(int(group), columns=["patient_id"])
        yield rows.files[file], table["patient_id"][int(row)].as_py()


@pytest.fixture(scope="module")
def original(
    tmp_path_factory: pytest.TempPathFactory, prepared: Ingest, tasks: tuple[SliceTask, SequenceTask]
) -> TwoStages:
    return two_stages(tmp_path_factory.mktemp("original"), prepared, tasks, FOLDS)


@pytest.fixture(scope="module")
def altered(
    tmp_path_factory: pytest.TempPathFactory, prepared: Ingest, tasks: tuple[SliceTask, SequenceTask]
) -> TwoStages:
    """The same with the same seeds, after every label of one fold's patients was turned round."""
    folder = tmp_path_factory.mktemp("altered")
    return two_stages(folder, with_other_labels(prepared, ALTERED, folder / "shards"), tasks, (ALTERED,))


# ---- labels --------------------------------------------------------------------------------------------------------


def test_every_label_of_the_altered_fold_is_another_one_and_no_other_is(
    original: TwoStages, altered: TwoStages
) -> None:
    before, after = original.prepared.index, altered.prepared.index
    theirs = before["fold"] == ALTERED
    assert theirs.any()
    differ = before[list(CLASSES)].ne(after[list(CLASSES)]) & after[list(CLASSES)].notna()
    assert differ[theirs].all(axis=None)
    assert not differ[~theirs].any(axis=None)
    said = {run.fold: run.predictions().set_index("slice_id")[list(CLASSES)] for run in altered.backbones}
    for fold in FOLDS:  # and the networks' batches hold them
        wanted = after[after["fold"] == fold].set_index("slice_id")[list(CLASSES)]
        assert np.array_equal(said[fold].loc[wanted.index], wanted, equal_nan=True)


def test_labels_of_held_out_patients_do_not_reach_the_backbone_that_predicts_them(
    original: TwoStages, altered: TwoStages
) -> None:
    assert same(original.backbones[ALTERED], altered.backbones[ALTERED])
    others = [fold for fold in FOLDS if fold != ALTERED]
    assert not any(same(original.backbones[fold], altered.backbones[fold]) for fold in others)


def test_within_fold_labels_of_held_out_patients_do_not_reach_the_sequence_stage_that_predicts_them(
    original: TwoStages, altered: TwoStages
) -> None:
    assert same(original.within[ALTERED], altered.within[ALTERED])
    others = [fold for fold in FOLDS if fold != ALTERED]
    assert not any(same(original.within[fold], altered.within[fold]) for fold in others)


def test_out_of_fold_they_do_reach_it_through_the_other_networks_and_so_its_score_is_optimistic(
    original: TwoStages, altered: TwoStages
) -> None:
    run, other = original.across[ALTERED], altered.across[0]
    assert run.name == other.name
    assert not same(run, other)


# ---- features ------------------------------------------------------------------------------------------------------


def test_within_fold_the_features_of_one_network_reach_only_the_sequence_stage_of_its_fold(
    original: TwoStages, tasks: tuple[SliceTask, SequenceTask], tmp_path: Path
) -> None:
    permuted = Store(tmp_path / "features")
    with_permuted_channels(original.store, original.names, 1, permuted)
    runs = sequence_runs(tmp_path, "within", tasks[1], original.prepared, permuted, original.names, True)
    fit(runs)
    assert [same(run, before) for run, before in zip(runs, original.within, strict=True)] == [True, False, True]


def test_within_fold_every_stack_comes_from_the_network_of_the_run_and_no_patient_is_on_both_sides(
    original: TwoStages,
) -> None:
    fold_of, every = original.prepared.fold_of_patient, original.prepared.index["patient_id"].nunique()
    for run in original.within:
        train, held_out = list(stacks_of(run.train)), list(stacks_of(run.held_out))
        assert {Path(file).parent.name for file, _ in train + held_out} == {f"fold{run.fold}"}
        assert {fold_of[patient] for _, patient in held_out} == {run.fold}
        assert run.fold not in {fold_of[patient] for _, patient in train}
        assert len({patient for _, patient in train + held_out}) == every


def test_out_of_fold_every_stack_comes_from_the_network_that_held_its_patient_out(original: TwoStages) -> None:
    fold_of = original.prepared.fold_of_patient
    for run in original.across:
        train, held_out = list(stacks_of(run.train)), list(stacks_of(run.held_out))
        for file, patient in train + held_out:
            assert Path(file).parent.name == f"fold{fold_of[patient]}"
        assert {fold_of[patient] for _, patient in held_out} == {run.fold}
        assert {fold_of[patient] for _, patient in train} == set(FOLDS) - {run.fold}


def test_the_two_ways_differ(original: TwoStages) -> None:
    assert not any(same(one, other) for one, other in zip(original.within, original.across, strict=True))


# ---- repeated rows -------------------------------------------------------------------------------------------------


def test_repeated_rows_are_the_epidural_ones_and_recalibration_has_patients_of_its_own(
    prepared: Ingest, tasks: tuple[SliceTask, SequenceTask], tmp_path: Path
) -> None:
    task = replace(tasks[0], repeat_epidural=3)
    options = Options(out=str(tmp_path), folds=3, monitor="none")
    validation = CrossValidation(Store(tmp_path), FOLDS, options, LOCAL, strata)
    runs = validation.runs("model", task, prepared)
    spots = zip(prepared.rows.file, prepared.rows.group, prepared.rows.row, strict=True)
    label = dict(zip(spots, prepared.index["epidural"], strict=True))
    positives = 0
    for run in runs:
        trained, inner, held_out = (set(patients_of(prepared, r)) for r in (run.train, run.inner, run.held_out))
        assert inner
        assert not inner & trained
        assert not inner & held_out
        assert not trained & held_out
        assert held_out == {p for p, fold in prepared.fold_of_patient.items() if fold == run.fold}
        assert trained | inner | held_out == set(prepared.fold_of_patient)
        counts = pd.Series(list(zip(run.train.file, run.train.group, run.train.row, strict=True))).value_counts()
        assert all(count == (3 if label[spot] == 1 else 1) for spot, count in counts.items())
        positives += sum(label[spot] == 1 for spot in counts.index)
        assert run.inner is not None
        assert len(set(zip(run.inner.file, run.inner.group, run.inner.row, strict=True))) == len(run.inner)
    assert positives
    (plain, *_) = validation.runs("plain", tasks[0], prepared)
    assert plain.inner is None

    fit(runs[:1])
    table = runs[0].inner_predictions()
    assert table is not None
    assert runs[0].store.exists("inner.parquet")
    assert set(table["patient_id"]) == set(patients_of(prepared, runs[0].inner))
    assert not table["slice_id"].duplicated().any()
    assert not set(table["patient_id"]) & set(runs[0].predictions()["patient_id"])
    assert table[list(PROBABILITIES)].notna().all(axis=None)


# ---- the same again ------------------------------------------------------------------------------------------------


def test_a_resumed_sequence_stage_equals_an_uninterrupted_one(
    original: TwoStages, tasks: tuple[SliceTask, SequenceTask], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = sequence_runs(tmp_path, "within", tasks[1], original.prepared, original.store, original.names, True, (0, 1))

    class Killed(BaseException):
        pass

    save = Worker._save

    def save_and_die(self: Worker) -> None:
        save(self)
        self.saver.wait()
        raise Killed

    monkeypatch.setattr(Worker, "_save", save_and_die)
    with pytest.raises(Killed):
        Worker(runs[0]).work()
    monkeypatch.undo()
    assert [entry["epoch"] for entry in runs[0].history()] == [1]
    assert not runs[0].finished

    fit(runs)  # the second one was not interrupted: two runs of one seed
    for run, expected in zip(runs, original.within, strict=False):
        assert same(run, expected)
        assert [e["metrics"] for e in run.history()] == [e["metrics"] for e in expected.history()]


def test_a_fold_comes_out_the_same_whichever_other_folds_are_trained(
    original: TwoStages, tasks: tuple[SliceTask, SequenceTask], tmp_path: Path
) -> None:
    names = {1: original.names[1]}  # as with --train-folds 1
    runs = sequence_runs(tmp_path, "within", tasks[1], original.prepared, original.store, names, True, (1,))
    fit(runs)
    assert same(runs[0], original.within[1])
