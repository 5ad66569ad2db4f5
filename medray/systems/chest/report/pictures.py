"""The films that the report shows: for each target found ones, false alarms and misses, under their heatmaps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd

from medray.imaging.radiograph import read_film
from medray.nn.backbone import Backbone
from medray.shards.files import Files
from medray.shards.store import Store, reason
from medray.systems.chest.explain import NO_HEAT, explain, overlay
from medray.systems.chest.source import Radiograph
from medray.systems.chest.task import FilmTask

KINDS = ("found", "false alarm", "missed")
SIDE_PX = 420


@dataclass(frozen=True)
class Pictured:
    """One film under the heat of one target."""

    target: str
    kind: str  # of KINDS
    image_id: str
    probability: float
    image: np.ndarray | None  # (rows, columns, 3) uint8
    problem: str = ""  # why there is none, or no heat on it


def choose(oof: pd.DataFrame, targets: tuple[str, ...], most: int) -> list[tuple[str, str, int]]:
    """(target, kind, place in ``oof``): of the most frequent targets the surest found film and false alarm, and the surest
    miss, by the thresholds where there are some, else by rank."""
    out = []
    positives = {t: int((oof[t] == 1).sum()) for t in targets}
    for target in sorted((t for t in targets if positives[t]), key=lambda t: -positives[t])[:most]:
        p, label = oof[f"p_{target}"].to_numpy(), oof[target].to_numpy(dtype=float)
        column = f"threshold_{target}"
        cut = oof[column].to_numpy() if column in oof else np.full(len(p), np.nan)
        cut = np.where(np.isnan(cut), np.sort(p)[-positives[target]], cut)
        groups = ((label == 1) & (p >= cut), (label == 0) & (p >= cut), (label == 1) & (p < cut))
        for kind, group, sign in zip(KINDS, groups, (-1, -1, 1), strict=True):
            places = np.flatnonzero(group)
            if len(places):
                out.append((target, kind, int(places[np.argmin(sign * p[places])])))
    return out


def collect(
    task: FilmTask,
    networks: Mapping[int, Backbone],
    source: Radiograph,
    folder: Store,
    private: pd.DataFrame,
    ids: pd.Series,
    oof: pd.DataFrame,
    most: int = 6,
) -> list[Pictured]:
    """Read the chosen films and explain each by the network that held it out.

    Args:
        networks: fold → its network. folder: of the input files.
        private: rows of the inventory with the files' own paths. ids: image_id of each of them, as in ``oof``.
        most: targets.
    """
    places = dict(zip(ids, range(len(ids)), strict=True))
    out = []
    for target, kind, at in choose(oof, task.names, most):
        held = oof.iloc[at]
        row = private.iloc[places[held["image_id"]]].to_dict() | {"image_id": held["image_id"]}
        image, problem = None, ""
        try:
            with folder.open_file(row["path"]) as stream:
                data = stream.read()
            (encoded,) = source.encode(Files.of(data), [row])
            film = _at_least(read_film(data).grey, SIDE_PX)
            assert encoded.columns is not None
            found = explain(task, [networks[int(held["fold"])]], film, row | encoded.columns, [target])
            image = _small(overlay(film, found.heat[target]))
            if not np.nanmax(found.heat[target]) > 0:
                problem = NO_HEAT
        except (
            ValueError,
            OSError,
        ) as error:  # a file that has gone, or a backbone without maps: the page goes without
            problem = reason(error)
        out.append(Pictured(target, kind, str(held["image_id"]), float(held[f"p_{target}"]), image, problem))
    return out


def _at_least(film: np.ndarray, side_px: int) -> np.ndarray:
    """A film whose longer side is no shorter than that: else the line and the heat were as coarse as its pixels."""
    factor = side_px / max(film.shape)
    return film if factor <= 1 else cv2.resize(film, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)


def _small(image: np.ndarray) -> np.ndarray:
    factor = SIDE_PX / max(image.shape[:2])
    return image if factor >= 1 else cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
