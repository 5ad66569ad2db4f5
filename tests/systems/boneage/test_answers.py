"""What is written of the ages of new films."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from medray.shards.store import Store
from medray.systems.boneage.predict.answers import (
    COLUMNS,
    PHANTOMS,
    REFUSED,
    band_words,
    hand_words,
    write_answers,
)
from medray.systems.boneage.predict.new_films import SCHEMA
from medray.systems.boneage.predict.question import FilmSet
from medray.systems.boneage.scores.ensemble import Ensemble, Group

GROUP = Group(("A-regression-both",), (1.0,), half_width=12.0, films=40)
METHOD = {
    "models": {"A-regression-both": "net"}, "folds": [0],
    "stage_folds": [0], "masks": "segmentation", "points": "keypoints",
    "how": "points", "ensemble": Ensemble(dict.fromkeys(("girls", "boys", "unknown"), GROUP), False).identity(),
}  # fmt: skip


@pytest.mark.parametrize(
    ("difference", "calendar", "words"),
    [
        (12.0, 120.0, "within 10% of calendar age"),
        (12.1, 120.0, "more than 10% above calendar age"),
        (-12.1, 120.0, "more than 10% below calendar age"),
        (np.nan, np.nan, ""),
    ],
)
def test_the_normal_band(difference: float, calendar: float, words: str) -> None:
    assert band_words(difference, calendar) == words


def test_hands_in_words() -> None:
    assert hand_words(None, False) == "thumb on the right, fingers up"
    assert hand_words("R", True) == "right hand, mirrored: thumb on the left, fingers up"
    assert hand_words("L", None) == "left hand, as laid"
    assert hand_words(None, None) == "as laid"


# ---- what is written -----------------------------------------------------------------------------------------------


def film(number: int, **more: Any) -> dict[str, Any]:
    about = {
        "film_id": f"own{number}",
        "patient_id": "hanna",
        "sex": "F",
        "sex_from": "table",
        "calendar_months": 100.0,
        "note": "",
    }
    return {"path": f"/in/{number}.png", "shown": f"{number}.png"} | about | more


def part(number: int, months: float | None = 105.04, **more: Any) -> dict[str, Any]:
    empty = dict.fromkeys(SCHEMA.names)
    found = {"months": months, "low": 93.0, "high": 117.0, "mirrored": False, "pixels_hash": f"hash{number}"}
    return empty | {"name": f"film{number:05d}"} | found | more


def refused(number: int, stage: str, reason: str) -> dict[str, Any]:
    return part(number, None, low=None, high=None, mirrored=None, stage=stage, reason=reason)


def write(
    to: Path,
    films: list[dict[str, Any]],
    parts: list[dict[str, Any]],
    aside: list[list[str]] | None = None,
    **more: Any,
) -> list[str]:
    every = FilmSet(films, pd.DataFrame(aside or [], columns=["path", "reason"]))
    half = len(parts) // 2
    tables = [pa.Table.from_pylist(some, schema=SCHEMA) for some in (parts[:half], parts[half:])]
    return write_answers(
        Store(to), tables, every, more.pop("trained", set()), more.pop("method", METHOD), "published", **more
    )


FILMS = [
    film(1), film(2, calendar_months=130.0, sex=None, sex_from="unknown"),
    film(3, patient_id=None, calendar_months=np.nan), film(4),
]  # fmt: skip
PARTS = [
    part(1), part(2, 160.0, low=None, high=None, mirrored=True, note="the networks disagree about its points"),
    part(3, 59.7, mirrored=None), refused(4, "segmentation", "no hand was found on it"),
]  # fmt: skip


def test_ages_refused_films_and_warnings(tmp_path: Path) -> None:
    lines = write(tmp_path, FILMS, PARTS, [["sub/x.txt", "no film"]], trained={"hash3"}, caution=PHANTOMS)
    ages = pd.read_csv(tmp_path / "ages.csv", keep_default_na=False)
    assert tuple(ages.columns) == COLUMNS
    one, two, three = ages.to_dict("records")
    assert (one["film"], one["patient"], one["bone_age"], one["bone_age_months"]) == (
        "own1",
        "hanna",
        "8 years 9 months",
        105.0,
    )
    assert (float(one["difference_months"]), one["normal_band"]) == (5.0, "within 10% of calendar age")
    assert (float(one["low_months"]), float(one["high_months"])) == (93.0, 117.0)
    assert (two["sex"], two["sex_from"], two["hand"]) == ("", "unknown", "mirrored: thumb on the left, fingers up")
    assert (two["low_months"], two["normal_band"]) == ("", "more than 10% above calendar age")
    assert (three["bone_age"], three["calendar_months"], three["normal_band"], three["hand"]) == (
        "5 years 0 months",
        "",
        "",
        "as laid",
    )
    assert ages["trained_on"].astype(str).tolist() == ["False", "False", "True"]
    assert ages["method"].tolist() == ["published"] * 3
    lost = pd.read_csv(tmp_path / "refused.csv", keep_default_na=False)
    assert tuple(lost.columns) == REFUSED
    assert lost.values.tolist() == [
        ["own4", "segmentation", "no hand was found on it", "film00004", "4.png"],
        ["x.txt", "file", "no film", "", "sub/x.txt"],
    ]
    assert lines == [
        f"  3 films → {tmp_path}: ages.csv, ages.html; 2 refused, refused.csv says why",
        "! leakage: 1 of 3 films is in the training data, pixel by pixel",
        "! 1 film of unknown sex: only the models of both sexes are asked; knowing it is worth about 1.4 months on "
        "RSNA films",
        "! 1 film with a bone age more than 10% off the calendar age",
        "! 1 film: the networks disagree about its points",
    ]


def test_one_film_is_told_on_the_terminal(tmp_path: Path) -> None:
    lines = write(tmp_path, FILMS[:1], PARTS[:1])
    assert lines[1:] == [
        "  8 years 9 months (105.0 months; 95%: 93.0 to 117.0), girl; thumb on the right, fingers up; +5.0 months to calendar "
        "age: within 10% of calendar age"
    ]


def test_the_page_shows_all_of_it_and_no_identifier(tmp_path: Path) -> None:
    picture = cv2.imencode(".png", np.full((40, 60, 3), 90, np.uint8))[1].tobytes()
    for number in (1, 2, 4):
        (tmp_path / f"film0000{number}.png").write_bytes(picture)
    within = {group: {"films": 20} for group in ("girls", "boys", "unknown")}
    metrics = {
        "repeatability": {"months": 7.25, "pairs": 31, "patients": 20}, "counts": {"scored": 40}, "interval": {"within": within},
    }  # fmt: skip
    write(tmp_path, FILMS, PARTS, [["sub/x.txt", "no film"]], caution=PHANTOMS, metrics=metrics)
    page = (tmp_path / "ages.html").read_text()
    assert not re.search(r"own\d|hanna|sub/x", page)
    for text in (
        "This run was trained on phantoms", "8 years 9 months", "93.0 to 117.0",
        "more than 10% above calendar age", "sex unknown",
        "no hand was found on it", "no film", "± 12.0 months", "less than 7.2 months", "31 pairs", "Greulich and Pyle",
        "film00001 … film00002",
    ):  # fmt: skip
        assert text in page, text
    assert page.count("data:image/webp") == 3
    assert 'src="http' not in page and "<script" not in page  # noqa: PT018
    assert "own1" in (tmp_path / "ages.csv").read_text()


def test_the_page_names_what_has_read_these_films_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "film00001.png").write_bytes(cv2.imencode(".png", np.full((40, 60, 3), 90, np.uint8))[1].tobytes())
    groups = {
        "girls": Group(("A-regression-girls", "B-regression-both", "C-regression-both"), (0.7, 0.3, 0.0)),
        "boys": Group(("C-regression-boys",), (1.0,)),
        "unknown": Group(("B-regression-both",), (1.0,)),
    }
    about = METHOD | {"ensemble": Ensemble(groups, False).identity(), "masks": None}
    write(tmp_path, FILMS[:1], PARTS[:1], method=about)
    page = (tmp_path / "ages.html").read_text()
    assert "A (the whole hand), B (the carpals)." in page
    assert "A-regression-girls 70%, B-regression-both 30%" in page
    for absent in ("C (", "C-regression", "boys", "unknown sex", "outline", "background removed"):
        assert absent not in page, absent
    write(tmp_path, [FILMS[0] | {"sex": None, "sex_from": "unknown"}], PARTS[:1], method=about | {"how": "film"})
    page = (tmp_path / "ages.html").read_text()
    assert "Left the film. Right what the age networks are shown: contrast equalised; the frame is what" in page
    assert "B (the carpals)." in page
    assert "A (the" not in page


def test_a_child_with_one_film_has_no_curve(tmp_path: Path) -> None:
    write(tmp_path, [FILMS[0], FILMS[2]], [part(1), part(2)])
    assert "Children with several films" not in (tmp_path / "ages.html").read_text()


def test_nothing_that_could_be_read_leaves_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"no film has an answer; first reason: no hand was found on it; .*refused\.csv has all"
    ):
        write(tmp_path, FILMS[:1], [refused(1, "segmentation", "no hand was found on it")])
    assert pd.read_csv(tmp_path / "refused.csv")["stage"].tolist() == ["segmentation"]
    assert "no hand was found on it" in (tmp_path / "ages.html").read_text()
    assert pd.read_csv(tmp_path / "ages.csv").empty
