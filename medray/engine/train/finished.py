"""What a finished job left in its folder, for a job that goes on from it."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any, TypeVar

import torch
from torch import nn

from medray.engine.train import checkpoint
from medray.shards.store import Store
from medray.tasks.task import Task

SomeTask = TypeVar("SomeTask", bound=Task)


def finished_job(out: Store, results: Store, description: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration of a job and the description that it wrote at its end.

    Args:
        results: where the description is: ``out``, or the folder of one of its variants.
        description: its file, such as method.json.
    Raises:
        ValueError: the folder is no job's, or the job has not come to its end.
    """
    configuration, found = out.read_json("config.json"), results.read_json(description)
    if configuration is None:
        raise ValueError(f"--run {out.uri}: holds no config.json; name the --out of a job")
    if found is None:
        raise ValueError(f"--run {results.uri}: holds no {description}; run the job again to its end")
    return configuration, found


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


def finished_run(out: Store, name: str, fold: int, kind: type[SomeTask]) -> tuple[SomeTask, nn.Module]:
    """The task of a finished run and its network, on the GPU where there is one.

    Raises:
        ValueError: the run is missing or not finished, or it is of another kind of task.
    """
    store = out.sub("runs", name, f"fold{fold}")
    if not store.exists("model.pt"):
        raise ValueError(f"--run {out.uri}: runs/{name}/fold{fold} has no model.pt; run the job again to its end")
    saved = checkpoint.read_weights(store, "model.pt")
    identity = json.loads(saved["task"])
    if identity["task"] != kind.__name__:
        raise ValueError(f"--run {out.uri}: runs/{name} is a {identity['task']}, expected {kind.__name__}")
    known = {f.name for f in fields(kind) if f.init}
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in identity.items() if k in known}
    task = kind(**values).without_weights()
    network = task.network()
    try:
        network.load_state_dict(saved["weights"])
    except RuntimeError:  # its text has a line for each tensor
        raise ValueError(
            f"--run {out.uri}: runs/{name}/fold{fold} was trained by another version of this program; train it again"
        ) from None
    return task, network.to("cuda" if torch.cuda.is_available() else "cpu").eval()
