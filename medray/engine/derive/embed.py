"""Finished networks over every row of the shards: pooled features and predictions for the stages after them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Protocol

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import ray
import torch
from torch import nn

from medray.engine.data.rows import read_unit
from medray.engine.data.samples import EvaluationPlan, Rows, read_index
from medray.engine.derive.pool import done_by_actors, placed
from medray.engine.job.progress import Progress
from medray.engine.nodes.cluster import what_happened
from medray.engine.train import checkpoint
from medray.engine.train.device import autocast_dtype
from medray.engine.train.execution import Execution, stored
from medray.engine.train.layout import laid_out
from medray.engine.train.outputs import evaluate
from medray.engine.train.run import Run
from medray.engine.train.stop import StopRun
from medray.shards.digest import digest
from medray.shards.store import Store
from medray.tasks.task import Task

THREADS_UNSEEN = 3  # that read for a GPU while no GPU node is there: every node that is rented has as many CPUs
STACKS_PER_GROUP = 8  # of the features' files: a training window then takes whole row groups
Pack = Callable[[pd.DataFrame], pa.Table]


class Embedder(Protocol):
    """What is computed from a batch by a finished network."""

    def identity(self) -> dict[str, Any]: ...

    def embed(self, task: Any, network: Any, batch: dict[str, Any]) -> dict[str, Any]: ...


def embed(
    runs: Sequence[Run], rows: Rows, to: Store, embedder: Embedder, pack: Pack, gpu_device: str = "cuda"
) -> dict[int, list[str]]:
    """Every row of the shards through the network of every finished run; one file for each run and shard.

    Files that are there are kept, so a restart goes on; those of other weights, views or shards are removed.

    Args:
        runs: of one task, one a fold.
        rows: all rows of the shards, whole stacks in order.
        to: files go to fold<k>/ in it.
        pack: a table of outputs, one row a slice → the table to be written, one row a stack.
        gpu_device: torch's name for an actor's GPU; "cpu" on a cluster whose GPUs are names only.
    Returns:
        fold → names of its files relative to ``to``, in the order of the shards.
    Raises:
        StopRun: a network gave something that cannot be kept; files that are written stay.
    """
    bounds = np.searchsorted(rows.file, np.arange(len(rows.files) + 1))
    names: dict[int, list[str]] = {}
    todo: list[tuple[Run, int, Store, str]] = []
    for run in runs:
        made_by = digest(run.weights_digest(), embedder.identity())
        folder = to.sub(f"fold{run.fold}")
        wanted = [f"{PurePosixPath(file).stem}-{made_by}.parquet" for file in rows.files]
        folder.remove_unfinished()
        found = set(folder.names(".parquet"))
        for stale in found - set(wanted):
            folder.delete(stale)
        todo += [(run, i, folder, name) for i, name in enumerate(wanted) if name not in found]
        names[run.fold] = [f"fold{run.fold}/{name}" for name in wanted]
    device = gpu_device if runs[0].resources.gpu else "cpu"
    _run(_Shards(todo, ray.put(rows), bounds, embedder, pack, device), len(runs) * len(rows))
    return names


def read_features(
    store: Store, names: Mapping[int, Sequence[str]], columns: Sequence[str], fold_of_patient: Mapping[str, int]
) -> tuple[Rows, pd.DataFrame]:
    """Every stack as every network embedded it: where its row is, and its small columns.

    Args:
        names: as ``embed`` gives them.
        columns: patient_id among them.
    Returns:
        The rows, and for each of them the columns, "embedded_by" (fold of the network) and "fold" (of the patient).
    """
    order = [(fold, name) for fold in sorted(names) for name in names[fold]]
    rows, index = read_index(store, list(columns), [name for _, name in order])
    # the digest of weights and views
    index["made_by"] = np.array([PurePosixPath(name).stem.rsplit("-", 1)[1] for _, name in order])[rows.file]
    index["embedded_by"] = np.array([fold for fold, _ in order])[rows.file]
    index["fold"] = index["patient_id"].map(dict(fold_of_patient)).to_numpy()
    return rows, index


@dataclass(frozen=True)
class _Shards:
    """Shards that are still to be embedded, each by one network, as pieces of work for actors."""

    todo: Sequence[tuple[Run, int, Store, str]]
    rows: ray.ObjectRef
    bounds: np.ndarray
    embedder: Embedder
    pack: Pack
    device: str

    def actor(self) -> Any:
        gpu = self.todo[0][0].resources.gpu
        threads = reader_threads() if gpu else 1  # of the cluster as it is now
        return placed(_Embedding, threads, gpu).remote(self.embedder, self.pack, threads, self.device)

    def start(self, actor: Any, number: int) -> ray.ObjectRef:
        run, i, folder, name = self.todo[number]
        return actor.embed.remote(run, self.rows, int(self.bounds[i]), int(self.bounds[i + 1]), folder, name)


def _run(shards: _Shards, total: int) -> None:
    sizes = [int(shards.bounds[i + 1] - shards.bounds[i]) for _, i, _, _ in shards.todo]
    progress = Progress("features", total, "slices", done=total - sum(sizes))
    try:
        for number in done_by_actors(shards, [run.name for run, *_ in shards.todo]):
            progress.add(sizes[number])
    except Exception as error:  # whatever happened in an actor
        raise StopRun(what_happened(error)) from error
    progress.close()


def reader_threads() -> int:
    """CPUs that read for one GPU: of the GPU nodes alone, the least that one of them has for each GPU, one less."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]
    each = [int(node.get("CPU", 0.0) / node["GPU"]) for node in nodes]
    return max(1, min(each) - 1) if each else THREADS_UNSEEN


class _Embedding:
    """One process with one network at a time; of a GPU, which it keeps."""

    def __init__(self, embedder: Embedder, pack: Pack, threads: int, device: str) -> None:
        self.embedder, self.pack, self.threads, self.device = embedder, pack, threads, torch.device(device)
        self.weights, self.network = "", nn.Module()
        torch.set_num_threads(1)
        cv2.setNumThreads(1)  # each thread reads a part of the shard

    def embed(self, run: Run, rows: Rows, start: int, stop: int, to: Store, name: str) -> None:
        """One shard through one network, within one task: neither images nor features pass the object store."""
        torch.use_deterministic_algorithms(run.deterministic, warn_only=True)
        torch.backends.cudnn.benchmark = not run.deterministic
        if self.weights != run.weights_digest():  # shards of a run come one after the other
            self.network = _network(run.store, run.task, self.device)
            self.weights = run.weights_digest()
        table = evaluate(
            run.task, self.network, _batches(run.task, rows.take(np.arange(start, stop)), self.threads), self.device,
            autocast_dtype(run.task.precision, self.device), functools.partial(self.embedder.embed, run.task),
        )  # fmt: skip
        try:
            packed = self.pack(table)
        except ValueError as error:
            raise StopRun(f"run {run.name}: {error}") from None
        to.write_table(name, packed, row_group_size=STACKS_PER_GROUP)


def _network(store: Store, task: Task, device: torch.device) -> nn.Module:
    network = task.without_weights().network()
    network.load_state_dict(checkpoint.read_weights(store, "model.pt")["weights"])
    return laid_out(network.to(device), (stored(store) or Execution()).layout).eval()


def _batches(task: Task, rows: Rows, threads: int) -> Iterator[dict[str, Any]]:
    """Inference batches of all rows in order; ``threads`` threads decode ahead."""
    plan = EvaluationPlan(rows, task.evaluation_batch)
    units = plan.units()
    with ThreadPoolExecutor(threads) as pool:
        ahead: list[Future[list[dict[str, Any]]]] = []
        for number in range(len(units) + threads):
            if number < len(units):
                ahead.append(pool.submit(lambda unit: list(read_unit(task, plan, unit)), units[number]))
            if number >= threads:
                yield from ahead.pop(0).result()
