"""Whoever may write to a bucket changes weights, labels or settings there: the next job names the file."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from chest_films import noise, write_png
from conftest import load, the_error

from medray.shards.manifest import Manifest, sha256
from medray.shards.pseudonym import Pseudonyms, load_key, project_key
from medray.shards.store import Store

Job = Callable[..., tuple[int, str]]
pytestmark = pytest.mark.slow
PATIENTS = 12


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Films of a few patients under pseudonyms."""
    folder = tmp_path_factory.mktemp("given")
    rows = [{"image": f"f{i}.png", "patient": f"p{i // 2}", "Effusion": i % 2, "Mass": (i // 3) % 2} for i in range(2 * PATIENTS)]  # fmt: skip
    for i, row in enumerate(rows):
        write_png(folder / "films" / row["image"], noise(i))
    pd.DataFrame(rows).to_csv(folder / "labels.csv", index=False)
    flags = ["--recipe", "small", "--epochs", 1, "--threads", 1, "--workers", 0, "--folds", 2]
    return ["--images", folder / "films", "--labels", folder / "labels.csv", "--key-dir", folder / "keys", *flags]


@pytest.fixture(scope="module")
def left(given: list[object], local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("left") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(word) for word in ("chest_cv.py", *given, "--out", out)])
        load("chest_cv").start()
    return out


@pytest.fixture
def out(left: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(left, tmp_path / "out")
    return tmp_path / "out"


def with_other_biases(out: Path) -> Path:
    """The folder of a run whose network now answers .999999 for everybody."""
    run = next((out / "runs").glob("*/fold0"))
    state = torch.load(run / "model.pt", weights_only=True)
    for name, value in state["weights"].items():
        if name.endswith("bias") and value.numel() == 2:
            value += 50
    torch.save(state, run / "model.pt")
    return run


def with_its_digest(run: Path) -> str:
    done = json.loads((run / "done.json").read_text())
    digest = hashlib.sha256((run / "model.pt").read_bytes()).hexdigest()
    (run / "done.json").write_text(json.dumps(done | {"weights": digest}))
    return hashlib.sha256((run / "done.json").read_bytes()).hexdigest()


def explain(out: Path, given: list[object]) -> tuple[object, ...]:
    return ("chest_explain", given[1], "--run", out, "--to", out.parent / "to", "--key-dir", given[5])


def test_what_is_as_it_was_left_is_used(out: Path, given: list[object], run_in_process: Job, tmp_path: Path) -> None:
    status, text = run_in_process(*explain(out, given))
    assert status == 0, text
    assert "who wrote that is not known" not in text
    status, text = run_in_process("chest_cv", *given, "--out", out)
    assert status == 0, text
    elsewhere = [*explain(out, given)[:-1], tmp_path / "no-key"]
    status, text = run_in_process(*elsewhere)
    assert status == 0, text
    assert (
        "no-key (--key-dir): its files are as its manifest.json has them, and who wrote that is not known"
        in " ".join(text.split())
    )
    assert not (tmp_path / "no-key").exists()


def test_swapped_weights_are_named(out: Path, given: list[object], run_in_process: Job) -> None:
    run = with_other_biases(out)
    assert f"{run}/model.pt: is not what its run wrote" in the_error(run_in_process(*explain(out, given)))
    digest = with_its_digest(run)
    said = f"{run}/done.json: is not what the job left there"
    assert said in the_error(run_in_process(*explain(out, given)))
    assert said in the_error(run_in_process("chest_cv", *given, "--out", out))
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["files"][str((run / "done.json").relative_to(out))] = digest
    (out / "manifest.json").write_text(json.dumps(manifest))
    said = f"{out}/manifest.json: was not written with this project's key"
    assert said in the_error(run_in_process(*explain(out, given)))
    assert said in the_error(run_in_process("chest_cv", *given, "--out", out))
    (out / "manifest.json").unlink()
    older = Manifest(
        Store(out),
        Pseudonyms(
            project_key(load_key(Path(str(given[5]))), json.loads((out / "config.json").read_text())["project"])
        ),
    )
    older.keep({"config.json": sha256(Store(out), "config.json")})  # as a start that ended after its shards left it
    assert "manifest.json does not name it; run the job again" in the_error(run_in_process(*explain(out, given)))
    (out / "manifest.json").unlink()
    assert "holds no manifest.json; run the job again" in the_error(run_in_process(*explain(out, given)))
    error = the_error(run_in_process("chest_cv", *given, "--out", out))
    assert "holds shards/ and runs/ and no manifest.json, which its job wrote; put it back" in error
    assert not (out / "manifest.json").exists()
    status, text = run_in_process("chest_cv", *given, "--out", out, "--new-manifest")  # whoever did it himself
    assert status == 0, text
    assert (out / "manifest.json").exists()


def test_a_finished_run_does_not_begin_again_from_a_checkpoint_that_somebody_put_there(
    out: Path, given: list[object], run_in_process: Job
) -> None:
    run = next((out / "runs").glob("*/fold0"))
    (run / "done.json").unlink()
    error = the_error(run_in_process("chest_cv", *given, "--out", out))
    assert f"{run}/done.json: this run had ended, and the file is gone; put it back, or delete the folder" in error
    shutil.rmtree(run)
    status, text = run_in_process("chest_cv", *given, "--out", out)
    assert status == 0, text


def test_changed_predictions_of_held_out_patients_are_named(
    out: Path, given: list[object], run_in_process: Job
) -> None:
    path = next((out / "runs").glob("*/fold0")) / "predictions.parquet"
    table = pd.read_parquet(path)
    table.assign(p_Effusion=table["Effusion"]).to_parquet(path)  # an AUC of 1
    error = the_error(run_in_process("chest_cv", *given, "--out", out))
    assert f"{path}: is not what its run wrote (done.json has another SHA-256)" in error


def test_changed_labels_in_a_shard_are_named(out: Path, given: list[object], run_in_process: Job) -> None:
    part = next((out / "shards").rglob("part-*.parquet"))
    table = pq.read_table(part)
    at = next(i for i, name in enumerate(table.column_names) if name.lower() == "effusion")
    labels = pa.array(np.ones(len(table)), table.schema.field(at).type)
    pq.write_table(table.set_column(at, table.schema.field(at), labels), part)
    error = the_error(run_in_process("chest_cv", *given, "--out", out))
    assert f"{part}: is not what the job left there" in error
    part.unlink()  # the way out that is named: it is made anew
    status, text = run_in_process("chest_cv", *given, "--out", out)
    assert status == 0, text


def test_names_are_not_said_to_be_public_where_they_are_not(
    out: Path, given: list[object], run_in_process: Job
) -> None:
    """Whoever may write to the folder leaves the key out, and makes a manifest that needs none."""
    said = "holds the names of its patients, and its config.json says that they are public; name the --key-dir of its job, put"
    settings = json.loads((out / "config.json").read_text())
    # the map is of this name of the folder
    status, text = run_in_process("chest_cv", *given, "--out", out)
    assert status == 0, text
    (out / "config.json").write_text(json.dumps(settings | {"pseudonym_key": None, "project": None}))
    names = json.loads((out / "manifest.json").read_text())["files"]
    (out / "manifest.json").unlink()
    Manifest(Store(out), Pseudonyms(None)).keep({name: sha256(Store(out), name) for name in names})
    assert said in the_error(run_in_process(*explain(out, given)))
    (out.parent / "x").mkdir()
    (out.parent / "link").symlink_to(out)
    for other in (out.parent / "link", f"file://{out}/../out", f"{out.parent}/x/../out"):
        words = ("chest_explain", given[1], "--run", other, "--to", out.parent / "to2", "--key-dir", given[5])
        assert said in the_error(run_in_process(*words))
    (out / "config.json").write_text(json.dumps(settings | {"pseudonym_key": "0" * 16}))
    assert "and its config.json has another key" in the_error(run_in_process(*explain(out, given)))


@pytest.mark.parametrize("name", ["config.json", "models/small-findings/method.json"])
def test_changed_settings_are_named(name: str, out: Path, given: list[object], run_in_process: Job) -> None:
    (out / name).write_text((out / name).read_text().replace("}", ', "more": 1}', 1))
    assert f"{out}/{name}: is not what the job left there" in the_error(run_in_process(*explain(out, given)))
