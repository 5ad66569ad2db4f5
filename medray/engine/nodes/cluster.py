"""The cluster that is found, and how a job spreads itself over it."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass, replace

import ray
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import get_or_create_autoscaling_coordinator

from medray.engine.job.progress import say
from medray.engine.nodes.awaited import grows, say_what_is_awaited

_ERROR = re.compile(r"(?:^|[\s.])(\w*Error|\w*Exception|StopRun|Unreadable)(?:: (.*)|$)")
_KINDS_THAT_EXPLAIN_THEMSELVES = {"StopRun", "Unreadable", "ValueError", "OutOfMemoryError", "OSError", "RuntimeError"}
_WRAPPERS = {"UserCodeException"}  # Ray Data's "UDF failed", after what failed
LEAST_GIGABYTES = 16.0
GIGABYTES = {"A10G": 24, "L4": 24, "L40S": 48, "A100": 40, "A100-80G": 80, "H100": 80, "H200": 141, "B200": 180}
"""Memory of a GPU by Ray's name of its type. A V100 has 16 or 32, which the name does not say: the least."""


@dataclass(frozen=True)
class Resources:
    """What one training run takes, and how many run side by side."""

    workers: int  # Ray Train workers a run; 0 trains inside one Ray task, without a worker group
    gpu: bool
    side_by_side: int
    threads: int  # of torch in each worker
    cpus_per_worker: float
    data_cpus: float  # a reading task reserves this much
    min_workers: int | None = None  # a run goes on with as few when nodes are lost, and grows again; None: it waits
    why: str = ""  # this many workers, where they were chosen here

    def __str__(self) -> str:
        each = f"{self.workers} worker{'s' * (self.workers != 1)}" if self.workers else "one local process"
        if self.min_workers is not None:
            each = f"{self.min_workers} to {each}"
        device = "GPU each" if self.gpu else f"CPU, {self.threads} thread{'s' * (self.threads != 1)} each"
        return f"{each} a run ({device}), {self.side_by_side} run{'s' * (self.side_by_side != 1)} side by side"

    def for_small_runs(self) -> Resources:
        """One worker a run, and as many side by side as there were workers: a small network gains nothing from more."""
        if self.workers <= 1:
            return self
        return replace(self, workers=1, min_workers=None, side_by_side=self.side_by_side * self.workers)

    def placement(self) -> str:
        """How Ray Train places the workers of a run: on one node where a node has so many GPUs, else on as few as can be.

        With PACK alone, two runs that begin together may each get half of two nodes, and their gradients cross the network.
        A run whose number of workers changes takes what is left, wherever that is.
        """
        fits = self.gpu and self.min_workers is None and self.workers <= max(_gpus_of_nodes(), default=0)
        return "STRICT_PACK" if fits else "PACK"

    def world_sizes(self, batch_size: int) -> tuple[int, ...]:
        """Numbers of workers that a run of this batch may have; each worker takes an equal part of every batch.

        Raises:
            ValueError: a bound of the range does not divide the batch.
        """
        largest = max(1, self.workers)
        smallest = largest if self.min_workers is None else self.min_workers
        divide = [n for n in range(1, largest + 1) if batch_size % n == 0]
        for workers, flag in ((largest, "--workers"), (smallest, "--min-workers")):
            if workers not in divide:
                others = ", ".join(map(str, divide))
                raise ValueError(
                    f"--batch-size {batch_size}: not a multiple of {workers} workers; {flag} may be {others}"
                )
        return tuple(n for n in divide if n >= smallest)


def connect() -> None:
    """Join the cluster this job was submitted to (RAY_ADDRESS), or start Ray on this machine."""
    if ray.is_initialized():
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level=logging.WARNING)
        keep_nodes_free()
        say_what_is_awaited()
    else:
        # "local": Ray would otherwise join the last cluster that was started on this machine, whoever's it is, and where that
        # was killed, wait for it without end
        ray.init("local", include_dashboard=False, logging_level=logging.ERROR, configure_logging=True)
    quiet_data()


def quiet_data() -> None:
    """Ray Data without bars and banners: the jobs print progress of their own. Also called inside tasks."""
    for name in ("ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)  # before their first import says that the bars are off
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = True  # the order of samples is planned; it must be the order received
    for name in ("ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)


def spread(
    runs: int,
    workers: int | None,
    gpu: bool | None,
    threads: int | None = None,
    at_once: int | None = None,
    min_workers: int | None = None,
    gigabytes: float | None = None,
) -> Resources:
    """Fit ``runs`` training runs to the cluster; what is None is chosen here.

    With GPUs, a run takes one GPU where its batch fits (``gigabytes`` of memory) and there are runs for all GPUs: what
    several GPUs lose, in small parts of a batch and in gradients that are exchanged, is saved. All runs of the stage that has most
    count, also finished ones, so that a run goes on as it began. Otherwise a run takes the GPUs of one node: gradients then never
    cross the network, and the other nodes take other folds. On CPUs a run is one local process, since a worker group costs half a minute to start.
    ``at_once`` runs are started side by side even if the cluster has no room for them yet: an autoscaling one that
    has not grown shows nothing of what it can have. With ``min_workers`` a run goes on with as few when nodes are lost.

    Raises:
        ValueError: more workers than the cluster has room for, a range of them that is none, or GPUs where none can come.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    cpus = max(1.0, sum(node.get("CPU", 0) for node in nodes))
    gpu = gpus > 0 if gpu is None else gpu
    if gpu:
        check_gpus(gpu)
        if not gpus and (workers is None or at_once is None):
            raise ValueError(
                "--gpu: no node has a GPU yet, so how many a run may take is not known; name --workers (4 on nodes of four, 1 "
                "for small networks) and --at-once, the runs side by side for which nodes are to come"
            )
        largest = max([int(node.get("GPU", 0)) for node in nodes] or [0])
        why = ""
        if workers is None:
            workers, why = max(1, largest), ""
            if workers > 1 and at_once is None and min_workers is None:
                workers, why = _gpus_of_a_run(runs, gpus, workers, gigabytes, _gpu_gigabytes())
        _check_range(workers, min_workers)
        if gpus and not at_once and max(1, min_workers or workers) > gpus:
            raise ValueError(f"--workers {workers}: the cluster has {gpus} GPUs")
        side_by_side = max(1, min(runs, at_once or gpus // max(1, workers)))
        if not gpus:
            say(
                f"--gpu: no node has a GPU yet; runs wait for nodes with {max(1, workers)}, which the autoscaler starts"
            )
        return Resources(workers, True, side_by_side, threads or 1, 1.0, 0.5, min_workers, why)
    workers = 0 if workers is None else workers
    _check_range(workers, min_workers)
    if (min_workers or workers) > cpus and not at_once:
        raise ValueError(f"--workers {workers}: the cluster has {cpus:.0f} CPUs")
    side_by_side = max(1, min(runs, at_once or (int(cpus) if workers == 0 else 1)))
    share = cpus / side_by_side / max(1, workers)
    # half of the CPUs are reserved for Ray Data, half of that for each stream: a reader a core, whichever stream reads.
    # The threads may use all, since Data's share is mostly idle
    return Resources(
        workers, False, side_by_side, threads or max(1, int(share)), share / 2, min(0.25, share / 4), min_workers
    )


def check_gpus(gpu: bool | None) -> None:
    """Raise ValueError where GPUs are asked for that can never come: a run would wait for ever."""
    if not gpu or _gpus_of_nodes():
        return
    if not os.environ.get("RAY_ADDRESS"):
        raise ValueError(
            "--gpu: this machine has no GPU that Ray sees; leave it out, or submit the job to a cluster that has some "
            "(ray job submit)"
        )
    if not grows():
        raise ValueError(
            "--gpu: no node of the cluster has a GPU, and no autoscaler runs that could start one; leave it out, or join a "
            "node with a GPU (ray start --address)"
        )


def _gpus_of_a_run(runs: int, gpus: int, node: int, gigabytes: float | None, room: float) -> tuple[int, str]:
    """1 or those of a node, and why."""
    if gigabytes is None:
        return node, f"all {node} GPUs of a node: how much memory a batch takes is not known"
    takes = f"a batch takes about {gigabytes:.0f} GB, a GPU has {room:.0f}"
    if gigabytes > room:
        return node, f"all {node} GPUs of a node: {takes}"
    if runs < gpus:
        return node, f"all {node} GPUs of a node: {runs} run{'s' * (runs != 1)} would leave some of {gpus} GPUs idle"
    return 1, f"one GPU: {takes}, and {runs} runs keep {gpus} GPUs busy; --workers {node} for a node's"


def _gpu_gigabytes() -> float:
    """Memory of the smallest GPU in the cluster by the type that Ray names; of a type that is not known, little."""
    prefix = "accelerator_type:"
    types = {n.removeprefix(prefix) for node in ray.nodes() if node["Alive"] for n in node["Resources"] if prefix in n}
    return min((GIGABYTES.get(name, LEAST_GIGABYTES) for name in types), default=LEAST_GIGABYTES)


def _gpus_of_nodes() -> list[int]:
    """Of each node that has any."""
    found = [int(node["Resources"].get("GPU", 0)) for node in ray.nodes() if node["Alive"]]
    return [gpus for gpus in found if gpus]


def _check_range(workers: int, min_workers: int | None) -> None:
    if min_workers is not None and not 1 <= min_workers <= workers:
        raise ValueError(f"--min-workers {min_workers}: may be 1 to --workers, which is {workers}")


def what_happened(error: BaseException) -> str:
    """The one line that says what happened, out of Ray's layers of tracebacks."""
    kind, line = last_error(str(error))
    if kind and kind not in _KINDS_THAT_EXPLAIN_THEMSELVES:
        return f"{kind}: {line}" if line else kind
    return line or type(error).__name__


def last_error(text: str) -> tuple[str, str]:
    """Type and first line of the last error in a text of tracebacks; "" and the last line where none is named."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [found for line in reversed(lines) if (found := _ERROR.search(line))]
    for found in named:
        if found[1] not in _WRAPPERS or found is named[-1]:
            return found[1], found[2] or ""
    return "", lines[-1] if lines else ""


def keep_nodes_free() -> None:
    """Start Ray Data's coordinator here, on the driver's node. Called once, before the first run.

    It is a detached actor that Ray starts on the node of whoever needs it first. Where that is a GPU node (of the first
    run's controller), the node is never idle again and is paid for until ``ray down``. Seen with Ray 2.60.
    """
    get_or_create_autoscaling_coordinator()
