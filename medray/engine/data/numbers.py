"""Numbered pieces of work as Ray Data tasks."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa
import ray.data
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata


def tasks(count: int, work: Callable[[int], Any], num_cpus: float, retries: int) -> ray.data.Dataset:
    """``work(number)``, a table or a generator of tables, for each number below ``count``, in a task of its own.

    Args:
        num_cpus: that a task reserves.
        retries: of a task whose process died. Ray Data's own number is without end, so that what always kills its process
            would keep a job for ever.
    """

    def one(batch: dict[str, Any]) -> Any:
        return work(int(batch["id"][0]))

    with warnings.catch_warnings():  # Ray 2.60 has announced named parameters for all remote arguments but this one
        warnings.simplefilter("ignore", DeprecationWarning)
        data = numbers(count, num_cpus, max_retries=retries)
        # a block is one number; with a batch size, Ray Data would count and work in tasks of two kinds
        return data.map_batches(one, batch_size=None, num_cpus=num_cpus, max_retries=retries)


def numbers(count: int, num_cpus: float, **options: Any) -> ray.data.Dataset:
    """``ray.data.range``, one number a block, that reserves ``num_cpus`` where range reserves a whole CPU.

    With range, runs that leave less than one CPU free between them would wait for ever. And what follows with the same
    ``num_cpus`` and the same other ``options`` of tasks happens in the same task; with others, half of the tasks that
    there is room for do nothing but count.
    """
    wanted = {"num_cpus": num_cpus, **options}
    return ray.data.read_datasource(_Numbers(count), ray_remote_args=wanted, override_num_blocks=count)


class _Numbers(Datasource):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def estimate_inmemory_data_size(self) -> int:
        return 8 * self.count

    def get_read_tasks(self, parallelism: int, *unused: object, **also_unused: object) -> list[ReadTask]:
        about = BlockMetadata(num_rows=1, size_bytes=8, input_files=None, exec_stats=None)
        schema = pa.schema([("id", pa.int64())])
        return [ReadTask(functools.partial(_block, i), about, schema=schema) for i in range(self.count)]


def _block(number: int) -> Iterable[pa.Table]:
    return [pa.table({"id": [number]})]
