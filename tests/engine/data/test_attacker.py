"""With a list of the files or patients, what is in --out tells nobody who is who: neither its order nor a size."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pytest
from attacker import order_of, tells

from medray.engine.data.prepare import Ingest, _contents, _dealt, _to_write
from medray.shards.folds import assign_folds
from medray.shards.inventory import Inventory
from medray.shards.pseudonym import Pseudonyms
from medray.shards.reading import sampled, scan_file
from medray.shards.store import Store
from medray.systems.ich.source import HeadCT


def test_neither_order_nor_sizes_tell_who_is_who(prepared: Ingest) -> None:
    out = Path(prepared.rows.store.root).parent
    assert tells(out, out.parent / "private") == []
    sizes = pd.read_parquet(out / "inventory.parquet")["size_bytes"]
    assert (np.log2(sizes) % 1 == 0).all()
    of_file = prepared.private["size_bytes"]
    assert of_file.nunique() > sizes.nunique()
    assert (sizes.to_numpy() / of_file.to_numpy()).max() < 1.5  # the same rows, and about as large


def content(table: pd.DataFrame, rows: pd.DataFrame) -> pd.Series:
    return _contents(HeadCT(), Inventory(table, rows, ()))["content"]


def stack_keys(table: pd.DataFrame, rows: pd.DataFrame, key: bytes | None) -> list[str]:
    inventory = Inventory(table, rows, ())
    contents = _contents(HeadCT(), inventory)
    return _to_write(HeadCT(), inventory, contents, {"": Store("/")}, Pseudonyms(key))["stack_key"].tolist()


def test_the_order_is_that_of_the_files_bytes_not_of_names() -> None:
    """Other names for the same files, and another key: the same places; stacks of the same bytes stay apart."""

    def places(names: list[str], key: bytes) -> list[int]:
        table = pd.DataFrame({
            "path": names, "size_bytes": 9, "status": "ok", "content": [f"{i * 7 % 11:x}" for i in range(10)],
        })  # fmt: skip
        rows = table.assign(slice_id=names, stack_id=[f"s{name}" for name in names], patient_id="p", index=0)
        return np.argsort(stack_keys(table, rows, key)).tolist()

    names = [f"{number:02d}" for number in range(10)]
    assert (
        places(names, b"a" * 32)
        == places(names[::-1], b"b" * 32)
        == places(random.Random(0).sample(names, 10), b"c" * 32)
    )
    table = pd.DataFrame({"path": ["x", "y", "z"], "size_bytes": 9, "status": "ok", "content": "same"})
    rows = table.assign(slice_id=["1", "2", "3"], stack_id=["a", "a", "b"], patient_id="p", index=0)
    keys = stack_keys(table, rows, None)
    assert len(set(keys)) == 2
    assert keys[0] == keys[1]


def test_what_is_sampled_lies_in_the_middle_of_the_file() -> None:
    data = np.random.default_rng(0).bytes(100_000)
    found = sampled(io.BytesIO(data), len(data))
    assert found == sampled(io.BytesIO(b"name" * 10 + data[40:-40] + b"name" * 10), len(data))
    assert found != sampled(io.BytesIO(data[:50_000] + b"?" + data[50_001:]), len(data))
    assert sampled(io.BytesIO(b"short"), 5) != sampled(io.BytesIO(b""), 0)


def test_files_that_are_air_in_the_middle_are_told_apart() -> None:
    """An uncompressed volume: there its middle is the border of two slices."""
    both = []
    for seed in (0, 1):
        data = bytearray(100_000)
        data[20_000:30_000] = np.random.default_rng(seed).bytes(10_000)
        both.append(sampled(io.BytesIO(bytes(data)), len(data)))
    assert both[0] != both[1]
    assert sampled(io.BytesIO(bytes(100_000)), 100_000) == sampled(io.BytesIO(bytes(100_000)), 100_000)


def test_folds_tell_nothing_to_whoever_deals_the_list_of_patients() -> None:
    names = [f"p{number:02d}" for number in range(40)]
    some = random.Random(0).sample(range(1000), 40)
    table = pd.DataFrame({"path": names, "size_bytes": 9, "status": "ok", "content": [f"{one:03x}" for one in some]})
    rows = table.assign(slice_id=names, stack_id=names, patient_id=names, index=0)
    alike = np.zeros(40, dtype=int)
    folds = []
    for key in (b"a" * 32, b"b" * 32):
        dealt = _dealt(rows["patient_id"], content(table, rows), Pseudonyms(key))
        folds.append(assign_folds(dealt.to_numpy(), alike, 4, seed=0).loc[dealt].to_numpy())
    assert np.array_equal(*folds)
    by_name = assign_folds(np.array(names), alike, 4, seed=0).to_numpy()
    assert (folds[0] == by_name).sum() < 20
    # patients of the same pixels are dealt by the key, not by their names
    table = pd.DataFrame({"path": list("abc"), "size_bytes": 9, "status": "ok", "content": "same"})
    rows = table.assign(slice_id=list("123"), stack_id=list("123"), patient_id=["p1", "p2", "p3"], index=0)
    orders = {
        tuple(np.argsort(_dealt(rows["patient_id"], content(table, rows), Pseudonyms(bytes([k]) * 32))))
        for k in range(20)
    }
    assert len(orders) > 2
    assert _dealt(rows["patient_id"], content(table, rows), Pseudonyms(None)).tolist() == ["p1", "p2", "p3"]


@pytest.mark.parametrize("seed", [0, 7])
def test_the_attacker_finds_what_is_sorted_or_shuffled_in_public(seed: int) -> None:
    names = [f"{number:04d}" for number in range(10)]
    assert "rise" in order_of(names)
    assert "rise" in order_of(names[::-1])
    many = [f"{number:04d}" for number in range(60)]
    assert f"seed {seed}" in order_of([many[i] for i in np.random.default_rng(seed).permutation(60)])
    assert order_of([many[i] for i in np.random.default_rng(1000).permutation(60)]) == ""


@pytest.mark.parametrize("end", ["\n", "\r", "\x00", "\u2028"])
def test_an_identifier_with_a_line_end_is_set_aside(end: str, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"pixels")

    class Named(HeadCT):
        def scan(self, stream: BinaryIO) -> list[dict[str, Any]]:
            return [{"item_id": "1.2", "patient_id": f"a{end}b,1"}]

    folder = Store(tmp_path)
    (row,) = scan_file(Named(), folder, folder.files()[0])
    assert (row["status"], row["reason"]) == ("quarantined", "patient_id holds control characters")
    assert "a" not in row.values()
