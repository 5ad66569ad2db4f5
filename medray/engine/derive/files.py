"""Answers of finished networks to new files: a study is a piece of work; here for a few, over the cluster for many."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import cv2
import pyarrow as pa
import ray
import torch

from medray.engine.derive.network import reader_threads
from medray.engine.derive.outputs import outputs_of
from medray.engine.derive.pool import done_by_actors, placed
from medray.engine.job.progress import Progress, warn
from medray.engine.nodes.cluster import connect, what_happened
from medray.engine.train.finished import finished_run, weights_bytes
from medray.engine.train.stop import StopRun
from medray.shards.store import Store, reason
from medray.tasks.derivation import Networks, OfFiles

BYTES_OF_A_PROCESS = 1 << 30  # Python, torch and a decoded study


@dataclass(frozen=True)
class NewFiles:
    """What a job asks of the networks of a finished one.

    Args:
        out: the finished job's folder. to: pictures go there, and a Parquet file a piece into parts/ in it.
        pieces: name of its part → what ``derivation`` knows it by.
        counts: of each piece, in ``unit``s.
    """

    derivation: OfFiles
    out: Store
    to: Store
    pieces: dict[str, Any]
    counts: Sequence[int]
    unit: str


def derive_files(new: NewFiles, here: bool) -> list[pa.Table]:
    """The part of every piece, in order; what is there is kept, so a restart goes on.

    A piece that is refused, or that a process dies of three times, is set aside: its neighbours are not lost.

    Args:
        here: in this process, without Ray.
    Raises:
        StopRun: an actor cannot work at all.
    """
    parts = new.to.sub("parts")
    parts.remove_unfinished()
    there = set(parts.names(".parquet"))
    waiting = [name for name in new.pieces if f"{name}.parquet" not in there]
    counts = dict(zip(new.pieces, new.counts, strict=True))
    left = sum(counts[name] for name in waiting)
    progress = Progress(new.unit, sum(new.counts), new.unit, done=sum(new.counts) - left)
    for name in (_here if here or not waiting else _over_the_cluster)(new, waiting):
        progress.add(counts[name])
    progress.close()
    return [parts.read_table(f"{name}.parquet") for name in new.pieces]


def _here(new: NewFiles, waiting: Sequence[str]) -> Iterator[str]:
    """Memory holds two pieces at a time."""
    networks = _networks(new) if waiting else {}
    with ThreadPoolExecutor(1) as ahead:
        read: list[Any] = []
        for number, name in enumerate(waiting):
            for follower in waiting[number + len(read) : number + 2]:
                read.append(ahead.submit(new.derivation.read, new.pieces[follower], map))
            _answer(new, networks, name, new.pieces[name], read.pop(0).result)
            yield name


def _answer(new: NewFiles, networks: Networks, name: str, piece: Any, read: Callable[[], Any]) -> None:
    try:
        table = new.derivation.answer(networks, piece, read(), outputs_of, new.to)
    except ValueError as error:
        table = new.derivation.refused(piece, reason(error))
    new.to.sub("parts").write_table(f"{name}.parquet", table)


def _networks(new: NewFiles) -> Networks:
    return {(name, fold): finished_run(new.out, name, fold, kind) for name, fold, kind in new.derivation.runs}


# ---- over the cluster ----------------------------------------------------------------------------------------------


class FilesWorker:
    """One process that keeps all networks; of a GPU, which it keeps, or of CPUs."""

    def __init__(self, new: NewFiles, threads: int) -> None:
        torch.set_num_threads(1)  # what it computes then depends on nothing else that runs
        cv2.setNumThreads(1)
        self.new, self.networks = new, _networks(new)
        self.pool = ThreadPoolExecutor(threads)

    def answer(self, name: str, piece: Any) -> None:
        """Write the part of a piece, and its pictures: neither pixels nor pictures pass the object store."""
        read = functools.partial(self.new.derivation.read, piece, self.pool.map)
        _answer(self.new, self.networks, name, piece, read)


@dataclass(frozen=True)
class _Pieces:
    """Pieces that are still to be answered, as work for actors."""

    new: NewFiles
    shared: ray.ObjectRef
    waiting: Sequence[str]

    def actor(self) -> Any:
        gpu = any(node["Alive"] and node["Resources"].get("GPU") for node in ray.nodes())
        threads = reader_threads() if gpu else cpus_each(weights_bytes(self.new.out, self.new.derivation.runs))
        return placed(FilesWorker, threads, gpu).remote(self.shared, threads)

    def start(self, actor: Any, number: int) -> ray.ObjectRef:
        name = self.waiting[number]
        return actor.answer.remote(name, self.new.pieces[name])

    def died(self, number: int) -> None:
        """Set aside a piece that its process has died of."""
        name = self.waiting[number]
        why = "the process that read it died of it, each time"
        warn(f"{name}: {why}; set aside")
        table = self.new.derivation.refused(self.new.pieces[name], why)
        self.new.to.sub("parts").write_table(f"{name}.parquet", table)


def _over_the_cluster(new: NewFiles, waiting: Sequence[str]) -> Iterator[str]:
    connect()
    work = _Pieces(new, ray.put(replace(new, pieces={})), waiting)  # each piece goes to the actor that answers it
    try:
        for number, _ in done_by_actors(work, [""] * len(waiting), work.died):
            yield waiting[number]
    except Exception as error:  # whatever happened in an actor
        raise StopRun(what_happened(error)) from error


def cpus_each(weights: int) -> int:
    """CPUs for each process of a node without GPU: one, or more where memory holds fewer processes with their own copy of
    the networks than the node has CPUs.

    Args:
        weights: bytes of all networks; a process holds them twice while it loads.
    """
    needs = BYTES_OF_A_PROCESS + 2 * weights
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    each = [-(-int(node["CPU"]) // max(1, int(node.get("memory", needs) // needs))) for node in nodes]
    return max(1, min(max(each, default=1), *(int(node["CPU"]) for node in nodes), 1 << 16))
