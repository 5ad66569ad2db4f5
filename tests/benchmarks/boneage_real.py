"""Bone age on the 40 real films: whether each stage learns at all, on two CPU cores. 40 films: no claim of accuracy.

    python tests/benchmarks/boneage_real.py --data shared/data/hand_xray                       # every check, ten minutes
    python tests/benchmarks/boneage_real.py --data shared/data/hand_xray --checks learns points

Data: RSNA Pediatric Bone Age 2017 (non-commercial), Halabi et al., Radiology 2019. The films lie on the source's canvas; they are
disturbed by known similarities before points and masks are looked for. Points were marked by eye (tests/systems/boneage/real_points.csv).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
import tyro

sys.path.insert(0, str(Path(__file__).parent))
from boneage_loop import Row, answers, real_films, trained

from medray.systems.boneage.recipes import published
from medray.systems.boneage.stages.canvas import cut, on_canvas
from medray.systems.boneage.stages.disturb import Disturbed, moved, moved_points
from medray.systems.boneage.stages.mask_task import MaskTask, largest_part
from medray.systems.boneage.stages.point_task import COORDINATES, PointTask
from medray.systems.boneage.stages.rows import points_in_square

ROOT = Path(__file__).parents[2]
FEW = "40 films: no claim of accuracy"
SIDE_PX = 256  # of the canvas's longer side in the checks of points and masks
HELD_OUT = 4  # every fourth film: 10 of 40
Check = Literal["learns", "points", "masks", "pipeline"]


@dataclass(frozen=True)
class Options:
    data: Path
    checks: tuple[Check, ...] = ("learns", "points", "masks", "pipeline")
    seconds: float = 115.0
    """Of training, each network."""
    threads: int = 2
    seed: int = 0


def learns(films: list[Row], options: Options) -> bool:
    """Training error of a regression of the whole hand at most 8 months."""
    task = replace(
        published().age, scale=156 / 2000, channels=(16, 32, 64, 64), dense=256, dropout=0.0, batch_size=8, learning_rate=1e-3,
        rotate_deg=0.0, shift=0.0, zoom=0.0, contrast=0.0, seed=options.seed,
    )  # fmt: skip
    rows = []
    for film in films:
        image = cut(film["grey"], on_canvas(*film["grey"].shape), "A", task.region_scale)
        rows.append(film | {"image": image.tobytes(), "rows": image.shape[0], "columns": image.shape[1]})
    network, steps = trained(task, rows, options.seconds)
    error = answers(task, network, rows).eval("abs(p_months - age_months)").mean()
    ages = np.array([film["age_months"] for film in films])
    constant = np.abs(ages - np.median(ages)).mean()
    print(
        f"learns: training error {error:.2f} months on {len(rows)} films after {steps} steps in {options.seconds:.0f} s (a constant: "
        f"{constant:.1f}; bar 8). {FEW}: these are the films that it was trained on."
    )
    return bool(error <= 8)


@dataclass(frozen=True, kw_only=True)
class _Pose(Disturbed):
    rotate_deg: float = 30.0
    shift: float = 0.08
    zoom: float = 0.25


def disturbed(film: Row, rng: np.random.Generator, background: bool) -> Row:
    """The hand in another pose, half of them mirrored; laid on a drawn film where ``background``.

    The canvas is shrunk to 70% in the middle of a film first, so that a turned hand stays within it.
    """
    grey = film["small"]
    rows, columns = grey.shape
    shrink = np.array([[0.7, 0, 0.15 * columns], [0, 0.7, 0.15 * rows]])
    pose = (np.vstack([_Pose().pose(rng, rows, columns, mirror=True), [0, 0, 1]]) @ np.vstack([shrink, [0, 0, 1]]))[:2]
    image = moved(grey, pose)
    # the canvas is bounded by the film that it was cut from: what is hand is what is not black
    mask = moved(film["hand"], pose, nearest=True)
    if background:
        image = on_drawn_film(image, mask, rng)
    points = moved_points(film["points_small"], pose)
    inside = ((points > -0.5) & (points < np.array([columns, rows]) - 0.5)).all(axis=1, keepdims=True)
    return film | {
        "image": image.tobytes(), "mask": mask.tobytes(), "rows": rows, "columns": columns,
        "points": np.where(inside, points, np.nan).ravel().tolist(),
    }  # fmt: skip


def on_drawn_film(hand: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A hand on an uneven film with noise, a bright frame and a letter, as marks that are no hand."""
    rows, columns = hand.shape
    y, x = np.mgrid[0:rows, 0:columns] / max(rows, columns)
    level, slope_x, slope_y = rng.uniform(5, 70), *rng.uniform(-60, 60, 2)
    film = level + slope_x * x + slope_y * y + rng.normal(0, rng.uniform(1, 6), hand.shape)
    if rng.random() < 0.5:
        edge, bright = int(rng.uniform(0.02, 0.08) * columns), rng.uniform(120, 240)
        film[:edge] = film[-edge:] = film[:, :edge] = film[:, -edge:] = bright
    place = (int(rng.uniform(0.02, 0.85) * columns), int(rng.uniform(0.08, 0.98) * rows))
    film = np.clip(film, 0, 255).astype(np.uint8)
    film = cv2.putText(film, str(rng.choice(["L", "R", "JX 9"])), place, cv2.FONT_HERSHEY_SIMPLEX, rows / 300, 255, 3)
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.0)
    grey = film * (1 - soft) + (hand * rng.uniform(0.7, 1.0) + 0.4 * film) * soft
    return np.clip(grey, 0, 255).astype(np.uint8)


def prepared(films: list[Row]) -> list[Row]:
    """With the canvas in fewer pixels, the hand on it and the points that were marked."""
    out = []
    for film in films:
        scale = SIDE_PX / film["rows"]
        small = cv2.resize(film["grey"], (round(film["columns"] * scale), SIDE_PX), interpolation=cv2.INTER_AREA)
        hand, _, _ = largest_part((small > 0).astype(np.float32))
        points = points_in_square(film["marked"], scale)
        out.append(film | {"small": small, "hand": hand.astype(np.uint8), "points_small": points})
    return out


def points(films: list[Row], options: Options) -> bool:
    """On disturbed copies of films that it has not seen, half the error of the mean position."""
    task = PointTask(
        side_px=96, channels=(16, 32, 64, 64), dense=256, dropout=0.1, batch_size=16, learning_rate=2e-3, rotate_deg=0.0, shift=0.0,
        zoom=0.0, flip=False, seed=options.seed,
    )  # fmt: skip
    every = prepared(films)
    learned = [film for i, film in enumerate(every) if i % HELD_OUT]
    scored = [disturbed(film, np.random.default_rng((9, i, n)), False)
              for i, film in enumerate(every[::HELD_OUT]) for n in range(10)]  # fmt: skip
    network, steps = trained(task, learned, options.seconds, lambda film, rng: disturbed(film, rng, False))
    found = answers(task, network, scored)[list(COORDINATES)].to_numpy().reshape(-1, 3, 2)
    true = np.array([row["points"] for row in scored]).reshape(-1, 3, 2)
    seen = [
        disturbed(film, np.random.default_rng((7, i, n)), False)["points"]
        for i, film in enumerate(learned)
        for n in range(10)
    ]
    middle = np.nanmean(np.array(seen).reshape(-1, 3, 2), axis=0)
    own, other = (np.nanmean(np.linalg.norm(guess - true, axis=2), axis=0) for guess in (found, middle[None]))
    print(
        f"points: mean error of {len(scored)} copies of {len(every[::HELD_OUT])} films that were not learned from "
        f"{np.mean(own):.1f} px of {SIDE_PX} (tip {own[0]:.1f}, thumb {own[1]:.1f}, capitate {own[2]:.1f}); the mean position "
        f"{np.mean(other):.1f}; bar half of it. {steps} steps in {options.seconds:.0f} s. {FEW}."
    )
    return bool(np.mean(own) <= 0.5 * np.mean(other))


def masks(films: list[Row], options: Options) -> bool:
    """Real hands on drawn films, out of fold: IoU at least .9."""
    task = MaskTask(
        side_px=96,
        width=8,
        batch_size=8,
        learning_rate=2e-3,
        rotate_deg=0.0,
        shift=0.0,
        zoom=0.0,
        flip=False,
        seed=options.seed,
    )
    every, values = prepared(films), []
    folds = 2
    for fold in range(folds):
        learned = [film for i, film in enumerate(every) if i % folds != fold]
        own = [film for i, film in enumerate(every) if i % folds == fold]
        network, _ = trained(task, learned, options.seconds, lambda film, rng: disturbed(film, rng, True))
        scored = [disturbed(film, np.random.default_rng((fold, i, 5)), True) for i, film in enumerate(own)]
        values += answers(task, network, scored)["iou"].tolist()
    print(
        f"masks: IoU {np.mean(values):.3f} out of fold on {len(values)} real hands on drawn films, the least {min(values):.3f}; aim .9. "
        f"{options.seconds:.0f} s a fold of {folds}. {FEW}."
    )
    return bool(np.mean(values) >= 0.9)


def pipeline(options: Options) -> bool:
    """All 18 models and the ensemble by the job itself."""
    with tempfile.TemporaryDirectory() as folder:
        words = [
            sys.executable, "jobs/boneage_cv.py", "--images", options.data / "images", "--labels",
            options.data / "boneage-training-dataset.csv", "--recipe", "phantom", "--models", *"ABC", "--registered", "--folds", 2,
            "--epochs", 6, "--public-ids", "--out", f"{folder}/out", "--key-dir", f"{folder}/key", "--threads", 1, "--size-px", 400,
        ]  # fmt: skip
        ended = subprocess.run([str(w) for w in words], cwd=ROOT, capture_output=True, text=True, check=False)
        if ended.returncode:
            print(ended.stdout[-2000:], ended.stderr[-2000:])
            return False
        results = Path(folder, "out", "models", "phantom")
        metrics, method = (json.loads((results / name).read_text()) for name in ("metrics.json", "method.json"))
        report = (results / "report.html").read_text()
    print("\n".join(line for line in ended.stdout.splitlines() if "ensemble" in line or "MAE" in line))
    told = "40 films: no claim of accuracy" in report
    print(
        f"pipeline: {len(method['models'])} models in {len(method['folds'])} folds, report says what n is: {told}. {FEW}."
    )
    return len(method["models"]) == 18 and told and bool(metrics)


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    films = real_films(options.data)
    checks = {"learns": learns, "points": points, "masks": masks}
    passed = {n: pipeline(options) if n == "pipeline" else checks[n](films, options) for n in options.checks}
    print(", ".join(f"{name} {'met' if met else 'missed'}" for name, met in passed.items()))
    sys.exit(0 if all(passed.values()) else 1)


if __name__ == "__main__":
    main(tyro.cli(Options))
