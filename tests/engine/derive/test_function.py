"""Derivation by plain functions, from one input or several, and of unseen rows: on small tables, with real actors."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import torch
from torch import nn

from medray.engine.data.rows import read_unit
from medray.engine.data.samples import Rows, TrainingPlan, read_index
from medray.engine.derive.derive import BY_FUNCTION, DerivedShards, derive
from medray.engine.derive.function import FunctionWorker
from medray.engine.derive.inputs import joined
from medray.engine.derive.network import NetworkWorker
from medray.engine.nodes.cluster import Resources
from medray.engine.train import checkpoint
from medray.engine.train.run import Run
from medray.engine.train.stop import StopRun
from medray.shards.store import Store
from medray.tasks.task import At, Example, Task

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture(autouse=True)
def without_actors(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces are done here, by the worker that an actor would hold: it takes seconds to start one."""

    def here(work: Any, groups: Sequence[str]) -> Iterator[tuple[int, Any]]:
        for number, piece in enumerate(work.todo):
            worker = FunctionWorker(work.derivation) if piece.run is None else NetworkWorker(work.derivation, 2, "cpu")
            yield number, worker.write(piece.run, ray.get(work.inputs), piece.places, piece.folder, piece.name)

    if "dies" not in request.node.name:
        monkeypatch.setattr("medray.engine.derive.derive.done_by_actors", here)


LOCAL = Resources(workers=0, gpu=False, side_by_side=2, threads=1, cpus_per_worker=0.5, data_cpus=0.5)


@dataclass(frozen=True)
class Crops:
    """As many crops of a film as it has points; what has a negative number of them is refused."""

    scale: int = 1
    fails: str = ""  # a file: where it is not there, the process makes it and dies

    id_column: ClassVar[str] = "film_id"
    columns: ClassVar[tuple[str, ...]] = ("film_id", "points", "pixels")
    schema: ClassVar[pa.Schema] = pa.schema(
        [("crop_id", pa.string()), ("film_id", pa.string()), ("value", pa.float64()), ("pixels", pa.binary())]
    )

    def identity(self) -> dict[str, Any]:
        return {"function": "crops", "version": 1, "scale": self.scale}

    def rows(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        if self.fails and not os.path.exists(self.fails):
            Path(self.fails).touch()
            os._exit(1)
        if row["points"] < 0:
            raise ValueError("no points were found on it")
        return [
            {"crop_id": f"{row['film_id']}/{i}", "film_id": row["film_id"], "value": float(self.scale * i), "pixels": row["pixels"]}
            for i in range(row["points"])
        ]  # fmt: skip


def write_films(folder: Path, points: list[list[int]], pixels: int = 4) -> Store:
    """A part for each list; a film for each number of points."""
    folder.mkdir()
    for part, of_part in enumerate(points):
        table = {"film_id": [f"f{part}{i}" for i in range(len(of_part))], "points": of_part}
        table["pixels"] = [bytes([part, i]) * (pixels // 2) for i in range(len(of_part))]
        pq.write_table(pa.table(table), folder / f"part-{part:02d}.parquet", row_group_size=2)
    return Store(folder)


def rows_of(store: Store) -> Rows:
    return read_index(store, ["film_id"])[0]


def files_of(store: Store) -> dict[str, tuple[int, int]]:
    assert store.local is not None
    return {p.name: (p.stat().st_mtime_ns, p.stat().st_ino) for p in sorted(store.local.rglob("*.parquet"))}


def test_a_row_becomes_any_number_of_rows_and_one_that_is_refused_costs_nobody_else(tmp_path: Path) -> None:
    films = rows_of(write_films(tmp_path / "films", [[2, 0, -1, 1], [3, -1]]))
    found = derive(Crops(), films, Store(tmp_path / "crops"), what="crops")
    rows, index = found.index(["crop_id", "value"])
    assert index["crop_id"].tolist() == ["f00/0", "f00/1", "f03/0", "f10/0", "f10/1", "f10/2"]
    assert index["value"].tolist() == [0, 1, 0, 0, 1, 2]
    aside = found.set_aside()
    assert aside["id"].tolist() == ["f02", "f11"]
    assert set(aside["reason"]) == {"no points were found on it"}
    assert [Path(name).name[:7] for name in found.names[BY_FUNCTION]] == ["part-00", "part-01"]
    assert len(rows) == 6


def test_the_files_of_derived_shards_are_those_of_all_folds_in_order(tmp_path: Path) -> None:
    made = DerivedShards(Store(tmp_path), {2: ["fold2/a", "fold2/b"], 0: ["fold0/z"], 1: []})
    assert made.files == ["fold0/z", "fold2/a", "fold2/b"]


def test_where_every_row_is_refused_it_ends_with_the_first_reason(tmp_path: Path) -> None:
    films = rows_of(write_films(tmp_path / "films", [[-1, -1]]))
    with pytest.raises(StopRun, match="each of 2 rows was refused; the first reason: no points were found on it"):
        derive(Crops(), films, Store(tmp_path / "crops"), what="crops")
    with pytest.raises(StopRun, match="each of 2 rows was refused"):  # its empty part is there now
        derive(Crops(), films, Store(tmp_path / "crops"), what="crops")


def test_what_was_set_aside_is_said_at_every_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    films = rows_of(write_films(tmp_path / "films", [[2, -1]]))
    for _ in range(2):
        derive(Crops(), films, Store(tmp_path / "crops"), what="crops")
        assert "! crops: 1 of 2 rows were set aside" in capsys.readouterr().err


def test_a_row_that_is_not_of_the_schema_or_a_mistake_of_the_function_ends_it_with_a_line(tmp_path: Path) -> None:
    class Misspelt(Crops):
        def rows(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
            return [{"crop": 1} | one for one in super().rows(row)]

    class Wrong(Crops):
        def rows(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
            return [{"crop_id": row["nothing"]}]

    films = rows_of(write_films(tmp_path / "films", [[2]]))
    with pytest.raises(StopRun, match="a row and its schema differ in crop"):
        derive(Misspelt(), films, Store(tmp_path / "a"))
    with pytest.raises(StopRun, match="Wrong, row f00: raised KeyError"):
        derive(Wrong(), films, Store(tmp_path / "b"))


def test_what_a_chain_of_derivations_was_made_by_tells_the_first_stages_weights(tmp_path: Path) -> None:
    """Films, masks by a network, crops of the masks by a function: other weights of the network make other runs."""
    found = []
    for weights in ("aaaaaaaaaaaa", "bbbbbbbbbbbb"):
        folder = tmp_path / weights
        store = write_films(folder, [[2, 1]])
        (folder / "part-00.parquet").rename(folder / f"part-00-{weights}.parquet")
        derived = derive(Crops(), rows_of(store), Store(tmp_path / f"crops-{weights}"))
        found.append(set(derived.index(["crop_id"])[1]["made_by"]))
    assert found[0] != found[1]


def test_files_that_are_no_parts_are_left_alone(tmp_path: Path) -> None:
    films, to = rows_of(write_films(tmp_path / "films", [[2]])), Store(tmp_path / "crops")
    for name in ("inventory.parquet", "part-00-0123456789ab.parquet"):
        to.write_table(name, pa.table({"a": [1]}))
    derive(Crops(), films, to)
    assert to.exists("inventory.parquet")
    assert not to.exists("part-00-0123456789ab.parquet")


def test_a_restart_makes_what_is_missing_and_other_settings_or_films_replace_their_parts(tmp_path: Path) -> None:
    store, to = write_films(tmp_path / "films", [[1, 2], [2, 1]]), Store(tmp_path / "crops")
    found = derive(Crops(), rows_of(store), to)
    before = files_of(to)
    content = to.read_bytes(found.names[BY_FUNCTION][0])
    to.delete(found.names[BY_FUNCTION][0])
    assert derive(Crops(), rows_of(store), to) == found
    after = files_of(to)
    assert to.read_bytes(found.names[BY_FUNCTION][0]) == content
    assert [name for name in before if before[name] != after[name]] == [found.names[BY_FUNCTION][0]]
    other = derive(Crops(scale=3), rows_of(store), to)
    assert set(files_of(to)) == set(other.names[BY_FUNCTION])
    assert not set(files_of(to)) & set(before)
    assert other.index(["value"])[1]["value"].max() == 3
    some = derive(Crops(scale=3), rows_of(store).take(np.array([1, 2, 3])), to)  # of the first part one film
    assert some.names[BY_FUNCTION][0] != other.names[BY_FUNCTION][0]
    assert some.names[BY_FUNCTION][1] == other.names[BY_FUNCTION][1]
    assert some.index(["film_id"])[1]["film_id"].tolist() == ["f01", "f01", "f10", "f10", "f11"]


@pytest.mark.slow
def test_a_process_that_dies_is_started_again(tmp_path: Path) -> None:
    films = rows_of(write_films(tmp_path / "films", [[1, 2], [2, 1]]))
    found = derive(Crops(fails=str(tmp_path / "died")), films, Store(tmp_path / "crops"))
    assert (tmp_path / "died").exists()
    assert len(found.index(["crop_id"])[0]) == 6


def test_row_groups_are_of_few_rows_and_few_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from medray.engine.derive import part

    def groups(pixels: int) -> list[int]:
        schema, to = Crops.schema, Store(tmp_path)
        rows = [{"crop_id": str(i), "film_id": "f", "value": 1.0, "pixels": b"x" * pixels} for i in range(20)]
        assert part.write_rows(to, "streamed.parquet", schema, rows, {}) == 20
        part.write_table(to, "whole.parquet", pa.Table.from_pylist(rows, schema=schema), {})
        found = [pq.ParquetFile(tmp_path / f"{name}.parquet").metadata for name in ("streamed", "whole")]
        sizes = [[metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] for metadata in found]
        assert pq.read_table(tmp_path / "streamed.parquet").equals(pq.read_table(tmp_path / "whole.parquet"))
        return max(sizes, key=max)

    assert max(groups(10)) == part.ROWS_PER_GROUP
    monkeypatch.setattr(part, "BYTES_PER_GROUP", 3000)
    assert max(groups(1000)) <= 3
    assert groups(10_000) == [1] * 20  # a row may be larger


# ---- several inputs ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Placed(Crops):
    """Reads a film and the keypoint that another stage has found on it."""

    columns: ClassVar[tuple[str, ...]] = ("film_id", "pixels", "x")

    def rows(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [{"crop_id": row["film_id"], "film_id": row["film_id"], "value": row["x"], "pixels": row["pixels"]}]


def write_keypoints(folder: Path, x_of_film: dict[str, float]) -> Store:
    folder.mkdir(exist_ok=True)
    table = {"film_id": list(x_of_film), "x": list(x_of_film.values()), "points": [99] * len(x_of_film)}
    pq.write_table(pa.table(table), folder / f"keypoints-{len(list(folder.iterdir()))}.parquet", row_group_size=1)
    return Store(folder)


def test_films_and_their_keypoints_are_joined_by_id_in_whatever_order_they_lie(tmp_path: Path) -> None:
    films = read_index(write_films(tmp_path / "films", [[1, 1, 1], [1, 1]]), ["film_id"])
    write_keypoints(tmp_path / "points", {"f11": 11.0, "f00": 0.5})
    points = read_index(write_keypoints(tmp_path / "points", {"f10": 10.0, "f02": 2.0, "f01": 1.0}), ["film_id"])
    inputs, index = joined(films, points, on="film_id")
    assert index["film_id"].tolist() == ["f00", "f01", "f02", "f10", "f11"]
    found = derive(Placed(), inputs, Store(tmp_path / "crops"))
    table = found.index(["film_id", "value", "pixels"])[1]
    assert table["value"].tolist() == [0.5, 1.0, 2.0, 10.0, 11.0]
    assert table["pixels"].tolist()[3] == bytes([1, 0]) * 2
    assert derive(Placed(), inputs, Store(tmp_path / "crops")) == found


def test_other_keypoints_make_the_parts_anew(tmp_path: Path) -> None:
    films = read_index(write_films(tmp_path / "films", [[1, 1], [1]]), ["film_id"])
    for number, name in enumerate(["a", "b"]):  # the name of a derived part tells what made it
        (tmp_path / name).mkdir()
        table = pa.table({"film_id": ["f00", "f01", "f10"], "x": [float(number)] * 3})
        pq.write_table(table, tmp_path / name / f"part-{name}.parquet")
    stores = [read_index(Store(tmp_path / name), ["film_id"]) for name in ("a", "b")]
    first, second = (derive(Placed(), joined(films, s, on="film_id")[0], Store(tmp_path / "crops")) for s in stores)
    assert not set(first.names[BY_FUNCTION]) & set(second.names[BY_FUNCTION])
    assert set(files_of(Store(tmp_path / "crops"))) == set(second.names[BY_FUNCTION])
    assert second.index(["value"])[1]["value"].tolist() == [1.0] * 3


def test_films_without_keypoints_are_refused_or_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    films = read_index(write_films(tmp_path / "films", [[1, 1], [1]]), ["film_id"])
    points = read_index(write_keypoints(tmp_path / "points", {"f01": 1.0, "f10": 2.0}), ["film_id"])
    with pytest.raises(ValueError, match="^1 of 3 rows have no partner, the first is film_id f00; make the missing"):
        joined(films, points, on="film_id")
    inputs, index = joined(films, points, on="film_id", missing="leave out")
    assert "! 1 of 3 rows have no partner, the first is film_id f00; left out" in capsys.readouterr().err
    assert index["film_id"].tolist() == ["f01", "f10"]
    found = derive(Placed(), inputs, Store(tmp_path / "crops"))
    assert found.index(["value"])[1]["value"].tolist() == [1.0, 2.0]


def test_a_join_needs_each_id_once_and_its_columns_somewhere(tmp_path: Path) -> None:
    films = read_index(write_films(tmp_path / "films", [[1, 1]]), ["film_id"])
    write_keypoints(tmp_path / "points", {"f00": 1.0, "f01": 1.0})
    twice = read_index(write_keypoints(tmp_path / "points", {"f01": 2.0}), ["film_id"])
    with pytest.raises(ValueError, match="^input 2: film_id f01 is there more than once"):
        joined(films, twice, on="film_id")
    inputs, _ = joined(films, films, on="film_id")
    with pytest.raises(ValueError, match="^no input has the column x"):
        list(inputs.read(["film_id", "x"]))


# ---- networks ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Film(Task):
    """The mean of a film's pixels, times a weight."""

    id_column: ClassVar[str] = "film_id"
    columns: ClassVar[tuple[str, ...]] = ("film_id", "pixels")
    batch_size: int = 2

    def labelled(self, index: pd.DataFrame) -> np.ndarray:
        return np.ones(len(index), dtype=bool)

    def train_example(self, row: Mapping[str, Any], rng: np.random.Generator) -> Example:
        return self.example(row)

    def example(self, row: Mapping[str, Any]) -> Example:
        values = np.frombuffer(row["pixels"], np.uint8)
        if not len(values):
            raise ValueError("no pixels")
        return {"film_id": row["film_id"], "mean": np.float32([values.mean()])}

    def network(self) -> nn.Module:
        return nn.Linear(1, 1, bias=False)

    def losses(self, network: Any, batch: Any, at: At) -> Any: ...

    def outputs(self, network: Any, batch: Any) -> Any: ...

    def metrics(self, outputs: Any) -> Any: ...


@dataclass(frozen=True)
class Masks:
    """Pseudo-labels: a derived row a film."""

    id_column: ClassVar[str] = "film_id"

    def identity(self) -> dict[str, Any]:
        return {"derived": "masks"}

    def outputs(self, task: Any, network: Any, batch: dict[str, Any]) -> dict[str, Any]:
        return {"film_id": batch["film_id"], "value": network(batch["mean"])[:, 0].numpy()}

    def pack(self, outputs: pd.DataFrame) -> pa.Table:
        pixels = [np.float32(value).tobytes() for value in outputs.get("value", [])]
        schema = pa.schema([("film_id", pa.string()), ("value", pa.float64()), ("pixels", pa.binary())])
        columns = {
            "film_id": outputs["film_id"].tolist(),
            "value": outputs.get("value", pd.Series(dtype=float)).tolist(),
        }
        return pa.table(columns | {"pixels": pixels}, schema=schema)


@pytest.fixture
def runs(tmp_path: Path) -> Callable[[Rows], list[Run]]:
    """Three finished runs; the network of fold k multiplies by 10 to the k."""

    def make(rows: Rows) -> list[Run]:
        found = []
        for fold in range(3):
            store, weight = Store(tmp_path / f"fold{fold}"), torch.full((1, 1), 10.0**fold)
            digest = checkpoint.write_weights(store, "model.pt", {"weights": {"weight": weight}})
            store.write_json("done.json", {"weights": digest})
            found.append(Run("net", fold, store, Film(), rows, rows, (), None, "none", LOCAL))
        return found

    return make


def test_each_film_goes_through_the_network_that_has_not_seen_it(
    runs: Callable[[Rows], list[Run]], tmp_path: Path
) -> None:
    rows, index = read_index(write_films(tmp_path / "films", [[1] * 5, [1, 1], [1]]), ["film_id"])
    fold = [0, 1, 2, 1, 0, 2, 2, 0]
    found = derive(Masks(), rows, Store(tmp_path / "masks"), runs(rows), unseen=fold)
    derived, table = found.index(["film_id", "value"])
    table = table.set_index("film_id").loc[index["film_id"]]
    assert table["network_fold"].tolist() == fold
    means = [np.mean([int(name[1]), int(name[2])]) for name in index["film_id"]]
    assert table["value"].to_numpy() == pytest.approx([m * 10.0**k for m, k in zip(means, fold, strict=True)])
    plan = TrainingPlan(derived, batch_size=4, epochs=1, seed=0)
    batches = [batch for unit in plan.units() for batch in read_unit(Film(), plan, unit)]
    assert sorted(i for batch in batches for i in batch["film_id"]) == sorted(index["film_id"])  # as any shards
    before = files_of(found.store)
    assert derive(Masks(), rows, Store(tmp_path / "masks"), runs(rows), unseen=fold) == found
    assert files_of(found.store) == before
    other = derive(Masks(), rows, Store(tmp_path / "masks"), runs(rows), unseen=[1, 0, *fold[2:]])
    assert sorted(set(files_of(other.store)) - set(before)) == sorted(
        Path(other.names[k][0]).name for k in (0, 1)
    )  # the part whose films have changed places, by both networks


def test_a_fold_without_a_network_is_named(runs: Callable[[Rows], list[Run]], tmp_path: Path) -> None:
    rows = rows_of(write_films(tmp_path / "films", [[1, 1]]))
    with pytest.raises(ValueError, match="^rows of fold 2: no network has held them out; .*--train-folds"):
        derive(Masks(), rows, Store(tmp_path / "masks"), runs(rows)[:2], unseen=[0, 2])


def test_a_film_of_which_the_task_can_make_no_example_is_set_aside(
    runs: Callable[[Rows], list[Run]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = write_films(tmp_path / "films", [[1, 1, 1]])
    table = pq.read_table(tmp_path / "films" / "part-00.parquet")
    table = table.set_column(2, "pixels", pa.array([b"\1\1", b"", b"\3\3"]))
    pq.write_table(table, tmp_path / "films" / "part-00.parquet")
    found = derive(Masks(), rows_of(store), Store(tmp_path / "masks"), runs(rows_of(store))[:1], what="masks")
    assert found.index(["value"])[1]["value"].tolist() == [1, 3]
    assert found.set_aside().to_dict("records") == [{"id": "f01", "reason": "no pixels", "network_fold": 0}]
    assert "! masks: 1 of 3 rows were set aside; the first reason: no pixels" in capsys.readouterr().err


def test_a_network_reads_joined_inputs_too(runs: Callable[[Rows], list[Run]], tmp_path: Path) -> None:
    films = read_index(write_films(tmp_path / "films", [[1, 1], [1]]), ["film_id"])
    (tmp_path / "pixels").mkdir()
    content = pa.table({"film_id": ["f10", "f00", "f01"], "pixels": [b"\7", b"\5", b"\6"]})
    pq.write_table(content, tmp_path / "pixels" / "a.parquet")
    for path in (tmp_path / "films").iterdir():
        pq.write_table(pq.read_table(path).drop_columns("pixels"), path)
    inputs, _ = joined(films, read_index(Store(tmp_path / "pixels"), ["film_id"]), on="film_id")
    own = replace(inputs.every[0], store=Store(tmp_path / "copied"))  # no reader is open there
    shutil.copytree(tmp_path / "films", tmp_path / "copied")
    found = derive(
        Masks(), replace(inputs, every=(own, inputs.every[1])), Store(tmp_path / "masks"), runs(films[0])[:1]
    )
    assert found.index(["value"])[1]["value"].tolist() == [5, 6, 7]
