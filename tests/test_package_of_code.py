"""What `ray job submit --working-dir .` sends to the cluster, by Ray's own packing: code, and nothing that lies beside it."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path

from ray._private.runtime_env.packaging import create_package

ROOT = Path(__file__).resolve().parents[1]
BESIDE = (
    "explained/film.png",
    "test/patients.csv",
    "data/ct.dcm",
    "medray.zip",
    "notes.txt",
    ".env",
    "uv.lock",
    "jobs-old/a.py",
    "jobs/out/film.png",
    "medray/pseudonym.key",
    "medray/data/x.dcm",
    "medray/data/IM0001",
    "medray/x.png",
    "medray/engine/nodes/patients.json",
    "jobs/.env",
    "jobs/patients.xlsx",
    "jobs/explained/explain.html",
    "jobs/labels.CSV",
    "jobs/.medray/read.log",
    "out/x",
)
CODE = (
    "jobs/ich_cv.py",
    "medray/__init__.py",
    "medray/systems/ich/task.py",
    "medray/engine/nodes/gcp.yaml",
    "medray/engine/nodes/requirements.txt",
    "pyproject.toml",
)


def test_only_code_goes(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for name in (".gitignore", ".rayignore"):
        home.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, home / name)
    for name in (*BESIDE, *CODE, "medray/__pycache__/a.pyc"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("x")
    create_package(str(home), tmp_path / "sent.zip", include_gitignore=True)
    with zipfile.ZipFile(tmp_path / "sent.zip") as sent:
        names = {name for name in sent.namelist() if not name.endswith("/")}
    assert names == set(CODE)


def test_what_jobs_write_where_nothing_is_said_lies_below_out() -> None:
    defaults = {
        (path.name, where)
        for path in (ROOT / "jobs").glob("*.py")
        for where in re.findall(r'(?:to: str = |out=|out: str = |^OUT = )"([^"]+)"', path.read_text(), re.MULTILINE)
    }
    assert len(defaults) >= 12
    assert not {(name, where) for name, where in defaults if not where.startswith("out/")}
