"""One contract, written once, for the task of every recipe of every system."""

from __future__ import annotations

import importlib.util
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from contract_case import Case, Row
from gpu_contract import new_files_are_predicted, outputs_are_those_of_a_cpu, steps_wait_for_nothing

from medray.engine.train.device import to_device
from medray.engine.train.outputs import evaluate
from medray.engine.train.step import gradients_for
from medray.tasks.task import At, Task

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")


def cases() -> dict[str, Callable[[], Case]]:
    """A system's tests hold a contract.py with its cases."""
    found = {}
    tests = Path(__file__).parent
    for path in sorted([*tests.glob("*/contract.py"), *tests.glob("systems/*/contract.py")]):
        system = path.parent.name
        spec = importlib.util.spec_from_file_location(f"contract_of_{system}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found |= {f"{system}-{name}": case for name, case in module.CASES.items()}
    return found


CASES = cases()


def test_every_system_has_cases() -> None:
    systems = {path.parent.name for path in (Path(__file__).parents[1] / "medray" / "systems").glob("*/task.py")}
    assert systems <= {name.split("-")[0] for name in CASES}
    assert len(systems) >= 2


@pytest.fixture(params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]()


@pytest.fixture
def task(case: Case) -> Task:
    return case.task


@pytest.fixture
def rows(case: Case) -> list[Row]:
    return case.rows


def examples(task: Task, rows: list[Row]) -> list[dict[str, object]]:
    """Batches for inference."""
    size = task.evaluation_batch
    return [task.collate([task.example(row) for row in rows[i : i + size]]) for i in range(0, len(rows), size)]


def training_batch(task: Task, rows: list[Row]) -> dict[str, object]:
    batch = task.collate([task.train_example(r, np.random.default_rng(i)) for i, r in enumerate(rows)])
    return to_device(batch, CPU, task.host)


def test_loss_and_gradients_are_finite(task: Task, rows: list[Row]) -> None:
    network = task.network()
    batch = training_batch(task, rows)
    for turn, optimizer in task.optimizers(network).items():
        own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        with gradients_for(network, own):
            task.losses(network, batch, At(turn=turn))["loss"].backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name  # what is frozen has none
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name


@pytest.mark.slow
def test_it_overfits_four_examples(case: Case, task: Task, rows: list[Row]) -> None:
    torch.manual_seed(0)
    network, batch = task.network(), training_batch(task, rows)
    optimizers = replace(task, optimizer="adam", learning_rate=2e-3, weight_decay=0.0).optimizers(network)
    for _ in range(60):
        for turn, optimizer in optimizers.items():
            own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            with gradients_for(network, own):
                loss = task.losses(network, batch, At(turn=turn))["loss"]
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert float(loss.detach()) < case.floor


def test_outputs_have_unique_ids_and_one_row_an_example(case: Case, task: Task, rows: list[Row]) -> None:
    network = task.network()
    table = evaluate(task, network, [*examples(task, rows[:3]), *examples(task, rows[3:])], CPU)
    assert table[task.id_column].tolist() == [row[task.id_column] for row in rows]
    assert table[[f"p_{name}" for name in case.names]].apply(lambda p: p.between(0, 1)).all(axis=None)
    if case.names:
        assert np.array_equal(table[list(case.names)].to_numpy(), [case.expected(row) for row in rows])
    assert np.isfinite(next(iter(task.metrics(table).values())))
    again = evaluate(task, network, examples(task, rows), CPU)
    assert [str(v) for v in again.iloc[:, -1]] == [str(v) for v in table.iloc[:, -1]]


def test_a_missing_label_is_masked_out(case: Case, task: Task, rows: list[Row]) -> None:
    network = task.network().eval()
    unlabelled = [row | dict.fromkeys(case.labels, None) for row in rows[2:]]

    def loss(some: list[Row]) -> list[float]:
        examples = [task.train_example(row, np.random.default_rng(0)) for row in some]
        batch = to_device(task.collate(examples), CPU, task.host)
        return [float(task.losses(network, batch, At(turn=turn))["loss"]) for turn in task.optimizers(network)]

    assert loss(rows[:2]) == pytest.approx(loss([*rows[:2], *unlabelled]), rel=1e-5)
    assert not any(loss(unlabelled))
    assert pd.isna(
        evaluate(task, network, [task.collate([task.example(unlabelled[0])])], CPU)[case.unknown or case.names[-1]][0]
    )


def test_augmentation_depends_on_its_generator_only(case: Case, task: Task, rows: list[Row]) -> None:
    first, again, other = (task.train_example(rows[0], np.random.default_rng(s))[case.image] for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (first.shape == task.example(rows[0])[case.image].shape) == case.keeps_shape


def test_without_augmentation_training_sees_what_evaluation_sees(case: Case) -> None:
    """Whether a row is enlarged or shrunk: one way of resizing for both."""
    for number, still in enumerate(case.unaugmented):
        for row in case.rows:
            trained, shown = still.train_example(row, np.random.default_rng(number)), still.example(row)
            assert np.array_equal(trained[case.image], shown[case.image])
    assert case.unaugmented or not case.keeps_shape  # of crops of a volume it cannot be said


def test_every_epoch_trains_the_same_network_on_the_same_columns(case: Case) -> None:
    """Whatever an epoch changes of the examples, the loss takes them, and the last epoch's are those of evaluation."""
    network = case.task.network()
    for of_epoch in {case.task.in_epoch(epoch) for epoch in range(case.task.epochs)}:
        assert (of_epoch.columns, of_epoch.context) == (case.task.columns, case.task.context)
        batch = training_batch(of_epoch, case.rows)
        for turn in case.task.optimizers(network):
            assert torch.isfinite(case.task.losses(network, batch, At(turn=turn))["loss"])
    assert case.task.in_epoch(case.task.epochs - 1) == case.task


def test_it_survives_pickling_and_its_identity_is_plain(case: Case, task: Task) -> None:
    assert pickle.loads(pickle.dumps(task)) == task
    told = json.loads(json.dumps(task.identity()))
    assert [told[name] for name in case.known] == [getattr(task, name) for name in case.known]
    assert replace(task, learning_rate=0.5).identity() != task.identity()


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one-cycle", "exponential"])
def test_every_schedule_starts_low_or_at_the_peak_and_stays_within_it(task: Task, schedule: str) -> None:
    changed = replace(task, schedule=schedule, warmup_fraction=0.1, epochs=10)  # type: ignore[arg-type]
    factors = [changed.rate_factor(step, 1000) for step in range(1000)]
    assert max(factors) <= 1.0 + 1e-9
    assert max(factors) > 0.95
    assert factors[0] < 0.1
    assert min(factors) >= 0


# ------------------------------------------------------------ on a GPU


def test_steps_on_a_gpu_wait_for_nothing(task: Task, rows: list[Row]) -> None:
    steps_wait_for_nothing(task, rows)


def test_outputs_on_a_gpu_are_those_on_a_cpu(case: Case, task: Task, rows: list[Row]) -> None:
    """Predictions, metrics, and whatever the system derives from finished networks."""
    for derive in (None, *case.derived):
        outputs_are_those_of_a_cpu(task, rows, derive)


def test_new_files_are_predicted_on_a_gpu(task: Task, rows: list[Row]) -> None:
    new_files_are_predicted(task, rows)
