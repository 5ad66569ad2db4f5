"""The models of a finished job, out of its folder."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

from torch import nn

from medray.engine import checkpoint
from medray.engine.model_logging import without_download
from medray.shards.source import Source
from medray.shards.store import Store
from medray.task import Task

SomeTask = TypeVar("SomeTask", bound=Task)
SomeSource = TypeVar("SomeSource", bound=Source)


def load_job(
    out: Store, source: type[SomeSource], task: type[SomeTask]
) -> tuple[SomeSource, SomeTask, list[nn.Module]]:
    """The job's source, its task, and the network of each finished fold.

    Raises:
        ValueError: the folder is no finished job of this task.
    """
    configuration = out.read_json("config.json")
    if configuration is None:
        raise ValueError(f"--run {out.uri}: holds no config.json; name the --out of a job")
    if configuration.get("task") != task.__name__:
        raise ValueError(f"--run {out.uri}: a run of {configuration.get('task')}, expected {task.__name__}")
    shape = without_download(_build(task, configuration))
    folder = out.sub("runs", *shape.name.split("/"))
    networks = []
    for fold in range(configuration["folds"]):
        store = folder.sub(f"fold{fold}")
        if not store.exists("model.pt"):
            continue
        saved = checkpoint.read_weights(store, "model.pt")
        network = shape.network()
        network.load_state_dict(saved["weights"])
        networks.append(network.eval())
    if not networks:
        raise ValueError(f"--run {out.uri}: no fold of it is finished yet; run the job again to its end")
    return _build(source, configuration), shape, networks


def _build(kind: Any, values: dict[str, Any]) -> Any:
    """A dataclass from the entries that are its fields; JSON's lists become tuples."""
    known = {f.name for f in fields(kind) if f.init}
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known})
