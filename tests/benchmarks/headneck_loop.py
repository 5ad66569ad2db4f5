"""What the benchmarks of head and neck share: a chain of networks trained one after another by a plain loop, and its scores."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from medray.engine.train.checkpoint import renamed
from medray.engine.train.device import to_device
from medray.engine.train.outputs import evaluate
from medray.engine.train.step import Trainer
from medray.shards.files import Files
from medray.systems.headneck.chain import Chain
from medray.systems.headneck.names import organ_of
from medray.systems.headneck.source import CT, PlanningCT
from medray.systems.headneck.task import OrganTask

CPU = torch.device("cpu")
Row = dict[str, Any]


@dataclass(frozen=True)
class Rung:
    """A network of a chain, trained."""

    name: str
    task: OrganTask
    network: torch.nn.Module
    seconds: float
    """Of training."""

    def outputs(self, rows: Sequence[Row]) -> pd.DataFrame:
        """The task's outputs for these rows, with the largest part of each organ and all scores."""
        return evaluate(
            self.task, self.network.eval(), (self.task.collate([self.task.example(row)]) for row in rows), CPU
        )


def patient_row(folder: Path, organs: Sequence[str], shown: Sequence[str] | None = None) -> Row:
    """A patient as in the shards: ``ct.nii.gz``, and a mask an organ below ``organs``.

    Args:
        shown: what of the organs is not hidden; all where not given.
    """
    files = {CT: [(folder / "ct.nii.gz").read_bytes()]}
    for path in sorted((folder / "organs").glob("*.nii.gz")):
        organ = organ_of(path.name.removesuffix(".nii.gz"))
        if organ in (organs if shown is None else shown):
            files[organ] = [path.read_bytes()]
    (encoded,) = PlanningCT(organs=tuple(organs)).encode(Files(files), [{}])
    assert encoded.columns is not None
    return encoded.columns | {"scan_id": folder.name, "patient_id": folder.name, "visit": "1"}


def train(task: OrganTask, network: torch.nn.Module, rows: Sequence[Row], steps: int) -> float:
    """Seconds that it took. Every scan once, then again, each time in another order; the engine's optimizer step."""
    task = task.learning_from(pd.DataFrame(rows).reindex(columns=["organs_ml", "origin"]))
    trainer = Trainer(task, network, CPU)
    trainer.train()
    orders, begin, reading, waiting = np.random.default_rng(task.seed), time.perf_counter(), 0, list[Any]()
    for step in range(steps):
        while len(waiting) < task.batch_size:
            if reading % len(rows) == 0:
                order = orders.permutation(len(rows))
            rngs = [np.random.default_rng([task.seed, reading * task.crops + i]) for i in range(task.crops)]
            waiting += task.train_examples(rows[order[reading % len(rows)]], rngs)
            reading += 1
        batch, waiting = task.collate(waiting[: task.batch_size]), waiting[task.batch_size :]
        trainer.step(to_device(batch, CPU, task.host), 0, step, steps)
    trainer.check()
    return time.perf_counter() - begin


def trained(chain: Chain, rows: Sequence[Row], steps: Mapping[str, int]) -> Iterable[Rung]:
    """Each network of a chain, from the ones that it stands on.

    Args:
        steps: of each stage (``chain.STAGES``).
    """
    weights: dict[str, dict[str, torch.Tensor]] = {}
    for stage, own in chain.tasks().items():
        for rung, task in own.items():
            torch.manual_seed(task.seed)
            network = task.network()
            state = network.state_dict()
            for before, prefixes in chain.starts(rung):
                state |= renamed(weights[before], prefixes, state)
            network.load_state_dict(state)
            seconds = train(task, network, rows, steps[stage])
            weights[rung] = network.state_dict()
            yield Rung(rung, task, network, seconds)
