"""The READMEs say where things are: links, paths and modules that are there, and a first page that is short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "medray"
READMES = [ROOT / "README.md", *sorted(PACKAGE.rglob("README.md"))]
named = pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))


def anchors(path: Path) -> set[str]:
    """What a link may name after #: headings in small letters, spaces as dashes."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_first_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@named
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@named
def test_paths_are_there(path: Path) -> None:
    for shown in re.findall(r"`((?:jobs|medray|tests)/[\w/.-]+)`", path.read_text()):
        assert (ROOT / shown).exists(), shown


def test_the_first_page_leads_to_every_other() -> None:
    linked = {(ROOT / link).resolve() for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text())}
    assert {*READMES[1:]} <= linked


@pytest.mark.parametrize("folder", ["engine", *sorted(p.parent.name for p in PACKAGE.glob("systems/*/task.py"))])
def test_a_folders_modules_are_those_that_its_page_names(folder: str) -> None:
    """Each module of the folder and of its rooms is named under "What is where", and nothing that is gone."""
    home = PACKAGE / folder if folder == "engine" else PACKAGE / "systems" / folder
    listing = (home / "README.md").read_text().split("## What is where\n\n```\n")[1].split("```")[0]
    rooms: dict[str, set[str]] = {"": set()}
    room = ""
    for line in listing.splitlines():
        if line.startswith("  "):
            rooms[room] |= names(line.strip())
        elif head := re.match(r"(\w+)/ ", line):
            room = head[1]
            rooms[room] = set()
        else:
            rooms[""] |= names(line)
    for name, said in rooms.items():
        where = home / name
        there = {path.stem for path in where.glob("*.py")} - {"__init__"}
        assert {word for word in said if not word.endswith("/")} == there, f"{folder}/{name}"


def names(line: str) -> set[str]:
    """``sample, order   what they are`` → the words before the gap."""
    return set(re.match(r"(?:[\w/]+, )*[\w/]+", line)[0].split(", "))  # type: ignore[index]
