"""Whatever is imported first, Ray finds its variables set: each module of the engine, each job, each script of the tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from medray.engine.environment import DEFAULTS

ROOT = Path(__file__).resolve().parents[2]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "medray" / "engine").rglob("*.py"))
]
SCRIPTS = [
    str(path.relative_to(ROOT))
    for folder in ("jobs", "tests")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "\nif __name__ ==" in path.read_text() or path.name == "conftest.py"
]

# each is imported in turn, as if nothing of medray had been, up to its first import of Ray, which is noted and refused
WATCH = """
import importlib, json, os, runpy, sys

names, modules, scripts = json.loads(sys.stdin.read())
shell, path = dict(os.environ), list(sys.path)

class Ray(ImportError):
    pass

class Finder:
    def find_spec(self, name, *_):
        if name.split(".")[0] == "ray":
            seen.append({n: os.environ.get(n) for n in names})
            raise Ray(name)

sys.meta_path.insert(0, Finder())
found = {}
for each in modules + scripts:
    for name in [n for n in sys.modules if n.split(".")[0] in ("medray", "nodes_driver", "lost_nodes", "ray_processes")]:
        del sys.modules[name]
    os.environ.clear()
    os.environ.update(shell)
    sys.path[:] = path
    seen = []
    try:
        importlib.import_module(each) if each in modules else runpy.run_path(each, run_name="imported")
    except Ray:
        pass
    found[each] = seen[:1]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def seen() -> dict[str, list[dict[str, str | None]]]:
    """Module or script → the variables at the moment at which it first imports Ray; nothing where it does not."""
    bare = {name: value for name, value in os.environ.items() if name not in DEFAULTS}
    done = subprocess.run(
        [sys.executable, "-c", WATCH], input=json.dumps([list(DEFAULTS), MODULES, SCRIPTS]), cwd=ROOT,
        env=bare | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}{os.pathsep}{ROOT / 'tests' / 'benchmarks'}"},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("name", [*MODULES, *SCRIPTS])
def test_the_variables_are_set_before_ray_is_imported(name: str, seen: dict[str, list[dict[str, str | None]]]) -> None:
    assert all(variables == DEFAULTS for variables in seen[name])


def test_ray_is_imported_by_those_that_should(seen: dict[str, list[dict[str, str | None]]]) -> None:
    importing = {name for name, variables in seen.items() if variables}
    expected = {
        "medray.engine.nodes.cluster",
        "medray.engine.doctor.examine",
        "medray.engine.tuning.tuner",
        "jobs/doctor.py",
    }
    assert expected | {"jobs/ich_cv.py", "tests/nodes_driver.py", "tests/benchmarks/soak.py"} <= importing


def test_what_the_shell_says_stays() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import medray.engine, os; print(os.environ['RAY_ENABLE_UV_RUN_RUNTIME_ENV'])"],
        env=os.environ | {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "1"}, cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "1"
