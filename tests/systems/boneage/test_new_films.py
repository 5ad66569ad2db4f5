"""New films through networks that find what is bright and know the points: what becomes of each film, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from chest_films import dicom

from medray.engine.derive.outputs import outputs_of
from medray.shards.store import Store
from medray.systems.boneage.films.source import HandFilm
from medray.systems.boneage.phantoms.hand import Hand, Pose, draw_hand
from medray.systems.boneage.predict.new_films import DISAGREE, OTHER_HAND, SCHEMA, Films, NewFilms, apart, disagreement
from medray.systems.boneage.recipes import model_task
from medray.systems.boneage.scores.ensemble import Ensemble, Group
from medray.systems.boneage.stages.between import Hands, Masks, Points, Region
from medray.systems.boneage.stages.mask_task import MaskTask
from medray.systems.boneage.stages.point_task import PointTask
from medray.systems.boneage.task import HALF, MIDDLE, AgeTask

SOURCE = HandFilm(size_px=320)
MASK = MaskTask(side_px=96, width=8)
POINT = PointTask(side_px=96, channels=(4, 8), dense=8, test_flip=False)  # the networks below know where it lies
AGE = AgeTask(scale=0.06, channels=(8, 16), dense=16)
POSE = Pose(10.0, 0.75)


def hand(mirrored: bool = False) -> Hand:
    """Without letter, frame and uneven light, which this seed has not."""
    pose = Pose(POSE.rotation_deg, POSE.scale, mirrored=mirrored)
    return draw_hand(np.random.default_rng(0), 120, "F", 416, 320, pose=pose)


class Bright(torch.nn.Module):
    """The hand is what is brighter than the film around it."""

    def __init__(self, above: float = 30.0) -> None:
        super().__init__()
        self.above = torch.nn.Parameter(torch.tensor(above))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float() - self.above


class Knows(torch.nn.Module):
    """Points of a film, whatever it is shown."""

    def __init__(self, points: np.ndarray, rows: int = 416, columns: int = 320) -> None:
        super().__init__()
        parts = (points + 0.5) * 2 / max(rows, columns) - 1
        self.parts = torch.nn.Parameter(torch.tensor(parts.ravel(), dtype=torch.float32))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.parts.expand(len(images), -1)


class Says(torch.nn.Module):
    """One age, whatever it is shown."""

    def __init__(self, months: float) -> None:
        super().__init__()
        self.answer = torch.nn.Parameter(torch.tensor((months - MIDDLE) / HALF))

    def forward(self, images: torch.Tensor, beside: torch.Tensor) -> torch.Tensor:
        return self.answer.expand(len(images), 1)


class Slope(Says):
    """An age that rises with what is bright on the image's right."""

    def forward(self, images: torch.Tensor, beside: torch.Tensor) -> torch.Tensor:
        ramp = torch.linspace(-1, 1, images.shape[-1])
        return self.answer + (images.float() * ramp).mean(dim=(2, 3)) / 64


def method(weights: Mapping[str, Mapping[str, float]], **more: Any) -> dict[str, Any]:
    """method.json: group → model → weight."""
    models = dict.fromkeys(model for own in weights.values() for model in own)
    groups = {name: Group(tuple(own), tuple(own.values()), half_width=10.0) for name, own in weights.items()}
    return {
        "models": {model: f"net-{model}" for model in models}, "folds": [0], "stage_folds": [0],
        "masks": "segmentation", "points": "keypoints", "how": "points", "clip": 2.0,
        "ensemble": Ensemble(groups, False).identity(),
    } | more  # fmt: skip


BOTH = {"girls": {"A-regression-both": 1.0}, "boys": {"A-regression-both": 1.0}, "unknown": {"A-regression-both": 1.0}}


def networks(points: np.ndarray, ages: Mapping[str, Any]) -> dict[tuple[str, int], Any]:
    """Of a single fold."""
    own: dict[tuple[str, int], Any] = {("segmentation", 0): (MASK, Bright()), ("keypoints", 0): (POINT, Knows(points))}
    return own | {(f"net-{model}", 0): (model_task(AGE, model), network) for model, network in ages.items()}


def write(folder: Path, name: str, image: np.ndarray) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    cv2.imwrite(str(folder / name), image)
    return row(folder / name)


def row(path: Path, sex: str | None = "F") -> dict[str, Any]:
    return {"path": str(path), "sex": sex, "calendar_months": float("nan")}


def answer(
    folder: Path,
    films: Sequence[dict[str, Any]],
    how: dict[str, Any],
    asked: Mapping[tuple[str, int], Any],
    **more: Any,
) -> list[dict[str, Any]]:
    new = NewFilms(how, SOURCE, Store(folder), more.pop("pictures", 0), **more)
    assert {(name, fold) for name, fold, _ in new.runs} == {*asked}
    piece = Films(1, list(films))
    table = new.answer(asked, piece, new.read(piece, map), outputs_of, Store(folder / "to"))
    assert table.schema == SCHEMA
    return table.to_pylist()


def test_a_film_is_registered_read_and_drawn(tmp_path: Path) -> None:
    one = hand()
    films = [write(tmp_path, "a.png", one.image)]
    (found,) = answer(
        tmp_path,
        films,
        method(BOTH),
        networks(one.points, {"A-regression-both": Says(123.0)}),
        pictures=1,
        caution="phantoms",
    )
    assert (found["name"], found["stage"], found["note"], found["mirrored"]) == ("film00001", None, None, False)
    assert [found[name] for name in ("months", "low", "high")] == pytest.approx([123, 113, 133], abs=1e-3)
    picture = cv2.imread(str(tmp_path / "to" / "film00001.png"))
    assert picture.shape[0] > 560
    assert picture.shape[1] == round(560 * 320 / 416) + round(560 * 1600 / 2080)
    for colour in ((80, 220, 100), (255, 90, 70), (90, 170, 255)):  # outline, points, frame of A
        assert (picture[..., ::-1] == colour).all(-1).sum() > 30


def test_it_sees_what_a_held_out_film_is_read_from(tmp_path: Path) -> None:
    one = hand()
    films, asked = [write(tmp_path, "a.png", one.image)], networks(one.points, {"B-regression-both": Slope(100)})
    weights = {group: {"B-regression-both": 1.0} for group in BOTH}
    (found,) = answer(tmp_path, films, method(weights), asked)
    # the stages of the job that trains, one after the other
    data = (tmp_path / "a.png").read_bytes()
    (encoded,) = SOURCE.encode(_file(data), [{}])
    about = {"film_id": "a", "patient_id": "a", "age_months": None, "sex": "F", "calendar_months": None}
    film = about | (encoded.columns or {})
    task, network = asked["segmentation", 0]
    masks = Masks().pack(outputs_of(task, network, [film], partial(Masks().outputs, task))).to_pylist()
    (cleaned,) = Hands().rows(film | masks[0])
    task, network = asked["keypoints", 0]
    points = Points().pack(outputs_of(task, network, [cleaned], partial(Points().outputs, task))).to_pylist()
    task, network = asked["net-B-regression-both", 0]
    (region,) = Region("B", task.region_scale, "points").rows(cleaned | points[0])
    assert found["months"] == outputs_of(task, network, [region])["p_months"][0]
    assert found["months"] != pytest.approx(100, abs=1)


def _file(data: bytes) -> Any:
    from medray.shards.files import Files

    return Files({"film": [data]})


def test_weights_choose_who_is_asked_and_folds_are_averaged(tmp_path: Path) -> None:
    one = hand()
    films = [write(tmp_path, "a.png", one.image), row(tmp_path / "a.png", "M"), row(tmp_path / "a.png", None)]
    weights = {
        "girls": {"A-regression-girls": 0.75, "A-regression-both": 0.25, "C-regression-both": 0.0},
        "boys": {"A-regression-both": 1.0},
        "unknown": {"A-regression-both": 1.0},
    }
    how = method(weights, folds=[0, 1])
    asked = networks(one.points, {"A-regression-girls": Says(100), "A-regression-both": Says(40)})
    for model, months in (("A-regression-girls", 120), ("A-regression-both", 60)):
        asked[f"net-{model}", 1] = (model_task(AGE, model), Says(months))
    girl, boy, unknown = answer(tmp_path, films, how, asked)  # the network of weight 0 is not even there
    assert girl["months"] == pytest.approx(0.75 * 110 + 0.25 * 50, abs=1e-3)
    assert boy["months"] == unknown["months"] == pytest.approx(50, abs=1e-3)


def test_networks_that_read_none_of_the_films_at_hand_are_not_asked(tmp_path: Path) -> None:
    weights = {
        "girls": {"A-regression-girls": 0.5, "B-regression-both": 0.5},
        "boys": {"A-regression-boys": 1.0},
        "unknown": {"B-regression-both": 1.0},
    }
    every = NewFilms(method(weights), SOURCE, Store(tmp_path), 0)
    assert len(every.runs) == 2 + 3
    boys = replace(every, groups=frozenset({"boys"}))
    assert [name for name, _, _ in boys.runs] == ["segmentation", "keypoints", "net-A-regression-boys"]
    others = replace(every, groups=frozenset({"girls", "unknown"}))
    assert [name for name, _, _ in others.runs][2:] == ["net-A-regression-girls", "net-B-regression-both"]


def test_without_a_model_of_both_an_unknown_sex_is_refused_and_said_how_to_go_on(tmp_path: Path) -> None:
    one = hand()
    weights = {"girls": {"A-regression-girls": 1.0}, "boys": {}, "unknown": {}}
    films = [write(tmp_path, "a.png", one.image), row(tmp_path / "a.png", "M"), row(tmp_path / "a.png", None)]
    found = answer(tmp_path, films, method(weights), networks(one.points, {"A-regression-girls": Says(100)}))
    assert [one["stage"] for one in found] == [None, "age", "age"]
    assert found[1]["reason"] == "no model of this run reads films of boys"
    assert "say it with --table or --sex" in found[2]["reason"]


def test_a_mirrored_hand_is_laid_as_the_other_one_and_said(tmp_path: Path) -> None:
    one, other = hand(), hand(mirrored=True)
    flipped = one.points * [-1, 1] + [319, 0]
    asked = {"A-regression-both": Slope(100)}
    (plain,) = answer(tmp_path, [write(tmp_path, "a.png", one.image)], method(BOTH), networks(one.points, asked))
    (mirror,) = answer(tmp_path, [write(tmp_path, "b.png", one.image[:, ::-1])], method(BOTH), networks(flipped, asked))
    assert (plain["mirrored"], mirror["mirrored"]) == (False, True)
    assert mirror["months"] == pytest.approx(plain["months"], abs=0.5)
    assert plain["months"] != pytest.approx(100, abs=1)  # else left and right were all the same
    (drawn,) = answer(tmp_path, [write(tmp_path, "c.png", other.image)], method(BOTH), networks(other.points, asked))
    assert drawn["mirrored"] is True


def test_the_point_that_one_of_three_networks_has_elsewhere_does_not_count_and_is_told(tmp_path: Path) -> None:
    one = hand()
    wrong = one.points.copy()
    wrong[1] = [5, 5]
    films, how = [write(tmp_path, "a.png", one.image)], method(BOTH, stage_folds=[0, 1, 2])
    asked = networks(one.points, {"A-regression-both": Slope(100)})
    asked |= {("segmentation", fold): (MASK, Bright()) for fold in (1, 2)}
    asked |= {("keypoints", 1): (POINT, Knows(wrong)), ("keypoints", 2): (POINT, Knows(one.points))}
    (told,) = answer(tmp_path, films, how, asked)
    (plain,) = answer(tmp_path, films, method(BOTH), networks(one.points, {"A-regression-both": Slope(100)}))
    assert (told["note"], plain["note"]) == (DISAGREE, None)
    assert told["months"] == plain["months"]


def test_how_far_points_are_apart_is_a_part_of_the_hands_length() -> None:
    points = np.array([50, 10, 80, 60, 50, 110], dtype=np.float64)
    moved = points + np.array([0, 0, 0, 8, 0, 0])
    assert apart(np.stack([points, points])).tolist() == [0, 0]
    assert apart(np.stack([points, points, moved])) == pytest.approx([0, 0, 0.08])


def test_networks_that_disagree_about_the_hand_refuse_it() -> None:
    points = np.array([50, 10, 80, 60, 50, 110], dtype=np.float64)
    mirrored = np.array([50, 10, 20, 60, 50, 110], dtype=np.float64)
    elsewhere = points + 60
    assert disagreement(points[None]) is None
    assert disagreement(np.stack([points, points + 3])) is None
    assert disagreement(np.stack([points, mirrored])) == "the networks disagree on which side its thumb is"
    assert disagreement(np.stack([points, points, mirrored])) is None  # two of three are enough
    assert (
        disagreement(np.stack([points, elsewhere]))
        == f"{DISAGREE}: half of them lie 42% of the hand's length off, or more"
    )
    assert disagreement(np.stack([points, points, elsewhere])) is None


def test_the_hand_is_where_the_networks_of_all_folds_say_on_the_whole(tmp_path: Path) -> None:
    one = hand()
    films, how = [write(tmp_path, "a.png", one.image)], method(BOTH, stage_folds=[0, 1, 2])
    asked = networks(one.points, {"A-regression-both": Slope(100)})
    asked |= {("keypoints", fold): (POINT, Knows(one.points)) for fold in (1, 2)}
    blind = {("segmentation", 1): (MASK, Bright(999.0)), ("segmentation", 2): (MASK, Bright())}
    (found,) = answer(tmp_path, films, how, asked | blind)
    assert found["stage"] is None
    (found,) = answer(tmp_path, films, how, asked | blind | {("segmentation", 2): (MASK, Bright(999.0))})
    assert (found["stage"], found["reason"]) == ("segmentation", "no hand was found on it")


def test_films_that_cannot_be_read_are_refused_with_the_stage_and_their_neighbours_are_not(tmp_path: Path) -> None:
    one = hand()
    dark = np.random.default_rng(0).integers(0, 20, (416, 320)).astype(np.uint8)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    rows = [
        write(tmp_path, "a.png", one.image),
        row(tmp_path / "broken.png"),
        write(tmp_path, "dark.png", dark),
        write(tmp_path, "two.png", np.vstack([one.image, one.image])),
        row(tmp_path / "absent.png"),
        write(tmp_path, "black.png", np.zeros((416, 320), np.uint8)),
        write(tmp_path, "b.png", one.image),
    ]
    asked = networks(one.points, {"A-regression-both": Says(123.0)})
    found = answer(tmp_path, rows, method(BOTH), asked, pictures=99)
    assert [row["stage"] for row in found] == [None, "file", "segmentation", "segmentation", "file", "file", None]
    assert found[2]["reason"] == "no hand was found on it"
    assert found[3]["reason"] == "two hands, or parts of two: a film must show one"
    assert str(tmp_path) not in "".join(row["reason"] or "" for row in found)
    assert [row["name"] for row in found] == [f"film{i:05d}" for i in range(1, 8)]
    drawn = {path.name for path in (tmp_path / "to").glob("*.png")}
    assert drawn == {f"film0000{i}.png" for i in (1, 3, 4, 7)}  # the refused ones as far as they came


def test_points_that_no_hand_has_are_refused_by_the_registration(tmp_path: Path) -> None:
    one = hand()
    outside = one.points.copy()
    outside[0, 1] = -40
    (found,) = answer(
        tmp_path,
        [write(tmp_path, "a.png", one.image)],
        method(BOTH),
        networks(outside, {"A-regression-both": Says(123.0)}),
    )
    assert (found["stage"], found["reason"]) == ("registration", "the fingertip lies outside of the film")
    lost = one.points * np.nan
    (found,) = answer(
        tmp_path,
        [write(tmp_path, "a.png", one.image)],
        method(BOTH),
        networks(lost, {"A-regression-both": Says(123.0)}),
    )
    assert (found["stage"], found["reason"]) == ("keypoints", "the networks give no points")


def test_the_side_that_a_header_says_is_kept_and_a_thumb_on_the_other_side_is_told(tmp_path: Path) -> None:
    one = hand()
    sides = {
        "left": {"ImageLaterality": "L"},
        "right": {"Laterality": "R"},
        "none": {},
        "odd": {"ImageLaterality": "B"},
    }
    rows = []
    for name, tags in sides.items():
        (tmp_path / f"{name}.dcm").write_bytes(dicom(one.image, **tags))
        rows.append(row(tmp_path / f"{name}.dcm"))
    found = answer(tmp_path, rows, method(BOTH), networks(one.points, {"A-regression-both": Says(123.0)}))
    assert [one["laterality"] for one in found] == ["L", "R", None, None]
    assert [OTHER_HAND in (one["note"] or "") for one in found] == [False, True, False, False]
    assert [one["stage"] for one in found] == [None] * 4


@pytest.mark.parametrize(("how", "shape"), [("film", (416, 320)), ("canvas", (416, 320)), ("canvas", (416, 416))])
def test_without_masks_and_points_the_film_is_read_as_it_lies(how: str, shape: tuple[int, int], tmp_path: Path) -> None:
    image = cv2.resize(hand().image, shape[::-1])
    asked = {("net-A-regression-both", 0): (model_task(AGE, "A-regression-both"), Says(123.0))}
    chain = method(BOTH, masks=None, points=None, how=how)
    (found,) = answer(tmp_path, [write(tmp_path, "a.png", image)], chain, asked, pictures=1)
    if how == "canvas" and shape[0] == shape[1]:
        assert found["stage"] == "registration"
        assert "320 × 320 pixels are not the canvas's proportions" in found["reason"]
    else:
        assert (found["stage"], found["mirrored"]) == (None, None)
        assert found["months"] == pytest.approx(123, abs=1e-3)
    assert (tmp_path / "to" / "film00001.png").exists()


def test_a_piece_that_is_refused_as_a_whole_is_told_film_by_film(tmp_path: Path) -> None:
    rows = NewFilms(method(BOTH), SOURCE, Store(tmp_path), 0).refused(Films(17, [row(tmp_path), row(tmp_path)]), "lost")
    assert [(one["name"], one["stage"], one["reason"]) for one in rows.to_pylist()] == [
        ("film00017", "file", "lost"), ("film00018", "file", "lost"),
    ]  # fmt: skip
