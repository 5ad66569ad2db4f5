"""The phantoms that the jobs make where they are given no films: drawn hands of known bone age, pose and mirror.

Under the folder: ``images/0001.png`` and so on; ``images/masks/`` with the same names for three quarters of them, since
few users have them all; ``labels/ages.csv``; ``labels/points.json``, an export of the VGG Image Annotator (VIA 2) with the
three points of, again, three quarters; and ``phantoms.json``, written last, which says that all is there. Phantom scores
say that machinery learns. They are never clinical results.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pandas as pd

from medray.imaging.phantom.writer import MARK, all_there, write_whole
from medray.systems.boneage.phantoms.bones import GROWN_MONTHS, Sex, draw_child
from medray.systems.boneage.phantoms.hand import Hand, draw_hand
from medray.systems.boneage.stages.canvas import POINTS

VERSION = 1  # of the drawing: another version's folder is not this one's
IMAGES, LABELS = "images", "labels"
MASKS, AGES, POINTS_FILE = "images/masks", "labels/ages.csv", "labels/points.json"
COLUMNS = ("id", "boneage", "male", "patient", "calendar_age")
LEAST_MONTHS = 12
CALENDAR_SD_MONTHS = 8.0  # of calendar age about bone age
_A_PIECE = 8  # films; the last two of each eight are one child's


@dataclass(frozen=True)
class PhantomSpec:
    """How many films, from which numbers they are drawn, and their size; every seventh child has two."""

    films: int = 96
    seed: int = 0
    film_px: tuple[int, int] = (416, 320)  # rows, columns


@dataclass(frozen=True)
class FilmPlan:
    """What is to be drawn on a film, and what the labels will say of it."""

    number: int  # from 1
    child: int
    age_months: int
    sex: Sex
    calendar_months: float | None
    has_mask: bool
    has_points: bool

    @property
    def film_id(self) -> str:
        return f"{self.number:04d}"


@dataclass(frozen=True)
class PhantomHands:
    """Films of drawn hands; a piece is the first and the last number of a few films, from 1."""

    spec: PhantomSpec

    unit: ClassVar[str] = "films"

    def count(self, piece: tuple[int, int]) -> int:
        return piece[1] - piece[0] + 1

    def pieces(self, folder: Path) -> list[tuple[int, int]]:
        """All pieces, or none where the folder holds them. Raises ValueError where it holds others."""
        if all_there(folder, self._claim()):
            return []
        films = self.spec.films
        return [(first, min(first + _A_PIECE - 1, films)) for first in range(1, films + 1, _A_PIECE)]

    def write(self, folder: Path, piece: tuple[int, int]) -> list[dict[str, Any]]:
        """The images of some films. Returns their rows of ages.csv, with "via": the entry of points.json, or None."""
        for name in (MASKS, LABELS):
            (folder / name).mkdir(parents=True, exist_ok=True)
        rows = []
        for number in range(piece[0], piece[1] + 1):
            plan = film_plan(self.spec, number)
            hand = film(self.spec, plan)
            name, content = f"{plan.film_id}.png", _png(hand.image)
            write_whole(folder / IMAGES / name, content)
            if plan.has_mask:
                write_whole(folder / MASKS / name, _png(hand.mask * np.uint8(255)))
            row = {"id": plan.film_id, "boneage": plan.age_months, "male": str(plan.sex == "M")}
            row |= {"patient": f"child-{plan.child:03d}", "calendar_age": plan.calendar_months}
            rows.append({**row, "via": _via(name, len(content), hand.points) if plan.has_points else None})
        return rows

    def finish(self, folder: Path, written: list[list[dict[str, Any]]]) -> tuple[str, str]:
        """The labels of all pieces. Returns the folders of the films and of the labels."""
        if not json.loads((folder / MARK).read_text())["finished"]:
            rows = sorted((row for piece in written for row in piece), key=lambda row: row["id"])
            table = pd.DataFrame(rows, columns=COLUMNS)
            write_whole(folder / AGES, table.to_csv(index=False).encode())
            marked = {f"{via['filename']}{via['size']}": via for row in rows if (via := row["via"])}
            write_whole(folder / POINTS_FILE, json.dumps(marked, indent=1).encode())
            write_whole(folder / MARK, json.dumps({**self._claim(), "finished": True}, indent=1).encode())
        return str(folder / IMAGES), str(folder / LABELS)

    def _claim(self) -> dict[str, object]:
        spec = {**asdict(self.spec), "film_px": list(self.spec.film_px)}  # as JSON has it
        return {"version": VERSION, "kind": "boneage", "spec": spec}


def film_plan(spec: PhantomSpec, number: int) -> FilmPlan:
    """What is on a film, which follows from the specification and its number alone."""
    group, place = divmod(number - 1, _A_PIECE)
    second = place == _A_PIECE - 1
    child = group * (_A_PIECE - 1) + min(place, _A_PIECE - 2) + 1
    sex: Sex = "F" if child % 2 else "M"
    rng = np.random.default_rng([spec.seed, child, 0])
    most = int(GROWN_MONTHS[sex])
    age = _as_read(rng, rng.uniform(LEAST_MONTHS, most), most)
    later = int(rng.integers(12, 37))
    if second:
        age = age + later if age + later <= most else age - later
    rng = np.random.default_rng([spec.seed, number, 1])
    calendar = round(max(1.0, age + rng.normal(0, CALENDAR_SD_MONTHS)), 1)
    return FilmPlan(
        number, child, age, sex, calendar if number % 3 else None, number % 4 != 3, number % 8 not in (3, 5)
    )


def _as_read(rng: np.random.Generator, months: float, most: int) -> int:
    """Readers prefer the atlas's plates: many ages are whole years, or half ones."""
    step = int(rng.choice([12, 6, 1], p=[0.4, 0.2, 0.4]))
    return min(max(round(months / step) * step, LEAST_MONTHS), most // step * step)


def film(spec: PhantomSpec, plan: FilmPlan) -> Hand:
    """The film itself, and the truth of it."""
    child = draw_child(np.random.default_rng([spec.seed, plan.child, 2]))
    rng = np.random.default_rng([spec.seed, plan.number, 3])
    return draw_hand(rng, plan.age_months, plan.sex, *spec.film_px, child=child)


def _png(image: np.ndarray) -> bytes:
    done, content = cv2.imencode(".png", image)
    assert done
    return content.tobytes()


def _via(name: str, size: int, points: np.ndarray) -> dict[str, Any]:
    regions = [
        {
            "shape_attributes": {"name": "point", "cx": round(float(x), 2), "cy": round(float(y), 2)},
            "region_attributes": {"name": point},
        }
        for point, (x, y) in zip(POINTS, points, strict=True)
    ]
    return {"filename": name, "size": size, "regions": regions, "file_attributes": {}}


DEMO = PhantomHands(PhantomSpec())
