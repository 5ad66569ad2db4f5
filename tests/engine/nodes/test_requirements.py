"""requirements.txt of a cluster's nodes: every package of pyproject.toml and what these want, by version and hash, from any index."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[3]
FILE = ROOT / "medray" / "engine" / "nodes" / "requirements.txt"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WANTED = [Requirement(text) for text in PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["nodes"]]
ENTRIES = re.sub(r" \\\n +", " ", re.sub(r"^#.*\n", "", FILE.read_text(), flags=re.MULTILINE)).splitlines()


def machine(python: str) -> dict[str, str]:
    return {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "extra": "",
    }


def versions(python: str) -> dict[str, str]:
    """Name → version of what is installed on Linux with this Python; each name once."""
    found = dict[str, str]()
    for entry in ENTRIES:
        pinned = Requirement(entry.partition(" --hash")[0])
        (exact,) = pinned.specifier
        assert exact.operator == "=="
        if pinned.marker is None or pinned.marker.evaluate(machine(python)):
            assert found.setdefault(canonicalize_name(pinned.name), exact.version) == exact.version
    return found


def test_each_entry_has_a_version_and_hashes_and_no_address() -> None:
    assert len(ENTRIES) > 150
    for entry in ENTRIES:
        words = entry.partition(" --hash")
        assert re.fullmatch(r"[\w.-]+==[\w.]+( ; [\w .'=<>!-]+)?", words[0]), entry
        assert re.fullmatch(r"( --hash=sha256:[0-9a-f]{64})+", words[1] + words[2]), entry


def test_no_host_is_named() -> None:
    """Nor a mirror of whoever made it, nor a folder: the index is the reader's own."""
    assert not re.search(r"://|--(extra-)?index|--find-links|@|(^|\s)/\w", FILE.read_text())


@pytest.mark.parametrize("python", ["3.11", "3.12"])
def test_it_agrees_with_the_project(python: str) -> None:
    assert PROJECT["project"]["requires-python"] == ">=3.11,<3.13"
    have = versions(python)
    for wanted in WANTED:
        assert wanted.specifier.contains(have[canonicalize_name(wanted.name)]), f"{wanted}: make the file again"


def test_nothing_that_these_want_is_missing() -> None:
    """pip and uv refuse a file with hashes that lacks one. Asked of the packages that are installed here in the same version."""
    python = "3.11"
    have, asked, open_ = versions(python), set[tuple[str, str]](), list(WANTED)
    while open_:
        wanted = open_.pop()
        name = canonicalize_name(wanted.name)
        assert name in have, wanted
        for extra in {"", *wanted.extras}:
            if (name, extra) in asked:
                continue
            asked.add((name, extra))
            try:
                installed = metadata.distribution(name)
            except metadata.PackageNotFoundError:  # of the group "nodes", which a laptop does without
                continue
            if installed.version != have[name]:
                continue
            needs = map(Requirement, installed.requires or [])
            open_ += [
                need for need in needs if not need.marker or need.marker.evaluate(machine(python) | {"extra": extra})
            ]
    assert len({name for name, _ in asked}) > 150


@pytest.mark.parametrize("path", [ROOT / "cluster.yaml", FILE.parent / "gcp.yaml"], ids=lambda path: path.name)
def test_nodes_install_nothing_else(path: Path) -> None:
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    commands = [command for name in config if name.endswith("_commands") for command in config[name]]
    assert not re.search(r"uv sync|uv run|uvx|pip3? install(?<!uv pip install)|\bconda\b|\bapt", " ".join(commands))
    hashed, ours = [command for command in commands if "uv pip install" in command]
    where = next(local for remote, local in config["file_mounts"].items() if remote == "~/medray/medray")
    assert "--require-hashes -r medray/engine/nodes/requirements.txt" in hashed
    assert (ROOT / where / "engine" / "nodes" / "requirements.txt") == FILE
    assert ours.endswith("--offline --no-deps --no-build-isolation -e .")
    for needed in ("pyproject.toml", PROJECT["project"]["readme"]):  # to build it
        assert config["file_mounts"][f"~/medray/{needed}"] == needed
    assert re.search(r"https://astral\.sh/uv/\d+\.\d+\.\d+/install\.sh", " ".join(commands))


def test_the_way_to_make_it_again_is_shown() -> None:
    command = FILE.read_text().splitlines()[1].removeprefix("#").strip()
    assert command.startswith("uv export --format requirements-txt")
    assert command in (ROOT / "medray" / "engine" / "README.md").read_text()
