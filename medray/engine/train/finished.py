"""Finished runs, as other jobs use them: their settings, tasks and networks, each as the job left it."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from medray.engine.job.claim import CONFIG, KEY, PROJECT
from medray.engine.job.progress import warn
from medray.engine.train.checkpoint import read_model, read_weights
from medray.shards.folders import DONE, MODEL, run_store, runs_store
from medray.shards.manifest import DESCRIBED, MANIFEST, Manifest
from medray.shards.pseudonym import Pseudonyms, has_key, load_key, map_fingerprints, map_path, project_key
from medray.shards.store import Store
from medray.tasks.task import Task

SomeTask = TypeVar("SomeTask", bound=Task)


def finished_job(out: Store, results: Store, description: str, key_dir: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration of a job and the description that it wrote at its end.

    Args:
        results: where the description is: ``out``, or the folder of one of its variants.
        description: its file, such as method.json.
        key_dir: where the key of the job's pseudonyms may lie: its manifest is then authenticated.
    Raises:
        ValueError: the folder is no job's, the job has not come to its end, or a file is another one than the job left.
    """
    try:
        configuration, found = out.read_json(CONFIG), results.read_json(description)
    except ValueError:
        raise ValueError(
            f"--run {out.uri}: config.json or {description} is damaged; run the job again, which writes them"
        ) from None
    if configuration is None:
        raise ValueError(f"--run {out.uri}: holds no config.json; name the --out of a job")
    if found is None:
        raise ValueError(f"--run {results.uri}: holds no {description}; run the job again to its end")
    _check(out, results, configuration, key_dir.expanduser().resolve())
    return configuration, found


def _check(out: Store, results: Store, configuration: dict[str, Any], key_dir: Path) -> None:
    """Compare settings and the digests of weights with the manifest. Raises ValueError as ``Manifest``."""
    key, fingerprint = None, configuration.get(KEY)
    if fingerprint is not None and has_key(key_dir):
        own = project_key(load_key(key_dir), configuration.get(PROJECT) or "")
        key = own if Pseudonyms(own).fingerprint == fingerprint else None
    manifest = Manifest(out, Pseudonyms(key))
    if not manifest.found:
        raise ValueError(f"--run {out.uri}: holds no {MANIFEST}; run the job again, which writes it")
    if key is None and has_key(key_dir):
        _check_map(out, fingerprint, key_dir)
    if key is None:
        why = (
            "has public identifiers and no key"
            if fingerprint is None
            else f"has a key that is not in {key_dir} (--key-dir)"
        )
        warn(f"--run {out.uri} {why}: its files are as its {MANIFEST} has them, and who wrote that is not known")
    described = [manifest.name(results, name) for name in DESCRIBED if results.exists(name)]
    runs = [
        runs_store(out, model).sub(fold)
        for model in runs_store(out).folders()
        for fold in runs_store(out, model).folders()
    ]
    used = [CONFIG, *described, *(manifest.name(run, DONE) for run in runs if run.exists(DONE))]
    for name in used:  # an older manifest, put back, would say nothing of them
        if name not in manifest.files:
            raise ValueError(f"{out.uri}/{name}: {MANIFEST} does not name it; run the job again, which does")
    manifest.check_files(used)


def _check_map(out: Store, fingerprint: str | None, key_dir: Path) -> None:
    """Raises ValueError where this user's own map says that the job in ``out`` has other pseudonyms than its settings say: whoever
    changed them would be believed."""
    written = map_fingerprints(key_dir, out.absolute)
    if written is None or written.owner != Pseudonyms(load_key(key_dir)).fingerprint or written.project == fingerprint:
        return
    claims = "says that they are public" if fingerprint is None else "has another key"
    raise ValueError(
        f"--run {out.uri}: {key_dir} holds the names of its patients, and its {CONFIG} {claims}; name the --key-dir of its job, put "
        f"{CONFIG} back as it was, or where another job wrote there since, move {map_path(key_dir, out.absolute)} away"
    )


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
        saved = read_weights(store, MODEL, lazily) if lazily else read_model(store)
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
