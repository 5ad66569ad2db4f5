"""One contract, written once, for the task of every recipe."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from medray.engine.predict import evaluate, to_device
from medray.ich import recipes
from medray.ich.classes import CLASSES, PROBABILITIES
from medray.ich.task import SliceTask
from medray.task import Task

CPU = torch.device("cpu")
RECIPES: dict[str, Callable[[], SliceTask]] = {**recipes.RECIPES, "phantom": recipes.phantom}


def slice_row(task: SliceTask, number: int) -> dict[str, object]:
    rng = np.random.default_rng(number)
    image = rng.integers(0, 255, (48, 40, task.channels), dtype=np.uint8)
    labels = {name: int((number >> i) & 1) for i, name in enumerate(CLASSES)}
    ids = {name: f"{name}{number}" for name in ("slice_id", "patient_id", "study_id", "series_id")}
    return {**ids, "index": number, "position_mm": 1.0, "rows": 48, "columns": 40, "image": image.tobytes(), **labels}


@pytest.fixture(params=sorted(RECIPES))
def task(request: pytest.FixtureRequest) -> SliceTask:
    """The recipe with random weights, small enough for a test, on noise, which has no head; the other fields are its own."""
    recipe = RECIPES[request.param]()
    return replace(
        recipe, pretrained=False, size_px=64, backbone="resnet10t", batch_size=4, stored=recipe.windows, head_crop=False
    )


@pytest.fixture
def rows(task: SliceTask) -> list[dict[str, object]]:
    return [slice_row(task, number) for number in (1, 2, 4, 40)]


def batch_of(task: Task, rows: list[dict[str, object]]) -> dict[str, object]:
    return to_device(task.collate([task.example(row) for row in rows]), CPU)


def test_loss_and_gradients_are_finite(task: SliceTask, rows: list[dict[str, object]]) -> None:
    network = task.network()
    losses = task.losses(network, batch_of(task, rows))
    losses["loss"].backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_it_overfits_four_examples(task: SliceTask, rows: list[dict[str, object]]) -> None:
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


def test_outputs_have_unique_ids_and_one_row_an_example(task: SliceTask, rows: list[dict[str, object]]) -> None:
    batches = [task.collate([task.example(row) for row in part]) for part in (rows[:3], rows[3:])]
    table = evaluate(task, task.network(), batches, CPU)
    assert table[task.id_column].tolist() == [row[task.id_column] for row in rows]
    assert table[list(PROBABILITIES)].apply(lambda p: p.between(0, 1)).all(axis=None)
    assert np.array_equal(table[list(CLASSES)].to_numpy(), [[row[c] for c in CLASSES] for row in rows])
    assert all(np.isfinite(v) or name != next(iter(task.metrics(table))) for name, v in task.metrics(table).items())


def test_a_missing_label_is_masked_out(task: SliceTask, rows: list[dict[str, object]]) -> None:
    network = task.network().eval()
    unlabelled = [row | dict.fromkeys(CLASSES, None) for row in rows[2:]]
    known = task.losses(network, batch_of(task, rows[:2]))["loss"]
    with_unknown = task.losses(network, batch_of(task, [*rows[:2], *unlabelled]))["loss"]
    assert float(known) == pytest.approx(float(with_unknown), rel=1e-5)
    assert float(task.losses(network, batch_of(task, unlabelled))["loss"]) == 0.0
    assert pd.isna(evaluate(task, network, [task.collate([task.example(unlabelled[0])])], CPU)["any"][0])


def test_augmentation_depends_on_its_generator_only(task: SliceTask, rows: list[dict[str, object]]) -> None:
    first, again, other = (task.train_example(rows[0], np.random.default_rng(s))["image"] for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.shape == task.example(rows[0])["image"].shape


def test_it_survives_pickling_and_its_identity_is_plain(task: SliceTask) -> None:
    import json

    assert pickle.loads(pickle.dumps(task)) == task
    assert json.loads(json.dumps(task.identity()))["backbone"] == task.backbone
    assert replace(task, learning_rate=0.5).identity() != task.identity()


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one-cycle", "exponential"])
def test_every_schedule_starts_low_or_at_the_peak_and_stays_within_it(task: SliceTask, schedule: str) -> None:
    changed = replace(task, schedule=schedule, warmup_fraction=0.1, epochs=10)  # type: ignore[arg-type]
    factors = [changed.rate_factor(step, 1000) for step in range(1000)]
    assert max(factors) <= 1.0 + 1e-9
    assert max(factors) > 0.95
    assert factors[0] < 0.1
    assert min(factors) >= 0
