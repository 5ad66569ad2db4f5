from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import mlflow
import pytest

from medray.engine.job.database import make_database

KILLED = """
import os, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from medray.engine.job.database import make_database
made = []

@event.listens_for(Engine, "after_cursor_execute")
def count(connection, cursor, statement, *rest):
    made.append(sys.argv[2] in statement)
    if sum(made) == int(sys.argv[3]):
        os.kill(os.getpid(), 9)

make_database(sys.argv[1])
"""


@pytest.mark.parametrize(
    ("statement", "times", "left"),
    [
        ("CREATE TABLE", 5, 1),
        ("INSERT INTO experiments", 1, 2),
    ],  # within a transaction SQLite keeps a journal beside the file
)
def test_a_kill_while_it_is_made_leaves_nothing_that_the_next_start_trips_over(
    tmp_path: Path, statement: str, times: int, left: int
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    words = [sys.executable, "-c", KILLED, uri, statement, str(times)]
    killed = subprocess.run(words, capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr
    assert not (tmp_path / "mlflow.db").exists()
    assert len(list(tmp_path.iterdir())) == left
    make_database(uri)
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]
    client = mlflow.MlflowClient(uri)
    experiment = client.create_experiment("medray")
    run = client.create_run(experiment)
    make_database(uri)  # is there: it stays
    assert [found.info.run_id for found in client.search_runs([experiment])] == [run.info.run_id]


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9/", "sqlite:///{folder}/other.db?timeout=3"])
def test_other_addresses_are_left_alone(uri: str, tmp_path: Path) -> None:
    make_database(uri.format(folder=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_two_that_begin_at_once_have_one(tmp_path: Path) -> None:
    code = "import sys; from medray.engine.job.database import make_database; make_database(sys.argv[1])"
    words = [sys.executable, "-c", code, f"sqlite:///{tmp_path}/new/mlflow.db"]
    codes: list[int] = []
    both = [threading.Thread(target=lambda: codes.append(subprocess.run(words, check=False).returncode)) for _ in "ab"]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert codes == [0, 0]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mlflow.db"]
