"""A few drawn hands as a user would name them to the bone age jobs, and those jobs run in this process."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from chest_films import write_png
from conftest import load
from PIL import Image

from medray.systems.boneage.phantoms.films import PhantomHands, PhantomSpec

MODELS = ("A-regression-girls", "A-classification-both", "B-regression-both")
NO_SEX, NO_AGE = "0010", "0016"  # films of which the table does not know it
NO_HAND, TWO_HANDS = "nohand", "twohands"
STAGES = (
    "--segmentation.epochs", 8, "--segmentation.copies", 4, "--segmentation.side-px", 64,
    "--keypoints.epochs", 24, "--keypoints.copies", 4,
)  # fmt: skip


@dataclass(frozen=True)
class Hands:
    """What a user would name."""

    images: Path
    labels: Path
    private: Path

    def flags(self, out: Path, *more: object) -> list[str]:
        """Of boneage_cv.py."""
        given = (
            "--images", self.images, "--labels", self.labels, "--recipe", "phantom", "--folds", 2, "--threads", 1, "--epochs", 2,
            "--copies", 1, "--public-ids", "--key-dir", self.private, *STAGES, "--out", out, *more,
        )  # fmt: skip
        return [*map(str, given)]


def drawn_hands(folder: Path) -> Hands:
    """24 films of drawn hands, a quarter of them without mask or points; one without a hand, and one with two."""
    drawn = PhantomHands(PhantomSpec(films=24, film_px=(208, 160)))
    drawn.finish(folder, [drawn.write(folder, piece) for piece in drawn.pieces(folder)])
    films = folder / "images"
    write_no_hand(films / f"{NO_HAND}.png")
    write_two_hands(films / f"{TWO_HANDS}.png", films / "0002.png", films / "0009.png")
    ages = pd.read_csv(folder / "labels" / "ages.csv", dtype=str).set_index("id")
    ages.loc[NO_SEX, "male"] = ""
    ages.loc[NO_AGE, "boneage"] = ""
    for name in (NO_HAND, TWO_HANDS):
        ages.loc[name] = {"boneage": "100", "male": "True", "patient": name, "calendar_age": ""}
    ages.to_csv(folder / "labels" / "ages.csv")
    return Hands(films, folder / "labels", folder / "private")


def pixels(film: Path) -> np.ndarray:
    """(rows, columns) uint8."""
    return np.asarray(Image.open(film))


def write_no_hand(path: Path) -> None:
    write_png(path, np.random.default_rng(0).integers(0, 12, (208, 160)).astype(np.uint8))


def write_two_hands(path: Path, left: Path, right: Path) -> None:
    write_png(path, np.hstack([pixels(left), pixels(right)]))


def job_in_process(job: str, flags: list[str]) -> tuple[int, str]:
    """Exit status of a job that is run in this process, which may have Ray already, and all that it printed."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as said:
        patch.setattr(sys, "argv", [f"{job}.py", *flags])
        with contextlib.redirect_stderr(said):
            status: object = 0
            try:
                load(job).start()
            except SystemExit as stop:
                status = stop.code
    return int(str(status or 0)), said.getvalue()


def said_by(job: str, flags: list[str]) -> str:
    """What a job prints, in one line; it must end well."""
    status, said = job_in_process(job, flags)
    assert not status, said
    return " ".join(said.split())


def stamps(folder: Path, pattern: str) -> dict[str, int]:
    """File → when it was written."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob(pattern)}
