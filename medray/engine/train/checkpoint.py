"""Checkpoints that the engine writes and finds itself, so that every number of workers behaves alike."""

from __future__ import annotations

import hashlib
import io
import re
from typing import Any

import torch

from medray.shards.store import Store

KEEP = 2
_NAME = re.compile(r"epoch(\d{4})-step(\d{8})\.pt")
_BEST = re.compile(r"best-epoch\d{4}\.pt")


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


def read_weights(store: Store, name: str) -> dict[str, Any]:
    """Tensors and plain values only: nothing in the file is executed."""
    state = torch.load(io.BytesIO(store.read_bytes(name)), map_location="cpu", weights_only=True)
    assert isinstance(state, dict)
    return state
