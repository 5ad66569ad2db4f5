"""Items of one file and of several named ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medray.shards.files import Files, from_text, paths_of, read_files, texts_of
from medray.shards.inventory import Inventory
from medray.shards.store import Store


def test_a_row_without_names_is_an_item_of_its_own_path() -> None:
    assert paths_of({"path": "a.dcm"}) == {"file": ["a.dcm"]}
    assert paths_of({"path": "a.dcm", "files": np.nan}) == {"file": ["a.dcm"]}


def test_named_files_are_in_the_order_of_their_names_and_those_without_a_path_are_not_there() -> None:
    row = {"files": {"t2": "b", "mask": None, "slices": ["z", "a"], "none": []}}
    assert paths_of(row) == {"slices": ["z", "a"], "t2": ["b"]}
    assert list(paths_of(row)) == ["slices", "t2"]


def test_equal_files_are_one_text_which_leads_back() -> None:
    rows = pd.DataFrame({"files": [{"a": "1", "b": "2"}, {"b": "2", "a": "1"}, {"a": "1", "b": None}]})
    first, again, other = texts_of(rows)
    assert first == again != other
    assert from_text(other) == {"a": ["1"]}


def test_bytes_by_name(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_text(name)
    where = {name: str(tmp_path / name) for name in "abc"}
    files = read_files(Store(tmp_path), paths_of({"files": {"mask": where["a"], "slices": [where["c"], where["b"]]}}))
    assert files["mask"] == b"a"
    assert files.several("slices") == [b"c", b"b"]
    assert "t1" not in files
    assert files.several("t1") == []
    assert Files.of(b"x").only == b"x"
    for name, count in (("slices", 2), ("t1", 0)):
        with pytest.raises(ValueError, match=f"{name}: {count} files, not one"):
            files[name]
    with pytest.raises(ValueError, match=r"^mask: cannot be read \(No such file or directory\)$"):
        read_files(Store(tmp_path), paths_of({"files": {"mask": str(tmp_path / "d"), "t1": where["a"]}}))


def test_a_file_may_be_part_of_several_items() -> None:
    table = pd.DataFrame({"path": ["atlas", "x", "y", "z"]}, index=[3, 5, 7, 9])
    rows = pd.DataFrame(
        {"id": ["one", "two"], "files": [{"film": "x", "atlas": "atlas"}, {"film": "y", "atlas": "atlas"}]}
    )
    links = Inventory(table, rows, ()).links("id").sort_values(["place", "item"])
    assert links[["place", "item"]].to_numpy().tolist() == [[3, "one"], [3, "two"], [5, "one"], [7, "two"]]
    alone = table.iloc[1:].assign(id=list("xyz"))
    assert Inventory(table, alone, ()).links("id")["place"].tolist() == [5, 7, 9]
