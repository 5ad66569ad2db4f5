"""What every task must do on a GPU, tried on tensors that behave as a GPU's do."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from fake_gpu import CPU, GPU, fake_gpu, moved

from medray.engine.derive.outputs import outputs_of
from medray.engine.train.device import to_device
from medray.engine.train.outputs import evaluate
from medray.engine.train.step import Trainer
from medray.tasks.task import Task

Row = Any


class NeverReady:
    """In place of what reads a step's numbers later: it is the one place that waits, and for an earlier step."""

    def __init__(self, device: torch.device, count: int) -> None: ...

    def put(self, values: torch.Tensor, about: object) -> None: ...

    def take(self) -> None: ...


def _on_device(batches: Any, device: torch.device, *more: Any) -> Iterator[dict[str, Any]]:
    """Without the streams and the thread, which want a true one."""
    return (to_device(batch, device, *more) for batch in batches)


def steps_wait_for_nothing(task: Task, rows: Sequence[Row]) -> None:
    """Steps with everything on that a recipe may have on, the last one at the end of an epoch."""
    task = replace(task, precision="fp32", clip_norm=1.0, ema_decay=0.9, accumulate=1)
    batch = task.collate([task.train_example(row, np.random.default_rng(i)) for i, row in enumerate(rows)])
    with mock.patch("medray.engine.train.step.Late", NeverReady):
        with fake_gpu():
            trainer = Trainer(task, moved(task.network()), GPU)
            trainer.step(to_device(batch, GPU, task.host), 0, 0, 3)  # constants are copied once
            before = [p.detach().clone() for p in trainer.network.parameters()]
        with fake_gpu(waits=False):
            for step in (1, 2):
                trainer.step(to_device(batch, GPU, task.host), 0, step, 3)
    after = [p.detach().as_subclass(torch.Tensor) for p in trainer.network.parameters()]
    unchanged = [torch.equal(a, b.as_subclass(torch.Tensor)) for a, b in zip(after, before, strict=True)]
    assert not all(unchanged)
    assert all(torch.isfinite(value).all() for value in after)


def outputs_are_those_of_a_cpu(task: Task, rows: Sequence[Row], derive: Callable[..., Any] | None = None) -> None:
    """Also of their metrics.

    Args:
        derive: (task, network, batch) → columns, in place of the task's own outputs.
    """
    torch.manual_seed(0)
    network = task.network().eval()
    outputs = None if derive is None else functools.partial(derive, task)
    size = task.evaluation_batch
    batches = [task.collate([task.example(row) for row in rows[i : i + size]]) for i in range(0, len(rows), size)]
    expected = evaluate(task, network, batches, CPU, outputs=outputs)
    with mock.patch("medray.engine.train.outputs.on_device", _on_device), fake_gpu():
        found = evaluate(task, moved(copy.deepcopy(network)), batches, GPU, outputs=outputs)
        assert task.metrics(found) == pytest.approx(task.metrics(expected), nan_ok=True)
    for name in expected:
        for one, other in zip(found[name], expected[name], strict=True):
            if isinstance(other, str | bytes):
                assert one == other, name
            else:
                np.testing.assert_allclose(one, other, atol=1e-5, err_msg=name)


def new_files_are_predicted(task: Task, rows: Sequence[Row]) -> None:
    with mock.patch("medray.engine.train.outputs.on_device", _on_device), fake_gpu():
        table = outputs_of(task, moved(task.network()), rows)
    assert table[task.id_column].nunique() == len(table) >= len(rows)
