"""The answer of a finished run for studies that are not of its folds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from medray.shards.names import file_name
from medray.shards.reading import encode_rows
from medray.shards.store import Store
from medray.systems.ich.blend import Blend, average
from medray.systems.ich.classes import CLASSES
from medray.systems.ich.features import pack_stacks
from medray.systems.ich.method import SEQUENCE, probabilities_of, with_probabilities
from medray.systems.ich.montage import draw_study
from medray.systems.ich.recalibrate import Recalibration
from medray.systems.ich.sequence import SequenceTask
from medray.systems.ich.source import HeadCT
from medray.systems.ich.task import SliceTask
from medray.systems.ich.views import Views
from medray.tasks.derivation import Networks, OutputsOf
from medray.tasks.task import Task

NOT_DICOM = "not a DICOM file"
"""How the reason begins for which such a file is set aside."""

ByFold = Mapping[int, pd.DataFrame]
Finished = tuple[str, int, type[Task]]


@dataclass(frozen=True)
class Study:
    """A piece of work. Its name and its pictures' are of its number: an identifier may be one that no path may hold."""

    number: int  # from 1
    slices: list[dict[str, Any]]  # rows of an inventory, whole stacks in order

    @property
    def name(self) -> str:
        return f"study{self.number:05d}"


def backbone_runs(method: dict[str, Any]) -> list[Finished]:
    """The runs of all backbones and folds of a method.json."""
    return [(model["runs"], fold, SliceTask) for model in method["models"].values() for fold in model["folds"]]


def sequence_runs(method: dict[str, Any]) -> list[Finished]:
    """The runs of the sequence stage of each backbone that has one."""
    staged = [model for model in method["models"].values() if model["sequence"]]
    return [(model["sequence"], fold, SequenceTask) for model in staged for fold in model["folds"]]


def source_for(tasks: Sequence[SliceTask], configuration: Mapping[str, Any]) -> HeadCT:
    """How files become rows that every backbone can read, prepared as the finished job's."""
    windows = [window for task in tasks for window in task.windows]
    remove, deface = (bool(configuration.get(name)) for name in ("remove_hardware", "deface"))
    return HeadCT(remove_hardware=remove, deface=deface).holding(windows, ())


@dataclass(frozen=True)
class NewStudies:
    """New studies through every network of a finished run: an ``OfFiles``."""

    method: dict[str, Any]  # method.json
    source: HeadCT
    folder: Store  # where the files are
    studies: int  # how many there are
    montages: int = 0  # of the first so many a picture is drawn
    caution: str = ""  # in a picture's title
    bleeding: pd.Series | None = None  # slice id → whether it bleeds, for the pictures

    @property
    def runs(self) -> list[Finished]:
        return backbone_runs(self.method) + sequence_runs(self.method)

    @property
    def views(self) -> Views:
        return Views(views=tuple(self.method["views"]["views"]), view_mean=self.method["views"]["view_mean"])

    def __str__(self) -> str:
        return f"{len(self.runs)} networks ({', '.join(self.method['models'])}), {len(self.views.views)} views"

    def read(self, piece: Study, each: Callable[..., Any]) -> tuple[list[dict[str, Any]], dict[str, str]]:
        return encode_rows(self.source, self.folder, piece.slices, each)

    def answer(self, networks: Networks, piece: Study, read: Any, outputs_of: OutputsOf, to: Store) -> pa.Table:
        rows, lost = read
        answered = self.ask(networks, rows, outputs_of) if rows else None
        if answered is not None and piece.number <= self.montages:
            title = f"study {piece.number} of {self.studies}" + (self.caution and f": {self.caution}")
            picture = draw_study(answered, rows, len(self.source.windows), title, self.bleeding)
            to.write_bytes(f"{piece.name}.png", picture)
        return _kept(piece.name, answered, rows, lost)

    def refused(self, piece: Study, why: str) -> pa.Table:
        return _kept(piece.name, None, [], {row["slice_id"]: why for row in piece.slices})

    def ask(self, networks: Networks, rows: Sequence[dict[str, Any]], outputs_of: OutputsOf) -> pd.DataFrame:
        """The run's answer for whole stacks, one row a slice.

        Args:
            rows: of the shards' schema, in stack order.
        """
        views: dict[str, dict[int, pd.DataFrame]] = {}
        sequences: dict[str, dict[int, pd.DataFrame]] = {}
        for name, model in self.method["models"].items():
            for fold in model["folds"]:
                task, network = networks[model["runs"], fold]
                task = task.reading(self.source)
                table = outputs_of(
                    task, network, rows, lambda net, batch, task=task: self.views.outputs(task, net, batch)
                )
                views.setdefault(name, {})[fold] = table.drop(columns="feature")
                if model["sequence"]:
                    found = outputs_of(*networks[model["sequence"], fold], pack_stacks(table).to_pylist())
                    in_order = found.set_index("slice_id").loc[table["slice_id"]].reset_index()
                    sequences.setdefault(name, {})[fold] = in_order
        return answer(self.method, views, sequences)


def _kept(
    name: str, answered: pd.DataFrame | None, rows: Sequence[dict[str, Any]], lost: Mapping[str, str]
) -> pa.Table:
    """The part of one study: its slices with their pixels' hash, and those that could not be decoded."""
    kept = pd.DataFrame({"slice_id": list(lost), "reason": list(lost.values())}, dtype=object)
    if answered is not None:
        hashes = {row["slice_id"]: row["pixels_hash"] for row in rows}
        own = answered.drop(columns=list(CLASSES))
        kept = pd.concat(
            [own.assign(pixels_hash=own["slice_id"].map(hashes), montage=f"{name}.png", reason=None), kept]
        )
    return pa.Table.from_pandas(kept, preserve_index=False)


def read_answers(parts: Sequence[pa.Table]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All studies: the slices with their answers, and slice_id and reason of those that could not be decoded."""
    table = pd.concat([part.to_pandas() for part in parts], ignore_index=True)
    lost = table["reason"].notna()
    found = table[~lost].drop(columns="reason").reset_index(drop=True)
    return found.astype({"index": np.int64} if len(found) else {}), table.loc[lost, ["slice_id", "reason"]]


def answer(method: dict[str, Any], views: Mapping[str, ByFold], sequences: Mapping[str, ByFold]) -> pd.DataFrame:
    """Every backbone and its sequence stage, averaged over the folds in logit space, then blended.

    Args:
        method: method.json.
        views: model → fold → the slices by that fold's network, averaged over the views; all in one order.
        sequences: model → fold → the same slices by its sequence stage.
    Returns:
        One row a slice, as in the tables, with the ensemble's PROBABILITIES.
    Raises:
        ValueError: a model of the ensemble has no table, a fold is missing, or a prediction is NaN.
    """
    tables: dict[str, np.ndarray] = {}
    for name, model in method["models"].items():
        fits = {int(fold): Recalibration.from_json(fit) for fold, fit in model["recalibration"].items()}
        for member, found, own in (
            (name, views.get(name, {}), fits),
            *([(SEQUENCE.format(name), sequences.get(name, {}), {})] if model["sequence"] else []),
        ):
            missing = sorted(set(model["folds"]) - set(found))
            if missing:
                raise ValueError(f"{member}: no predictions of fold {', '.join(map(str, missing))}")
            of_folds = {k: probabilities_of(found[k]) for k in model["folds"]}
            tables[member] = average(np.stack([own[k].apply(p) if k in own else p for k, p in of_folds.items()]))
            wrong = (~np.isfinite(tables[member])).any(axis=1)
            if wrong.any():
                first = next(iter(found.values()))["slice_id"].iloc[int(wrong.argmax())]
                raise ValueError(f"{member}: {int(wrong.sum())} predictions are NaN, the first is of {first}")
    table = next(iter(next(iter(views.values())).values()))
    return with_probabilities(table, Blend.from_json(method["blend"]).apply(tables))


def images_of(table: pd.DataFrame) -> tuple[list[str], int]:
    """Ids of the images of a submission, and how many files are left out of it.

    A DICOM file that is truncated or damaged is an image, and without its own id goes by the name of its file; a file
    that is no DICOM at all (a list of labels, an archive) is none, unless its name ends in .dcm: a challenge wants a
    row for such a file, even if nothing is left of it.

    Args:
        table: of an inventory: path, item_id, reason.
    """
    named = table["path"].str.lower().str.endswith(".dcm")
    images = table[named | ~table["reason"].fillna("").str.startswith(NOT_DICOM)]
    names = images["path"].map(file_name)
    return images["item_id"].fillna(names).tolist(), len(table) - len(images)


def submission(ids: Sequence[str], answered: pd.DataFrame, rates: Mapping[str, float | None]) -> tuple[str, int]:
    """submission.csv in the challenge's form: ``ID,Label``, six rows an image, every image exactly once.

    Args:
        ids: of all images, in order; repeated ones count once.
        answered: slice_id and PROBABILITIES.
        rates: class → how often it is positive: what an image gets that could not be read; 0.5 where that is unknown.
    Returns:
        The file's text, and how many images got the rates.
    """
    known = dict(zip(answered["slice_id"], probabilities_of(answered).tolist(), strict=True))
    guess = [0.5 if (rate := rates[name]) is None else rate for name in CLASSES]
    distinct = list(dict.fromkeys(ids))
    lines = ["ID,Label"]
    for slice_id in distinct:
        values = known.get(slice_id, guess)
        lines += [f"{slice_id}_{name},{value:.9g}" for name, value in zip(CLASSES, values, strict=True)]
    return "\n".join(lines) + "\n", sum(slice_id not in known for slice_id in distinct)
