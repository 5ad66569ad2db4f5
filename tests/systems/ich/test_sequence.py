from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from gpu_contract import outputs_are_those_of_a_cpu, steps_wait_for_nothing

from medray.engine.data.rows import read_unit
from medray.engine.data.samples import EvaluationPlan, TrainingPlan, read_index
from medray.engine.data.stream import stream
from medray.engine.nodes.cluster import spread
from medray.engine.train.device import to_device
from medray.engine.train.outputs import evaluate
from medray.shards.store import Store
from medray.systems.ich.classes import CLASSES, PROBABILITIES
from medray.systems.ich.features import STACK_SCHEMA, pack_stacks
from medray.systems.ich.scores import slice_metrics
from medray.systems.ich.sequence import SequenceTask
from medray.tasks.task import At

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
FEATURES = 5


@pytest.fixture
def task() -> SequenceTask:
    return SequenceTask(feature_count=FEATURES, hidden=16, layers=2, batch_size=4)


def stack_row(series: str, length: int, seed: int = 0, labelled: bool = True) -> dict[str, Any]:
    """A row of features as the embedding stage writes it and Ray Data reads it."""
    rng = np.random.default_rng((seed, length))
    labels = rng.integers(0, 2, (length, 6)).astype(float) if labelled else np.full((length, 6), np.nan)
    columns = {
        "stack_id": series,
        "study_id": f"study of {series}",
        "patient_id": f"patient of {series}",
        "slice_id": [f"{series}{i}" for i in range(length)],
        "index": np.arange(length),
        "position_mm": 5.0 * np.arange(length) - 70.1,
        "feature": list(rng.normal(size=(length, FEATURES)).astype(np.float32)),
        **{name: rng.uniform(size=length) for name in PROBABILITIES},
        **{name: labels[:, i] for i, name in enumerate(CLASSES)},
    }
    return pack_stacks(pd.DataFrame(columns)).to_pylist()[0]


def batch_of(task: SequenceTask, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return to_device(task.collate([task.example(row) for row in rows]), CPU, task.host)


def network_of(task: SequenceTask) -> torch.nn.Module:
    torch.manual_seed(0)
    return task.network().eval()


def loss_of(task: SequenceTask, network: torch.nn.Module, rows: list[dict[str, Any]]) -> float:
    with torch.inference_mode():
        return float(task.losses(network, batch_of(task, rows), At())["loss"])


def table_of(task: SequenceTask, network: torch.nn.Module, rows: list[dict[str, Any]]) -> pd.DataFrame:
    return evaluate(task, network, [task.collate([task.example(row) for row in rows])], CPU)


def upside_down(row: dict[str, Any]) -> dict[str, Any]:
    """The same stack with its slices in reverse order; each keeps its own id, index and place."""
    features = np.frombuffer(row["feature"], dtype=np.float16).reshape(-1, FEATURES)[::-1]
    lists = {name: values[::-1] for name, values in row.items() if isinstance(values, list)}
    return row | lists | {"feature": features.tobytes()}


def equal(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return all(np.array_equal(first[n], second[n], equal_nan=n in ("features", "labels")) for n in first)


def test_an_example_holds_the_stack_as_it_was_packed(task: SequenceTask) -> None:
    row = stack_row("a", 3)
    row["subdural"] = [1, None, 0]
    example = task.example(row)
    assert example["features"].shape == (3, FEATURES)
    assert example["features"].dtype == example["labels"].dtype == np.float32
    assert np.array_equal(example["labels"][:, CLASSES.index("subdural")], [1, np.nan, 0], equal_nan=True)
    assert example["slice_id"] == "a0\na1\na2"
    assert example["index"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"any_weight": -1.0}, "--sequence.epidural-weight 1.0, --sequence.any-weight -1.0: 0 or more"),
        ({"hidden": 0}, "--sequence.hidden 0, --sequence.layers 2: must be at least 1"),
        ({"layers": 0}, "--sequence.hidden 256, --sequence.layers 0: must be at least 1"),
        ({"dropout": 1.0}, "--sequence.dropout 1.0: from 0 to below 1"),
    ],
)
def test_a_value_that_a_field_cannot_have(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SequenceTask(**fields)


def test_features_of_another_backbone_are_refused(task: SequenceTask) -> None:
    with pytest.raises(ValueError, match="stack a: embedded with 5 features, expected 7"):
        replace(task, feature_count=7).example(stack_row("a", 3))
    with pytest.raises(ValueError, match="feature_count"):
        SequenceTask().network()


def test_collate_pads_to_the_longest_stack(task: SequenceTask) -> None:
    batch = task.collate([task.example(stack_row(s, n)) for s, n in (("a", 3), ("b", 7))])
    assert {n: (v.shape, v.dtype) for n, v in batch.items()} == {
        "features": ((2, 7, FEATURES), np.float32),
        "labels": ((2, 7, 6), np.float32),
        "index": ((2, 7), np.int32),
        "position_mm": ((2, 7), np.float64),
        "lengths": ((2,), np.int64),
        **{name: ((2,), object) for name in ("stack_id", "study_id", "patient_id", "slice_id")},
    }
    assert batch["lengths"].tolist() == [3, 7]
    assert np.isnan(batch["labels"][0, 3:]).all()
    assert not np.isnan(batch["labels"][1]).any()


def test_batches_pass_ray_data_whatever_their_padded_length(
    task: SequenceTask, tmp_path: Path, local_ray: None
) -> None:
    # columns of plain arrays would not: Ray Data joins the batches of a unit in one block, and rows of unlike shapes
    # come back as an object array, which no network takes
    task = replace(task, batch_size=2)
    lengths = [3, 7, 12, 2, 12, 12, 1, 1, 400, 5, 4]
    store, rows = Store(tmp_path), [stack_row(f"s{i}-", n, seed=i) for i, n in enumerate(lengths)]
    store.write_table("a.parquet", pa.Table.from_pylist(rows, schema=STACK_SCHEMA), row_group_size=4)
    places, _ = read_index(store, ["stack_id"])
    plans: list[TrainingPlan | EvaluationPlan] = [TrainingPlan(places, 2, epochs=2, seed=0), EvaluationPlan(places, 2)]
    for plan in plans:
        sent = [batch for unit in plan.units() for batch in read_unit(task, plan, unit)]
        assert len({batch["features"].shape[1] for batch in sent}) > 2
        received = list(stream(task, plan, spread(1, None, False)))
        assert len(received) == len(sent)
        for before, after in zip(sent, received, strict=True):
            assert before.keys() == after.keys()
            for name, values in before.items():
                assert after[name].dtype == values.dtype, name
                assert np.array_equal(after[name], values, equal_nan=values.dtype.kind == "f"), name
    # the last plan is the evaluation's: every slice once, in order
    table = evaluate(task, network_of(task), received, CPU)
    assert table["slice_id"].tolist() == [i for row in rows for i in row["slice_id"]]


def test_loss_and_gradients_are_finite(task: SequenceTask) -> None:
    network = network_of(task).train()
    task.losses(network, batch_of(task, [stack_row("a", 3), stack_row("b", 7)]), At())["loss"].backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_the_loss_is_the_score_of_its_slices(task: SequenceTask) -> None:
    # padding counted as a slice, or a stack counted as one, would move it
    rows, plain = [stack_row("a", 2), stack_row("b", 9)], replace(task, reverse_view=False)
    network = network_of(plain)
    loss = loss_of(plain, network, rows)
    scored = plain.metrics(table_of(plain, network, rows))["weighted_log_loss"]
    assert loss == pytest.approx(scored, rel=1e-5)


def test_unlabelled_slices_do_not_count(task: SequenceTask) -> None:
    network, known = network_of(task), stack_row("a", 6)
    with_unknown = [known, stack_row("b", 9, labelled=False)]
    expected = loss_of(task, network, [known])
    assert loss_of(task, network, with_unknown) == pytest.approx(expected, rel=1e-5)
    first = known | {name: [*known[name][:3], None, None, None] for name in CLASSES}
    last = known | {name: [None, None, None, *known[name][3:]] for name in CLASSES}
    halves = [loss_of(task, network, [row]) for row in (first, last)]
    assert np.mean(halves) == pytest.approx(expected, rel=1e-5)  # equally many slices in each
    assert halves[0] != pytest.approx(halves[1], rel=1e-5)


def test_a_batch_without_labels_has_loss_0_and_finite_gradients(task: SequenceTask) -> None:
    network = network_of(task).train()
    batch = batch_of(task, [stack_row("a", 3, labelled=False), stack_row("b", 5, labelled=False)])
    loss = task.losses(network, batch, At())["loss"]
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_the_weights_of_the_columns(task: SequenceTask) -> None:
    batch = batch_of(task, [stack_row("a", 6)])
    network = network_of(task)
    without = replace(task, epidural_weight=0.0, any_weight=0.0).losses(network, batch, At())["loss"]
    batch["labels"][..., 0] = batch["labels"][..., -1] = 1.0
    again = replace(task, epidural_weight=0.0, any_weight=0.0).losses(network, batch, At())["loss"]
    assert float(again) == pytest.approx(float(without), rel=1e-6)
    assert float(task.losses(network, batch, At())["loss"]) != pytest.approx(float(without), rel=1e-3)


def test_outputs_have_one_row_a_slice_and_no_padding(task: SequenceTask) -> None:
    rows = [stack_row("a", 3), stack_row("b", 7), stack_row("c", 1)]
    table = table_of(task, network_of(task), rows)
    assert table["slice_id"].tolist() == [i for row in rows for i in row["slice_id"]]
    assert table["stack_id"].tolist() == ["a"] * 3 + ["b"] * 7 + ["c"]
    assert table["patient_id"].tolist() == [f"patient of {s}" for s in table["stack_id"]]
    assert table["index"].tolist() == [i for row in rows for i in row["index"]]
    assert table["position_mm"].tolist() == [p for row in rows for p in row["position_mm"]]
    assert (table[list(PROBABILITIES)].dtypes == np.float64).all()
    assert table[list(PROBABILITIES)].apply(lambda p: p.between(0, 1)).all(axis=None)
    assert np.array_equal(
        table[list(CLASSES)].to_numpy(), np.concatenate([np.array([r[c] for c in CLASSES]).T for r in rows])
    )
    unlabelled = table_of(task, network_of(task), [stack_row("d", 2, labelled=False)])
    assert unlabelled[list(CLASSES)].isna().all(axis=None)
    assert task.metrics(table) == slice_metrics(table)
    assert list(task.metrics(table)) == ["weighted_log_loss", "auc_any"]


def test_outputs_have_the_columns_of_the_backbone(task: SequenceTask) -> None:
    from medray.systems.ich.task import SliceTask

    slices = {name: ["x"] for name in ("slice_id", "patient_id", "study_id", "stack_id", "index", "position_mm")}
    expected = SliceTask().columns_of(np.zeros((1, 6)), slices | {"labels": torch.zeros(1, 6)})
    assert set(table_of(task, network_of(task), [stack_row("a", 2)])) == set(expected)


def test_predictions_do_not_depend_on_the_batch(task: SequenceTask) -> None:
    network, short = network_of(task), stack_row("a", 3)
    alone = table_of(task, network, [short])[list(PROBABILITIES)]
    beside = table_of(task, network, [short, stack_row("b", 11)])[list(PROBABILITIES)].iloc[:3]
    assert np.allclose(alone, beside, atol=1e-6, rtol=0)


@pytest.mark.parametrize("reverse_view", [True, False])
def test_with_the_reverse_view_a_stack_upside_down_is_answered_the_same(task: SequenceTask, reverse_view: bool) -> None:
    task = replace(task, reverse_view=reverse_view)
    network, rows = network_of(task), [stack_row("a", 7), stack_row("b", 4)]
    for parameter in network.parameters():  # a fresh LSTM hardly tells up from down
        parameter.data *= 2
    there = table_of(task, network, rows).set_index("slice_id")
    back = table_of(task, network, [upside_down(row) for row in rows]).set_index("slice_id").loc[there.index]
    difference = np.abs(there[list(PROBABILITIES)] - back[list(PROBABILITIES)]).to_numpy().max()
    # 1e-5: both directions in fp32, averaged in fp64. Without the view the two directions differ by far more
    assert difference <= 1e-5 if reverse_view else difference > 1e-3


def test_stacks_of_1_and_of_400_slices_train_and_predict(task: SequenceTask) -> None:
    network, rows = network_of(task).train(), [stack_row("a", 1), stack_row("b", 400)]
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        loss = task.losses(network, batch_of(task, rows), At())["loss"]
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.isfinite(losses).all()
    assert len(table_of(task, network, rows)) == 401
    assert len(table_of(task, network, rows[:1])) == 1


def test_it_overfits_four_stacks(task: SequenceTask) -> None:
    task = replace(task, dropout=0.0)
    network = network_of(task).train()
    batch = batch_of(task, [stack_row(s, n) for s, n in (("a", 3), ("b", 8), ("c", 5), ("d", 1))])
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(120):
        optimizer.zero_grad()
        loss = task.losses(network, batch, At())["loss"]
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.02


def test_augmentation_depends_on_its_generator_only(task: SequenceTask) -> None:
    row = stack_row("a", 7)
    plain = task.example(row)
    views = [task.train_example(row, np.random.default_rng(seed)) for seed in range(40)]
    again = [task.train_example(row, np.random.default_rng(seed)) for seed in range(40)]
    assert all(equal(first, second) for first, second in zip(views, again, strict=True))
    turned = task.example(upside_down(row))
    assert all(equal(view, plain) or equal(view, turned) for view in views)
    assert 8 < sum(equal(view, turned) for view in views) < 32  # half of them
    assert equal(task.example(row), plain)  # the row itself stays as it is
    fixed = replace(task, random_reverse=False)
    assert all(equal(fixed.train_example(row, np.random.default_rng(seed)), plain) for seed in range(10))


def test_nan_features_do_not_pass_silently(task: SequenceTask) -> None:
    batch = batch_of(task, [stack_row("a", 3)])
    batch["features"][0, 1, 0] = np.nan
    network = network_of(task)
    assert torch.isnan(task.losses(network, batch, At())["loss"])
    with torch.inference_mode():
        assert np.isnan(task.outputs(network, batch)["p_any"]).any()


def test_it_survives_pickling_and_its_identity_is_plain(task: SequenceTask) -> None:
    assert pickle.loads(pickle.dumps(task)) == task
    assert json.loads(json.dumps(task.identity()))["hidden"] == task.hidden
    assert replace(task, learning_rate=0.5).identity() != task.identity()
    assert not task.has_example_input


def test_on_a_gpu_steps_wait_for_nothing_and_outputs_are_those_of_a_cpu(task: SequenceTask) -> None:
    rows = [stack_row("a", 7), stack_row("b", 3), stack_row("c", 1), stack_row("d", 5)]
    steps_wait_for_nothing(task, rows)
    outputs_are_those_of_a_cpu(task, rows)
