"""What a user of the chest jobs can get wrong before a film is read: one line, and nothing is spent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from chest_films import dicom, noise, write_png
from conftest import the_error
from left_files import finish
from pydicom.uid import SecondaryCaptureImageStorage

from medray.engine.train import checkpoint
from medray.shards.store import Store
from medray.systems.chest.recipes import small
from medray.systems.ich.task import SliceTask

Job = Callable[..., tuple[int, str]]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "--images and --labels: both are needed to train"),
        (("--labels", "x.csv"), "--images and --labels: both are needed to train"),
        (("--name", "../up"), "--name ../up: letters, digits"),
        (("--targets", "Lump"), '"Lump"'),
        (("--reader", "absent.csv"), "--reader absent.csv: "),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(
    flags: tuple[str, ...], message: str, run_in_process: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, text = run_in_process(
        "chest_cv", "--recipe", "small", "--out", tmp_path / "out", "--key-dir", tmp_path / "k", *flags
    )
    assert status == 2
    assert message in " ".join(text.split())
    assert "Traceback" not in text
    assert not (tmp_path / "out" / "runs").exists()


def test_a_run_of_another_task_is_refused(run_in_process: Job, tmp_path: Path, tiny_task: SliceTask) -> None:
    write_png(tmp_path / "film.png")
    out = Store(tmp_path / "run")
    out.write_json("config.json", {"dicom": "somewhere"})
    flags = [tmp_path / "film.png", "--run", tmp_path / "run", "--to", tmp_path / "to"]
    assert "holds no models/" in the_error(run_in_process("chest_explain", *flags))  # as hemorrhage leaves it
    state = {"weights": tiny_task.network().state_dict(), "task": json.dumps(tiny_task.identity())}
    checkpoint.write_weights(out.sub("runs", "net", "fold0"), "model.pt", state)
    out.sub("models", "net").write_json("method.json", {"runs": "net", "folds": [0]})
    finish(out)
    assert "runs/net is a SliceTask, expected FilmTask" in the_error(run_in_process("chest_explain", *flags))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--search", "lr=1..2"), "--search lr=1..2: no such field"),
        (("--backbones", "chexnat"), "--recipe chexnat: no such recipe; did you mean chexnet?"),
        ((), "--images and --labels: both are needed to train"),
        (("--objective", "auc"), "mean_log_loss"),
    ],
)
def test_what_cannot_be_searched_is_one_line(
    flags: tuple[str, ...], message: str, run_in_process: Job, tmp_path: Path
) -> None:
    status, text = run_in_process(
        "chest_tune", "--backbones", "small", "--out", tmp_path / "out", "--key-dir", tmp_path / "k", *flags
    )
    assert status == 2
    assert message in " ".join(text.replace("│", " ").split())
    assert "Traceback" not in text


@pytest.mark.parametrize("job", ["chest_cv", "chest_explain", "chest_tune"])
def test_help_names_every_flag_of_its_own(job: str, run_in_process: Job) -> None:
    status, text = run_in_process(job, "--help")
    assert status == 0
    flags = {
        "chest_cv": "--reader --split --heads",
        "chest_explain": "--boxes --target --run",
        "chest_tune": "--images --objective --search",
    }
    assert all(flag in text for flag in flags[job].split())


@pytest.mark.usefixtures("local_ray")
def test_films_that_cannot_be_used_leave_their_reasons(run_in_process: Job, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / "films" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "films" / name).write_bytes(b"no film")
    (tmp_path / "labels.csv").write_text("image,patient,Mass\na.png,p,1\nb.png,q,0\n")
    out = tmp_path / "out"
    flags = ["--images", tmp_path / "films", "--labels", tmp_path / "labels.csv", "--out", out, "--public-ids"]
    flags += ["--recipe", "small", "--workers", 0, "--key-dir", tmp_path / "private"]
    error = the_error(run_in_process("chest_cv", *flags))
    assert "none of 2 files is a usable film" in error
    assert f"{out}/inventory.parquet says what became of each file" in error
    inventory = pd.read_parquet(out / "inventory.parquet")
    assert [Path(path).name for path in inventory["path"]] == ["a.png", "b.png"]
    assert inventory["reason"].str.len().gt(5).all()


@pytest.mark.usefixtures("local_ray")
def test_films_that_are_secondary_captures_are_taken_where_a_flag_says_so(run_in_process: Job, tmp_path: Path) -> None:
    """As those of the RSNA pneumonia challenge are."""
    (tmp_path / "films").mkdir()
    for name in ("a", "b"):
        film = dicom(noise(ord(name)), Modality="CR", SOPClassUID=SecondaryCaptureImageStorage, PatientID=name)
        (tmp_path / "films" / f"{name}.dcm").write_bytes(film)
    (tmp_path / "labels.csv").write_text("image,patient,Mass\na.dcm,p,1\nb.dcm,q,0\n")
    flags = ["--images", tmp_path / "films", "--labels", tmp_path / "labels.csv", "--out", tmp_path / "out"]
    flags += ["--recipe", "small", "--workers", 0, "--key-dir", tmp_path / "private", "--split", "folds"]
    flags += ["--folds", 2, "--until", "shards"]
    error = the_error(run_in_process("chest_cv", *flags))
    assert "none of 2 files is a usable film; most often: a secondary capture: text may be burned into it" in error
    assert "--allow-burned-in takes them (2)" in error
    status, text = run_in_process("chest_cv", *flags, "--allow-burned-in")
    assert status == 0, text
    assert "2 ok" in text or "2 repaired" in text


def test_what_is_explained_and_is_no_film_leaves_its_reason(run_in_process: Job, tmp_path: Path) -> None:
    task = small()
    out = Store(tmp_path / "run")
    out.write_json("config.json", {"images": "somewhere"})
    state = {"weights": task.network().state_dict(), "task": json.dumps(task.identity())}
    checkpoint.write_weights(out.sub("runs", "net", "fold0"), "model.pt", state)
    out.sub("models", "net").write_json("method.json", {"runs": "net", "folds": [0]})
    finish(out)
    (tmp_path / "film.png").write_bytes(b"no film")
    flags = [tmp_path / "film.png", "--run", tmp_path / "run", "--to", tmp_path / "to"]
    error = the_error(run_in_process("chest_explain", *flags))
    assert "none of 1 files is a usable film" in error
    assert f"{tmp_path}/to/set_aside.csv says what became of each file" in error
    aside = pd.read_csv(tmp_path / "to" / "set_aside.csv")
    assert aside["path"].tolist() == [str(tmp_path / "film.png")]
    assert len(aside["reason"].iloc[0]) > 5
