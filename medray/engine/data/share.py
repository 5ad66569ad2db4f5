"""What one stream of batches may use of a cluster that it shares with other streams."""

from __future__ import annotations

import threading
from typing import Any

import ray
import ray.data
from ray.data import ExecutionResources
from ray.data._internal.cluster_autoscaler import ClusterAutoscaler
from ray.data._internal.execution.interfaces import OutputIterator, RefBundle
from ray.data._internal.execution.streaming_executor import StreamingExecutor

from medray.engine.nodes.cluster import Resources

STREAMS_PER_WORKER = 2
"""Training batches wait, read ahead, while another stream brings the rows of an evaluation."""
CLOSE_S = 60.0
"""Longest wait for the threads of a stream that was closed; they end in less than one second on idle cores."""
STORE_FRACTION = 0.5
"""Of the object stores, for the batches of all streams together; Ray begins to write to disk at 0.8."""


class Share(ClusterAutoscaler):
    """An equal part of the cluster for each stream, read off the cluster as it is now.

    Ray Data's own autoscaler reserves CPUs for the stream that is busiest. Those of a training stream stay reserved while
    it is full and waits for an evaluation, whose stream then gets a single reading task (seen with Ray 2.60). And readers
    are no reason to start a node: the nodes with CPUs are those with GPUs.

    A reading task that waits for room keeps what it reserves. So a stream may reserve half of its worker's CPUs, and a
    reader half of a CPU: all cores read for one stream, and the other one finds as much when it begins.
    """

    def __init__(self, resources: Resources) -> None:
        self.resources = resources

    def get_total_resources(self) -> ExecutionResources:
        """CPUs that readers may reserve, and bytes of object stores, of which it uses ``STORE_FRACTION``."""
        found, workers = ray.cluster_resources(), self._workers
        cpus = found.get("CPU", 1.0) - workers * self.resources.cpus_per_worker
        each = STREAMS_PER_WORKER * workers
        return ExecutionResources(
            cpu=max(self.resources.data_cpus, cpus / each),
            object_store_memory=found.get("object_store_memory", 0.0) / each,
        )

    @property
    def _workers(self) -> int:
        """That train at once, over all runs."""
        return self.resources.side_by_side * max(1, self.resources.workers)

    def try_trigger_scaling(self) -> None: ...

    def on_executor_shutdown(self) -> None: ...


class SharingExecutor(StreamingExecutor):
    """Ray Data's executor with a ``Share`` in place of Ray's autoscaler."""

    def __init__(self, context: ray.data.DataContext, dataset_id: str, resources: Resources) -> None:
        super().__init__(context, dataset_id)
        self.share = Share(resources)
        self.takers: set[threading.Thread] = set()

    @property
    def _cluster_autoscaler(self) -> ClusterAutoscaler:
        return self.share

    @_cluster_autoscaler.setter
    def _cluster_autoscaler(self, rays: Any) -> None:
        if rays is not None:
            rays.on_executor_shutdown()  # withdraws what it has asked for when it was made

    def execute(self, *args: Any, **options: Any) -> OutputIterator:
        return _Watched(super().execute(*args, **options), self.takers)

    def wait(self) -> None:
        """Until no thread of this stream asks Ray for anything. Call it after the stream was closed.

        Ray Data waits two seconds for one of these threads and for the others not at all; one that comes to Ray after
        ``ray.shutdown`` ends the whole process, with status 1 (seen on a busy machine).
        """
        for thread in {self, *self.takers} - {threading.current_thread()}:
            if thread.is_alive():
                thread.join(CLOSE_S)


class _Watched(OutputIterator):
    """``output``, which notes the threads that take from it."""

    def __init__(self, output: OutputIterator, takers: set[threading.Thread]) -> None:
        self.output, self.takers = output, takers

    def get_next(self, output_split_idx: int | None = None) -> RefBundle:
        self.takers.add(threading.current_thread())
        return self.output.get_next(output_split_idx)


class SharedStream:
    """Lets ``data`` use its ``Share``, with one yielded table a block.

    Left alone, Ray Data joins tables until a block has 128 MiB and plans with two blocks a task: at 480 px, batches of
    64, a few readers are all that a quarter of a laptop's object store has room for.
    """

    def __init__(self, data: ray.data.Dataset, resources: Resources) -> None:
        self.executor: SharingExecutor | None = None
        data.context.target_max_block_size = 1
        data.context.override_object_store_memory_limit_fraction = STORE_FRACTION

        def create() -> SharingExecutor:
            self.executor = SharingExecutor(data.context, data.get_dataset_id(), resources)
            return self.executor

        data._create_executor = create  # type: ignore[method-assign]
        self.blocks: Any = iter(data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=4))

    def close(self) -> None:
        """Stop reading, and wait for the threads that read."""
        self.blocks.close()
        if self.executor is not None:
            self.executor.wait()
