from __future__ import annotations

import sys
import uuid
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ray.cloudpickle import register_pickle_by_value, unregister_pickle_by_value

from medray.engine.data import rows as reading
from medray.engine.data import stream
from medray.engine.data.order import Groups
from medray.engine.data.rows import in_stack, read_rows
from medray.engine.data.samples import Rows, TrainingPlan, read_index
from medray.engine.nodes.cluster import spread
from medray.shards.store import Store

COLUMNS = ["slice_id", "series_id", "image"]
PER_GROUP = 8
# stacks begin and end in the middle of row groups, one is longer than two groups, two have a single slice; the last
# series of a file and the first of the next one meet
LENGTHS = {"a.parquet": [5, 20, 1, 6, 11], "b.parquet": [3, 1, 9, 17, 2]}


def slices() -> list[tuple[str, str, int]]:
    """(file, series, place in its stack) of every row, in order."""
    return [
        (file, f"{file[0]}{number}", place)
        for file, lengths in LENGTHS.items()
        for number, length in enumerate(lengths)
        for place in range(length)
    ]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    folder = tmp_path_factory.mktemp("shards")
    for file in LENGTHS:
        own = [(series, place) for name, series, place in slices() if name == file]
        table = pa.table(
            {
                "slice_id": [f"{series}-{place}" for series, place in own],
                "series_id": [series for series, _ in own],
                "image": [f"pixels of {series}-{place}".encode() for series, place in own],
            }
        )
        pq.write_table(table, folder / file, row_group_size=PER_GROUP)
    rows, index = read_index(Store(folder), ["slice_id"])
    assert index["slice_id"].tolist() == names()
    assert len(np.unique(rows.group)) > 5
    return rows


def names() -> list[str]:
    return [f"{series}-{place}" for _, series, place in slices()]


def around(place: int, context: int) -> list[str]:
    """What stands before and after a row in its own stack, itself in the middle; an end repeats."""
    file, series, at = slices()[place]
    length = LENGTHS[file][int(series[1:])]
    return [f"{series}-{min(max(at + step, 0), length - 1)}" for step in range(-context, context + 1)]


def check(rows: Rows, places: np.ndarray, context: int) -> None:
    found = list(read_rows(rows, places, COLUMNS, context, "series_id"))
    assert len(found) == len(places)
    for row, place in zip(found, places.tolist(), strict=True):
        assert row["slice_id"] == names()[place]
        assert [r["slice_id"] for r in row["context"]] == around(place, context)
        assert all(r["image"] == f"pixels of {r['slice_id']}".encode() for r in row["context"])
        assert {r["series_id"] for r in row["context"]} == {row["series_id"]}


@pytest.mark.parametrize("context", [1, 2, 10])
def test_every_row_comes_with_its_neighbours_in_its_own_stack(shards: Rows, context: int) -> None:
    check(shards, np.arange(len(shards)), context)


@pytest.mark.parametrize("seed", range(5))
def test_in_any_order_and_as_often_as_asked(shards: Rows, seed: int) -> None:
    rng = np.random.default_rng(seed)
    check(shards, rng.permutation(len(shards)), 1)
    check(shards, rng.integers(0, len(shards), 150), 1)
    check(shards, np.repeat(rng.integers(0, len(shards), 3), 4), 1)


def test_neighbours_that_are_not_among_the_rows_still_come(shards: Rows) -> None:
    """A neighbour is of the same series, hence of the same patient and fold: rows may be filtered, stacks may not."""
    chosen = np.arange(0, len(shards), 3)
    found = list(read_rows(shards.take(chosen), np.arange(len(chosen)), COLUMNS, 1, "series_id"))
    assert [[r["slice_id"] for r in row["context"]] for row in found] == [around(int(p), 1) for p in chosen]


def test_the_middle_of_the_context_is_the_row_itself(shards: Rows) -> None:
    for row in read_rows(shards, np.arange(12), COLUMNS, 1, "series_id"):
        assert row["context"][1]["slice_id"] == row["slice_id"]


def test_without_context_rows_come_alone(shards: Rows) -> None:
    places = np.random.default_rng(0).permutation(len(shards))
    found = list(read_rows(shards, places, COLUMNS))
    assert [row["slice_id"] for row in found] == [names()[p] for p in places]
    assert all(set(row) == set(COLUMNS) for row in found)


@pytest.mark.parametrize("context", [0, 1])
def test_each_row_group_is_read_once_and_kept_no_longer_than_needed(
    shards: Rows, context: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[tuple[str, int]] = []
    alive: weakref.WeakValueDictionary[tuple[str, int], pa.Table] = weakref.WeakValueDictionary()
    opened = reading._opened

    class Counted:
        def __init__(self, store: Store, name: str) -> None:
            self.file, self.name = opened(store, name), name
            self.metadata = self.file.metadata

        def read_row_group(self, group: int, columns: list[str]) -> Any:
            reads.append((self.name, group))
            table = self.file.read_row_group(group, columns=columns)
            alive[self.name, group] = table
            return table

    monkeypatch.setattr(reading, "_opened", Counted)
    places = np.random.default_rng(0).permutation(len(shards))
    list(read_rows(shards, places, COLUMNS, context, "series_id"))
    groups = {(shards.files[f], g) for f, g in zip(shards.file.tolist(), shards.group.tolist(), strict=True)}
    assert sorted(reads) == sorted(groups)

    reads.clear()
    in_order = read_rows(shards, np.arange(len(shards)), COLUMNS, context, "series_id")
    next(in_order)
    assert reads == [("a.parquet", 0)]  # nothing ahead of its use
    assert max(len(alive) for _ in in_order) == 1 + context  # a group, and its neighbour's where stacks cross
    assert not alive


def test_files_of_uneven_row_groups(tmp_path: Path) -> None:
    with pq.ParquetWriter(tmp_path / "x.parquet", pa.schema({"slice_id": pa.string(), "series_id": pa.string()})) as w:
        for first, count in ((0, 1), (1, 5), (6, 2), (8, 1)):
            ids = [str(i) for i in range(first, first + count)]
            w.write_table(pa.table({"slice_id": ids, "series_id": ["s"] * count}))
    rows, _ = read_index(Store(tmp_path), ["slice_id"])
    found = read_rows(rows, np.arange(9)[::-1], ["slice_id", "series_id"], 1, "series_id")
    near = [[int(r["slice_id"]) for r in row["context"]] for row in found]
    assert near == [[max(i - 1, 0), i, min(i + 1, 8)] for i in range(8, -1, -1)]


def stack(text: str) -> list[dict[str, Any]]:
    """ "aab" is two slices of series a and one of b; a slice's id is its place."""
    return [{"series_id": series, "id": i} for i, series in enumerate(text)]


@pytest.mark.parametrize(
    ("text", "middle", "context", "wanted"),
    [
        ("aaa", 1, 1, [0, 1, 2]),
        ("aaa", 0, 1, [0, 0, 1]),
        ("aaa", 2, 1, [1, 2, 2]),
        ("a", 0, 1, [0, 0, 0]),
        ("bab", 1, 1, [1, 1, 1]),
        ("aabb", 1, 1, [0, 1, 1]),
        ("aabb", 2, 1, [2, 2, 3]),
        ("aaaaa", 1, 2, [0, 0, 1, 2, 3]),
        ("aba", 2, 2, [2, 2, 2, 2, 2]),  # beyond a foreign slice nothing counts, even of the same name
        ("abaaa", 2, 3, [2, 2, 2, 2, 3, 4, 4]),
        ("aaa", 1, 0, [1]),
    ],
)
def test_around_a_slice_within_its_series(text: str, middle: int, context: int, wanted: list[int]) -> None:
    assert [row["id"] for row in in_stack(stack(text), middle, context, "series_id")] == wanted


class Ids:
    """What a stream asks of a task; an example says which epoch it was made for."""

    columns = ("slice_id",)
    context = 0
    stack_column = ""

    def __init__(self, epoch: int = -1, asked: list[str] | None = None) -> None:
        self.epoch, self.asked = epoch, [] if asked is None else asked

    def in_epoch(self, epoch: int) -> Ids:
        return Ids(epoch, self.asked)

    def train_example(self, row: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        return row | {"epoch": self.epoch, "drawn": rng.random()}

    def train_examples(self, row: dict[str, Any], rngs: list[np.random.Generator]) -> list[dict[str, Any]]:
        self.asked.append(row["slice_id"])
        return [self.train_example(row, rng) for rng in rngs]

    def collate(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        return {name: [example[name] for example in examples] for name in examples[0]}


def test_orders_are_computed_once_an_epoch_in_all_processes(shards: Rows, local_ray: None, tmp_path: Path) -> None:
    class Counted(TrainingPlan):
        """Leaves a file for each order that is computed, whoever computes it."""

        def order_of(self, groups: Groups, epoch: int) -> np.ndarray:
            (tmp_path / f"{epoch}-{uuid.uuid4().hex}").touch()
            return super().order_of(groups, epoch)

    register_pickle_by_value(sys.modules[__name__])  # Ray's workers do not import tests
    try:
        epochs, world = 3, 2
        for rank in range(world):
            plan = Counted(shards, 2, epochs, seed=0, world=world, rank=rank)
            assert len(plan.units()) > 2 * epochs  # that many reading tasks
            sent = list(stream.stream(Ids(), plan, spread(1, None, False)))  # type: ignore[arg-type]
            read = [batch for unit in plan.units() for batch in reading.read_unit(Ids(), plan, unit)]  # type: ignore[arg-type]
            assert sent == read
            assert [batch["epoch"] for batch in sent] == [
                [e] for e in range(epochs) for _ in range(plan.steps_per_epoch)
            ]
    finally:
        unregister_pickle_by_value(sys.modules[__name__])
    assert sorted(path.name[0] for path in tmp_path.iterdir()) == sorted("012" * world)


def test_a_window_reads_each_of_its_rows_once_for_all_examples_of_it(shards: Rows) -> None:
    copies = 5
    plan = TrainingPlan(replace(shards.take(np.arange(len(shards)).repeat(copies)), together=copies), 10, 2, seed=3)
    for unit in plan.units():
        places, numbers = plan.samples(*unit)
        task: Any = Ids()
        batches = list(reading.read_unit(task, plan, unit))
        names_of, drawn = ([v for b in batches for v in b[column]] for column in ("slice_id", "drawn"))
        assert names_of == [names()[place // copies] for place in places]
        assert drawn == [np.random.default_rng((3, unit[0], int(number))).random() for number in numbers]
        assert len(task.asked) == len(set(task.asked)) == len(set(names_of)) < len(names_of)
