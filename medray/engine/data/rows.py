"""Rows of shards as examples in batches: what a reading task does, in whatever process. Without Ray."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medray.engine.data.samples import EvaluationPlan, Rows, TrainingPlan
from medray.shards.store import Store
from medray.tasks.task import Example, Task

Batch = dict[str, Any]


def read_unit(task: Task, plan: TrainingPlan | EvaluationPlan, unit: tuple[int, int]) -> Iterator[Batch]:
    """The batches of one unit, in this process; of training by the task as it is in the unit's epoch."""
    examples: list[Example] = []
    for example in _training(task, plan, unit) if isinstance(plan, TrainingPlan) else _evaluation(task, plan, unit):
        examples.append(example)
        del example  # as everywhere here: of a volume that has been used, nothing is kept while the next one is read
        if len(examples) == plan.local_batch:
            yield _collated(task, examples)
    if examples:
        yield _collated(task, examples)


def _collated(task: Task, examples: list[Example]) -> Batch:
    """The batch of these examples, which are forgotten."""
    batch = task.collate(examples)
    examples.clear()
    return batch


def _evaluation(task: Task, plan: EvaluationPlan, unit: tuple[int, int]) -> Iterator[Example]:
    return map(
        task.example,
        read_rows(plan.rows, plan.samples(*unit)[0], list(task.columns), task.context, task.stack_column),
    )


def _training(task: Task, plan: TrainingPlan, unit: tuple[int, int]) -> Iterator[Example]:
    """Each row is read once, when its first example is due; those that come later in the unit wait: of a volume its crops,
    if they are copies (a view keeps the whole volume)."""
    task = task.in_epoch(unit[0])
    places, numbers = plan.samples(*unit)
    rows = plan.rows
    which = zip(rows.file[places].tolist(), rows.group[places].tolist(), rows.row[places].tolist(), strict=True)
    spots: dict[tuple[int, int, int], list[int]] = {}  # row → where its examples stand in the unit
    for spot, row in enumerate(which):
        spots.setdefault(row, []).append(spot)
    first = places[[own[0] for own in spots.values()]]
    found = read_rows(rows, first, list(task.columns), task.context, task.stack_column)
    own_spots = iter(spots.values())
    made: dict[int, Example] = {}
    for spot in range(len(places)):
        if spot not in made:
            own, content = next(own_spots), next(found)
            rngs = [np.random.default_rng((plan.seed, unit[0], int(numbers[i]))) for i in own]
            made.update(zip(own, task.train_examples(content, rngs), strict=True))
            del content
        yield made.pop(spot)


def read_rows(
    rows: Rows, places: np.ndarray, columns: list[str], context: int = 0, stack_column: str = ""
) -> Iterator[dict[str, Any]]:
    """Rows in the order of ``places``; each row group is read once.

    Args:
        context: how many rows before and after each one, of its own stack, come with it as ``row["context"]``, itself
            in the middle. Beyond an end of the stack the last row stands again.
        stack_column: rows that share it are one stack.
    """
    wanted = list(zip(rows.file[places].tolist(), rows.group[places].tolist(), rows.row[places].tolist(), strict=True))
    tables: dict[tuple[int, int], pa.Table] = {}
    needed = [_with_context(rows, spot, context) for spot in wanted]
    last_use = {(file, group): i for i, spots in enumerate(needed) for file, group, _ in spots}

    def read(spot: tuple[int, int, int]) -> dict[str, Any]:
        file, group, row = spot
        if (file, group) not in tables:
            tables[file, group] = _opened(rows.store, rows.files[file]).read_row_group(group, columns=columns)
        return {name: _value(tables[file, group].column(name), row) for name in columns}

    for i, (spot, around) in enumerate(zip(wanted, needed, strict=True)):
        found = read(spot)
        if context:
            near = [found if s == spot else read(s) for s in around]
            found["context"] = in_stack(near, around.index(spot), context, stack_column)
        for place in {(file, group) for file, group, _ in around}:
            if last_use[place] == i:
                tables.pop(place, None)
        yield found
        del found


def _value(column: pa.ChunkedArray, row: int) -> Any:
    """As ``as_py``; bytes are copied once, not twice, and those of a volume (large_binary) not at all: a pa.Buffer, which
    numpy reads."""
    if column.type == pa.large_binary():
        return column[row].as_buffer()
    if column.type != pa.binary():
        return column[row].as_py()
    for chunk in column.chunks:
        if row < len(chunk):
            break
        row -= len(chunk)
    if not chunk[row].is_valid:
        return None
    _, offsets, data = chunk.buffers()
    start, stop = np.frombuffer(offsets, np.int32)[chunk.offset + row : chunk.offset + row + 2].tolist()
    return data.slice(start, stop - start).to_pybytes()


def in_stack(rows: list[dict[str, Any]], middle: int, context: int, stack_column: str) -> list[dict[str, Any]]:
    """2 · context + 1 rows around ``rows[middle]``; at an end of its stack the last one repeats."""
    out = [rows[middle]]
    for step in (-1, 1):
        at = middle
        for _ in range(context):
            inside = 0 <= at + step < len(rows) and rows[at + step][stack_column] == rows[middle][stack_column]
            at += step if inside else 0
            out.insert(0 if step < 0 else len(out), rows[at])
    return out


def _with_context(rows: Rows, spot: tuple[int, int, int], context: int) -> list[tuple[int, int, int]]:
    """The spot with up to ``context`` rows of the file before and after it."""
    if not context:
        return [spot]
    file, group, row = spot
    starts = _row_group_starts(rows.store, rows.files[file])
    at = int(starts[group]) + row
    near = np.arange(max(0, at - context), min(int(starts[-1]), at + context + 1))
    groups = np.searchsorted(starts, near, side="right") - 1
    return [(file, int(g), int(n - starts[g])) for g, n in zip(groups, near, strict=True)]


@functools.lru_cache(maxsize=32)
def _row_group_starts(store: Store, name: str) -> np.ndarray:
    footer = _footer(store, name)
    return np.cumsum([0] + [footer.row_group(i).num_rows for i in range(footer.num_row_groups)])


def _opened(store: Store, name: str) -> pq.ParquetFile:
    """Opened for each row group anew: a reader holds on to the bytes that it has read last."""
    file = store.filesystem.open_input_file(store.path(name))
    return pq.ParquetFile(file, metadata=_footer(store, name))


@functools.lru_cache(maxsize=256)
def _footer(store: Store, name: str) -> pq.FileMetaData:
    """Kept: one holds the places of a thousand rows."""
    return pq.read_metadata(store.path(name), filesystem=store.filesystem)
