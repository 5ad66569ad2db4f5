"""The answer of a finished run for studies that are not of its folds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from medray.shards.names import file_name
from medray.shards.store import Store
from medray.systems.ich.blend import Blend, average
from medray.systems.ich.classes import CLASSES
from medray.systems.ich.features import pack_stacks
from medray.systems.ich.method import SEQUENCE, probabilities_of, with_probabilities
from medray.systems.ich.recalibrate import Recalibration
from medray.systems.ich.source import HeadCT
from medray.systems.ich.views import Views

if TYPE_CHECKING:
    from torch import nn

    from medray.systems.ich.sequence import SequenceTask
    from medray.systems.ich.task import SliceTask

NOT_DICOM = "not a DICOM file"
"""How the reason begins for which such a file is set aside."""

TRAINED_ON_PHANTOMS = "this run was trained on phantoms: its probabilities say nothing about patients"

Load = Callable[[str, int], tuple[Any, "nn.Module"]]
OutputsOf = Callable[..., pd.DataFrame]
ByFold = Mapping[int, pd.DataFrame]


class Members:
    """Every network of a finished run.

    Args:
        method: method.json.
        backbone, sequence: model and fold → the task and the network of a finished run.
    Raises:
        ValueError: the run of a model or a fold is missing.
    """

    def __init__(self, method: dict[str, Any], backbone: Load, sequence: Load) -> None:
        self.method = method
        self.views = Views(views=tuple(method["views"]["views"]), view_mean=method["views"]["view_mean"])
        pairs = [(name, fold) for name, model in method["models"].items() for fold in model["folds"]]
        self.backbones: dict[tuple[str, int], tuple[SliceTask, nn.Module]] = {p: backbone(*p) for p in pairs}
        staged = [p for p in pairs if method["models"][p[0]]["sequence"]]
        self.sequences: dict[tuple[str, int], tuple[SequenceTask, nn.Module]] = {p: sequence(*p) for p in staged}

    def __str__(self) -> str:
        networks = len(self.backbones) + len(self.sequences)
        return f"{networks} networks ({', '.join(self.method['models'])}), {len(self.views.views)} views"

    def source(self, remove_hardware: bool) -> HeadCT:
        """How files become rows that every backbone can read; the backbones are told what the rows hold."""
        windows = [window for task, _ in self.backbones.values() for window in task.windows]
        source = HeadCT(remove_hardware=remove_hardware).holding(windows, ())
        self.backbones = {p: (task.reading(source), network) for p, (task, network) in self.backbones.items()}
        return source

    def ask(self, rows: Sequence[dict[str, Any]], outputs_of: OutputsOf) -> pd.DataFrame:
        """The run's answer for whole stacks, one row a slice.

        Args:
            rows: of the shards' schema, in stack order.
            outputs_of: task, network, rows and, where they are not the task's own, outputs → a table.
        """
        views: dict[str, dict[int, pd.DataFrame]] = {}
        sequences: dict[str, dict[int, pd.DataFrame]] = {}
        for (name, fold), (task, network) in self.backbones.items():
            table = outputs_of(task, network, rows, lambda net, batch, task=task: self.views.outputs(task, net, batch))
            views.setdefault(name, {})[fold] = table.drop(columns="feature")
            if (name, fold) in self.sequences:
                stacks = pack_stacks(table).to_pylist()
                found = outputs_of(*self.sequences[name, fold], stacks)
                in_order = found.set_index("slice_id").loc[table["slice_id"]].reset_index()
                sequences.setdefault(name, {})[fold] = in_order
        return answer(self.method, views, sequences)


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


def seen_in_training(slices: pd.DataFrame, trained: Collection[str]) -> pd.Series[bool]:
    """Which slices a network was trained on: (slices,), with the index of ``slices``.

    Args:
        slices: with the column pixels_hash; it is empty for an image of one value, which says nothing.
        trained: pixels_hash of every training slice.
    """
    hashes = slices["pixels_hash"]
    return (hashes.notna() & hashes.ne("") & hashes.isin(set(trained))).astype(bool)


def write_part(
    parts: Store, name: str, answered: pd.DataFrame | None, rows: Sequence[dict[str, Any]], lost: Mapping[str, str]
) -> None:
    """Keep the answer for one study: its slices with their pixels' hash, and those that could not be decoded."""
    kept = pd.DataFrame({"slice_id": list(lost), "reason": list(lost.values())}, dtype=object)
    if answered is not None:
        hashes = {row["slice_id"]: row["pixels_hash"] for row in rows}
        own = answered.drop(columns=list(CLASSES))
        kept = pd.concat(
            [own.assign(pixels_hash=own["slice_id"].map(hashes), montage=f"{name}.png", reason=None), kept]
        )
    parts.write_table(f"{name}.parquet", pa.Table.from_pandas(kept, preserve_index=False))


def read_parts(parts: Store, names: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All studies: the slices with their answers, and slice_id and reason of those that could not be decoded."""
    table = pd.concat([parts.read_table(f"{name}.parquet").to_pandas() for name in names], ignore_index=True)
    lost = table["reason"].notna()
    found = table[~lost].drop(columns="reason").reset_index(drop=True)
    return found.astype({"index": np.int64} if len(found) else {}), table.loc[lost, ["slice_id", "reason"]]


def read_hashes(out: Store) -> set[str]:
    """Hashes of the pixels of every slice in the shards of a job."""
    found: set[str] = set()
    for folder in out.sub("shards").folders()[:1]:  # all of them hold the same slices
        store = out.sub("shards", folder)
        for name in store.names(".parquet"):
            found |= set(store.read_table(name, columns=["pixels_hash"])["pixels_hash"].to_pylist())
    return found - {None, ""}
