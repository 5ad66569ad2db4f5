"""One contract, written once, for the task of every recipe."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from chest_films import film_row

import medray.chest.recipes as chest
import medray.ich.recipes as ich
from medray.chest.classes import FINDINGS
from medray.chest.task import FilmTask, labels_of
from medray.engine.predict import evaluate, to_device
from medray.ich.classes import CLASSES
from medray.ich.task import SliceTask
from medray.task import Task

CPU = torch.device("cpu")
Row = dict[str, object]


@dataclass(frozen=True)
class Case:
    """A recipe's task with random weights, small enough for a test; the other fields are its own."""

    task: SliceTask | FilmTask
    rows: list[Row]
    labels: tuple[str, ...]  # label columns of a row
    names: tuple[str, ...]  # label columns of the outputs; p_<name> are the probabilities
    expected: Callable[[Row], list[float]]  # a row's labels in the outputs


def slice_row(task: SliceTask, number: int) -> Row:
    rng = np.random.default_rng(number)
    image = rng.integers(0, 255, (48, 40, task.channels), dtype=np.uint8)
    labels = {name: int((number >> i) & 1) for i, name in enumerate(CLASSES)}
    ids = {name: f"{name}{number}" for name in ("slice_id", "patient_id", "study_id", "series_id")}
    return {**ids, "index": number, "position_mm": 1.0, "rows": 48, "columns": 40, "image": image.tobytes(), **labels}


def slices(recipe: SliceTask) -> Case:
    """On noise, which has no head."""
    task = replace(
        recipe, pretrained=False, size_px=64, backbone="resnet10t", batch_size=4, stored=recipe.windows, head_crop=False
    )
    rows = [slice_row(task, number) for number in (1, 2, 4, 40)]
    return Case(task, rows, CLASSES, CLASSES, lambda row: [row[c] for c in CLASSES])  # type: ignore[misc]


def films(recipe: FilmTask) -> Case:
    task = replace(recipe, pretrained=False, resize_px=72, crop_px=64, backbone="resnet10t", batch_size=4)
    rows = [film_row(number) for number in (0, 0b110, 0b1000000, 0b10000000100001)]
    return Case(task, rows, FINDINGS, task.names, lambda row: labels_of(row, task.targets).tolist())


CASES: dict[str, Callable[[], Case]] = {
    **{f"ich-{name}": partial(lambda r: slices(r()), r) for name, r in {**ich.RECIPES, "phantom": ich.phantom}.items()},
    "chest-chexnet": lambda: films(chest.chexnet()),
    "chest-sgd-source": lambda: films(chest.sgd("source")),
    "chest-small-abnormal": lambda: films(chest.small("abnormal")),
}


@pytest.fixture(params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]()


@pytest.fixture
def task(case: Case) -> SliceTask | FilmTask:
    return case.task


@pytest.fixture
def rows(case: Case) -> list[Row]:
    return case.rows


def batch_of(task: Task, rows: list[Row]) -> dict[str, object]:
    return to_device(task.collate([task.example(row) for row in rows]), CPU)


def test_loss_and_gradients_are_finite(task: SliceTask | FilmTask, rows: list[Row]) -> None:
    network = task.network()
    losses = task.losses(network, batch_of(task, rows))
    losses["loss"].backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_it_overfits_four_examples(task: SliceTask | FilmTask, rows: list[Row]) -> None:
    torch.manual_seed(0)
    network, batch = task.network(), batch_of(task, rows)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = task.losses(network, batch)["loss"]
        loss.backward()
        optimizer.step()
    # smoothed labels cannot be fitted below their own entropy
    assert float(loss) < 0.1 + task.label_smoothing


def test_outputs_have_unique_ids_and_one_row_an_example(case: Case, task: Task, rows: list[Row]) -> None:
    batches = [task.collate([task.example(row) for row in part]) for part in (rows[:3], rows[3:])]
    table = evaluate(task, task.network(), batches, CPU)
    assert table[task.id_column].tolist() == [row[task.id_column] for row in rows]
    assert table[[f"p_{name}" for name in case.names]].apply(lambda p: p.between(0, 1)).all(axis=None)
    assert np.array_equal(table[list(case.names)].to_numpy(), [case.expected(row) for row in rows])
    assert all(np.isfinite(v) or name != next(iter(task.metrics(table))) for name, v in task.metrics(table).items())


def test_a_missing_label_is_masked_out(case: Case, task: Task, rows: list[Row]) -> None:
    network = task.network().eval()
    unlabelled = [row | dict.fromkeys(case.labels, None) for row in rows[2:]]
    known = task.losses(network, batch_of(task, rows[:2]))["loss"]
    with_unknown = task.losses(network, batch_of(task, [*rows[:2], *unlabelled]))["loss"]
    assert float(known) == pytest.approx(float(with_unknown), rel=1e-5)
    assert float(task.losses(network, batch_of(task, unlabelled))["loss"]) == 0.0
    assert pd.isna(evaluate(task, network, [task.collate([task.example(unlabelled[0])])], CPU)[case.names[-1]][0])


def test_augmentation_depends_on_its_generator_only(task: SliceTask | FilmTask, rows: list[Row]) -> None:
    first, again, other = (task.train_example(rows[0], np.random.default_rng(s))["image"] for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.shape == task.example(rows[0])["image"].shape


def test_it_survives_pickling_and_its_identity_is_plain(task: SliceTask | FilmTask) -> None:
    import json

    assert pickle.loads(pickle.dumps(task)) == task
    assert json.loads(json.dumps(task.identity()))["backbone"] == task.backbone
    assert replace(task, learning_rate=0.5).identity() != task.identity()


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one-cycle", "exponential"])
def test_every_schedule_starts_low_or_at_the_peak_and_stays_within_it(
    task: SliceTask | FilmTask, schedule: str
) -> None:
    changed = replace(task, schedule=schedule, warmup_fraction=0.1, epochs=10)  # type: ignore[arg-type]
    factors = [changed.rate_factor(step, 1000) for step in range(1000)]
    assert max(factors) <= 1.0 + 1e-9
    assert max(factors) > 0.95
    assert factors[0] < 0.1
    assert min(factors) >= 0
