"""Bone ages of new films by a run that was trained on a few drawn hands: what is answered, refused, said, and resumed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from boneage_hands import (
    MODELS,
    Hands,
    drawn_hands,
    job_in_process,
    pixels,
    said_by,
    stamps,
    write_no_hand,
    write_two_hands,
)
from chest_films import dicom, write_png
from conftest import the_error
from left_files import finish
from ray_processes import kill_driver

from medray.shards.store import Store
from medray.systems.boneage.predict.answers import PHANTOMS
from medray.systems.boneage.predict.question import WHOLE_YEARS

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow
WHO, OTHER, PATIENT = "Maria-Muster", "Muster-Maria", "PID-4711"
"""What nobody may read but the owner of the films: how they are called, and a patient of a DICOM header."""
IDENTIFIERS = re.compile(f"{WHO}|{OTHER}|{PATIENT}|kid-|1\\.2\\.826", re.IGNORECASE)
IN_DICOM = ("0001", "0002", "0003", "0004")  # films that are there as DICOM, too
TABLES = ("ages.csv", "refused.csv")


@dataclass(frozen=True)
class Asked:
    """Films that a user wants ages of, and the run that is to give them."""

    hands: Hands
    run: Path
    films: Path
    table: Path

    def flags(self, to: Path, *more: object, images: Path | None = None) -> list[str]:
        return [*map(str, ("--run", self.run, "--images", images or self.films, "--to", to, *more))]

    @property
    def told(self) -> pd.DataFrame:
        """What the table says."""
        return pd.read_csv(self.table, dtype={"id": str}).set_index("id")


@pytest.fixture(scope="module")
def asked(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Asked:
    """Every film of the run under another name, and once more a little to the side; some in DICOM; and what is no film,
    or none of a hand. The table knows half of them."""
    folder = tmp_path_factory.mktemp("new")
    hands = drawn_hands(folder)
    said_by("boneage_cv", hands.flags(folder / "run", "--models", *MODELS, "--train-folds", 0))
    films = folder / "films"
    trained = sorted(hands.images.glob("0*.png"))
    sexes = pd.read_csv(folder / "labels" / "ages.csv", dtype=str).set_index("id")["male"]
    rows = []
    for number, path in enumerate(trained):
        write_png(films / f"{WHO}-{path.stem}.png", pixels(path))
        write_png(films / "moved" / f"{WHO}-{path.stem}-b.png", np.roll(pixels(path), 3, axis=1))
        if number % 2 == 0 or path.stem in IN_DICOM:
            male = "False" if pd.isna(sexes[path.stem]) else sexes[path.stem]
            rows.append(f"{WHO}-{path.stem},{male},kid-{number // 4},{60 + 3 * number}")
    header = {"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": 128, "WindowWidth": 256, "PatientAge": "010Y"}
    for name in IN_DICOM:  # the same picture: white is 0, and the window changes nothing
        sex = "M" if sexes[name] == "True" else "F"
        tags = header | {"PatientSex": sex, "PatientID": PATIENT, "ImageLaterality": "L"}
        (films / f"{OTHER}-{name}.dcm").write_bytes(dicom(255 - pixels(hands.images / f"{name}.png"), **tags))
    write_png(films / f"{WHO}-black.png", np.zeros((208, 160), np.uint8))
    write_no_hand(films / f"{WHO}-nohand.png")
    write_two_hands(films / f"{WHO}-two.png", *trained[1:3])
    (films / f"{WHO}-cut.png").write_bytes(trained[0].read_bytes()[:-200])
    (films / f"{WHO}.txt").write_text("no film")
    table = folder / "children.csv"
    table.write_text("\n".join(["id,male,patient,calendar_age_months", *rows]) + "\n")
    return Asked(hands, folder / "run", films, table)


@dataclass(frozen=True)
class Answered:
    to: Path
    said: str

    @property
    def ages(self) -> pd.DataFrame:
        return pd.read_csv(self.to / "ages.csv", dtype={"film": str}).set_index("path")

    @property
    def refused(self) -> pd.DataFrame:
        return pd.read_csv(self.to / "refused.csv").set_index("path")


def predicted(to: Path, flags: list[str]) -> Answered:
    return Answered(to, said_by("boneage_predict", flags))


@pytest.fixture(scope="module")
def answered(asked: Asked, tmp_path_factory: pytest.TempPathFactory) -> Answered:
    """All of them, not interrupted."""
    to = tmp_path_factory.mktemp("ages")
    return predicted(to, asked.flags(to, "--table", asked.table))


def one_of(answered: Answered, sex: str | None = None) -> str:
    """A PNG film that has an age, as ages.csv has its path."""
    ages = answered.ages
    own = ages[ages.index.str.endswith(".png") & (ages["sex"].isna() if sex is None else ages["sex"].eq(sex))]
    return str(own.index[0])


def models_of(asked: Asked, group: str) -> set[str]:
    ensemble = json.loads((asked.run / "models" / "phantom" / "method.json").read_text())["ensemble"]
    own = ensemble["groups"][group]
    return {model for model, weight in zip(own["members"], own["weights"], strict=True) if weight > 0}


# ---- what becomes of the films ----------------------------------------------------------------------------------------


def test_every_file_has_an_age_or_a_reason(asked: Asked, answered: Answered) -> None:
    ages, refused = answered.ages, answered.refused
    there = {str(path.relative_to(asked.films)) for path in asked.films.rglob("*.*")}
    assert {*ages.index} | {*refused.index} == there
    assert len(ages) + len(refused) == len(there)
    assert len(ages) >= 12
    reasons = refused[["stage", "reason"]].to_dict("index")
    for name, stage, reason in (
        ("-black.png", "file", "an empty film: every pixel is 0"),
        ("-cut.png", "file", "damaged pixels"),
        (".txt", "file", "neither PNG, JPEG nor DICOM"),
        ("-nohand.png", "segmentation", "no hand was found on it"),
        ("-two.png", "segmentation", "two hands, or parts of two: a film must show one"),
    ):
        assert reasons[f"{WHO}{name}"]["stage"] == stage
        assert reason in reasons[f"{WHO}{name}"]["reason"]
    assert refused["reason"].str.len().between(5, 120).all()
    assert ages["bone_age_months"].between(0, 240).all()
    assert ages["bone_age"].str.fullmatch(r"\d+ years? \d+ months?").all()
    drawn = {path.stem for path in answered.to.glob("film*.png")}
    assert {*ages["name"]} <= drawn


def test_a_dicom_film_is_read_as_its_picture_and_its_header_counts(asked: Asked, answered: Answered) -> None:
    ages = answered.ages
    pairs = [(f"{WHO}-{name}.png", f"{OTHER}-{name}.dcm") for name in IN_DICOM]
    both = [(ages.loc[png], ages.loc[dcm]) for png, dcm in pairs if png in ages.index and dcm in ages.index]
    assert both
    assert len(both) == sum(dcm in ages.index for _, dcm in pairs)
    for png, dcm in both:
        assert (png["sex_from"], dcm["sex_from"]) == ("table", "header")
        assert png["sex"] == dcm["sex"]
        assert png["bone_age_months"] == pytest.approx(dcm["bone_age_months"], abs=0.11)
        assert dcm["calendar_months"] == 120
        assert dcm["hand"].startswith("left hand, ")
        assert WHOLE_YEARS in dcm["note"]
        assert dcm["patient"] == PATIENT


def test_the_table_says_sex_patient_and_calendar_age(asked: Asked, answered: Answered) -> None:
    ages = answered.ages.reset_index().set_index("film")
    told = asked.told
    known = ages[ages.index.isin(told.index)]
    assert len(known) >= 4
    own = told.loc[known.index]
    assert (known["sex"] == own["male"].map({True: "M", False: "F"})).all()
    assert (known["sex_from"] == "table").all()
    assert (known["patient"] == own["patient"]).all()
    assert (known["calendar_months"] == own["calendar_age_months"]).all()
    difference = known["bone_age_months"] - own["calendar_age_months"]
    assert known["difference_months"].to_numpy() == pytest.approx(difference.to_numpy(), abs=0.11)
    beyond = known["difference_months"].abs() > 0.1 * known["calendar_months"]
    assert known["normal_band"].str.startswith("more than 10%").equals(beyond)
    rest = ages[ages["sex_from"] == "unknown"]
    assert rest[["sex", "calendar_months", "difference_months", "normal_band"]].isna().all(axis=None)
    assert f"! {len(rest)} films of unknown sex: only the models of both sexes are asked" in answered.said


def test_one_film_by_its_path_is_told_on_the_terminal(asked: Asked, answered: Answered, tmp_path: Path) -> None:
    film = one_of(answered, "F")
    one = predicted(tmp_path, asked.flags(tmp_path, "--sex", "F", images=asked.films / film))
    ((_, row),) = one.ages.iterrows()
    before = answered.ages.loc[film]
    assert row["sex_from"] == "flag"
    assert row["bone_age_months"] == pytest.approx(before["bone_age_months"], abs=0.11)
    assert f"{row['bone_age']} ({row['bone_age_months']:.1f} months" in one.said
    assert ", girl; thumb " in one.said or ", girl; mirrored: thumb " in one.said
    assert one.refused.empty
    assert (tmp_path / "film00001.png").exists()
    page = (tmp_path / "ages.html").read_text()
    assert not IDENTIFIERS.search(one.said)
    assert not IDENTIFIERS.search(page)
    assert "A-regression-girls" in page
    # of each of two stages two networks, and of the age networks those that read girls
    assert f"1 film, phantom: {4 + len(models_of(asked, 'girls'))} networks" in one.said


def test_of_unknown_sex_the_models_of_both_are_asked(asked: Asked, answered: Answered, tmp_path: Path) -> None:
    film = one_of(answered, "F")
    one = predicted(tmp_path, asked.flags(tmp_path, images=asked.films / film))
    assert models_of(asked, "unknown") == {"A-classification-both", "B-regression-both"}
    assert "1 film, phantom: 6 networks" in one.said
    assert "! 1 film of unknown sex: only the models of both sexes are asked" in one.said
    page = (tmp_path / "ages.html").read_text()
    assert "A-classification-both" in page
    assert "girls" not in page
    ((_, row),) = one.ages.iterrows()
    assert row["bone_age_months"] != answered.ages.loc[film, "bone_age_months"]


def test_films_that_the_run_was_trained_on_are_a_leakage(answered: Answered) -> None:
    ages = answered.ages
    assert {*ages.index[ages["trained_on"]]} == {path for path in ages.index if not path.startswith("moved/")}
    known = ages["trained_on"].sum()
    assert f"! leakage: {known} of {len(ages)} films are in the training data, pixel by pixel" in answered.said


def test_nothing_that_is_printed_or_on_the_page_names_a_film_or_a_patient(answered: Answered) -> None:
    page = (answered.to / "ages.html").read_text()
    assert not IDENTIFIERS.search(answered.said)
    assert not IDENTIFIERS.search(page)
    assert "Children with several films" in page
    assert IDENTIFIERS.search((answered.to / "ages.csv").read_text())  # else this test would find nothing anywhere
    assert f"! {PHANTOMS}" in answered.said


# ---- a kill -----------------------------------------------------------------------------------------------------------


def test_killed_in_the_middle_it_goes_on_and_ends_with_the_same_bytes(
    asked: Asked, answered: Answered, tmp_path: Path
) -> None:
    to, flags = tmp_path / "to", asked.flags(tmp_path / "to", "--table", asked.table)
    with (tmp_path / "log").open("w") as log:
        words = [sys.executable, str(ROOT / "jobs" / "boneage_predict.py"), *flags]
        job = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True, cwd=ROOT)
    for _ in range(20_000):
        if list((to / "parts").glob("films*.parquet")):
            break
        assert job.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.01)
    kill_driver(job)
    made, drawn = stamps(to / "parts", "films*.parquet"), stamps(to, "film*.png")
    wanted = {path.name for path in (answered.to / "parts").iterdir()}
    assert 1 <= len(made) < len(wanted), "the kill came too late to show anything"
    assert not [name for name in TABLES if (to / name).exists()]
    said_by("boneage_predict", flags)
    for name in TABLES:
        assert (to / name).read_bytes() == (answered.to / name).read_bytes(), name
    assert {path.name for path in (to / "parts").iterdir()} == wanted
    assert {path: when for path, when in stamps(to / "parts", "films*.parquet").items() if path in made} == made
    first = {path: when for path, when in drawn.items() if int(Path(path).stem.removeprefix("film")) <= 16 * len(made)}
    assert first
    now = stamps(to, "film*.png")
    assert {path: now[path] for path in first} == first


# ---- what a user can get wrong ------------------------------------------------------------------------------------------


def error_of(flags: list[str]) -> str:
    return the_error(job_in_process("boneage_predict", flags))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--run", "absent"), "--run absent: holds no models/; name the --out of a finished job of this kind"),
        (("--run", "films"), "films: holds no models/; name the --out of a finished job of this kind"),
        (("--images", "absent"), "--images absent: no such folder or file; name a film, or a folder of films"),
        (("--name", "other"), "--name other: --run {run} has phantom"),
        (("--table", "absent.csv"), "--table absent.csv: "),
        (("--table", "other.csv"), "--table other.csv: no column names the films; its columns are who, male; known"),
        (
            ("--table", "bare.csv"),
            "--table bare.csv: no column says sex, patient or calendar age; its columns are id, b",
        ),
        (("--table", "elsewhere.csv"), "--table: none of its 1 films is one of the 5"),
        (("--table", "odd.csv"), '--table odd.csv: line 2: male is "maybe", not True or False'),
        (
            ("--table", "via.json"),
            "--table via.json: an export of VIA has no sexes; name a folder that holds it and a C",
        ),
    ],
)
def test_wrong_flags_end_with_a_line(
    more: tuple[str, ...], message: str, asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "other.csv": "who,male\nx,True\n",
        "bare.csv": "id,boneage\nx,100\n",
        "elsewhere.csv": "id,male\nstranger,True\n",
        "odd.csv": "id,male\nx,maybe\n",
        "via.json": "{}",
    }.items():
        (tmp_path / name).write_text(text)
    for number in range(5):
        write_png(tmp_path / "films" / f"{WHO}-{number}.png")
    error = error_of(asked.flags(tmp_path / "to", *more, images=tmp_path / "films"))
    assert message.format(run=asked.run) in error
    assert not IDENTIFIERS.search(error)
    assert not (tmp_path / "to" / "parts").exists()


def test_a_run_that_is_unfinished_is_named_before_anything_is_read(asked: Asked, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(asked.run, run, ignore=shutil.ignore_patterns("features", "shards"))
    lost = run / "runs" / "phantom-B-regression-both" / "fold0" / "model.pt"
    lost.unlink()
    error = error_of(["--run", str(run), "--images", str(asked.films), "--to", str(tmp_path / "to")])
    assert f"--run {run}: runs/phantom-B-regression-both/fold0 has no model.pt; run the job again to its end" in error
    method = run / "models" / "phantom" / "method.json"
    method.write_text("{}")
    finish(Store(run))
    error = error_of(["--run", str(run), "--images", str(asked.films), "--to", str(tmp_path / "to")])
    assert f"--run {run}: phantom reads no bone ages; name the --out of a finished boneage_cv.py" in error
    method.unlink()
    error = error_of(["--run", str(run), "--images", str(asked.films), "--to", str(tmp_path / "to")])
    assert "holds no method.json; run the job again to its end" in error
    assert not (tmp_path / "to").exists()


def test_the_answers_of_another_question_are_not_mixed(asked: Asked, answered: Answered) -> None:
    before = {name: (answered.to / name).read_bytes() for name in TABLES}
    error = error_of(asked.flags(answered.to, "--table", asked.table, "--sex", "F"))
    assert f"--to {answered.to}: holds a run with sex = None, this one has 'F'" in error
    assert "or choose another --to" in error
    assert {name: (answered.to / name).read_bytes() for name in TABLES} == before


def test_where_no_film_has_an_age_the_reasons_are_left(asked: Asked, tmp_path: Path) -> None:
    error = error_of(asked.flags(tmp_path / "to", images=asked.films / f"{WHO}-nohand.png"))
    assert "no film has an answer; first reason: no hand was found on it" in error
    error = error_of(asked.flags(tmp_path / "none", images=asked.films / f"{WHO}.txt"))
    assert "none of 1 files is a usable film; most often: neither PNG, JPEG nor DICOM (1)" in error
    assert f"{tmp_path}/none/set_aside.csv says what became of each file" in error
