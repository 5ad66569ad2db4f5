"""The answer of a finished run for films that are not of its folds: a piece of work is a few films in a row."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from medray.imaging.radiograph import read_film_header
from medray.shards.files import read_files
from medray.shards.store import Store, reason
from medray.systems.boneage.films.source import FILM, HandFilm
from medray.systems.boneage.predict.picture import draw_answer
from medray.systems.boneage.predict.readers import group_of, readers, regions_of
from medray.systems.boneage.scores.ensemble import Ensemble
from medray.systems.boneage.stages.between import Hands, Masks, Region, registration
from medray.systems.boneage.stages.canvas import POINTS, Registration, points_of, thumb_aside
from medray.systems.boneage.stages.mask_task import MaskTask
from medray.systems.boneage.stages.point_task import COORDINATES, PointTask
from medray.systems.boneage.stages.rows import image_of
from medray.systems.boneage.task import AgeTask
from medray.systems.boneage.words import SEXES
from medray.tasks.derivation import Networks, OutputsOf
from medray.tasks.task import Task

FILMS_PER_PIECE = 16
APART = 0.05
"""Of the hand's length: where a network's point lies farther than this from the median of all, they disagree."""
FAR = 0.2
"""Farther than this, nobody knows where the hand is: the film is refused."""
DISAGREE = "the networks disagree about its points"
OTHER_HAND = "its thumb lies as on the hand that its header does not name: the film is mirrored, or the palm is up"

SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("months", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        pa.field(
            "mirrored", pa.bool_(), metadata={"meaning": "thumb on the left; null where no points were looked for"}
        ),
        pa.field("laterality", pa.string(), metadata={"meaning": "L or R, of a DICOM header"}),
        ("note", pa.string()),
        pa.field("stage", pa.string(), metadata={"meaning": "that has refused the film"}),
        ("reason", pa.string()),
        ("pixels_hash", pa.string()),
    ]
)
"""Of the parts: films have names of their own there, as their pictures have. No identifier is in them."""


@dataclass(frozen=True)
class Films:
    """A piece of work."""

    first: int  # number of its first film, from 1
    rows: list[dict[str, Any]]
    """path, sex ("F", "M" or None), calendar_months (NaN where not known)."""

    @property
    def name(self) -> str:
        return f"films{self.first:05d}"

    @property
    def names(self) -> list[str]:
        """Of the films, by their numbers."""
        return [film_name(self.first + i) for i in range(len(self.rows))]


def film_name(number: int) -> str:
    """What a film is called where no identifier may be: ``number`` counts from 1."""
    return f"film{number:05d}"


@dataclass
class _Film:
    """A film on its way through the stages."""

    name: str
    row: dict[str, Any]  # of the shards, with what the segmentation finds
    notes: list[str]
    laterality: str | None = None
    hand: dict[str, Any] | None = None  # row of ``Hands``
    points: list[float] | None = None
    registration: Registration | None = None
    months: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    refusal: tuple[str, str] | None = None
    regions: dict[Region, dict[str, Any]] = field(default_factory=dict)

    @property
    def group(self) -> str:
        return group_of(self.row["sex"])

    def region(self, region: Region) -> dict[str, Any]:
        """Its row of ``region``: several models read the same one."""
        if region not in self.regions:
            assert self.hand is not None
            (self.regions[region],) = region.rows(self.hand | {"found_points": self.points})
        return self.regions[region]


@dataclass(frozen=True)
class NewFilms:
    """New films through the whole chain of a finished run, stage by stage by the networks of all folds: an ``OfFiles``.

    The hand is where the mean of the maps says; a point is the median of what the networks find; an age is the mean.
    """

    method: dict[str, Any]  # method.json
    source: HandFilm
    folder: Store
    pictures: int  # so many films get one
    caution: str = ""
    groups: frozenset[str] = frozenset(SEXES)
    """Of the films at hand: networks that read none of them are not asked."""

    @cached_property
    def ensemble(self) -> Ensemble:
        return Ensemble.from_json(self.method["ensemble"])

    @cached_property
    def models(self) -> dict[str, list[str]]:
        """As ``readers``, of the groups at hand."""
        return {name: models for name, models in readers(self.ensemble).items() if name in self.groups}

    @property
    def runs(self) -> list[tuple[str, int, type[Task]]]:
        asked = [model for models in self.models.values() for model in models]
        stages: list[tuple[str, int, type[Task]]] = []
        for kind, name in ((MaskTask, self.method["masks"]), (PointTask, self.method["points"])):
            stages += [(name, fold, kind) for fold in self.method["stage_folds"] if name is not None]
        own = [
            (self.method["models"][model], fold, AgeTask)
            for model in dict.fromkeys(asked)
            for fold in self.method["folds"]
        ]
        return [*stages, *own]

    def read(
        self, piece: Films, each: Callable[..., Any]
    ) -> list[tuple[dict[str, Any] | None, str | None, str | None]]:
        """Of each film: columns of the shards, or None; a note, or the reason; the side that its header says."""

        def one(row: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str | None, str | None]:
            try:
                files = read_files(self.folder, {FILM: [row["path"]]})
                (encoded,) = self.source.encode(files, [{}])
                return encoded.columns, encoded.note, read_film_header(io.BytesIO(files[FILM])).laterality
            except (ValueError, OSError) as error:
                return None, reason(error), None

        return list(each(one, piece.rows))

    def answer(self, networks: Networks, piece: Films, read: Any, outputs_of: OutputsOf, to: Store) -> pa.Table:
        films = []
        for name, about, (columns, note, laterality) in zip(piece.names, piece.rows, read, strict=True):
            row = {"film_id": name, "patient_id": name, "age_months": None} | {
                k: about[k] for k in ("sex", "calendar_months")
            }
            film = _Film(name, row | (columns or {}), [note] if note and columns else [], laterality)
            film.refusal = None if columns else ("file", note or "no pixels")
            films.append(film)

        def ask(
            run: str, fold: int, rows: Sequence[dict[str, Any]], outputs: Callable[..., Any] | None = None
        ) -> pd.DataFrame:
            task, network = networks[run, fold]
            return outputs_of(task, network, rows, None if outputs is None else partial(outputs, task))

        for stage in (self._find_hands, self._register):
            if going := [film for film in films if film.refusal is None]:
                stage(going, ask)
        if going := [film for film in films if film.refusal is None]:
            tasks = {model: networks[run, self.method["folds"][0]][0] for model, run in self._asked(going).items()}
            self._read_ages(going, tasks, ask)
        for film in films:
            if int(film.name.removeprefix("film")) <= self.pictures and "image" in film.row:
                to.write_bytes(f"{film.name}.png", self._picture(film))
        return pa.Table.from_pylist([_part(film) for film in films], schema=SCHEMA)

    def refused(self, piece: Films, why: str) -> pa.Table:
        rows = [{"name": name, "stage": "file", "reason": why} for name in piece.names]
        return pa.Table.from_pylist(rows, schema=SCHEMA)

    # ------------------------------------------------------------ stages

    def _find_hands(self, films: Sequence[_Film], ask: Callable[..., pd.DataFrame]) -> None:
        run = self.method["masks"]
        if run is not None:
            rows = [film.row for film in films]
            tables = [ask(run, fold, rows, Masks().outputs) for fold in self.method["stage_folds"]]
            for film, *found in zip(films, *(table.to_dict("records") for table in tables), strict=True):
                maps = [np.frombuffer(one["found"], np.uint8) for one in found]
                film.row |= {name: int(found[0][name]) for name in ("found_rows", "found_columns")}
                film.row["found"] = np.rint(np.mean(maps, axis=0)).astype(np.uint8).tobytes()
        hands = Hands(run is not None, self.method["clip"])
        for film in films:
            try:
                (film.hand,) = hands.rows(film.row)
            except ValueError as error:
                film.refusal = "segmentation", reason(error)

    def _register(self, films: Sequence[_Film], ask: Callable[..., pd.DataFrame]) -> None:
        if self.method["how"] == "points":
            rows = [film.hand for film in films]
            tables = [ask(self.method["points"], fold, rows) for fold in self.method["stage_folds"]]
            found = np.stack([table[list(COORDINATES)].to_numpy(dtype=np.float64) for table in tables], axis=1)
            for film, own in zip(films, found, strict=True):
                film.points = np.median(own, axis=0).tolist()
                if not np.isfinite(film.points).all():
                    film.refusal = "keypoints", "the networks give no points"
                elif (why := disagreement(own)) is not None:
                    film.refusal = "keypoints", why
                elif apart(own).max() > APART:
                    film.notes.append(DISAGREE)
        for film in films:
            if film.refusal is not None:
                continue
            try:
                assert film.hand is not None
                film.registration = registration(self.method["how"], image_of(film.hand), film.points)
            except ValueError as error:
                film.refusal = "registration", reason(error)
                continue
            # palm down, fingers up, a left hand's thumb is on the right
            if film.points is not None and film.laterality == ("R", "L")[film.registration.mirrored]:
                film.notes.append(OTHER_HAND)

    def _read_ages(
        self, films: Sequence[_Film], tasks: Mapping[str, AgeTask], ask: Callable[..., pd.DataFrame]
    ) -> None:
        table = pd.DataFrame({"sex": [film.row["sex"] for film in films]}, dtype=object)
        for model, task in tasks.items():
            region = Region(task.region, task.region_scale, self.method["how"])
            own = [i for i, film in enumerate(films) if model in self.models.get(film.group, [])]
            rows = [films[i].region(region) for i in own]
            run = self.method["models"][model]
            ages = [ask(run, fold, rows)["p_months"].to_numpy(dtype=np.float64) for fold in self.method["folds"]]
            table.loc[own, model] = np.mean(ages, axis=0)
        found = self.ensemble.of(table)
        for film, (months, low, high) in zip(
            films, found[[self.ensemble.answer, "low", "high"]].to_numpy(), strict=True
        ):
            if not np.isfinite(months):
                film.refusal = "age", _no_model(film.group)
                continue
            film.months, film.low, film.high = float(months), float(low), float(high)

    def _asked(self, films: Sequence[_Film]) -> dict[str, str]:
        """Model → its run, of those that some film needs."""
        asked = [model for film in films for model in self.models.get(film.group, [])]
        return {model: run for model, run in self.method["models"].items() if model in asked}

    def _picture(self, film: _Film) -> bytes:
        interval = (film.low, film.high) if np.isfinite(film.high) else None
        return draw_answer(
            film.name,
            film.row,
            film.hand,
            film.points,
            film.registration,
            regions_of(self.models.get(film.group, [])),
            (film.months, interval) if film.refusal is None else film.refusal[1],
            [*film.notes, *([self.caution] if self.caution else [])],
        )


def apart(found: np.ndarray) -> np.ndarray:
    """(networks,) how far from the median of all a point of each lies, at most, in parts of the hand's length.

    Args:
        found: (networks, 6) as COORDINATES.
    """
    points = np.stack([points_of(one) for one in found])
    median = np.median(points, axis=0)
    length = np.linalg.norm(median[POINTS.index("capitate")] - median[POINTS.index("tip")])
    return np.asarray(np.linalg.norm(points - median, axis=-1).max(axis=1) / max(float(length), 1e-6))


def disagreement(found: np.ndarray) -> str | None:
    """Why the networks' points say nothing together: no majority is on one side of the hand, or half of them lie far off.

    Args:
        found: (networks, 6) as COORDINATES.
    """
    left = np.array([thumb_aside(points_of(one)) > 0 for one in found])
    if len(left) > 1 and max(left.sum(), (~left).sum()) * 2 <= len(left):
        return "the networks disagree on which side its thumb is"
    off = float(np.median(apart(found)))
    return f"{DISAGREE}: half of them lie {off:.0%} of the hand's length off, or more" if off > FAR else None


def _no_model(group: str) -> str:
    if group == "unknown":
        return "its sex is not known, and no model of this run reads films of both; say it with --table or --sex"
    return f"no model of this run reads films of {SEXES[group]}"


def _part(film: _Film) -> dict[str, Any]:
    number = {name: value for name in ("months", "low", "high") if np.isfinite(value := getattr(film, name))}
    stage, why = film.refusal or (None, None)
    laid = film.registration if film.points is not None else None
    return number | {
        "name": film.name,
        "mirrored": None if laid is None else laid.mirrored,
        "laterality": film.laterality,
        "note": "; ".join(film.notes) or None,
        "stage": stage,
        "reason": why,
        "pixels_hash": film.row.get("pixels_hash"),
    }
