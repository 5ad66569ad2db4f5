"""A stage that the next ones read: trained in every fold, and each row through the network that has not seen its patient."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import miniature
import numpy as np
import pytest
import ray
import torch
from miniature.patches import PatchTask
from miniature.stages import Answers
from miniature.volumes import Volumes, assemble, with_lesion, write_volumes
from ray.cloudpickle import register_pickle_by_value

from medray.engine.derive.network import NetworkWorker
from medray.engine.job.options import Options
from medray.engine.job.plan import Outcome, Training
from medray.engine.job.workspace import Workspace
from medray.engine.train import checkpoint
from medray.engine.train.run import Run
from medray.shards.manifest import Manifest
from medray.shards.pseudonym import Pseudonyms
from medray.shards.store import Store
from medray.tasks.system import System
from medray.tasks.task import Example

register_pickle_by_value(miniature)  # Ray's workers do not import tests

VOLUMES = System(
    source=Volumes(), read_labels=lambda uri: {}, assemble=assemble, columns=("lesion",), strata=with_lesion,
    flags=("--images", "--labels"), about_flags=("", ""),
)  # fmt: skip
REFUSED = "patient3_0"


@dataclass(frozen=True, kw_only=True)
class Picky(PatchTask):
    """Can make no example of one of the volumes."""

    def example(self, row: Mapping[str, Any]) -> Example:
        if row["volume_id"] == REFUSED:
            raise ValueError("no volume of this kind")
        return super().example(row)


TASK = Picky(epochs=1, batch_size=4)


class Silent:
    """No MLflow."""

    uri = ""

    def want(self, *_: Any, **__: Any) -> None: ...

    def close(self) -> bool:
        return True


def learned_by_hand(runs: Iterable[Run], on_change: Callable[[Run], None] = lambda run: None) -> None:
    """In place of training: the network of fold 1 takes every voxel for a lesion, that of fold 0 none."""
    for run in runs:
        network = run.task.network()
        with torch.no_grad():
            for weight in network.parameters():
                weight.zero_()
            next(reversed(list(network.parameters()))).fill_(1.0 if run.fold == 1 else -1.0)
        digest = checkpoint.write_weights(run.store, "model.pt", {"weights": network.state_dict()})
        run.store.write_json("done.json", {"weights": digest})


def done_here(work: Any, groups: Sequence[str]) -> Iterator[tuple[int, Any]]:
    """In place of actors, which take seconds to start."""
    worker, inputs = NetworkWorker(work.derivation, 1, "cpu"), ray.get(work.inputs)
    for number, piece in enumerate(work.todo):
        worker.write(piece.run, inputs, piece.places, piece.folder, piece.name)
        yield number, None


@pytest.fixture
def options(local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    """Of two folds the job is to train the first."""
    monkeypatch.setattr("medray.engine.job.workspace.fit", learned_by_hand)
    monkeypatch.setattr("medray.engine.derive.derive.done_by_actors", done_here)
    monkeypatch.setattr(Options, "tracker", lambda self, of="": Silent())
    write_volumes(tmp_path / "files")
    return Options(
        out=str(tmp_path / "out"), folds=2, train_folds=(0,), monitor="none", workers=0, threads=1, rows_per_shard=4,
        public_ids=True, key_dir=tmp_path / "private",
    )  # fmt: skip


@pytest.fixture
def work(options: Options, tmp_path: Path) -> Iterator[Workspace]:
    """Begun."""
    with Workspace(VOLUMES, VOLUMES.source, options, str(tmp_path / "files"), "no file") as begun:
        begun.begin("volumes", {}, [Training("first", {"first": TASK}, folds=options.every_fold)])
        yield begun


@pytest.mark.slow
def test_each_row_goes_through_the_network_that_has_not_seen_its_patient(
    work: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    volumes = work.shards()
    made, inputs = work.by_unseen("first", TASK, volumes, Answers(), "answers")
    assert [(run.model, run.fold) for run in work.done["first"]] == [("first", 0), ("first", 1)]
    fold = dict(zip(volumes.index["volume_id"], volumes.index["fold"], strict=True))
    assert {*fold.values()} == {0, 1}
    found = {}
    for k, names in made.names.items():
        for name in names:
            assert name.startswith(f"fold{k}/")
            for row in made.store.read_table(name).to_pylist():
                assert fold[row["volume_id"]] == k
                found[row["volume_id"]] = row["found"]
    assert {*found} == {*fold} - {REFUSED}
    for volume, mask in found.items():  # and that network it was, as its answer tells
        assert {*mask} == {fold[volume]}
    # the held-out rows of a run are those that go through it
    for run in work.done["first"]:
        assert {*run.held_out_ids} == {volume for volume, of in fold.items() if of == run.fold}

    together = list(inputs.read(["volume_id", "voxels", "found"]))
    assert {row["volume_id"]: row["found"] for row in together} == found
    assert all(len(np.frombuffer(row["voxels"], np.float32)) == 2 * len(row["found"]) for row in together)
    assert [row["volume_id"] for row in together] == [v for v in volumes.index["volume_id"] if v != REFUSED]
    said = capsys.readouterr().err
    assert f"answers: 1 of {len(fold)} rows were set aside; the first reason: no volume of this kind" in said
    assert made.set_aside()["id"].tolist() == [REFUSED]
    assert made.files == [*made.names[0], *made.names[1]]
    assert all(made.store.exists(name) for name in made.files)


def test_only_stages_that_every_row_needs_are_trained_in_every_fold(work: Workspace) -> None:
    volumes = work.shards()
    assert [run.fold for run in work.cross_validation("second", TASK, volumes)] == [0]
    assert [run.fold for run in work.cross_validation("first", TASK, volumes, every_fold=True)] == [0, 1]


def test_a_job_that_ends_early_plans_no_more_and_says_how_to_go_on(
    options: Options, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reached = []
    with Workspace(VOLUMES, VOLUMES.source, options, str(tmp_path / "files"), "no file", "first") as work:
        plan = [Training("first", {"first": TASK}), Training("second", {"second": TASK}), Outcome("scores", "x.json")]
        work.begin("volumes", {}, plan)
        for name in ("shards", "first", "second"):
            work.stage(name, name)
            reached.append(name)
            if name == "shards":
                work.shards()
    assert reached == ["shards", "first"]
    said = capsys.readouterr().out
    assert "2 first" in said
    for later in ("second", "scores", "report"):
        assert later not in said
    words = " ".join(said.split())
    there = f"In {tmp_path}/out: shards/, folds.parquet, inventory.parquet."
    assert words.endswith(
        f"Ended after first, as --until says. {there} The same command without --until goes on from here."
    )


def test_files_that_changed_after_training_began_are_refused_before_a_shard_is_touched(
    options: Options, tmp_path: Path
) -> None:
    def shards() -> None:
        with Workspace(VOLUMES, VOLUMES.source, options, str(tmp_path / "files"), "no file") as work:
            work.begin("volumes", {}, [])
            work.shards()

    def left() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}

    shards()
    (tmp_path / "out" / "runs" / "first" / "fold0").mkdir(parents=True)
    before = left()
    mask = tmp_path / "files" / "patient0_0_mask.npz"
    kept = mask.read_bytes()
    mask.unlink()
    with pytest.raises(ValueError, match="its runs have learned from other shards than these"):
        shards()
    assert left() == before
    mask.write_bytes(kept)
    shards()
    assert left() == before


@pytest.mark.parametrize(
    ("allowed", "public", "phantoms", "goes"),
    [(False, False, False, False), (True, False, False, True), (False, True, False, True), (False, False, True, True)],
)
def test_pictures_of_patients_go_to_mlflow_only_where_asked(
    allowed: bool, public: bool, phantoms: bool, goes: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, sent = Store(tmp_path), dict[str, bytes]()
    for name in ("report.html", "metrics.json"):
        results.write_bytes(name, b"x")

    def want(*_: str, artifacts: dict[str, bytes], **__: Any) -> None:
        sent.update(artifacts)

    work = SimpleNamespace(
        results=results, tracker=SimpleNamespace(want=want, uri=""), cost="",
        data=SimpleNamespace(of_phantoms=phantoms, manifest=Manifest(results, Pseudonyms(None))),
        options=Options(out=str(tmp_path), track_pictures=allowed, public_ids=public), _about=None,
    )  # fmt: skip
    Workspace.conclude(work, {}, {"images/errors.png": b"x", "learning-curves.png": b"x"})  # type: ignore[arg-type]
    assert sent.keys() == {"metrics.json", "learning-curves.png"} | (
        {"report.html", "images/errors.png"} if goes else set()
    )
    assert ("--track-pictures" in capsys.readouterr().out) != goes


@dataclass(frozen=True, kw_only=True)
class FromWeights(PatchTask):
    """As one with weights from the internet, which are those of its seed here."""

    @property
    def starts_from_weights(self) -> bool:
        return True


@pytest.mark.slow
def test_weights_that_training_starts_from_are_those_that_the_job_fetched(options: Options, tmp_path: Path) -> None:
    given, initial = (str(tmp_path / "files"), "no file"), tmp_path / "out" / "runs" / "first" / "initial.pt"

    def begin(seed: int = 0) -> None:
        task = FromWeights(epochs=1, batch_size=4, seed=seed)
        with Workspace(VOLUMES, VOLUMES.source, options, *given) as begun:
            begun.begin("volumes", {}, [Training("first", {"first": task}, folds=options.every_fold)])

    begin()
    begin()
    own = initial.read_bytes()
    checkpoint.write_weights(Store(initial.parent), "initial.pt", {"poisoned": torch.ones(1)})
    with pytest.raises(ValueError, match=r"runs/first/initial.pt: is not what the job left there"):
        begin()
    initial.unlink()  # the way out
    begin()
    assert initial.read_bytes() == own
    initial.unlink()  # as for settings of a run that has not begun
    begin(seed=1)
    assert initial.read_bytes() != own
