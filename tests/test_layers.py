"""The rules of the house, read off the imports."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "medray"
NUMPY_ONLY = {"imaging", "metrics", "shards"}
SHARED = NUMPY_ONLY | {"nn", "report", "tasks"}
SYSTEMS = {path.name for path in (PACKAGE / "systems").iterdir() if path.is_dir()} - {"__pycache__"}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(text: str) -> set[str]:
    """Every module that a source text imports, wherever in it; ``from a import b`` counts as ``a.b``."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names}
    return found


def faults(path: str, text: str) -> list[str]:
    """What a file's imports do against the rules; ``path`` is below medray/."""
    here = path.split("/")
    found = []
    for module in sorted(imports(text)):
        parts = module.split(".")
        target = parts[1:] if parts[0] == "medray" else []
        if parts[0] == "":
            found.append(f"relative import {module}")
        if parts[0] in {"ray", "mlflow"} and here[0] != "engine":
            found.append(f"imports {parts[0]} outside the engine")
        if target[:1] == ["engine"] and here[0] != "engine":
            found.append(f"{here[0]} imports the engine")
        if target[:1] == ["systems"] and target[:2] != here[:2]:
            found.append(f"{here[0]} imports {module}")
        if here[0] in NUMPY_ONLY and (parts[0] == "torch" or (target and target[0] not in NUMPY_ONLY)):
            found.append(f"{here[0]} imports {module}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_rooms_keep_their_walls(path: Path) -> None:
    assert faults(path.relative_to(PACKAGE).as_posix(), path.read_text()) == []


def test_every_file_is_in_a_room() -> None:
    """What stands beside the rooms would be outside of the rules."""
    assert {path.relative_to(PACKAGE).parts[0] for path in FILES} == {"__init__.py", "engine", "systems", *SHARED}
    assert [path.name for path in FILES if path.parent == PACKAGE / "systems"] == ["__init__.py"]
    assert {"ich", "chest"} <= SYSTEMS
    assert all((PACKAGE / "systems" / name / "task.py").exists() for name in SYSTEMS)


def test_imports_run_in_no_circle() -> None:
    """Within functions and for types only, too: a circle there is one that was hidden."""
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}
    needs = {
        name: {found if found in modules else found.rpartition(".")[0] for found in imports(path.read_text())}
        & {*modules}
        for name, path in modules.items()
    }
    assert len(list(graphlib.TopologicalSorter(needs).static_order())) == len(modules)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("systems/ich/a.py", "from medray.systems.chest.task import FilmTask"),
        ("systems/ich/a.py", "from medray.systems import chest"),
        ("systems/ich/a.py", "import medray.systems.chest.task as other"),
        ("systems/ich/a.py", "def f():\n    from medray import engine"),
        ("systems/ich/a.py", "from medray import systems"),
        ("systems/ich/a.py", "from ..chest import task"),
        ("systems/ich/a.py", "import ray.data"),
        ("engine/data/a.py", "from medray.systems.ich import task"),
        ("engine/data/a.py", "from medray import systems"),
        *((f"{room}/a.py", "from medray import engine") for room in sorted(SHARED)),
        *((f"{room}/a.py", "from medray.systems.ich.task import SliceTask") for room in sorted(SHARED)),
        *((f"{room}/a.py", "from mlflow import start_run") for room in sorted(SHARED)),
        *((f"{room}/a.py", "from torch import nn") for room in sorted(NUMPY_ONLY)),
        *((f"{room}/a.py", "from medray import nn") for room in sorted(NUMPY_ONLY)),
    ],
)
def test_what_is_against_the_rules_is_found(path: str, text: str) -> None:
    assert faults(path, text)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "systems/ich/a.py",
            "from medray.systems.ich import recipes\nfrom medray.tasks.task import Task\nimport torch",
        ),
        (
            "engine/train/a.py",
            "import ray, mlflow\nfrom medray.engine.data import shard\nfrom medray.tasks import task",
        ),
        ("shards/a.py", "from medray.imaging.types import Unreadable\nfrom medray import shards"),
        ("tasks/a.py", "from medray.nn.backbone import Backbone\nfrom medray.shards.store import place"),
    ],
)
def test_what_is_within_the_rules_passes(path: str, text: str) -> None:
    assert faults(path, text) == []


def test_a_job_is_short_and_a_file_holds_one_thing() -> None:
    for path in (ROOT / "jobs").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 110, f"{path}: a job reads like a sentence"
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 400, f"{path}: does it still hold one thing?"
