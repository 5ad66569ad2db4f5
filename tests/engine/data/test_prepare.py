"""What becomes of files: the inventory's table after decoding."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
from miniature.volumes import Volumes

from medray.engine.data.prepare import _contents, _to_write, _with_results
from medray.shards.inventory import Inventory
from medray.shards.pseudonym import Pseudonyms
from medray.shards.store import Store


def test_a_file_of_several_items_is_set_aside_only_with_all_of_them() -> None:
    paths = ["atlas", "shared", "w", "x", "y", "z"]
    table = pd.DataFrame({"path": paths, "status": ["ok"] * 4 + ["unlabelled"] * 2, "reason": None})
    files = {
        "a": {"film": "w", "atlas": "atlas"},
        "b": {"film": "x", "atlas": "atlas", "mask": "shared"},
        "c": {"film": "y", "atlas": "atlas", "mask": "shared"},
        "d": {"film": "z", "atlas": "atlas"},
    }
    rows = pd.DataFrame({"volume_id": list(files), "files": list(files.values())})
    key = Pseudonyms(b"k" * 32)
    written = pd.DataFrame({"id": key.all("volume", files), "note": ["turned", "torn", "torn too", None]})
    written["written"] = [True, False, False, True]
    found = _with_results(Volumes(), Inventory(table, rows, ()), written.sample(frac=1, random_state=0), key)
    assert list(zip(found["status"], found["reason"].fillna(""), strict=True)) == [
        ("repaired", "turned"),
        ("quarantined", "torn"),
        ("repaired", "turned"),
        ("quarantined", "torn"),
        ("quarantined", "torn too"),
        ("unlabelled", ""),
    ]


def test_a_name_may_be_one_file_of_one_item_and_several_of_another() -> None:
    table = pd.DataFrame({"path": ["a", "b", "c"], "size_bytes": 1, "status": "ok", "content": list("123")})
    rows = pd.DataFrame({"volume_id": ["x", "y"], "patient_id": ["p", "q"], "files": [{"t1": "a"}, {"t1": ["b", "c"]}]})
    inventory = Inventory(table, rows, ())
    written = _to_write(Volumes(), inventory, _contents(Volumes(), inventory), {"": Store("/")}, Pseudonyms(None))
    assert pa.Table.from_pandas(written)["private_files"].to_pylist() == ['{"t1": ["a"]}', '{"t1": ["b", "c"]}']
