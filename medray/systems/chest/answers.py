"""Answers to new films: a row of a table each, pictures, a page, and how the heatmaps lie to given boxes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, cast

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa

from medray.imaging.radiograph import read_film
from medray.nn.backbone import Backbone
from medray.report import page
from medray.shards.files import Files
from medray.shards.inventory import set_aside
from medray.shards.leakage import PIXELS_HASH, seen_in_training, trained_on
from medray.shards.store import File, Store, reason
from medray.systems.chest.explain import NO_HEAT, explain, overlay
from medray.systems.chest.inventory import assemble
from medray.systems.chest.localise import Boxes, by_finding, compare, with_boxes
from medray.systems.chest.source import Radiograph
from medray.systems.chest.task import FilmTask
from medray.tasks.derivation import Networks, OutputsOf
from medray.tasks.task import Task

_SHOWN = 60  # films on the page
_TILE_PX = 240  # three side by side
_KNOWN_BY = (PIXELS_HASH, "image_id")  # an id finds a film in another size, where ids are no pseudonyms
Answer = dict[str, Any]


@dataclass(frozen=True)
class Films:
    """The films that were named, and the files among them that are none."""

    rows: list[dict[str, Any]]  # of an inventory, in order of path, with the "folder" that reads them
    aside: pd.DataFrame  # path, status, reason

    @classmethod
    def found(
        cls, files: Mapping[Store, Sequence[File]], source: Radiograph, scan: Callable[..., pd.DataFrame]
    ) -> Films:
        """Raises Refused where nothing is a film.

        Args:
            files: folder → the files in it.
        """
        of_path = {file.path: folder for folder, own in files.items() for file in own}
        tables = [scan(source, folder, own) for folder, own in files.items()]
        inventory = assemble(pd.concat(tables, ignore_index=True).drop_duplicates(["path"]), None)
        rows = inventory.rows.sort_values("path").to_dict("records")
        return cls([row | {"folder": of_path[row["path"]]} for row in rows], set_aside(inventory.table))


@dataclass(frozen=True)
class Chunk:
    """A piece of work: some films that follow each other."""

    first: int  # number of its first film, from 1
    rows: list[dict[str, Any]]  # of ``Films.rows``


@dataclass(frozen=True)
class NewFilms:
    """New films through every network of a finished run: an ``OfFiles``."""

    source: Radiograph
    name: str  # of the runs
    folds: Sequence[int]
    targets: Sequence[str]
    top: int
    pictures: int  # of the first so many films heatmaps are drawn
    boxes: Boxes | None

    @property
    def runs(self) -> list[tuple[str, int, type[Task]]]:
        return [(self.name, fold, FilmTask) for fold in self.folds]

    def read(self, piece: Chunk, each: Callable[..., Any]) -> None:
        """Films are read when it is their turn: a chunk of them decoded would be hundreds of megabytes."""

    def answer(self, networks: Networks, piece: Chunk, read: None, outputs_of: OutputsOf, to: Store) -> pa.Table:
        own = [networks[self.name, fold] for fold in self.folds]
        task, members = own[0][0], [cast(Backbone, network) for _, network in own]
        numbered = enumerate(piece.rows, start=piece.first)
        return _table(
            [
                ask_film(self, task, members, row, number, to if number <= self.pictures else None)
                for number, row in numbered
            ]
        )

    def refused(self, piece: Chunk, why: str) -> pa.Table:
        return _table([_unanswered(row, n) | {"reason": why} for n, row in enumerate(piece.rows, start=piece.first)])


def ask_film(
    new: NewFilms, task: FilmTask, networks: Sequence[Backbone], row: dict[str, Any], number: int, to: Store | None
) -> Answer:
    """One film's answer; its pictures go to ``to`` where that is given.

    Returns:
        number, path, image_id, pixels_hash, reason (None, or why there is no answer), probabilities and drawn (as JSON),
        and boxes: a list of finding, iou, iobb, pointing.
    """
    answer = _unanswered(row, number)
    try:
        with row["folder"].open_file(row["path"]) as stream:
            data = stream.read()
        (encoded,) = new.source.encode(Files.of(data), [row])
        film = read_film(data).grey
    except (ValueError, OSError) as error:
        return answer | {"reason": reason(error)}
    assert encoded.columns is not None
    own = new.boxes.table[new.boxes.table["image"] == row["image_id"]] if new.boxes is not None else None
    boxed = [] if own is None else [f for f in own["finding"].unique() if f in task.names]
    found = explain(task, networks, film, row | encoded.columns, new.targets, new.top, boxed)
    wanted = list(dict.fromkeys([*(new.targets or found.top(new.top)), *boxed]))
    places = [] if own is None else [(b["finding"], (b["x"], b["y"], b["w"], b["h"])) for b in own.to_dict("records")]
    drawn = []
    if to is not None:
        for target in wanted:
            name = f"film{number:05d}-{target}.png"  # by its number: a file's name may be a patient's
            shown = with_boxes(overlay(film, found.heat[target]), [box for finding, box in places if finding == target])
            to.write_bytes(name, cv2.imencode(".png", shown[..., ::-1])[1].tobytes())
            drawn.append({"target": target, "file": name, "heat": bool(np.nanmax(found.heat[target]) > 0)})
    compared = [{"finding": f, **compare(found.heat[f], box)} for f, box in places if f in task.names]
    return answer | {
        "pixels_hash": encoded.columns["pixels_hash"],
        "probabilities": json.dumps(found.probabilities),
        "drawn": json.dumps(drawn),
        "boxes": json.dumps(compared),
    }


def _unanswered(row: dict[str, Any], number: int) -> Answer:
    answer: Answer = {
        "number": number,
        "path": row["path"],
        "image_id": row["image_id"],
        "pixels_hash": "",
        "reason": None,
    }
    return answer | {"probabilities": "{}", "drawn": "[]", "boxes": "[]"}


def _table(answers: Sequence[Answer]) -> pa.Table:
    return pa.Table.from_pylist([dict(answer) for answer in answers], schema=_SCHEMA)


_SCHEMA = pa.schema(
    [("number", pa.int64())] + [(n, pa.string()) for n in ("path", "image_id", "pixels_hash", "reason", "probabilities", "drawn", "boxes")]
)  # fmt: skip


def write_answers(
    to: Store,
    parts: Sequence[pa.Table],
    films: Films,
    task: FilmTask,
    trained: set[str],
    boxes: Boxes | None,
) -> list[str]:
    """predictions.csv, set_aside.csv, explain.html and, with boxes, localisation.json; lines for a terminal.

    Args:
        trained: as ``training_films``.
    """
    answers = [answer for part in parts for answer in part.to_pylist()]
    lost = [{"path": a["path"], "status": "quarantined", "reason": a["reason"]} for a in answers if a["reason"]]
    aside = pd.concat([films.aside, pd.DataFrame(lost, columns=films.aside.columns)])
    to.write_csv("set_aside.csv", aside)
    good = [a for a in answers if not a["reason"]]
    if not good:
        raise ValueError(f"no film could be read; first reason: {aside['reason'].iloc[0]}")
    rows = []
    seen = seen_in_training(pd.DataFrame(good), trained, _KNOWN_BY).tolist()
    for a, known in zip(good, seen, strict=True):
        probabilities = json.loads(a["probabilities"])
        top = sorted(probabilities, key=lambda name: -probabilities[name])[:3]
        row = {"path": a["path"], "image_id": a["image_id"], "trained_on": known, "top": " ".join(top)}
        rows.append(row | {f"p_{name}": value for name, value in probabilities.items()})
    table = pd.DataFrame(rows)
    to.write_csv("predictions.csv", table, None)
    lines = [f"  {len(table):,} films → {to.uri}: predictions.csv; {len(aside):,} set aside"]
    for a in good[:1] if len(good) == 1 else []:
        lines += [f"  {text}" for text in _percentages(json.loads(a["probabilities"]), 3)]
    if table["trained_on"].any():
        lines.append(f"! {int(table['trained_on'].sum())} of the films are among those that the model was trained on")
    localised = None
    if boxes is not None:
        localised = _localised(good, seen, boxes)
        to.write_json("localisation.json", localised)
        lines += _localisation_lines(localised)
    html = page.render(
        "Chest films, explained", f"{len(good):,} films, {task.backbone}", _sections(to, good, localised, len(aside))
    )
    to.write_bytes("explain.html", html.encode())
    return lines


def training_films(shards: Store, results: Store, folds: int) -> set[str]:
    """Hashes and ids of the films that some network of a model has learned from, or was chosen on: all of them where there are
    several folds, those that were not held out where there is one.

    Args:
        shards: that the model was made from. results: where its oof.parquet is.
    """
    held_out = results.read_table("oof.parquet", columns=["image_id"])["image_id"].to_pylist() if folds == 1 else []
    return trained_on(shards, _KNOWN_BY, "image_id", held_out)


def _localised(good: Sequence[Answer], seen: Sequence[bool], boxes: Boxes) -> dict[str, Any]:
    """
    Args:
        seen: whether the model was trained on each film.
    """
    found = pd.DataFrame(
        [box | {"trained_on": known} for a, known in zip(good, seen, strict=True) for box in json.loads(a["boxes"])]
    )
    there = {a["image_id"] for a in good}
    out: dict[str, Any] = {
        "boxes": len(boxes.table), "compared": len(found), "without_film": int((~boxes.table["image"].isin(there)).sum()),
        "left_out": boxes.left_out, "threshold": 0.5,
    }  # fmt: skip
    if len(found):
        out["all"] = by_finding(found)
        fresh = found[~found["trained_on"]]
        out["held_out"] = by_finding(fresh) if len(fresh) else {}
    return out


def _localisation_lines(localised: dict[str, Any]) -> list[str]:
    lines = [
        f"  boxes: {localised['compared']} of {localised['boxes']} compared, {localised['without_film']} without their film"
    ]
    lines += [f"! {count} boxes left out: {why}" for why, count in localised["left_out"].items()]
    for name, figures in localised.get("all", {}).items():
        lines.append(
            f"  {name:<20}{figures['boxes']:>4} box{'es' if figures['boxes'] != 1 else '  '}  pointing {figures['pointing']:.2f}  IoU≥.1 {figures['iou']['0.1']:.2f}  "
            f"IoBB≥.1 {figures['iobb']['0.1']:.2f}  IoBB≥.5 {figures['iobb']['0.5']:.2f}"
        )
    if localised.get("all"):
        fresh = localised["held_out"].get("all", {}).get("boxes", 0)
        lines.append(f"  boxes on films that the model was not trained on: {fresh} of {localised['compared']}")
    return lines


def _percentages(probabilities: dict[str, float], top: int) -> list[str]:
    first = sorted(probabilities.items(), key=lambda item: -item[1])[:top]
    return [f"{name.replace('_', ' ')} {value:.1%}" for name, value in first]


def _sections(to: Store, good: Sequence[Answer], localised: dict[str, Any] | None, aside: int) -> list[page.Section]:
    tiles = []
    shown = sorted((a for a in good if a["drawn"] != "[]"), key=lambda a: a["boxes"] == "[]")[
        :_SHOWN
    ]  # with boxes first
    for a in shown:
        probabilities = json.loads(a["probabilities"])
        name = PurePosixPath(a["path"]).name
        for drawn in json.loads(a["drawn"]):
            picture = cv2.imdecode(np.frombuffer(to.read_bytes(drawn["file"]), np.uint8), cv2.IMREAD_COLOR)
            assert picture is not None
            factor = min(1.0, 2 * _TILE_PX / picture.shape[1])
            small = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)[..., ::-1]
            lines = (
                name,
                *([] if drawn["heat"] else [NO_HEAT]),
                "most probable: " + ", ".join(_percentages(probabilities, 3)),
            )
            title = f"{drawn['target'].replace('_', ' ')} {probabilities[drawn['target']]:.1%}"
            tiles.append(page.Tile(small, title, lines))
    text = (
        "Red is the strongest evidence for the named finding on this film (Grad-CAM, gradient of its logit), scaled to each "
        "film's own maximum: colours of two films do not compare, nor do those of two findings. A map is drawn for improbable "
        "findings too. The thin line marks what the network saw."
    )
    text += " White: a radiologist's box of that finding." if localised else ""
    text += (
        f"\n{len(shown)} of {len(good):,} films are shown; predictions.csv has all." if len(shown) < len(good) else ""
    )
    sections = [page.Section("Films", text, more=(page.Gallery(tuple(tiles), tile_px=_TILE_PX),))]
    if localised and localised.get("all"):
        frame = pd.DataFrame(
            [
                {"finding": name.replace("_", " "), "boxes": f["boxes"], "pointing game": f"{f['pointing']:.2f}"}
                | {
                    f"{kind.upper() if kind == 'iou' else 'IoBB'} ≥ {t}": f"{v:.2f}"
                    for kind in ("iou", "iobb")
                    for t, v in f[kind].items()
                }
                for name, f in localised["all"].items()
            ]
        )
        fresh = localised["held_out"].get("all", {}).get("boxes", 0)
        note = f"Found regions: boxes around heat at or above half of its maximum. Boxes on films that the model was not trained on: {fresh} of {localised['compared']}."
        sections.append(page.Section("Against radiologists' boxes", note, table=frame))
    if aside:
        sections.append(page.Section("Set aside", f"{aside:,} files; set_aside.csv names them and the reasons."))
    return sections
