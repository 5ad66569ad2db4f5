"""MLflow's local database, there as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import psutil

LOCAL = "sqlite:///"


def make_database(uri: str) -> None:
    """Make the SQLite database of ``uri`` with MLflow's tables, unless it is there; other addresses are left alone.

    MLflow makes its tables one after the other in the file itself. A process that is killed meanwhile leaves some of them,
    and from then on every start fails with "table … already exists": no run of that folder would ever be tracked again.
    """
    path = Path(uri.removeprefix(LOCAL))
    if not uri.startswith(LOCAL) or "?" in uri or path.exists():
        return
    import mlflow

    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.*"):  # a database, and the journal that SQLite kept beside it
        process = left.suffix[1:].partition("-")[0]
        if process.isdigit() and not psutil.pid_exists(int(process)):
            left.unlink(missing_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        mlflow.MlflowClient(f"{LOCAL}{unfinished}").search_experiments(max_results=1)
        with contextlib.suppress(FileExistsError):  # another process was sooner
            os.link(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
