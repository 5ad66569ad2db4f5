"""The three rules of the house, read off the imports."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = {"engine", "imaging", "metrics", "nn", "report", "shards"}
SYSTEMS = {path.name for path in (ROOT / "medray").iterdir() if path.is_dir()} - SHARED - {"__pycache__"}
FILES = sorted((ROOT / "medray").rglob("*.py"))


def test_there_are_systems() -> None:
    assert {"ich", "chest"} <= SYSTEMS
    assert all((ROOT / "medray" / name / "task.py").exists() for name in SYSTEMS)


def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return found


def room(path: Path) -> str:
    return path.relative_to(ROOT / "medray").parts[0]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_rooms_keep_their_walls(path: Path) -> None:
    here = room(path)
    for module in imports(path):
        parts = module.split(".")
        target = parts[1] if parts[0] == "medray" and len(parts) > 1 else None
        if here in SYSTEMS:
            assert target not in SYSTEMS - {here}, f"{path}: a system imports the system {target}"
            assert target != "engine", f"{path}: a system imports the engine"
        if here == "engine":
            assert target not in SYSTEMS, f"{path}: the engine imports the system {target}"
        else:
            assert parts[0] not in {"ray", "mlflow"}, f"{path}: imports {parts[0]} outside the engine"
        if here in {"imaging", "metrics", "shards"}:
            assert parts[0] != "torch", f"{path}: {here} imports torch"
            assert target in {None, here, "imaging", "metrics", "shards"}, f"{path}: {here} imports {target}"


def test_a_job_is_short_and_a_file_holds_one_thing() -> None:
    for path in (ROOT / "jobs").glob("*.py"):
        # ich_cv joins six stages; a job that needs more than this has code that belongs to the package
        assert len(path.read_text().splitlines()) <= 170, f"{path}: a job reads like a sentence"
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 400, f"{path}: does it still hold one thing?"
