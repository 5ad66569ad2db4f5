"""Derivation by networks: every slice once by every network, as that network sees it; kept, or replaced when it must be."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from medray.engine.data.prepare import Ingest
from medray.engine.data.rows import read_unit
from medray.engine.data.samples import EvaluationPlan
from medray.engine.derive.derive import DerivedShards, derive
from medray.engine.derive.part import ROWS_PER_GROUP
from medray.engine.job.options import Options
from medray.engine.nodes.cluster import Resources
from medray.engine.train import checkpoint
from medray.engine.train.fit import fit
from medray.engine.train.run import Run
from medray.engine.train.stop import StopRun
from medray.engine.train.sweep import CrossValidation
from medray.shards.store import Store
from medray.systems.ich.classes import CLASSES, PROBABILITIES
from medray.systems.ich.features import INDEX_COLUMNS, read_slices, stack_index
from medray.systems.ich.system import strata
from medray.systems.ich.task import SliceTask
from medray.systems.ich.views import Views

LOCAL = Resources(workers=0, gpu=False, side_by_side=2, threads=1, cpus_per_worker=0.5, data_cpus=0.5)
FOLDS = (0, 1, 2)
VIEWS = Views()  # plain and flip
Names = dict[int, list[str]]
Stamp = dict[str, tuple[int, int]]


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, prepared: Ingest, tiny_task: SliceTask) -> list[Run]:
    folder = tmp_path_factory.mktemp("embedded")
    task, options = replace(tiny_task, epochs=1), Options(out=str(folder), folds=3, monitor="none")
    out = Store(folder)
    found = CrossValidation(out, FOLDS, options, LOCAL, strata).runs("model", task, prepared)
    fit(found)
    return found


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory, runs: list[Run], prepared: Ingest) -> tuple[Store, Names]:
    """Read-only; tests that change files take a copy."""
    store = Store(tmp_path_factory.mktemp("features"))
    return store, derive(VIEWS, prepared.rows, store, runs).names


@pytest.fixture
def copied(features: tuple[Store, Names], tmp_path: Path) -> tuple[Store, Names]:
    store, names = features
    assert store.local is not None
    shutil.copytree(store.local, tmp_path / "features")
    return Store(tmp_path / "features"), names


def files_of(store: Store) -> Stamp:
    """Name → when it was written, and which file it is: one that is made anew has another number."""
    assert store.local is not None
    paths = sorted(path for path in store.local.rglob("*") if path.is_file())
    return {str(p.relative_to(store.local)): (p.stat().st_mtime_ns, p.stat().st_ino) for p in paths}


def all_names(names: Mapping[int, Sequence[str]]) -> list[str]:
    return sorted(name for of_fold in names.values() for name in of_fold)


def network_of(run: Run) -> nn.Module:
    network = run.task.network()
    network.load_state_dict(checkpoint.read_weights(run.store, "model.pt")["weights"])
    return network.eval()


def with_other_weights(run: Run, layer: str, value: float, to: Path) -> Run:
    """The finished run with one number of its weights replaced."""
    assert run.store.local is not None
    shutil.copytree(run.store.local, to)
    store = Store(to)
    state = checkpoint.read_weights(store, "model.pt")
    weight = state["weights"][layer]
    weight[(0,) * weight.ndim] = value
    digest = checkpoint.write_weights(store, "model.pt", state)
    store.write_json("done.json", store.read_json("done.json") | {"weights": digest})
    return replace(run, store=store)


# ---- what is in the files ------------------------------------------------------------------------------------------


def test_every_slice_is_embedded_once_by_every_network_in_stack_order(
    features: tuple[Store, Names], prepared: Ingest
) -> None:
    store, names = features
    assert list(names) == list(FOLDS)
    assert list(files_of(store)) == all_names(names)
    for fold, of_fold in names.items():
        assert len(of_fold) == len(prepared.rows.files)
        for number, name in enumerate(of_fold):
            assert name.startswith(f"fold{fold}/{Path(prepared.rows.files[number]).stem}-")
            table = store.read_table(name)
            wanted = prepared.index[prepared.rows.file == number]
            assert [one for stack in table["slice_id"].to_pylist() for one in stack] == wanted["slice_id"].tolist()
            assert table["stack_id"].to_pylist() == list(dict.fromkeys(wanted["stack_id"]))
            for stack in table.to_pylist():
                assert stack["index"] == sorted(stack["index"])
                assert stack["position_mm"] == sorted(stack["position_mm"])
    slices = read_slices(store, names)
    for fold in FOLDS:
        assert slices[fold]["slice_id"].tolist() == prepared.index["slice_id"].tolist()
        given = prepared.index[list(CLASSES)].to_numpy(dtype=np.float64)
        assert np.array_equal(slices[fold][list(CLASSES)].to_numpy(), given, equal_nan=True)


def test_a_training_window_takes_whole_row_groups_of_a_few_stacks(features: tuple[Store, Names]) -> None:
    store, names = features
    for name in all_names(names):
        metadata = pq.read_metadata(store.path(name))
        assert all(metadata.row_group(i).num_rows <= ROWS_PER_GROUP for i in range(metadata.num_row_groups))


def test_features_and_predictions_are_those_of_the_network_applied_directly(
    runs: list[Run], features: tuple[Store, Names], prepared: Ingest
) -> None:
    store, names = features
    slices = read_slices(store, names)
    kept_of_fold = []
    plan = EvaluationPlan(prepared.rows, len(prepared.rows))
    (batch,) = read_unit(runs[0].task, plan, (0, len(prepared.rows)))
    images = torch.from_numpy(batch["image"])
    for run in runs:
        network = network_of(run)
        with torch.inference_mode():
            pooled = [network.features(images), network.features(images.flip(3))]
            wanted = (sum(network.head(p).double() for p in pooled) / 2).sigmoid().numpy()
        mean = (sum(pooled) / 2).numpy()
        stacks = [row for name in names[run.fold] for row in store.read_table(name).to_pylist()]
        kept = np.concatenate(
            [np.frombuffer(s["feature"], np.float16).reshape(-1, s["feature_count"]) for s in stacks]
        ).astype(np.float32)
        assert kept.shape == mean.shape
        assert np.abs(mean).max() > 0.01
        assert np.abs(mean - kept).max() <= 2**-10 * np.abs(mean).max()
        np.testing.assert_allclose(kept, mean, rtol=2**-10, atol=1e-4)
        np.testing.assert_allclose(slices[run.fold][list(PROBABILITIES)].to_numpy(), wanted, atol=1e-5)
        assert not np.allclose(kept, pooled[0].numpy(), rtol=2**-10, atol=1e-4)  # the views count
        kept_of_fold.append(kept)
    assert not np.allclose(kept_of_fold[0], kept_of_fold[1], rtol=2**-10, atol=1e-4)


def test_the_index_says_which_network_embedded_a_stack_and_in_which_fold_its_patient_is(
    features: tuple[Store, Names], prepared: Ingest
) -> None:
    store, names = features
    rows, index = DerivedShards(store, names).index(INDEX_COLUMNS, prepared.fold_of_patient)
    assert len(rows) == len(index) == 3 * prepared.index["stack_id"].nunique()
    assert (index.groupby("stack_id")["network_fold"].apply(sorted).map(tuple) == FOLDS).all()
    fold_of_slice = dict(zip(prepared.index["slice_id"], prepared.index["fold"], strict=True))
    for place, stack in enumerate(index.itertuples()):
        name = rows.files[rows.file[place]]
        assert name.startswith(f"fold{stack.network_fold}/")
        in_file = pq.ParquetFile(store.path(name)).read_row_group(int(rows.group[place]))
        assert in_file["slice_id"][int(rows.row[place])].as_py() == list(stack.slice_id)
        assert {fold_of_slice[s] for s in stack.slice_id} == {stack.fold}
    of_stacks = stack_index(index, prepared.index["slice_id"], store.uri)
    by_series = prepared.index.groupby("stack_id")[list(CLASSES)].max()
    assert np.array_equal(of_stacks[list(CLASSES)], by_series.loc[of_stacks["stack_id"]], equal_nan=True)


def test_a_shard_of_which_no_slice_could_be_decoded_is_no_obstacle(
    runs: list[Run], features: tuple[Store, Names], prepared: Ingest, tmp_path: Path
) -> None:
    rows = replace(prepared.rows, files=("part-empty.parquet", *prepared.rows.files), file=prepared.rows.file + 1)
    empty = pq.read_schema(prepared.rows.store.path(prepared.rows.files[0])).empty_table()
    assert prepared.rows.store.local is not None
    shutil.copytree(prepared.rows.store.local, tmp_path / "shards")
    rows = replace(rows, store=Store(tmp_path / "shards"))
    rows.store.write_table("part-empty.parquet", empty)
    store = Store(tmp_path / "features")
    names = derive(VIEWS, rows, store, runs).names
    assert list(files_of(store)) == all_names(names)
    found, wanted = read_slices(store, names), read_slices(*features)
    for fold in FOLDS:
        pd.testing.assert_frame_equal(found[fold], wanted[fold], check_exact=True)
    _, index = DerivedShards(store, names).index(INDEX_COLUMNS, prepared.fold_of_patient)
    assert len(stack_index(index, prepared.index["slice_id"], store.uri)) == len(index)


# ---- restarts ------------------------------------------------------------------------------------------------------


def test_a_restart_embeds_nothing_again(runs: list[Run], copied: tuple[Store, Names], prepared: Ingest) -> None:
    store, names = copied
    before = files_of(store)
    assert derive(VIEWS, prepared.rows, store, runs).names == names
    assert files_of(store) == before


def test_a_deleted_file_is_made_again_with_the_same_bits_and_the_others_stay(
    runs: list[Run], copied: tuple[Store, Names], prepared: Ingest
) -> None:
    store, names = copied
    before, lost = files_of(store), names[1][0]
    content = store.read_bytes(lost)
    store.delete(lost)
    assert derive(VIEWS, prepared.rows, store, runs).names == names
    after = files_of(store)
    assert store.read_bytes(lost) == content
    assert after.keys() == before.keys()
    assert [name for name in after if after[name] != before[name]] == [lost]


def test_other_views_replace_every_file(runs: list[Run], copied: tuple[Store, Names], prepared: Ingest) -> None:
    store, names = copied
    found = derive(replace(VIEWS, views=("plain",)), prepared.rows, store, runs).names
    assert not set(all_names(found)) & set(all_names(names))
    assert list(files_of(store)) == all_names(found)


def test_other_weights_replace_the_files_of_their_network_alone(
    runs: list[Run], copied: tuple[Store, Names], prepared: Ingest, tmp_path: Path
) -> None:
    store, names = copied
    before = files_of(store)
    other = with_other_weights(runs[1], "head.bias", 3.0, tmp_path / "run")
    found = derive(VIEWS, prepared.rows, store, [runs[0], other, runs[2]]).names
    after = files_of(store)
    assert list(after) == all_names(found)
    assert (found[0], found[2]) == (names[0], names[2])
    assert not set(found[1]) & set(names[1])
    assert all(after[name] == before[name] for name in (*names[0], *names[2]))
    assert read_slices(store, found)[1][PROBABILITIES[0]].min() > 0.5  # the bias tells


@pytest.mark.parametrize(
    ("layer", "message"), [("head.bias", "a prediction that is NaN"), ("body", "a feature beyond fp16 or NaN")]
)
def test_a_network_with_a_nan_is_named_in_one_line_and_what_is_written_stays(
    layer: str, message: str, runs: list[Run], copied: tuple[Store, Names], prepared: Ingest, tmp_path: Path
) -> None:
    store, names = copied
    if layer == "body":
        layer = next(name for name in network_of(runs[1]).state_dict() if name.endswith(".weight"))
    broken = with_other_weights(runs[1], layer, float("nan"), tmp_path / "run")
    with pytest.raises(StopRun, match=rf"^run model/fold1: \d+ slices have {message}, the first is ") as error:
        derive(VIEWS, prepared.rows, store, [runs[0], broken, runs[2]])
    assert "\n" not in str(error.value)
    assert set(files_of(store)) == {*names[0], *names[2]}  # nothing of the broken network


# ---- features of other shards --------------------------------------------------------------------------------------


def test_a_feature_file_of_another_shard_is_found_out(copied: tuple[Store, Names], prepared: Ingest) -> None:
    store, names = copied
    store.write_bytes(names[1][0], store.read_bytes(names[1][1]))
    _, index = DerivedShards(store, names).index(INDEX_COLUMNS, prepared.fold_of_patient)
    with pytest.raises(ValueError, match=r"/fold1: \d+ of \d+ slices are repeated \(.*delete that folder") as error:
        stack_index(index, prepared.index["slice_id"], store.uri)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("what", ["missing", "not in the shards"])
def test_features_of_more_or_fewer_slices_than_the_shards_hold_are_found_out(
    what: str, features: tuple[Store, Names], prepared: Ingest
) -> None:
    store, names = features
    _, index = DerivedShards(store, names).index(INDEX_COLUMNS, prepared.fold_of_patient)
    ids = prepared.index["slice_id"].tolist()
    if what == "missing":
        shards, odd = [*ids, "slice-of-tomorrow"], "slice-of-tomorrow"
    else:
        shards, odd = ids[1:], ids[0]
    with pytest.raises(ValueError, match=rf"/fold0: 1 of {len(shards)} slices are {what} \({odd}\)"):
        stack_index(index, shards, store.uri)
