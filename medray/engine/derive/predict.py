"""New studies straight from their files, and the outputs of networks for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pandas as pd
from torch import nn

from medray.engine.data.rows import in_stack
from medray.engine.train.outputs import Outputs, evaluate
from medray.shards.files import from_text, texts_of
from medray.shards.inventory import Refused, set_aside
from medray.shards.reading import encode_item, scan_file
from medray.shards.source import Encoded, Source
from medray.shards.store import File, Store
from medray.tasks.task import Task


def scan_here(source: Source, folder: Store, files: Sequence[File]) -> pd.DataFrame:
    """``shard.scan`` in this process, without Ray: for a study or a few."""

    with ThreadPoolExecutor(8) as pool:
        rows = [row for of_file in pool.map(lambda file: scan_file(source, folder, file), files) for row in of_file]
    names = ["path", "size_bytes", "status", "reason", *source.scan_schema.names]
    return pd.DataFrame(rows, columns=names)


SET_ASIDE = "set_aside.csv"  # path, status, reason: what a job that predicts leaves of the files that it does not use


@contextmanager
def reasons_kept(to: Store) -> Iterator[None]:
    """Where files are refused as a whole, leave the reason of each in ``to``, and say so in the error's one line."""
    try:
        yield
    except Refused as refused:
        to.write_bytes(SET_ASIDE, set_aside(refused.table).to_csv(index=False).encode())
        raise ValueError(f"{refused}; {to.uri}/{SET_ASIDE} says what became of each file") from None


def decoded_groups(
    source: Source, folder: Store, id_column: str, slices: pd.DataFrame, by: str
) -> Iterator[tuple[str, list[dict[str, Any]], dict[str, str]]]:
    """The rows of ``slices`` group by group (study by study), each with its pixels: memory holds two groups at a time.

    Yields:
        The group's key; the rows that could be decoded, in the order of ``slices``; id → reason of those that could not.
    """
    keys, groups = zip(*slices.groupby(by, sort=True), strict=True) if len(slices) else ((), ())
    with ThreadPoolExecutor(1) as ahead:
        waiting = [ahead.submit(_encode_group, source, folder, id_column, group) for group in groups[:1]]
        for number, group in enumerate(groups):
            encoded = waiting.pop().result()
            waiting += [
                ahead.submit(_encode_group, source, folder, id_column, g) for g in groups[number + 1 : number + 2]
            ]
            rows, lost = [], {}
            for row in group.to_dict("records"):
                found = encoded[row[id_column]]
                if found.columns is None:
                    lost[row[id_column]] = found.note or "no pixels"
                else:
                    rows.append(row | found.columns)
            yield str(keys[number]), rows, lost


def outputs_of(
    task: Task, network: nn.Module, rows: Sequence[dict[str, Any]], outputs: Outputs | None = None
) -> pd.DataFrame:
    """What ``evaluate`` gives for rows that are in memory, whole stacks in order."""
    device = next(network.parameters()).device
    if task.context:
        rows = [
            row | {"context": in_stack(list(rows), i, task.context, task.stack_column)} for i, row in enumerate(rows)
        ]
    examples = [task.example(row) for row in rows]
    size = task.evaluation_batch
    batches = [task.collate(examples[i : i + size]) for i in range(0, len(examples), size)]
    return evaluate(task, network, batches, device, outputs=outputs)


def _encode_group(source: Source, folder: Store, id_column: str, group: pd.DataFrame) -> dict[str, Encoded]:
    out: dict[str, Encoded] = {}
    for text, of_item in group.groupby(pd.Series(texts_of(group), group.index), sort=False):
        rows = of_item.to_dict("records")
        encoded = encode_item(source, folder, from_text(str(text)), rows)
        out |= {row[id_column]: result for row, result in zip(rows, encoded, strict=True)}
    return out
