"""A worker that derives parts by finished networks, one network at a time."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import ray
import torch
from torch import nn

from medray.engine.data.samples import EvaluationPlan
from medray.engine.derive.inputs import Inputs
from medray.engine.derive.part import write_table
from medray.engine.train import checkpoint
from medray.engine.train.device import autocast_dtype
from medray.engine.train.execution import Execution, stored
from medray.engine.train.layout import laid_out
from medray.engine.train.outputs import evaluate
from medray.engine.train.run import Run
from medray.engine.train.stop import StopRun
from medray.shards.store import Store, reason
from medray.tasks.derivation import ByNetwork
from medray.tasks.task import Task

THREADS_UNSEEN = 3  # that read for a GPU while no GPU node is there: every node that is rented has as many CPUs


def reader_threads() -> int:
    """CPUs that read for one GPU: of the GPU nodes alone, the least that one of them has for each GPU, one less."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]
    each = [int(node.get("CPU", 0.0) / node["GPU"]) for node in nodes]
    return max(1, min(each) - 1) if each else THREADS_UNSEEN


class NetworkWorker:
    """One process with one network at a time; of a GPU, which it keeps."""

    def __init__(self, derivation: ByNetwork, threads: int, device: str) -> None:
        self.derivation, self.threads, self.device = derivation, threads, torch.device(device)
        self.weights, self.network = "", nn.Module()
        torch.set_num_threads(1)
        cv2.setNumThreads(1)  # each thread reads a part of the shard

    def write(self, run: Run, inputs: Inputs, places: np.ndarray, to: Store, name: str) -> None:
        """One part through one network, within one task: neither images nor outputs pass the object store."""
        torch.use_deterministic_algorithms(run.deterministic, warn_only=True)
        torch.backends.cudnn.benchmark = not run.deterministic
        if self.weights != run.weights_digest():  # parts of a run come one after the other
            self.network = _network(run.store, run.task, self.device)
            self.weights = run.weights_digest()
        left_out: dict[str, str] = {}
        batches = self._batches(run.task, inputs.take(places), left_out)
        try:
            table = evaluate(
                run.task, self.network, batches, self.device, autocast_dtype(run.task.precision, self.device),
                functools.partial(self.derivation.outputs, run.task),
            )  # fmt: skip
            packed = self.derivation.pack(table)
        except ValueError as error:
            raise StopRun(f"run {run.name}: {reason(error)}") from None
        write_table(to, name, packed, left_out)

    def _batches(self, task: Task, inputs: Inputs, left_out: dict[str, str]) -> Iterator[dict[str, Any]]:
        """Inference batches of all rows in order; threads decode ahead."""
        units = EvaluationPlan(inputs.every[0], task.evaluation_batch).units()

        def read(unit: tuple[int, int]) -> list[dict[str, Any]]:
            examples = []
            own = [*dict.fromkeys([*task.columns, self.derivation.id_column])]
            for row in inputs.take(np.arange(*unit)).read(own, task.context, task.stack_column):
                try:
                    examples.append(task.example(row))
                except ValueError as error:
                    left_out[row[self.derivation.id_column]] = reason(error)
            size = task.evaluation_batch
            return [task.collate(examples[i : i + size]) for i in range(0, len(examples), size)]

        with ThreadPoolExecutor(self.threads) as pool:
            ahead: list[Future[list[dict[str, Any]]]] = []
            for number in range(len(units) + self.threads):
                if number < len(units):
                    ahead.append(pool.submit(read, units[number]))
                if number >= self.threads:
                    yield from ahead.pop(0).result()


def _network(store: Store, task: Task, device: torch.device) -> nn.Module:
    network = task.without_weights().network()
    network.load_state_dict(checkpoint.read_model(store)["weights"])
    return laid_out(network.to(device), (stored(store) or Execution()).layout).eval()
