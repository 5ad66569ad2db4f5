"""Files of weights and state: what a run starts from, what it resumes from, and what a finished one leaves.

The engine writes and finds checkpoints itself, so that every number of workers behaves alike. The weights that training
starts from are fetched once by the driver and read by every worker of every fold: a hub that is down at night, or a node
that cannot reach it, then costs nothing, and all folds start alike.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from medray.engine.job.progress import warn
from medray.shards.folders import DONE, INITIAL, MODEL
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
    """Gives the SHA-256 of the file."""
    return hashlib.sha256(write(store, name, state)).hexdigest()


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


def read_model(store: Store) -> dict[str, Any]:
    """model.pt of a finished run.

    Raises:
        ValueError: it is not the file that the run wrote.
    """
    content = store.read_bytes(MODEL)
    wrote = str(store.read_json(DONE, {}).get("weights", ""))
    if not hashlib.sha256(content).hexdigest().startswith(wrote) or not wrote:
        raise ValueError(
            f"{store.uri}/{MODEL}: is not what its run wrote (done.json has another SHA-256); copy it anew, or delete that folder "
            "and run the job again"
        )
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
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
