"""Finished networks over every row of the shards: pooled features and predictions for the stages after them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import ray
import torch
from torch import nn

from medray.engine import checkpoint
from medray.engine.cluster import what_happened
from medray.engine.device import autocast_dtype
from medray.engine.digest import digest
from medray.engine.execution import Execution, stored
from medray.engine.layout import laid_out
from medray.engine.outputs import evaluate
from medray.engine.progress import Progress
from medray.engine.run import Run
from medray.engine.samples import EvaluationPlan, Rows, read_index
from medray.engine.stop import StopRun
from medray.engine.stream import read_unit
from medray.shards.store import Store
from medray.task import Task

STACKS_PER_GROUP = 8  # of the features' files: a training window then takes whole row groups
Pack = Callable[[pd.DataFrame], pa.Table]


class Embedder(Protocol):
    """What is computed from a batch by a finished network."""

    def identity(self) -> dict[str, Any]: ...

    def embed(self, task: Any, network: Any, batch: dict[str, Any]) -> dict[str, Any]: ...


def embed(runs: Sequence[Run], rows: Rows, to: Store, embedder: Embedder, pack: Pack) -> dict[int, list[str]]:
    """Every row of the shards through the network of every finished run; one file for each run and shard.

    Files that are there are kept, so a restart goes on; those of other weights, views or shards are removed.

    Args:
        runs: of one task, one a fold.
        rows: all rows of the shards, whole stacks in order.
        to: files go to fold<k>/ in it.
        pack: a table of outputs, one row a slice → the table to be written, one row a stack.
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
    _run(todo, rows, bounds, embedder, pack, len(runs) * len(rows))
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
    index["embedded_by"] = np.array([fold for fold, _ in order])[rows.file]
    index["fold"] = index["patient_id"].map(dict(fold_of_patient)).to_numpy()
    return rows, index


def _run(
    todo: list[tuple[Run, int, Store, str]], rows: Rows, bounds: np.ndarray, embedder: Embedder, pack: Pack, total: int
) -> None:
    sizes = np.diff(bounds)
    progress = Progress("features", total, "slices", done=total - sum(int(sizes[i]) for _, i, _, _ in todo))
    if todo:
        gpu = todo[0][0].resources.gpu
        cpus = ray.cluster_resources().get("CPU", 1.0)
        threads = max(1, int(cpus / max(1.0, ray.cluster_resources().get("GPU", 1.0))) - 1) if gpu else 1
        start = _embed_shard.options(num_cpus=threads, num_gpus=1 if gpu else 0, max_retries=3)
        everything, waiting = ray.put(rows), {}
        for run, i, folder, name in todo:  # Ray starts as many as there is room for
            place = start.remote(
                run, everything, int(bounds[i]), int(bounds[i + 1]), folder, name, embedder, pack, threads
            )
            waiting[place] = int(sizes[i])
        while waiting:
            (done,), _ = ray.wait(list(waiting))
            try:
                ray.get(done)
            except Exception as error:  # whatever happened in the task
                for other in waiting:
                    ray.cancel(other)
                raise StopRun(what_happened(error)) from error
            progress.add(waiting.pop(done))
    progress.close()


@ray.remote
def _embed_shard(
    run: Run, rows: Rows, start: int, stop: int, to: Store, name: str, embedder: Embedder, pack: Pack, threads: int
) -> None:
    """One shard through one network, within one task: neither images nor features pass the object store."""
    device = torch.device("cuda" if run.resources.gpu else "cpu")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(run.deterministic, warn_only=True)
    network = _network(run.store, run.task, run.weights_digest(), device.type)
    table = evaluate(
        run.task, network, _batches(run.task, rows.take(np.arange(start, stop)), threads), device,
        autocast_dtype(run.task.precision, device), functools.partial(embedder.embed, run.task),
    )  # fmt: skip
    try:
        packed = pack(table)
    except ValueError as error:
        raise StopRun(f"run {run.name}: {error}") from None
    to.write_table(name, packed, row_group_size=STACKS_PER_GROUP)


@functools.lru_cache(maxsize=1)
def _network(store: Store, task: Task, weights: str, device: str) -> nn.Module:
    """Kept between the shards that one worker process gets."""
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
