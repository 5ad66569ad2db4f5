"""Files of weights and state: what a run starts from, what it resumes from, and what a finished one leaves to other jobs.

The engine writes and finds checkpoints itself, so that every number of workers behaves alike. The weights that training
starts from are fetched once by the driver and read by every worker of every fold: a hub that is down at night, or a node
that cannot reach it, then costs nothing, and all folds start alike.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from medray.engine.job.progress import warn
from medray.shards.folders import INITIAL, MODEL, run_store
from medray.shards.store import Store
from medray.tasks.task import Task

KEEP = 2
_NAME = re.compile(r"epoch(\d{4})-step(\d{8})\.pt")
_BEST = re.compile(r"best-epoch\d{4}\.pt")
SomeTask = TypeVar("SomeTask", bound=Task)


def save(store: Store, epoch: int, step: int, state: dict[str, Any]) -> None:
    """Write the state with which step ``step`` of epoch ``epoch`` begins; the last ``KEEP`` stay."""
    write(store, f"epoch{epoch:04d}-step{step:08d}.pt", state)
    for name in [n for n in store.names(".pt") if _NAME.fullmatch(n)][:-KEEP]:
        store.delete(name)


def latest(store: Store) -> dict[str, Any] | None:
    """The newest state, None where there is none."""
    names = [name for name in store.names(".pt") if _NAME.fullmatch(name)]
    return read_weights(store, names[-1]) if names else None


def best_name(epoch: int) -> str:
    """File of the weights with which ``epoch`` ended. A process may be killed before the checkpoint names that epoch as the
    best, and the epoch may end with others when it is trained again: the file of the one named before is still there."""
    return f"best-epoch{epoch:04d}.pt"


def keep_best(store: Store, epoch: int) -> None:
    """Remove the best weights of other epochs than the one that a checkpoint names."""
    for name in store.names(".pt"):
        if _BEST.fullmatch(name) and name != best_name(epoch):
            store.delete(name)


def write(store: Store, name: str, state: dict[str, Any]) -> memoryview:
    """Gives what the file holds."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    store.write_bytes(name, buffer.getbuffer())
    return buffer.getbuffer()


def write_weights(store: Store, name: str, state: dict[str, Any]) -> str:
    """Gives a digest of the file."""
    return hashlib.sha256(write(store, name, state)).hexdigest()[:16]


def read_weights(store: Store, name: str, lazily: bool = False) -> dict[str, Any]:
    """Tensors and plain values only: nothing in the file is executed.

    Args:
        lazily: tensors of a file on a disk are read when they are used.
    """
    mapped = lazily and store.local is not None
    file: Any = store.path(name) if mapped else io.BytesIO(store.read_bytes(name))
    state = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    assert isinstance(state, dict)
    return state


def write_initial(task: Task, to: Store) -> Store | None:
    """Write initial.pt into ``to`` unless it is there; gives ``to``, or None for a task that starts from random weights.

    Raises:
        ValueError: the weights cannot be had.
    """
    if not task.starts_from_weights:
        return None
    if not to.exists(INITIAL):
        from medray.nn.weights import WeightsWarning  # timm, which only such a task needs

        torch.manual_seed(task.seed)
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always", WeightsWarning)
            state = task.network().state_dict()
        for note in notes:
            if issubclass(note.category, WeightsWarning):
                warn(str(note.message))
        write_weights(to, INITIAL, state)
    return to


def renamed(
    found: Mapping[str, Tensor], prefixes: Mapping[str, str], wanted: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Weights under the names that they have in another network.

    Args:
        prefixes: as ``Start.prefixes``. wanted: all weights of the other network.
    Raises:
        ValueError: a prefix that no weight begins with, or a weight that has no place in the other network.
    """
    out, used = {}, set()
    for name, value in found.items():
        prefix = max((p for p in prefixes if name.startswith(p)), key=len, default=None)
        if prefix is None:
            continue
        used.add(prefix)
        here = prefixes[prefix] + name.removeprefix(prefix)
        if here not in wanted:
            raise ValueError(f"{name} would be {here}, and there is no such weight")
        if wanted[here].shape != value.shape:
            raise ValueError(f"{name} has the shape {tuple(value.shape)}, and {here} {tuple(wanted[here].shape)}")
        out[here] = value
    if unused := sorted(set(prefixes) - used):
        raise ValueError(f"no weight begins with {unused[0]!r}")
    return out


def finished_job(out: Store, results: Store, description: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration of a job and the description that it wrote at its end.

    Args:
        results: where the description is: ``out``, or the folder of one of its variants.
        description: its file, such as method.json.
    Raises:
        ValueError: the folder is no job's, or the job has not come to its end.
    """
    try:
        configuration, found = out.read_json("config.json"), results.read_json(description)
    except ValueError:
        raise ValueError(
            f"--run {out.uri}: config.json or {description} is damaged; run the job again, which writes them"
        ) from None
    if configuration is None:
        raise ValueError(f"--run {out.uri}: holds no config.json; name the --out of a job")
    if found is None:
        raise ValueError(f"--run {results.uri}: holds no {description}; run the job again to its end")
    return configuration, found


def model_of(out: Store, name: str, job: str) -> str:
    """The model of a finished run that --name says, or its only one.

    Args:
        job: whose results these should be, such as lesion_cv.py.
    Raises:
        ValueError: there is none of that name, or several and no name.
    """
    if not name:
        return only_folder(out, "models", "--name")
    there = out.sub("models").folders()
    if name not in there:
        has = f"has {', '.join(there)}" if there else f"holds no models/; name the --out of a finished {job}"
        raise ValueError(f"--name {name}: --run {out.uri} {has}")
    return name


def only_folder(out: Store, parent: str, flag: str) -> str:
    """The one folder below ``parent`` in a job's --out.

    Raises:
        ValueError: there is none, as in the --out of another kind of job, or ``flag`` has to say which.
    """
    found = out.sub(parent).folders()
    if not found:
        raise ValueError(f"--run {out.uri}: holds no {parent}/; name the --out of a finished job of this kind")
    if len(found) > 1:
        raise ValueError(f"--run {out.uri}: holds {', '.join(found)}; say which with {flag}")
    return found[0]


def finished_task(out: Store, name: str, fold: int, kind: type[SomeTask]) -> SomeTask:
    """The task of a finished run.

    Raises:
        ValueError: the run is missing or not finished, or it is of another kind of task.
    """
    return _finished(out, name, fold, kind, lazily=True)[0]


def weights_bytes(out: Store, runs: Iterable[tuple[str, int, type[Task]]]) -> int:
    """Bytes of the networks of finished runs: name, fold and kind of each."""
    paths = [run_store(out, name, fold).path(MODEL) for name, fold, _ in runs]
    return sum(info.size or 0 for info in out.filesystem.get_file_info(paths))


def finished_run(out: Store, name: str, fold: int, kind: type[SomeTask]) -> tuple[SomeTask, nn.Module]:
    """The task of a finished run and its network, on this process's GPU where there is one.

    Raises:
        ValueError: as ``finished_task``, or the network is another version's.
    """
    task, weights = _finished(out, name, fold, kind)
    network = task.network()
    try:
        network.load_state_dict(weights)
    except RuntimeError:  # its text has a line for each tensor
        raise ValueError(
            f"--run {out.uri}: runs/{name}/fold{fold} was trained by another version of this program; train it again"
        ) from None
    return task, network.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def _finished(
    out: Store, name: str, fold: int, kind: type[SomeTask], lazily: bool = False
) -> tuple[SomeTask, dict[str, Any]]:
    """The task of a finished run and its weights.

    Raises:
        ValueError: the run is missing or not finished, or it is of another kind of task.
    """
    store = run_store(out, name, fold)
    if not store.exists(MODEL):
        raise ValueError(f"--run {out.uri}: runs/{name}/fold{fold} has no model.pt; run the job again to its end")
    try:
        saved = read_weights(store, MODEL, lazily)
        identity = json.loads(saved["task"])
    except (RuntimeError, EOFError, KeyError, AssertionError, pickle.UnpicklingError):
        raise ValueError(
            f"--run {out.uri}: runs/{name}/fold{fold}/model.pt is damaged; copy it anew, or delete that folder and run the job "
            "again"
        ) from None
    if identity["task"] != kind.__name__:
        raise ValueError(f"--run {out.uri}: runs/{name} is a {identity['task']}, expected {kind.__name__}")
    known = {f.name for f in fields(kind) if f.init}
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in identity.items() if k in known}
    return kind(**values).without_weights(), saved["weights"]
