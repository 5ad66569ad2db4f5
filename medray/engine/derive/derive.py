"""New shards from the rows of shards: by finished networks or a plain function, over all cores, GPUs and nodes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import ray

from medray.engine.data.samples import Rows, Shards, read_index
from medray.engine.derive.function import FunctionWorker
from medray.engine.derive.inputs import FOOTERS_AT_ONCE, Inputs
from medray.engine.derive.network import NetworkWorker, reader_threads
from medray.engine.derive.part import read_left_out
from medray.engine.derive.pool import done_by_actors, placed
from medray.engine.job.progress import Progress, warn
from medray.engine.nodes.cluster import what_happened
from medray.engine.train.run import Run
from medray.engine.train.stop import StopRun
from medray.shards.digest import digest
from medray.shards.folders import fold_folder
from medray.shards.store import Store
from medray.tasks.derivation import ByFunction, ByNetwork

BY_FUNCTION = -1
_PART = re.compile(r".+-[0-9a-f]{12}\.parquet")


@dataclass(frozen=True)
class DerivedShards:
    """Shards that were derived. Read like any others: the training stream takes what ``index`` gives."""

    store: Store
    names: Mapping[int, Sequence[str]]
    """Fold of the network → its files relative to the store, in the order of the parts; BY_FUNCTION for a function's."""

    @property
    def files(self) -> list[str]:
        """Of all folds, relative to the store."""
        return [name for fold in sorted(self.names) for name in self.names[fold]]

    def index(
        self, columns: Sequence[str], fold_of_patient: Mapping[str, int] | None = None
    ) -> tuple[Rows, pd.DataFrame]:
        """Every row: where it is, its small columns, "network_fold", the fold of the network that it came from, and
        "made_by", which tells the weights and settings of every stage before it.

        Args:
            columns: patient_id among them where there is a fold of patients: it then becomes the column "fold".
        """
        order = [(fold, name) for fold in sorted(self.names) for name in self.names[fold]]
        rows, index = read_index(self.store, list(columns), [name for _, name in order])
        # of what it was made from: the name of a part has the digests of all stages before it
        made_by = np.array([PurePosixPath(name).stem for _, name in order])
        index["made_by"] = made_by[rows.file]
        index["network_fold"] = np.array([fold for fold, _ in order])[rows.file]
        if fold_of_patient is not None:
            index["fold"] = index["patient_id"].map(dict(fold_of_patient)).to_numpy()
        return rows, index

    def shards(self, columns: Sequence[str], fold_of_patient: Mapping[str, int]) -> Shards:
        """What a next stage is trained on; see ``index``."""
        return Shards(*self.index(columns, fold_of_patient))

    def set_aside(self) -> pd.DataFrame:
        """id, reason and fold of the network for each row that came in and was refused."""
        order = [(fold, name) for fold, names in self.names.items() for name in names]
        with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
            found = list(pool.map(lambda one: read_left_out(self.store, one[1]), order))
        rows = [(i, why, fold) for (fold, _), own in zip(order, found, strict=True) for i, why in own.items()]
        return pd.DataFrame(rows, columns=["id", "reason", "network_fold"])


def derive(
    derivation: ByNetwork | ByFunction,
    inputs: Rows | Inputs,
    to: Store,
    runs: Sequence[Run] = (),
    unseen: Sequence[int] | None = None,
    gpu_device: str = "cuda",
    what: str = "features",
) -> DerivedShards:
    """Derive new shards: one file for each run and part of the (first) input.

    Files that are there are kept, so a restart goes on; those of other weights, settings or rows are removed.

    Args:
        derivation: by a network where there are ``runs``, else by a function.
        inputs: of each part whole stacks in order.
        to: files go to fold<k>/ in it; those of a function into itself.
        runs: finished ones of one task, one a fold: every row goes through the network of each.
        unseen: fold of each row: it then goes through the network of that fold only, which has not seen its patient.
        gpu_device: torch's name for an actor's GPU; "cpu" on a cluster whose GPUs are names only.
        what: names the result on the terminal.
    Raises:
        StopRun: a network gave something that cannot be kept, or every row was refused; files that are written stay.
        ValueError: no run for the fold of a row.
    """
    inputs = Inputs((inputs,)) if isinstance(inputs, Rows) else inputs
    fold_of_row = None if unseen is None else np.asarray(unseen)
    if fold_of_row is not None and len(without := set(fold_of_row.tolist()) - {run.fold for run in runs}):
        raise ValueError(f"rows of fold {min(without)}: no network has held them out; train all folds (--train-folds)")
    names: dict[int, list[str]] = {}
    todo: list[_Piece] = []
    total = 0
    counts = inputs.counts()
    each: list[Run | None] = [*runs] or [None]
    for run in each:
        folder, prefix = (to, "") if run is None else (to.sub(fold_folder(run.fold)), f"{fold_folder(run.fold)}/")
        wanted = _pieces(derivation, inputs, counts, run, folder, None if run is None else fold_of_row)
        folder.remove_unfinished()
        found = set(folder.names(".parquet"))
        for stale in (name for name in found - {piece.name for piece in wanted} if _PART.fullmatch(name)):
            folder.delete(stale)
        todo += [piece for piece in wanted if piece.name not in found]
        total += sum(len(piece.places) for piece in wanted)
        names[BY_FUNCTION if run is None else run.fold] = [prefix + piece.name for piece in wanted]
    _work(derivation, inputs, todo, total, runs[0].resources.gpu if runs else False, gpu_device, what)
    derived = DerivedShards(to, names)
    _say_refused(derived, total, what)
    return derived


def derived_there(store: Store) -> DerivedShards:
    """What a finished job has derived by a function; nothing where it has not."""
    return DerivedShards(store, {BY_FUNCTION: store.names(".parquet")})


def _say_refused(derived: DerivedShards, total: int, what: str) -> None:
    """At every start: what was set aside by an earlier one is as much set aside.

    Raises:
        StopRun: every row was refused.
    """
    aside = derived.set_aside()
    first = f"; the first reason: {aside['reason'].iloc[0]}" if len(aside) else ""
    if total and len(aside) == total:
        raise StopRun(f"{what}: each of {total:,} rows was refused{first}")
    if len(aside):
        warn(f"{what}: {len(aside):,} of {total:,} rows were set aside{first}")


@dataclass(frozen=True)
class _Piece:
    """Rows of one part, by one network or by a function, and the file that is made of them."""

    run: Run | None
    places: np.ndarray  # of rows
    folder: Store
    name: str


def _pieces(
    derivation: ByNetwork | ByFunction, inputs: Inputs, counts: Sequence[int], run: Run | None, folder: Store,
    fold_of_row: np.ndarray | None,
) -> list[_Piece]:  # fmt: skip
    first = inputs.every[0]
    bounds = np.searchsorted(first.file, np.arange(len(first.files) + 1))
    weights = [] if run is None else [run.weights_digest()]
    out = []
    for i, file in enumerate(first.files):
        places = np.arange(bounds[i], bounds[i + 1])
        if fold_of_row is not None and run is not None:
            places = places[fold_of_row[places] == run.fold]
        if not len(places) and counts[i]:
            continue
        origin = inputs.take(places).origin(whole=len(places) == counts[i])
        made_by = digest(*weights, derivation.identity(), *origin)
        out.append(_Piece(run, places, folder, f"{PurePosixPath(file).stem}-{made_by}.parquet"))
    return out


@dataclass(frozen=True)
class _Pieces:
    """Pieces that are still to be done, as work for actors."""

    derivation: Any
    inputs: ray.ObjectRef
    todo: Sequence[_Piece]
    gpu: bool
    device: str

    def actor(self) -> Any:
        if self.todo[0].run is None:
            return placed(FunctionWorker, 1, False).remote(self.derivation)
        threads = reader_threads() if self.gpu else 1  # of the cluster as it is now
        return placed(NetworkWorker, threads, self.gpu).remote(self.derivation, threads, self.device)

    def start(self, actor: Any, number: int) -> ray.ObjectRef:
        piece = self.todo[number]
        return actor.write.remote(piece.run, self.inputs, piece.places, piece.folder, piece.name)


def _work(
    derivation: Any, inputs: Inputs, todo: Sequence[_Piece], total: int, gpu: bool, gpu_device: str, what: str
) -> None:
    left = sum(len(piece.places) for piece in todo)
    progress = Progress(what, total, "rows", done=total - left)
    work = _Pieces(derivation, ray.put(inputs), todo, gpu, gpu_device if gpu else "cpu")
    try:
        for number, _ in done_by_actors(work, ["" if p.run is None else p.run.name for p in todo]):
            progress.add(len(todo[number].places))
    except Exception as error:  # whatever happened in an actor
        raise StopRun(what_happened(error)) from error
    progress.close()
