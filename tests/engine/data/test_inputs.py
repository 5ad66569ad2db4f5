"""Several folders of files, each with labels of its own, as one index."""

from __future__ import annotations

import shutil
from pathlib import Path

import miniature
import numpy as np
import pandas as pd
import pyarrow.fs as pafs
import pytest
from ingested import ingested
from miniature.volumes import Volumes, assemble, with_lesion, write_volumes
from ray.cloudpickle import register_pickle_by_value

from medray.engine.data import shard
from medray.engine.data.inputs import Input, joined
from medray.engine.data.prepare import Ingest
from medray.shards.inventory import Inventory, Refused
from medray.shards.pseudonym import Pseudonyms, read_map
from medray.shards.store import File, Store

register_pickle_by_value(miniature)  # Ray's workers do not import tests
GRADES = {f"patient{i}_0": i % 2 for i in range(5)}


def bucket(folder: Path) -> Store:
    """A place whose paths do not say whose they are."""
    store = Store(folder)
    store.filesystem, store.root = pafs.SubTreeFileSystem(str(folder), pafs.LocalFileSystem()), "bucket"
    return store


def graded(scan: pd.DataFrame) -> Inventory:
    """Volumes with grades and names of their own."""
    found = assemble(scan, GRADES)
    return Inventory(found.table, found.rows.assign(volume_id="north-" + found.rows["volume_id"]), ("a warning",))


def prepared(folder: Path, inputs: list[Input]) -> Ingest:
    return ingested(folder, Volumes(), inputs, ["lesion", "grade"], with_lesion)


@pytest.mark.slow
def test_the_way_back_is_made_again_of_the_key_and_the_files(tmp_path: Path, local_ray: None) -> None:
    """All else of the key's folder may go with a cluster's head: the next start with the same key writes the same map."""
    write_volumes(tmp_path / "in" / "bucket", 4)
    files = bucket(tmp_path / "in")
    inputs = [Input("in", files, files.files(), assemble)]
    maps = []
    for _ in range(2):
        index = prepared(tmp_path, inputs).index
        maps.append(read_map(tmp_path / "private", Store(tmp_path / "out").uri))
        assert set(index["patient_id"]) <= set(maps[-1]["pseudonym"])
        shutil.rmtree(tmp_path / "private")
    pd.testing.assert_frame_equal(*maps)


@pytest.mark.slow
def test_two_sources_of_like_paths_make_one_index(tmp_path: Path, local_ray: None) -> None:
    write_volumes(tmp_path / "south" / "bucket", 6)
    write_volumes(tmp_path / "north" / "bucket", 5, size=18)
    for mask in (tmp_path / "north" / "bucket").glob("*_mask.npz"):
        mask.unlink()  # where there are grades, nobody has drawn
    (tmp_path / "north" / "bucket" / "patient1_0_t2.npz").write_bytes(b"PK, no more")
    south, north = bucket(tmp_path / "south"), bucket(tmp_path / "north")
    inputs = [Input("south", south, south.files(), assemble), Input("north", north, north.files(), graded)]
    assert {file.path for file in north.files()} < {file.path for file in south.files()}
    found = prepared(tmp_path, inputs)

    index = found.index
    assert index["source"].value_counts().to_dict() == {"south": 6, "north": 4}
    of = {name: index[index["source"] == name] for name in ("south", "north")}
    assert of["south"]["lesion"].notna().all()
    assert of["south"]["grade"].isna().all()
    assert of["north"]["lesion"].isna().all()
    assert sorted(of["north"]["grade"]) == [0, 0, 0, 1]  # of 0, 2, 3 and 4
    assert index["patient_id"].nunique() == 6  # the same people in both
    assert index.groupby("patient_id")["fold"].nunique().eq(1).all()
    assert set(index["fold"]) == {0, 1}

    tables = [found.rows.store.read_table(name).to_pandas() for name in found.rows.files]
    for row in pd.concat(tables).to_dict("records"):
        (number,) = (i for i in range(6) if Pseudonyms(b"k" * 32).of("patient", f"patient{i}") == row["patient_id"])
        own = np.load(tmp_path / row["source"] / "bucket" / f"patient{number}_0_t1.npz")["voxels_DHW"]
        assert row["voxels"][: own.nbytes] == own.tobytes()

    aside = found.private[found.private["status"] == "quarantined"]
    assert sorted(zip(aside["source"], aside["path"], strict=True)) == [
        ("north", "bucket/broken.npz"), ("north", "bucket/patient1_0_t1.npz"), ("north", "bucket/patient1_0_t2.npz"),
        ("south", "bucket/broken.npz"),
    ]  # fmt: skip
    assert found.inventory["source"].tolist() == found.private["source"].tolist()
    again = prepared(tmp_path, inputs)
    pd.testing.assert_frame_equal(again.index, index)


def of_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scans without Ray."""

    def scan(source: Volumes, folder: Store, files: list[File], cache: Store) -> pd.DataFrame:
        return pd.DataFrame({"path": [f.path for f in files], "size_bytes": 1, "status": "ok", "reason": None})

    monkeypatch.setattr(shard, "scan", scan)


def alone(scan: pd.DataFrame) -> Inventory:
    rows = scan.assign(volume_id=scan["path"], patient_id="p").iloc[::-1]
    return Inventory(scan, rows, ("odd",))


def test_an_id_that_two_inputs_share_is_an_error_that_names_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_paths(monkeypatch)
    store = Store(tmp_path)
    north, south = (Input(name, store, [File("x", 1), File(name, 1)], alone) for name in ("north", "south"))
    with pytest.raises(ValueError, match="^north and south: 1 rows have the same volume_id in both; rename the files"):
        joined(Volumes(), [north, south], store)
    with pytest.raises(ValueError, match="inputs 'north', 'north': each of several needs a name of its own"):
        joined(Volumes(), [north, north], store)


def test_rows_of_one_file_and_of_several_stand_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_paths(monkeypatch)

    def pair(scan: pd.DataFrame) -> Inventory:
        rows = pd.DataFrame({"volume_id": ["v"], "files": [{"t1": scan["path"][0], "t2": scan["path"][1]}]})
        return Inventory(scan, rows, ())

    def refused(scan: pd.DataFrame) -> Inventory:
        raise Refused("none of 2 files is usable", scan)

    store, files = Store(tmp_path), [File("x", 1), File("y", 1)]
    first, second, third = (
        Input("one", store, files, alone),
        Input("two", store, files, alone),
        Input("three", store, files, pair),
    )
    with pytest.raises(Refused, match="^four: none of 2 files is usable"):
        joined(Volumes(), [first, Input("four", store, files, refused)], store)
    other = Input("two", store, [File("a", 1), File("b", 1)], second.assemble)
    links = joined(Volumes(), [first, other], store).links("volume_id")
    assert dict(zip(links["item"], links["place"], strict=True)) == {"x": 0, "y": 1, "a": 2, "b": 3}
    both = joined(Volumes(), [first, third], store)
    found = both.links("volume_id").groupby("item")["place"].agg(list).to_dict()
    assert found == {"x": [0], "y": [1], "v": [2, 3]}
    assert both.warnings == ("one: odd",)
