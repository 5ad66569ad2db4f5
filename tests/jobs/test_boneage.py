"""The bone age jobs as a user starts them, on a few drawn hands: every stage, a kill, what is left out, a search."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from boneage_hands import MODELS, NO_AGE, NO_HAND, NO_SEX, TWO_HANDS, Hands, drawn_hands, said_by, stamps
from ray_processes import kill_driver

from medray.systems.boneage.stages.canvas import cut, on_canvas

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow
RESULTS = ("films.csv", "refused.csv", "metrics.json", "method.json")


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory) -> Hands:
    return drawn_hands(tmp_path_factory.mktemp("in"))


def cv(flags: list[str]) -> str:
    return said_by("boneage_cv", flags)


@dataclass(frozen=True)
class Finished:
    out: Path
    said: str
    name: str = "phantom"

    @property
    def results(self) -> Path:
        return self.out / "models" / self.name


@pytest.fixture(scope="module")
def finished(hands: Hands, local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Tests may add methods to it, and change nothing."""
    out = tmp_path_factory.mktemp("whole") / "out"
    return Finished(out, cv(hands.flags(out, "--models", *MODELS)))


def results(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in RESULTS}


def films_of(results: Path) -> pd.DataFrame:
    return pd.read_csv(results / "films.csv", dtype={"film_id": str}).set_index("film_id")


def refused_by(results: Path) -> pd.DataFrame:
    return pd.read_csv(results / "refused.csv", dtype={"film_id": str}).set_index("film_id")


def rows_below(folder: Path, columns: list[str]) -> pd.DataFrame:
    return pd.concat(pq.read_table(path, columns=columns).to_pandas() for path in sorted(folder.rglob("*.parquet")))


# ---- the whole job --------------------------------------------------------------------------------------------------


def test_every_film_is_answered_or_refused_with_a_reason(finished: Finished) -> None:
    films, refused = films_of(finished.results), refused_by(finished.results)
    assert len(films) + len(refused) == 26
    assert not {*films.index} & {*refused.index}
    assert len(films) >= 12
    assert {*MODELS} <= {*films.columns}
    assert films["ensemble"].notna().all()
    assert films.loc[films["age_months"].notna(), "error"].notna().all()
    assert {*refused["stage"]} <= {"segmentation", "registration"}
    assert refused["reason"].str.len().between(5, 120).all()
    assert refused.loc[NO_HAND, ["stage", "reason"]].tolist() == ["segmentation", "no hand was found on it"]
    assert refused.loc[TWO_HANDS, ["stage", "reason"]].tolist() == [
        "segmentation",
        "two hands, or parts of two: a film must show one",
    ]
    metrics = json.loads((finished.results / "metrics.json").read_text())
    assert [*metrics["models"]] == [*MODELS]
    assert metrics["counts"]["refused"] == len(refused)
    assert metrics["quality"]["overlap of masks, IoU"]["films"] == 18
    assert metrics["quality"]["overlap of masks, IoU"]["value"] > 0.6
    method = json.loads((finished.results / "method.json").read_text())
    assert method["models"] == {model: f"phantom-{model}" for model in MODELS}
    assert (method["masks"], method["points"], method["how"]) == ("segmentation", "keypoints", "points")
    page = (finished.results / "report.html").read_text()
    assert "://" not in page.replace("http://www.w3.org", "")
    assert "no claim of accuracy" in finished.said


def test_masks_points_and_ages_of_a_film_come_from_networks_that_have_not_seen_its_patient(finished: Finished) -> None:
    out = finished.out
    fold = pd.read_parquet(out / "folds.parquet").set_index("patient_id")["fold"]
    for stage, at_least in (("masks", 26), ("points", 24)):
        assert {path.name for path in (out / "features" / stage).iterdir()} == {"fold0", "fold1"}
        found = 0
        for k in (0, 1):
            rows = rows_below(out / "features" / stage / f"fold{k}", ["film_id", "patient_id"])
            assert (rows["patient_id"].map(fold) == k).all()
            found += rows["film_id"].nunique()
        assert found == at_least
    for model in ("segmentation", "keypoints", *(f"phantom-{model}" for model in MODELS)):
        for k in (0, 1):
            rows = pd.read_parquet(out / "runs" / model / f"fold{k}" / "predictions.parquet")
            assert len(rows)
            assert (rows["patient_id"].map(fold) == k).all()
    films = films_of(finished.results)
    assert (films["patient_id"].map(fold) == films["fold"]).all()
    for model in MODELS:
        runs = (pd.read_parquet(path) for path in (out / "runs" / f"phantom-{model}").rglob("predictions.parquet"))
        months = pd.concat(runs).set_index("film_id")["p_months"]
        assert films[model].dropna().to_numpy() == pytest.approx(months[films[model].dropna().index], rel=1e-5)


def test_run_again_it_trains_nothing_and_leaves_the_same_bytes(finished: Finished, hands: Hands) -> None:
    before, weights = results(finished.results), stamps(finished.out, "model.pt")
    made = stamps(finished.out / "features", "*.parquet")
    assert len(weights) == 2 * (2 + len(MODELS))
    said = cv(hands.flags(finished.out, "--models", *MODELS))
    assert "2 of 2 runs" in said
    assert "fold0 starts" not in said
    assert results(finished.results) == before
    assert stamps(finished.out, "model.pt") == weights
    assert {path: made[path] for path in stamps(finished.out / "features", "*.parquet") if path in made} == made


def test_until_a_stage_then_killed_in_the_middle_of_the_next_it_ends_with_the_same_bytes(
    finished: Finished, hands: Hands, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    flags = hands.flags(out, "--models", *MODELS)
    said = cv([*flags, "--until", "segmentation"])
    assert "2. Hands: each film" in said
    assert "3. Points of every hand" not in said
    assert {path.name for path in (out / "runs").iterdir() if any(path.rglob("history.json"))} == {"segmentation"}
    assert {path.name for path in (out / "features").iterdir()} == {"masks", "hands"}
    assert not (out / "models").exists()

    with (tmp_path / "log").open("w") as log:
        words = [sys.executable, str(ROOT / "jobs" / "boneage_cv.py"), *flags]
        job = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True, cwd=ROOT)
    for _ in range(2000):
        if list((out / "runs" / "keypoints").rglob("history.json")):
            break
        assert job.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.1)
    kill_driver(job)
    assert not list((out / "runs" / "keypoints").rglob("done.json"))
    segmentation = stamps(out / "runs" / "segmentation", "model.pt")
    said = cv(flags)
    assert "goes on after epoch" in said
    assert stamps(out / "runs" / "segmentation", "model.pt") == segmentation
    assert results(out / "models" / "phantom") == results(finished.results)


# ---- what is left out, and what is chosen -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(finished: Finished, hands: Hands) -> Finished:
    """Another method in the same --out: every film that has a hand is read."""
    flags = ("--name", "whole", "--no-register", "--models", "A-regression-girls", "A-regression-both")
    segmentation = stamps(finished.out / "runs" / "segmentation", "model.pt")
    said = cv(hands.flags(finished.out, *flags))
    assert stamps(finished.out / "runs" / "segmentation", "model.pt") == segmentation  # one for all methods
    return Finished(finished.out, said, "whole")


def test_without_registration_there_is_the_whole_film_and_no_keypoints(whole: Finished) -> None:
    assert "no registration: --no-register; only models of the whole film (A) can be trained" in whole.said
    assert "keypoints: 2 runs" not in whole.said
    refused = refused_by(whole.results)
    assert {*refused.index} == {NO_HAND, TWO_HANDS}  # what cannot be registered is read
    assert {*refused["stage"]} == {"segmentation"}
    assert len(films_of(whole.results)) == 24
    method = json.loads((whole.results / "method.json").read_text())
    assert (method["masks"], method["points"], method["how"]) == ("segmentation", None, "film")


def test_a_film_of_unknown_sex_is_read_by_models_of_both_and_one_without_age_is_never_learned_from(
    whole: Finished,
) -> None:
    assert "1 films of unknown sex: only the models of both sexes read them" in whole.said
    assert "1 films have no age in the label file: they are predicted, never trained on" in whole.said
    films = films_of(whole.results)
    girls = films["sex"].eq("F")
    assert girls.any()
    assert films.loc[girls, "A-regression-girls"].notna().all()
    assert films.loc[~girls, "A-regression-girls"].isna().all()
    assert films["A-regression-both"].notna().all()
    unknown, ageless = films.loc[NO_SEX], films.loc[NO_AGE]
    assert pd.isna(unknown["sex"])
    assert np.isfinite(unknown[["ensemble", "error"]].astype(float)).all()
    assert np.isfinite(ageless["ensemble"])
    assert pd.isna(ageless["error"])
    counts = json.loads((whole.results / "metrics.json").read_text())["counts"]
    assert (counts["unknown"], counts["without_age"]) == (1, 1)


def test_films_that_lie_on_the_canvas_are_cut_as_they_are(finished: Finished, hands: Hands) -> None:
    said = cv(hands.flags(finished.out, "--name", "canvas", "--registered", "--models", "C", "--until", "regions"))
    assert "keypoints" not in said
    assert "5. Age networks" not in said
    region = rows_below(finished.out / "features" / "canvas-C", ["film_id", "rows", "columns", "image", "mirrored"])
    cleaned = rows_below(finished.out / "features" / "hands", ["film_id", "rows", "columns", "image"])
    assert len(region) == len(cleaned) == 24
    assert not region["mirrored"].any()
    hand = cleaned.set_index("film_id").loc["0001"]
    film = np.frombuffer(hand["image"], np.uint8).reshape(hand["rows"], hand["columns"])
    found = region.set_index("film_id").loc["0001"]
    image = np.frombuffer(found["image"], np.uint8).reshape(found["rows"], found["columns"])
    assert np.array_equal(image, cut(film, on_canvas(*film.shape), "C", 0.1))


def test_models_are_chosen_by_parts_of_their_names(finished: Finished, hands: Hands) -> None:
    points = stamps(finished.out / "runs" / "keypoints", "model.pt")
    said = cv(hands.flags(finished.out, "--name", "b", "--models", "B-regression", "--until", "regions"))
    assert "│ b-" not in said  # the plan ends with the job
    claimed = {path.name for path in (finished.out / "runs").glob("b-*")}
    assert claimed == {f"b-B-regression-{sexes}" for sexes in ("girls", "boys", "both")}
    assert {path.name for path in (finished.out / "features").glob("b-*")} == {"b-B"}
    assert stamps(finished.out / "runs" / "keypoints", "model.pt") == points


def test_a_table_of_ages_alone_trains_the_whole_film(hands: Hands, local_ray: None, tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    for path in hands.images.glob("*.png"):
        shutil.copy(path, films)
    alone = Hands(films, hands.labels / "ages.csv", hands.private)
    said = cv(alone.flags(tmp_path / "out", "--models", "A-regression-both", "--epochs", 1))
    assert "no segmentation: no mask or outline of a hand is there" in said
    assert "no registration: no film has points (tip, thumb, capitate); only models of the whole film (A)" in said
    assert {path.name for path in (tmp_path / "out" / "runs").iterdir()} == {"phantom-A-regression-both"}
    folder = tmp_path / "out" / "models" / "phantom"
    assert len(films_of(folder)) == 26  # nobody has looked for the hand
    assert refused_by(folder).empty
    method = json.loads((folder / "method.json").read_text())
    assert (method["masks"], method["points"], method["how"]) == (None, None, "film")


def test_a_search_of_two_trials(hands: Hands, local_ray: None, tmp_path: Path) -> None:
    said = said_by("boneage_tune", [*map(str, (
        "--images", hands.images, "--labels", hands.labels, "--backbones", "phantom", "--folds", 2, "--train-folds", 0,
        "--epochs", 1, "--copies", 1, "--search", "learning-rate=1e-4..3e-2:log", "dropout=0..0.5", "--trials", 2, "--public-ids",
        "--threads", 1, "--out", tmp_path / "out", "--key-dir", hands.private,
    ))])  # fmt: skip
    assert "nobody has marked its points" in said
    best = json.loads((tmp_path / "out" / "searches" / "search" / "search.json").read_text())["best"][0]
    assert best["command"].startswith("uv run jobs/boneage_cv.py")
    assert "--recipe phantom" in best["command"]
