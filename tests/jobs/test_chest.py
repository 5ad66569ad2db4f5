"""The chest jobs as a user runs them, on 200 real films of 64 pixels, with the three lists as they are."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from attacker import tells
from chest_films import noise, write_png
from conftest import load, the_error

from medray.engine.data.samples import Shards
from medray.engine.train.run import Run
from medray.engine.train.sweep import CrossValidation
from medray.shards.store import Store
from medray.systems.chest import answers
from medray.systems.chest.classes import FINDINGS

Job = Callable[..., tuple[int, str]]
pytestmark = pytest.mark.slow
NAME = "small-findings"
SMALL = ("--recipe", "small", "--epochs", 1, "--threads", 1, "--workers", 0, "--rows-per-shard", 64)


@pytest.fixture(scope="module")
def films(chest_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of each list a part, whole patients or not."""
    folder = tmp_path_factory.mktemp("films") / "images"
    folder.mkdir()
    for name, most in (("train", 120), ("val", 40), ("test", 40)):
        lines = pd.read_csv(chest_dir / f"{name}_list.txt.gz", sep=r"\s+", header=None, usecols=[0])[0]
        there = [n for n in sorted(lines) if (chest_dir / "nih_64px" / n).exists()]
        for n in there[:: max(1, len(there) // most)][:most]:
            shutil.copy(chest_dir / "nih_64px" / n, folder / n)
    return folder


@pytest.fixture(scope="module")
def lists(chest_dir: Path) -> dict[str, set[str]]:
    """The three lists: names of films without their extension."""
    found = {}
    for name in ("train", "val", "test"):
        lines = pd.read_csv(chest_dir / f"{name}_list.txt.gz", sep=r"\s+", header=None, usecols=[0])[0]
        found[name] = set(lines.str.removesuffix(".png"))
    return found


@pytest.fixture(scope="module")
def readers(films: Path, lists: dict[str, set[str]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two readers' tables, of films of the test list and of others; they differ on every fourth film."""
    names = sorted(path.name for path in films.iterdir())
    one = pd.DataFrame({"Image Index": names, "Effusion": np.arange(len(names)) % 2, "Hernia": 0})
    other = one.assign(Effusion=np.where(np.arange(len(names)) % 4 == 0, 1 - one["Effusion"], one["Effusion"]))
    folder = tmp_path_factory.mktemp("readers")
    paths = folder / "one.csv", folder / "other.csv"
    for table, path in zip((one, other), paths, strict=True):
        table.to_csv(path, index=False)
    return paths


@pytest.fixture(scope="module")
def base(films: Path, chest_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    private = tmp_path_factory.mktemp("private")
    return ["--images", films, "--labels", chest_dir, "--key-dir", private, *SMALL]


@dataclass
class Finished:
    """What one run of the whole job left: its --out, what it printed, and the ids of the films that were learned from."""

    out: Path
    said: str
    learned: list[str]


@pytest.fixture(scope="module")
def finished(
    base: list[object], readers: tuple[Path, Path], local_ray: None, tmp_path_factory: pytest.TempPathFactory
) -> Finished:
    """Under pseudonyms, and with two readers."""
    out, learned = tmp_path_factory.mktemp("finished") / "out", []
    job = load("chest_cv")

    made = CrossValidation.runs

    def seen(self: CrossValidation, model: str, task: Any, data: Shards, *more: Any) -> list[Run]:
        runs, rows, index = made(self, model, task, data, *more), data.rows, data.index
        ids = dict(zip(zip(rows.file, rows.group, rows.row, strict=True), index["image_id"], strict=True))
        for run in runs:
            places = zip(run.train.file, run.train.group, run.train.row, strict=True)
            learned.extend(ids[place] for place in places)
        return runs

    words = ["chest_cv.py", *base, "--out", out, "--reader", readers[0], "--reader", readers[1]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(word) for word in words])
        patch.setattr(CrossValidation, "runs", seen)
        with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
            job.start()
    return Finished(out, said.getvalue(), learned)


def own_names(base: list[object], out: Path) -> dict[str, str]:
    """Pseudonym → the film's own name."""
    from medray.shards.pseudonym import read_map

    known = read_map(Path(str(base[base.index("--key-dir") + 1])), Store(out).uri)
    return dict(known.loc[known["kind"] == "image", ["pseudonym", "identifier"]].to_numpy().tolist())


# ---- chest_cv -------------------------------------------------------------------------------------------------------


@pytest.mark.real_data
def test_the_test_list_is_held_out_and_none_of_its_patients_was_learned_from(
    finished: Finished, base: list[object], films: Path, lists: dict[str, set[str]]
) -> None:
    out = finished.out
    results = Store(out).sub("models", NAME)
    oof = results.read_table("oof.parquet").to_pandas()
    names = own_names(base, out)
    there = {path.stem for path in films.iterdir()}
    assert {names[image] for image in oof["image_id"]} == there & lists["test"]
    inner = Store(out).sub("runs", NAME, "fold0").read_table("inner.parquet").to_pandas()
    assert {names[image] for image in inner["image_id"]} == there & lists["val"]
    learned = {names[image] for image in finished.learned}
    assert learned == there & lists["train"]
    assert len(finished.learned) == len(learned)
    assert not {name[:8] for name in learned} & {names[image][:8] for image in oof["image_id"]}
    split = Store(out).read_table("folds.parquet").to_pandas().set_index("patient_id")["split"]
    assert set(split[oof["patient_id"].unique()]) == {"test"}


@pytest.mark.real_data
def test_what_it_leaves(finished: Finished, films: Path) -> None:
    out, said = finished.out, finished.said
    results = out / "models" / NAME
    metrics = json.loads((results / "metrics.json").read_text())
    assert metrics["split"] == "the three lists"
    assert list(metrics["targets"]) == list(FINDINGS)
    assert (metrics["films"], set(metrics["by_view"])) == (40, {"AP", "PA"})
    assert "40 held-out films" in said
    html = (results / "report.html").read_text()
    for title in (
        "Scores", "By View Position", "Decisions", "Where it looked", "Learning curves", "ROC and precision-recall",
        "Calibration", "Files set aside", "How it was made",
    ):  # fmt: skip
        assert f"<h2>{title}</h2>" in html
    assert html.count("data:image/webp") >= 3
    assert "No picture" not in html
    # nothing that the job leaves names a film
    stems = [path.stem for path in films.iterdir()]
    for path in (results / "metrics.json", results / "report.html", results / "method.json"):
        assert not any(stem in path.read_text() for stem in stems)


@pytest.mark.real_data
def test_no_order_tells_who_is_who(finished: Finished, base: list[object]) -> None:
    assert tells(finished.out, Path(str(base[base.index("--key-dir") + 1]))) == []


def test_readers_are_compared_with_the_model_and_each_other(finished: Finished) -> None:
    out, said = finished.out, finished.said
    results = out / "models" / NAME
    agreement = json.loads((results / "metrics.json").read_text())["agreement"]
    oof = Store(results).read_table("oof.parquet").to_pandas()
    assert [pair["between"] for pair in agreement] == [
        ["model", "reader 1"],
        ["model", "reader 2"],
        ["reader 1", "reader 2"],
    ]
    both = agreement[2]["targets"]["Effusion"]
    assert both["films"] == len(oof)
    assert 0.2 < both["kappa"] < 0.8
    assert agreement[2]["targets"]["Hernia"]["reason"] == "both say 0 of every film"
    assert sum(of["Effusion"]["films"] for of in agreement[2]["by_view"].values()) == len(oof)
    assert "model – reader 2" in (results / "report.html").read_text()
    assert "kappa reader 1 – reader 2: Effusion " in said


@pytest.mark.real_data
def test_run_again_it_trains_nothing(finished: Finished, base: list[object], run_in_process: Job) -> None:
    out = finished.out
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*") if path.is_file()}
    metrics = json.loads((out / "models" / NAME / "metrics.json").read_text())
    status, text = run_in_process("chest_cv", *base, "--out", out)
    assert status == 0, text
    assert "epoch" not in text.split("2. Training")[1].split("3. Scores")[0]
    assert {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*") if path.is_file()} == before
    again = json.loads((out / "models" / NAME / "metrics.json").read_text())
    assert again == metrics | {"agreement": []}


@pytest.mark.real_data
@pytest.mark.usefixtures("local_ray")
@pytest.mark.on_demand
def test_folds_by_patient(base: list[object], run_in_process: Job, tmp_path: Path) -> None:
    flags = ["--split", "folds", "--folds", 2, "--public-ids", "--heads", "source", "--out", tmp_path / "out"]
    status, text = run_in_process("chest_cv", *base, *flags)
    assert status == 0, text
    oof = Store(tmp_path / "out").sub("models", "small-source").read_table("oof.parquet").to_pandas()
    assert len(oof) == 200
    assert set(oof["fold"]) == {0, 1}
    assert (oof.groupby("patient_id")["fold"].nunique() == 1).all()
    assert {"p_tumour", "p_inflammation"} <= set(oof)
    assert "split: 2 folds by patient" in text
    assert (tmp_path / "out" / "models" / "small-source" / "report.html").exists()


@pytest.mark.real_data
def test_a_reader_or_backbone_that_cannot_be_used_ends_it_before_training(
    base: list[object], run_in_process: Job, tmp_path: Path, local_ray: None
) -> None:
    table = tmp_path / "reader.csv"
    flags = [*base, "--out", tmp_path / "out", "--reader", table]
    table.write_text("Image Index,Effusion\n00000001_000.png,perhaps\n")
    assert 'Effusion is "perhaps", neither 0 nor 1' in the_error(run_in_process("chest_cv", *flags))
    table.write_text("Image Index,Effusion\nunknown.png,1\n")
    assert "none of its 1 images is one of the 200 films" in the_error(run_in_process("chest_cv", *flags))
    strange = [*flags[:-2], "--backbone", "densenet_121"]
    assert "timm has no such model; did you mean densenet121" in the_error(run_in_process("chest_cv", *strange))
    assert not list((tmp_path / "out" / "runs").rglob("history.json"))


# ---- chest_explain --------------------------------------------------------------------------------------------------


def explain(run: Job, finished: Finished, tmp_path: Path, *flags: object) -> tuple[str, pd.DataFrame]:
    status, text = run("chest_explain", *flags, "--run", finished.out, "--to", tmp_path / "to")
    assert status == 0, text
    return text, pd.read_csv(tmp_path / "to" / "predictions.csv")


@pytest.mark.real_data
def test_one_film_has_three_findings_and_three_pictures_of_its_size(
    finished: Finished, films: Path, lists: dict[str, set[str]], run_in_process: Job, tmp_path: Path
) -> None:
    import cv2

    film = next(path for path in sorted(films.iterdir()) if path.stem in lists["train"])
    text, table = explain(run_in_process, finished, tmp_path, film)
    (row,) = table.to_dict("records")
    top = row["top"].split()
    assert top == sorted(FINDINGS, key=lambda name: -row[f"p_{name}"])[:3]
    assert row["trained_on"]
    assert "1 of the films are among those that the model was trained on" in text
    assert f"{top[0].replace('_', ' ')} {row[f'p_{top[0]}']:.1%}" in text
    pictures = sorted((tmp_path / "to").glob("*.png"))
    assert {path.name for path in pictures} == {f"film00001-{name}.png" for name in top}
    assert cv2.imread(str(pictures[0])).shape == (64, 64, 3)
    assert "<h2>Films</h2>" in (tmp_path / "to" / "explain.html").read_text()


@pytest.mark.real_data
def test_probabilities_are_those_of_the_job(
    finished: Finished, base: list[object], films: Path, lists: dict[str, set[str]], run_in_process: Job, tmp_path: Path
) -> None:  # fmt: skip
    held_out = [path for path in sorted(films.iterdir()) if path.stem in lists["test"]][:3]
    _, table = explain(run_in_process, finished, tmp_path, *held_out)
    assert not table["trained_on"].any()
    oof = Store(finished.out).sub("models", NAME).read_table("oof.parquet").to_pandas()
    oof.index = pd.Index(oof["image_id"].map(own_names(base, finished.out)))
    for row in table.to_dict("records"):
        for name in FINDINGS:
            assert row[f"p_{name}"] == pytest.approx(oof.loc[row["image_id"], f"p_{name}"], abs=1e-5)


@pytest.mark.real_data
def test_a_folder_with_a_target_boxes_and_a_damaged_film(
    finished: Finished, films: Path, run_in_process: Job, tmp_path: Path
) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    for path in sorted(films.iterdir())[:4]:
        shutil.copy(path, folder)
    names = sorted(path.stem for path in folder.iterdir())
    (folder / "cut.png").write_bytes((folder / f"{names[0]}.png").read_bytes()[:1500])
    (folder / "note.txt").write_text("no film")
    write_png(folder / "strange.png", noise(3, 90, 70))
    lines = [f"{names[1]}.png,Infiltrate,200,200,300,300,,,", f"{names[2]}.png,Mass,100,100,200,200,,,"]
    lines += ["absent.png,Mass,1,1,9,9,,,", f"{names[2]}.png,Mass,5000,1,9,9,,,"]
    (tmp_path / "boxes.csv").write_text("\n".join(["Image Index,Finding Label,Bbox [x,y,w,h],,,", *lines]))
    flags = ["--target", "Mass", "Hernia", "--boxes", tmp_path / "boxes.csv"]
    text, table = explain(run_in_process, finished, tmp_path, folder, *flags)
    assert table["image_id"].tolist() == [*names, "strange"]
    aside = pd.read_csv(tmp_path / "to" / "set_aside.csv")
    assert sorted(Path(path).name for path in aside["path"]) == ["cut.png", "note.txt"]
    assert aside["reason"].str.len().min() > 10
    # the two targets of each film, and a finding that a box names
    pictures = {path.name for path in (tmp_path / "to").glob("*.png")}
    assert len(pictures) == 2 * 5 + 1
    assert sum(name.endswith("-Infiltration.png") for name in pictures) == 1
    localised = json.loads((tmp_path / "to" / "localisation.json").read_text())
    assert (localised["boxes"], localised["compared"], localised["without_film"]) == (3, 2, 1)
    assert sum(localised["left_out"].values()) == 1
    assert localised["all"]["Mass"]["boxes"] == localised["all"]["Infiltration"]["boxes"] == 1
    assert "boxes: 2 of 3 compared, 1 without their film" in text
    assert "radiologists&#39; boxes" in (tmp_path / "to" / "explain.html").read_text()


@pytest.mark.real_data
def test_it_goes_on_with_the_films_that_are_left(
    finished: Finished, films: Path, run_in_process: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    for path in sorted(films.iterdir())[:5]:
        shutil.copy(path, folder)
    real, asked = answers.explain, []

    def counted(*given: Any, **named: Any) -> Any:
        asked.append(1)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return real(*given, **named)

    monkeypatch.setattr(answers, "explain", counted)
    module = load("chest_explain")
    monkeypatch.setattr(module, "FILMS_PER_PART", 2)
    monkeypatch.setattr(
        "sys.argv", ["x", str(folder), "--run", str(finished.out), "--to", str(tmp_path / "to"), "--top", "1"]
    )
    with pytest.raises(SystemExit) as stop:
        module.start()
    assert stop.value.code == 130
    module.start()
    assert len(asked) == 4 + 3  # the part that was whole is not asked again
    assert len(pd.read_csv(tmp_path / "to" / "predictions.csv")) == 5


@pytest.mark.real_data
def test_mistakes_of_explain_are_one_line(finished: Finished, films: Path, run_in_process: Job, tmp_path: Path) -> None:
    out, film = finished.out, next(films.iterdir())

    def error(*flags: object, run: Path = out) -> str:
        return the_error(run_in_process("chest_explain", *flags, "--run", run, "--to", tmp_path / "to"))

    assert "--target tumour: this model answers for Atelectasis" in error(film, "--target", "tumour")
    (tmp_path / "texts").mkdir()
    assert "texts: there are no files in it" in error(tmp_path / "texts")
    (tmp_path / "texts" / "a.txt").write_text("no film")
    assert "none of 1 files is a usable film" in error(tmp_path / "texts")
    assert "nowhere: no such" in error(tmp_path / "nowhere")
    assert "holds no models/; name the --out of a finished job of this kind" in error(film, run=tmp_path)
    assert "--boxes" in error(film, "--boxes", tmp_path / "absent.csv")
    assert [path.name for path in (tmp_path / "to").rglob("*.csv")] == ["set_aside.csv"]  # of the text that is no film


# ---- chest_tune -----------------------------------------------------------------------------------------------------


@pytest.mark.real_data
@pytest.mark.usefixtures("local_ray")
@pytest.mark.on_demand
def test_a_search_on_the_validation_list_names_the_command_of_the_best(
    base: list[object], lists: dict[str, set[str]], run_in_process: Job, tmp_path: Path
) -> None:
    words = [word for word in base if word not in ("--recipe", "small")]
    flags = ["--backbones", "small", "--trials", 2, "--search", "learning-rate=1e-3..1e-2:log", "--public-ids"]
    status, text = run_in_process("chest_tune", *words, *flags, "--out", tmp_path / "out")
    assert status == 0, text
    found = json.loads((tmp_path / "out" / "searches" / "search" / "search.json").read_text())
    command = shlex.split(found["best"][0]["command"])
    assert command[:3] == ["uv", "run", "jobs/chest_cv.py"]
    given = dict(itertools.pairwise(command))
    assert given["--recipe"] == "small"
    assert given["--name"] == "search-best"
    assert float(given["--learning-rate"]) == found["best"][0]["values"]["learning_rate"]
    held_out = {
        image
        for path in (tmp_path / "out" / "searches").rglob("predictions.parquet")
        for image in Store(path.parent).read_table(path.name, columns=["image_id"])["image_id"].to_pylist()
    }
    assert held_out
    assert held_out <= lists["val"]
